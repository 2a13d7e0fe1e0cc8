"""Everything around upkeep: real tables, a real queue, one clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from servicekit import redis as servicekit_redis
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.controls import Controlling
from services.scheduler.domain.limits import Limits
from services.scheduler.domain.patrol import Patrol, Recovery
from services.scheduler.domain.records import Assigned, AttemptRef, ExecutorProfile
from services.scheduler.domain.statistics import Counting
from services.scheduler.domain.upkeep import Upkeep
from services.scheduler.domain.watermark import Steps
from services.scheduler.queue import keys
from services.scheduler.queue.queue import Queue
from services.scheduler.queue.wakeups import Wakeups
from services.scheduler.store.controls import ControlStore
from services.scheduler.store.statistics import StatisticsStore
from tests.harness.calls import eventually

from .scheduler_records import COLONY, START_NS, WORKER, World, opened_world

LEASE_S = 10.0


@dataclass(frozen=True, slots=True)
class Works:
    """One replica's parts, moved by hand."""

    world: World
    queue: Queue
    wakeups: Wakeups
    steps: Steps
    aftermath: Aftermath
    upkeep: Upkeep
    patrol: Patrol
    recovery: Recovery
    controlling: Controlling
    limits: Limits
    redis: "Redis"

    async def after(self, seconds: float) -> None:
        """Time passes while this replica looks after the queue, then it looks again."""
        await self.queue.looked_after()
        self.world.clock.advance(seconds=seconds)
        await self.upkeep.tick()

    async def settle(self) -> None:
        """All that is in doubt is told."""
        settling = asyncio.create_task(self.aftermath.run())

        async def told() -> bool:
            return self.steps.idle

        try:
            await eventually(told)
        finally:
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)

    async def timers(self, colony: str = COLONY) -> dict[str, int]:
        """What is due when, unix milliseconds."""
        found: Any = await self.redis.zrange(keys.timers(colony), 0, -1, withscores=True)
        return {member: int(score) for member, score in found}

    async def claim(self, at_most: int = 100, executor: ExecutorProfile = WORKER, colony: str = COLONY) -> list[UUID]:
        """Takes the most urgent."""
        claimed, _ = await self.queue.claim(colony, executor, at_most)
        return [one.id for one in claimed]

    async def dispatch(self, *ids: UUID, executor: ExecutorProfile = WORKER, colony: str = COLONY) -> list[Assigned]:
        """Begins attempts now, and tells the queue, as a poll does that claimed just these."""
        assigned = await self.world.begin(*ids, executor=executor, seconds=self.seconds, colony=colony)
        lives = [one.live for one in assigned]
        # A claim would have put them on offer.
        await self.queue.accord(colony, lives)
        await self.queue.confirm(colony, executor.identity, lives, [])
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


def works_over(world: World, client: "Redis") -> Works:
    """A replica's parts over these servers."""
    wakeups = Wakeups(client)
    queue = Queue(client, world.clock, wakeups, lease_ms=int(LEASE_S * 1000))
    steps = Steps(world.clock)
    controls = ControlStore(world.database)
    limits = Limits(controls, world.clock)
    counting = Counting(StatisticsStore(world.database), world.clock)
    controlling = Controlling(controls, queue, world.clock, changed=limits.refresh)
    aftermath = Aftermath(world.tables, queue, steps, counting, limits)
    upkeep = Upkeep(world.tables, queue, aftermath, steps, world.clock, tell_pauses=controlling.tell_pauses)
    patrol = Patrol(world.tables, queue, upkeep)
    recovery = Recovery(world.tables, queue, aftermath, steps)
    return Works(world, queue, wakeups, steps, aftermath, upkeep, patrol, recovery, controlling, limits, client)


@asynccontextmanager
async def opened_works(database_url: str, redis_url: str) -> AsyncIterator[Works]:
    """Upkeep over an empty queue that is built."""
    client = servicekit_redis.connect(redis_url)
    try:
        async with opened_world(database_url) as world:
            works = works_over(world, client)
            await works.upkeep.tick()
            yield works
    finally:
        await client.aclose()
