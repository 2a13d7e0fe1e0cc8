"""The scheduler's queue on a real server, with the client and the clock under it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from servicekit import redis as servicekit_redis
from servicekit.clock import ManualClock
from services.scheduler.domain.records import Changes, ExecutorProfile, Place
from services.scheduler.queue import keys
from services.scheduler.queue.queue import Queue

from .scheduler_records import COLONY, START_NS, WORKER

LEASE_MS = 10_000
START_MS = START_NS // 1_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """A queue, and what is stored for the colony."""

    queue: Queue
    redis: "Redis"
    clock: ManualClock

    async def ready(self, *places: Place) -> None:
        """Puts processes into their lanes."""
        await self.queue.apply(COLONY, Changes(ready=list(places)), [])

    async def timers(self) -> dict[str, int]:
        """What is due when, unix milliseconds."""
        found: Any = await self.redis.zrange(keys.timers(COLONY), 0, -1, withscores=True)
        return {member: int(score) for member, score in found}

    async def keys_of_colony(self) -> set[str]:
        """Every key of any colony."""
        return {key async for key in self.redis.scan_iter(match="colonies:{*")}

    async def claim(self, at_most: int = 100, executor: ExecutorProfile = WORKER) -> list[UUID]:
        """Takes the most urgent."""
        return (await self.queue.claim(COLONY, executor, at_most))[0]


@asynccontextmanager
async def opened_line(redis_url: str) -> AsyncIterator[Line]:
    """A queue whose clock stands still until the test moves it."""
    clock = ManualClock(START_NS)
    client = servicekit_redis.connect(redis_url)
    try:
        yield Line(Queue(client, clock, lease_ms=LEASE_MS), client, clock)
    finally:
        await client.aclose()
