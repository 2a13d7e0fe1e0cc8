"""Some gateways, each a process: one is killed, one is ended in good order, and who calls goes on."""

import asyncio
import os
import signal

import pytest

from tests.harness.calls import eventually

from .stage import Stage

pytestmark = pytest.mark.asyncio

INFO = "/colonies.auth.v1.AuthService/GetServerInfo"
CALLERS = 4


class Callers:
    """Clients that call all the time, each call on a connection of its own."""

    def __init__(self, stage: Stage) -> None:
        self.statuses: list[int] = []
        self._stage = stage
        self._tasks = [asyncio.create_task(self._call()) for _ in range(CALLERS)]

    async def _call(self) -> None:
        while True:
            self.statuses.append((await self._stage.call(INFO)).status)

    async def some(self, count: int = 100) -> list[int]:
        """The statuses of the next calls."""
        begin = len(self.statuses)

        async def enough() -> bool:
            return len(self.statuses) >= begin + count

        await eventually(enough, seconds=20)
        return self.statuses[begin:]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_killed_replica_costs_what_it_had_in_hand_and_one_that_ends_costs_nothing(bare: Stage) -> None:
    first, second, third = [await bare.launch() for _ in range(3)]
    callers = Callers(bare)
    try:
        assert set(await callers.some()) == {200}
        os.kill(first.pid, signal.SIGKILL)
        statuses = await callers.some()
        # What it had in hand may have been done: it is not sent again, and the client hears of it.
        assert len([status for status in statuses if status != 200]) <= CALLERS
        assert set(await callers.some()) == {200}
        await first.ended()
        os.kill(second.pid, signal.SIGTERM)
        while second.alive:
            assert set(await callers.some(10)) == {200}
        assert await second.ended() == 0
        assert set(await callers.some()) == {200}
        assert third.alive
    finally:
        await callers.end()
    log = second.log.read_text()
    assert '"event": "draining"' in log
    assert '"event": "stopped"' in log
    assert "Traceback" not in log
