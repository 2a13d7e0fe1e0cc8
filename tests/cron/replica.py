"""A replica of the cron service without its gRPC: real Postgres, real Redis, the test's clock and the test's scheduler."""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from servicekit import redis
from servicekit.clock import ManualClock, datetime_of
from servicekit.postgres import Database
from services.cron.domain.cron import Cron, Fire
from services.cron.domain.crons import Crons
from services.cron.domain.due import DueLoop
from services.cron.domain.fires import Fires
from services.cron.domain.upkeep import Upkeep
from services.cron.queue.timers import RedisTimers
from services.cron.store.crons import PostgresCronStore
from services.cron.store.fires import PostgresFireStore
from tests.cron.fakes import Crash, FakeScheduler

LEASE_S = 5.0
RETENTION = timedelta(days=30)


class Replica:
    """What the composition root puts together.

    Attributes:
        outcomes: what the metrics were told.
    """

    def __init__(
        self, database: Database, client: redis.Client, scheduler: FakeScheduler, clock: ManualClock, *, batch: int = 250
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.outcomes: list[tuple[str, float]] = []
        self.client = client
        self.store = PostgresCronStore(database)
        self.fire_store = PostgresFireStore(database)
        self.fires = Fires(self.fire_store, scheduler, clock, lease_s=LEASE_S, on_fire=self._observe)
        timers = RedisTimers(client, "crons")
        self.loop = DueLoop("fires", timers, self.fire_store, self.fires.work, clock, lease_s=LEASE_S, batch=batch)
        self.crons = Crons(self.store, scheduler, clock, lease_s=LEASE_S, on_change=self.loop.tell)
        self.upkeep = Upkeep(self.store, scheduler, clock, retention=RETENTION)

    def _observe(self, outcome: str, late_s: float) -> None:
        self.outcomes.append((outcome, late_s))

    async def fire_due(self) -> None:
        """Looks until nothing is due."""
        while await self.loop.step() == 0:
            pass

    async def pass_time(self, *, seconds: float, step_s: float = 1.0) -> None:
        """Lets time pass, and fires what comes due on the way."""
        left = seconds
        while left > 0:
            self.clock.advance(seconds=min(step_s, left))
            left -= step_s
            await self.fire_due()

    async def die_in_submit(self) -> None:
        """Fires what is due and dies when the scheduler has entered it."""
        self.scheduler.crash_after = True
        with suppress(Crash):
            await self.fire_due()
        self.scheduler.crash_after = False

    async def added(self, cron: Cron) -> Cron:
        """The cron, kept, and known to the timers as if by another replica."""
        return await self.store.add(cron)

    async def found(self, cron: Cron) -> Cron:
        """As it is now."""
        kept = await self.store.find(cron.colony, cron.name)
        assert kept is not None
        return kept

    async def record(self, cron: Cron, *outcomes: Any) -> list[Fire]:
        """The cron's fires, oldest first."""
        wanted: Collection[Any] = outcomes
        return list(await self.store.fires(cron.cron_id, before=None, outcomes=wanted, limit=10_000))[::-1]

    def now(self) -> datetime:
        """By the test's clock."""
        return datetime_of(self.clock.now_ns())

    async def timers(self) -> dict[UUID, float]:
        """What Redis holds."""
        pairs: Any = await self.client.zrange("colonies:{cron}:timers:crons", 0, -1, withscores=True)
        return {UUID(each): score for each, score in pairs}
