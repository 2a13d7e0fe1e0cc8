"""A cluster whose scheduler does nothing by itself: its upkeep goes on when the test says so, its clock too."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import structlog
from redis.asyncio import Redis

from servicekit.clock import NS_PER_MS, ManualClock
from services.scheduler import __main__ as composition
from services.scheduler.domain.ports import Lost
from services.scheduler.queue import keys
from tests.harness.cluster import Cluster

SERVICES = ("auth", "registry", "scheduler")
REPLICAS = 2
# What a scheduler does by itself, by the time: its loop, by the name that the composition root knows it by. These stand still.
LOOPS = {
    "Upkeep": ("run",),
    "Patrol": ("run",),
    "Recovery": ("run", "run_beats"),
    "Controlling": ("run",),
    "Limits": ("run",),
    "Counting": ("run",),
    "Retention": ("run",),
}


class SteppedCluster:
    """Two schedulers on one clock. Everything happens in `run`, in a loop that stands still in between."""

    def __init__(self, database_url: str, redis_url: str, directory: Path, *, lease_ms: int) -> None:
        self.clock = ManualClock()
        self.lease_ms = lease_ms
        settings = {"scheduler": {"lease_ms": lease_ms}}
        self.cluster = Cluster(
            database_url, redis_url, directory, services=SERVICES, clock=self.clock, settings=settings, populate=False
        )
        # The parts of each replica whose loops stand still.
        self._parts: dict[str, list[Any]] = {name: [] for name in LOOPS}
        self._redis_url = redis_url
        self._runner = asyncio.Runner()
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        # A line for each call would be most of what a failure shows.
        self._logging = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        for name, loops in LOOPS.items():
            self._patch.setattr(composition, name, self._standing(getattr(composition, name), loops))
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._close())
        self._runner.close()
        self._patch.undo()
        structlog.configure(**self._logging)

    def _standing(self, kind: type[Any], loops: Sequence[str]) -> type[Any]:
        """Such a part, but that it waits for the test."""
        made = self._parts[kind.__name__]

        def build(this: Any, *args: Any, **kwargs: Any) -> None:
            kind.__init__(this, *args, **kwargs)
            made.append(this)

        async def stand(_: Any) -> None:
            await asyncio.Event().wait()

        return type(kind.__name__, (kind,), {"__init__": build, **dict.fromkeys(loops, stand)})

    def run(self, coroutine: Any) -> Any:
        """Runs a coroutine to its end."""
        return self._runner.run(coroutine)

    async def _open(self) -> None:
        self.redis = Redis.from_url(self._redis_url, decode_responses=True)
        await self.cluster.__aenter__()
        for _ in range(REPLICAS - 1):
            await self.cluster.start("scheduler")

    async def _close(self) -> None:
        await self.cluster.stop()
        await self.redis.aclose()

    async def tick(self, replica: int) -> None:
        """One replica looks after the queue, until there is nothing to do at this moment of the clock."""
        # The note that somebody did so lately expires by real time, and with it the leases' grace would come and go.
        await self.redis.set(keys.TICKED, "")
        current = await self.redis.get(keys.EPOCH)
        upkeep = self._parts["Upkeep"][replica]
        while await upkeep.tick():
            pass
        if current is None:
            # That was a rebuild: what is due comes with the next.
            await self.redis.set(keys.TICKED, "")
            await upkeep.tick()

    async def patrol(self, replica: int) -> None:
        """One replica compares queue and rows, all of both."""
        await self._parts["Patrol"][replica].round()

    async def recover(self, replica: int, since_ns: int) -> None:
        """One replica looks after another that fell silent then: it may have told the queue nothing of what it did since."""
        await self._parts["Recovery"][replica].recover(Lost("silent", since_ns // NS_PER_MS, passes=0))

    async def flush(self) -> None:
        """Redis loses everything."""
        await self.redis.flushall()
