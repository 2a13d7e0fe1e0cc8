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
        # Of each call that went well "", of others what was said.
        self.problems: list[str] = []
        self._stage = stage
        self._tasks = [asyncio.create_task(self._call()) for _ in range(CALLERS)]

    async def _call(self) -> None:
        while True:
            reply = await self._stage.call(INFO)
            self.problems.append("" if reply.status == 200 else f"{reply.status} {reply.body.decode()}")

    async def failed(self, count: int = 100) -> list[str]:
        """Those of the next calls that fail."""
        begin = len(self.problems)

        async def enough() -> bool:
            return len(self.problems) >= begin + count

        await eventually(enough, seconds=20)
        return [problem for problem in self.problems[begin:] if problem]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_killed_replica_costs_what_it_had_in_hand_and_one_that_ends_costs_nothing(bare: Stage) -> None:
    first, second, third = [await bare.launch() for _ in range(3)]
    callers = Callers(bare)
    try:
        assert await callers.failed() == []
        os.kill(first.pid, signal.SIGKILL)
        # What it had in hand may have been done: it is not sent again, and the client hears of it.
        assert len(await callers.failed()) <= CALLERS
        assert await callers.failed() == []
        await first.ended()
        os.kill(second.pid, signal.SIGTERM)
        while second.alive:
            assert await callers.failed(10) == []
        assert await second.ended() == 0
        assert await callers.failed() == []
        assert third.alive
    finally:
        await callers.end()
    log = second.log.read_text()
    assert '"event": "draining"' in log
    assert '"event": "stopped"' in log
    assert "Traceback" not in log
