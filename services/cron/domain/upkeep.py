"""What has to be done now and then: old fires are deleted, and runs that nobody asked for again are settled."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from servicekit.clock import Clock, datetime_of, unix_ms
from servicekit.failures import Failure, Unavailable
from services.cron.domain.cron import Outcome
from services.cron.domain.ports import CronStore, WorkflowSubmitter

log = structlog.get_logger()

PAUSE_S = 60.0
PORTION = 5_000
# A run is settled by whoever asked for it. After this long, nobody does any more.
FORGOTTEN_AFTER = timedelta(minutes=10)
RUNS = 100


class Upkeep:
    """Keeps the record of fires as long as it should be. Every replica does; they only do each other's work."""

    def __init__(self, store: CronStore, submitter: WorkflowSubmitter, clock: Clock, *, retention: timedelta) -> None:
        self._store = store
        self._submitter = submitter
        self._clock = clock
        self._retention = retention

    async def run(self) -> None:
        """Looks after them until cancelled."""
        while True:
            try:
                await self.step()
            except Unavailable as error:
                log.warning("cannot look after fires yet", error=error.message)
            await asyncio.sleep(PAUSE_S)

    async def step(self) -> None:
        """Does all that is to be done now.

        Raises:
            Unavailable: the database or the scheduler is out of reach.
        """
        now = datetime_of(self._clock.now_ns())
        before = UUID(int=max(0, unix_ms(now - self._retention)) << 80)
        while await self._store.sweep(before, limit=PORTION) >= PORTION:
            pass
        for colony, fire_id in await self._store.open_runs(now - FORGOTTEN_AFTER, limit=RUNS):
            try:
                await self._settle(colony, fire_id, now)
            except Unavailable:
                raise
            except Failure as failure:
                # Its colony is going, say. The others are not to wait for it.
                log.warning("cannot settle a run yet", fire_id=str(fire_id), error=failure.message)

    async def _settle(self, colony: str, fire_id: UUID, now: datetime) -> None:
        runs = await self._submitter.runs(colony=colony, workflow_ids=[fire_id], outputs=False)
        if fire_id in runs:
            await self._store.settle_run(fire_id, Outcome.SUBMITTED, "", now)
        else:
            why = "the scheduler was out of reach, and nobody repeated the call"
            await self._store.settle_run(fire_id, Outcome.REFUSED, why, now)
