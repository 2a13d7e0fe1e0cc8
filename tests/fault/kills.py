"""Kills by the clock: one replica after the other of a service, now and then, and each of some servers once."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.acceptance.world import until
from tests.fault.chaos import RECOVERY_S
from tests.fault.rig import Rig


@dataclass(slots=True)
class Kills:
    """What is killed (kill -9), and when it was. Whatever dies is started again by its keeper.

    Attributes:
        victims: the replicas, killed in turns.
        every_s: seconds between two of them.
        servers: Postgres or valkey: each is killed once, spread over the time.
        done: unix seconds of each kill, and of what.
    """

    rig: Rig
    victims: Sequence[str]
    every_s: float
    servers: Sequence[str] = ()
    done: list[tuple[float, str]] = field(default_factory=list)

    async def go_on_for(self, seconds: float) -> None:
        """Kills for so many seconds; returns when they are over and every part answers again."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        for at, part in self._plan(seconds):
            await asyncio.sleep(max(0.0, begun + at - clock()))
            await self._kill(part)
        await asyncio.sleep(max(0.0, begun + seconds - clock()))
        for part in (*self.victims, *self.servers):
            await self._is_well(part)

    def after(self, moment: float, seconds: float) -> bool:
        """Whether a moment is just before a kill, when what it struck was in hand, or within so many seconds after one."""
        return any(-1.0 <= moment - at <= seconds for at, _ in self.done)

    def count(self, part: str) -> int:
        """How often a part was killed; of a service all its replicas."""
        return sum(one == part or one.rpartition("-")[0] == part for _, one in self.done)

    def _plan(self, seconds: float) -> list[tuple[float, str]]:
        rounds = range(1, int((seconds - 1e-3) / self.every_s) + 1)
        planned = [(number * self.every_s, self.victims[number % len(self.victims)]) for number in rounds]
        share = seconds / (len(self.servers) + 1)
        # A moment off, so that a server and a replica do not always die together.
        planned += [(number * share + self.every_s / 3, server) for number, server in enumerate(self.servers, 1)]
        return sorted(planned)

    async def _kill(self, part: str) -> None:
        # One that has not come back yet would be no kill.
        await self._is_well(part)
        (pid, *_) = self.rig.family(part) if part in self.rig.keepers else [self.rig.pid_of(part)]
        assert pid, f"{part} answers and has no process"
        self.done.append((time.time(), part))
        os.kill(pid, signal.SIGKILL)

    async def _is_well(self, part: str) -> None:
        async def well() -> bool:
            if part in self.rig.keepers:
                return await asyncio.to_thread(self.rig.keepers[part].child.healthy)
            return await asyncio.to_thread(self.rig.well, part)

        await until(well, f"{part} answers", seconds=RECOVERY_S)
