"""Everything around upkeep: real tables, a real queue, one clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from servicekit import redis as servicekit_redis
from servicekit.clock import datetime_of
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.records import Assigned, AttemptRef, ExecutorProfile
from services.scheduler.domain.upkeep import Upkeep
from services.scheduler.queue import keys
from services.scheduler.queue.queue import Queue

from .scheduler_records import COLONY, START_NS, WORKER, World, opened_world

LEASE_S = 10.0


@dataclass(frozen=True, slots=True)
class Works:
    """One replica's parts, moved by hand."""

    world: World
    queue: Queue
    aftermath: Aftermath
    upkeep: Upkeep
    redis: "Redis"

    async def after(self, seconds: float) -> None:
        """Time passes while this replica looks after the queue, then it looks again."""
        await self.queue.looked_after()
        self.world.clock.advance(seconds=seconds)
        await self.upkeep.tick()

    async def timers(self, colony: str = COLONY) -> dict[str, int]:
        """What is due when, unix milliseconds."""
        found: Any = await self.redis.zrange(keys.timers(colony), 0, -1, withscores=True)
        return {member: int(score) for member, score in found}

    async def claim(self, at_most: int = 100, executor: ExecutorProfile = WORKER, colony: str = COLONY) -> list[UUID]:
        """Takes the most urgent."""
        return (await self.queue.claim(colony, executor, at_most))[0]

    async def dispatch(self, *ids: UUID, executor: ExecutorProfile = WORKER, colony: str = COLONY) -> list[Assigned]:
        """Begins attempts now, and tells the queue, as a poll does."""
        now = datetime_of(self.world.clock.now_ns())
        assigned, _ = await self.world.tables.assign(colony, executor, ids, now)
        await self.aftermath.assigned(colony, [one.live for one in assigned], [])
        return assigned

    async def heartbeat(self, process_id: UUID, number: int = 1, executor: ExecutorProfile = WORKER) -> bool:
        """Whether there is a lease, or an offer, which this makes one."""
        return not await self.queue.extend(COLONY, [AttemptRef(process_id, number)], executor.identity)

    @property
    def seconds(self) -> float:
        """Since the start, by the clock."""
        return (self.world.clock.now_ns() - START_NS) / 1e9

    @property
    def now_ms(self) -> int:
        """Unix milliseconds of the clock."""
        return self.world.clock.now_ns() // 1_000_000


@asynccontextmanager
async def opened_works(database_url: str, redis_url: str) -> AsyncIterator[Works]:
    """Upkeep over an empty queue that is built."""
    client = servicekit_redis.connect(redis_url)
    try:
        async with opened_world(database_url) as world:
            queue = Queue(client, world.clock, lease_ms=int(LEASE_S * 1000))
            aftermath = Aftermath(queue)
            upkeep = Upkeep(world.tables, queue, aftermath, world.clock)
            await upkeep.tick()
            yield Works(world, queue, aftermath, upkeep, client)
    finally:
        await client.aclose()
