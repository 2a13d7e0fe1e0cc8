"""The loop that fires what is due. Every replica runs it; the row locks of the store keep them out of each other's way.

A fire ends in one of four ways:
    submitted   the workflow is in; the next moment is the first one from now on
    refused     the scheduler will never take it; the reason is kept, and the cron waits for its next moment
    revoked     its owner is no member any more; the cron stops
    postponed   the scheduler is away or over a limit; the same moment is tried again, later and later
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import Failure, PermissionDenied, ResourceExhausted, Unavailable
from services.cron.domain.cron import Cron, Idle, Settlement, fire_request_id
from services.cron.domain.ports import ON_BEHALF_REVOKED, CronStore, WorkflowSubmitter

log = structlog.get_logger()

# Replicas do not tell each other what they added, and one that died lets go of what it had locked: look at least this often.
LONGEST_WAIT_S = 1.0
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 60.0
MAX_ERROR_CHARACTERS = 1024


class Fires:
    """Fires crons as they come due, several at once.

    Args:
        workers: how many fires are under way at the same time; each holds a connection to the database.
        on_fire: told the way that each fire ended, and how many seconds after its moment.
    """

    def __init__(
        self,
        store: CronStore,
        submitter: WorkflowSubmitter,
        clock: Clock,
        *,
        workers: int,
        on_fire: Callable[[str, float], None],
    ) -> None:
        self._store = store
        self._submitter = submitter
        self._clock = clock
        self._workers = workers
        self._on_fire = on_fire
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Looks at once: something may be due sooner than was known."""
        # Each look waits for an event that was there before it looked, so that no wake-up falls between look and wait.
        self._woken.set()
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Fires until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            woken = self._woken
            try:
                idle = await self.fire_next()
            except Unavailable as error:
                log.warning("cannot look for due crons", error=error.message)
                idle = Idle(None)
            if idle is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), self._pause_s(idle))

    def _pause_s(self, idle: Idle) -> float:
        if idle.next_due is None:
            return LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, max(0.0, (idle.next_due - self._now()).total_seconds()))

    async def fire_next(self) -> Idle | None:
        """Fires the cron that is longest due. None if there was one.

        Raises:
            Unavailable: the database is out of reach; what was under way stays due.
        """
        return await self._store.fire_next(self._now(), self._fire)

    async def _fire(self, cron: Cron) -> Settlement:
        moment = cron.next_fire
        assert moment is not None, "only crons with a next fire are due"
        try:
            workflow_id = await self._submitter.submit(
                colony=cron.colony,
                request_id=fire_request_id(cron.cron_id, moment),
                workflow=cron.workflow,
                account=cron.initiator,
            )
        except Failure as failure:
            outcome, settlement = self._failed(cron, moment, failure)
            log.warning("fire", cron_id=str(cron.cron_id), outcome=outcome, tries=cron.tries, error=failure.message)
        except Exception as error:  # one broken cron must not keep all the others from firing
            log.exception("defect", cron_id=str(cron.cron_id), error=repr(error))
            outcome, settlement = "postponed", self._postponed(cron, moment, 0.0, "internal error")
        else:
            outcome, settlement = "submitted", replace(self._done(cron, moment), workflow_id=workflow_id)
        self._on_fire(outcome, (self._now() - moment).total_seconds())
        return settlement

    def _failed(self, cron: Cron, moment: datetime, failure: Failure) -> tuple[str, Settlement]:
        error = failure.message[:MAX_ERROR_CHARACTERS]
        if isinstance(failure, Unavailable | ResourceExhausted):
            return "postponed", self._postponed(cron, moment, failure.retry_delay_s, error)
        done = replace(self._done(cron, moment), error=error)
        if isinstance(failure, PermissionDenied) and failure.reason == ON_BEHALF_REVOKED:
            error = "stopped: the member on whose account this cron ran is none any more"
            return "revoked", replace(done, next_fire=None, due=None, error=error)
        return "refused", done

    def _done(self, cron: Cron, moment: datetime) -> Settlement:
        """This moment is over, and with it all that passed meanwhile: after downtime a cron fires once."""
        # Another replica's clock may be ahead of ours: never the same moment twice.
        following = cron.next_after(max(self._now(), moment))
        return Settlement(next_fire=following, due=following, tries=0, last_fire=moment, workflow_id=None, error="")

    def _postponed(self, cron: Cron, moment: datetime, at_least_s: float, error: str) -> Settlement:
        """The moment stays, and with it the request id: what was entered unknown to us is not entered twice."""
        delay_s = max(at_least_s, min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(cron.tries, 20)))
        return Settlement(
            next_fire=moment,
            due=self._now() + timedelta(seconds=delay_s),
            tries=cron.tries + 1,
            last_fire=cron.last_fire,
            workflow_id=None,
            error=error,
        )

    def _now(self) -> datetime:
        return datetime_of(self._clock.now_ns())
