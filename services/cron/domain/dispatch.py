"""Batches on their way to the scheduler, generator by generator, each generator's in order.

A claim on a generator says who is at it; the scheduler is asked without any lock. Whoever comes after a crash submits the same
batches under the same ids, and so the same workflows. A batch that is refused stays where it is, and its generator pauses:
nothing is left out, and nothing overtakes it.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from servicekit.clock import NS_PER_MS, Clock, datetime_of
from servicekit.failures import AlreadyExists, Failure, PermissionDenied, ResourceExhausted, Unavailable
from services.cron.domain.due import Looks
from services.cron.domain.generator import MAX_LAUNCHES, Batch
from services.cron.domain.generator_ports import Cargo, Claim, DispatchStore, Look, Setback
from services.cron.domain.ports import ON_BEHALF_REVOKED, Launch, WorkflowSubmitter

log = structlog.get_logger()

MAX_CALL_BYTES = 16 * 1024 * 1024
# Far fewer than the scheduler takes: it is to enter them well within the time that a submit has, or the next call waits for the
# end of this one, whose answer nobody hears.
MAX_CALL_NODES = 10_000
# What an argument costs beside its data and its media type.
FRAMING_BYTES = 12
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 60.0
# Of a scheduler that is away: asking often costs little, and it is back at once.
LONGEST_AWAY_S = 5.0
MAX_ERROR_CHARACTERS = 1024
# The reason of an AlreadyExists: there is a workflow of this id.
WORKFLOW_ID_TAKEN = "WORKFLOW_ID_TAKEN"
REVOKED = "the member on whose account it runs is none any more"


class Dispatch:
    """Submits what generators have gathered.

    Args:
        lease_s: how long a claim lasts, in seconds: longer than a submit may take.
        on_cut: told of batches that were made because their time was over, or the generator was resumed.
        on_submitted: told of batches that are workflows now, and when.
    """

    def __init__(
        self,
        store: DispatchStore,
        submitter: WorkflowSubmitter,
        clock: Clock,
        *,
        lease_s: float,
        on_cut: Callable[[Sequence[Batch]], None],
        on_submitted: Callable[[Sequence[Batch], datetime], None],
    ) -> None:
        self._store = store
        self._submitter = submitter
        self._clock = clock
        self._lease = timedelta(seconds=lease_s)
        self._on_cut = on_cut
        self._on_submitted = on_submitted

    async def work(self, ids: Sequence[UUID]) -> Looks:
        """Looks at generators; see DueLoop.

        Raises:
            Unavailable: the database is out of reach.
        """
        results = await asyncio.gather(*(self._look_at(each) for each in ids), return_exceptions=True)
        looks: dict[UUID, datetime | None] = {}
        outage: Unavailable | None = None
        for generator_id, result in zip(ids, results, strict=True):
            if isinstance(result, Unavailable):
                outage = result
            elif isinstance(result, Exception):
                # One generator that this cannot deal with must not keep the others waiting; it is looked at again later.
                log.error("defect", generator_id=str(generator_id), exc_info=result)
            elif isinstance(result, BaseException):
                raise result
            elif result is not None:
                looks[generator_id] = result.at
        if outage is not None and not looks:
            raise outage
        return looks

    async def _look_at(self, generator_id: UUID) -> Look | None:
        now = self._now()
        claim = await self._store.claim(generator_id, now, until=now + self._lease, at_most=MAX_LAUNCHES)
        if claim is None:
            return None
        self._on_cut(claim.cut)
        if isinstance(claim, Look):
            return claim
        batches = _portion(claim)
        cargo = await self._store.load(claim, batches)
        if cargo is None:
            log.info("somebody else has submitted it", generator_id=str(generator_id), claim=claim.number)
            return None
        try:
            await self._submitter.submit_all(colony=claim.colony, account=claim.initiator, launches=_launches(batches, cargo))
        except Failure as failure:
            if len(batches) == 1 and isinstance(failure, AlreadyExists) and failure.reason == WORKFLOW_ID_TAKEN:
                # Nobody else makes this id: it was submitted so long ago that its request id is forgotten.
                return await self._settle(claim, batches)
            setback = self._setback(claim, batches, failure)
            log.warning(
                "batches were not submitted",
                generator_id=str(generator_id),
                first=batches[0].number,
                batches=len(batches),
                error=failure.message,
                paused=bool(setback.pause_reason),
            )
            return await self._store.failed(claim, batches, setback, self._now())
        return await self._settle(claim, batches)

    async def _settle(self, claim: Claim, batches: Sequence[Batch]) -> Look | None:
        now = self._now()
        look = await self._store.submitted(claim, batches, now)
        self._on_submitted(batches, now)
        return look

    def _setback(self, claim: Claim, batches: Sequence[Batch], failure: Failure) -> Setback:
        """What to do next. After any failure fewer go at once: together they may be too much, or one of them be to blame."""
        error = failure.message[:MAX_ERROR_CHARACTERS]
        fewer = max(1, len(batches) // 2)
        if isinstance(failure, Unavailable | ResourceExhausted):
            longest_s = LONGEST_AWAY_S if isinstance(failure, Unavailable) else LONGEST_RETRY_S
            delay_s = max(failure.retry_delay_s, min(longest_s, FIRST_RETRY_S * 2.0 ** min(claim.tries, 20)))
            retry_at = self._now() + timedelta(milliseconds=round(delay_s * 1000))
            return Setback(error, fewer, retry_at, pause_reason="", is_first=True)
        if isinstance(failure, PermissionDenied) and failure.reason == ON_BEHALF_REVOKED:
            return Setback(REVOKED, fewer, None, pause_reason=REVOKED, is_first=True)
        if len(batches) > 1:
            return Setback(error, fewer, None, pause_reason="", is_first=False)
        return Setback(error, fewer, None, pause_reason=f"batch {batches[0].number} was refused: {error}", is_first=True)

    def _now(self) -> datetime:
        now_ns = self._clock.now_ns()
        return datetime_of(now_ns - now_ns % NS_PER_MS)


def _portion(claim: Claim) -> Sequence[Batch]:
    """As many of a claim's batches, from the first on, as fit one call; one at least."""
    size = 0
    for index, batch in enumerate(claim.batches):
        size += claim.workflow_bytes + claim.roots * (batch.size + FRAMING_BYTES * batch.count)
        if index and (size > MAX_CALL_BYTES or (index + 1) * claim.nodes > MAX_CALL_NODES):
            return claim.batches[:index]
    return claim.batches


def _launches(batches: Sequence[Batch], cargo: Cargo) -> list[Launch]:
    return [
        Launch(batch.request_id, batch.workflow_id, cargo.workflow, arguments)
        for batch, arguments in zip(batches, cargo.arguments, strict=True)
    ]
