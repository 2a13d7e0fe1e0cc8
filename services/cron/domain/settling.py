"""What becomes of a fire that was begun, and of its cron: pure decisions.

submitted   the workflow is in
skipped     the run before it is open, and the overlap policy leaves this one out
waiting     the run before it is open, and this one waits for its end
postponed   the scheduler is away or over a limit; the same fire is tried again, later and later
refused     the scheduler will not take it; the reason is kept, and the next fire comes later, the more of them were refused
"""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from servicekit.failures import Failure, PermissionDenied, ResourceExhausted, Unavailable
from services.cron.domain.cron import MAX_ERROR_CHARACTERS, Cron, Fire, Outcome, State, due_of, error_text
from services.cron.domain.ports import ON_BEHALF_REVOKED, Settlement

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 60.0
# Of a scheduler that is away: many fires go in one call, so that asking often costs little, and it is back at once.
LONGEST_AWAY_S = 5.0
# Of a scheduler that is over a limit; one that is away is tried for ever.
MOST_TRIES = 10
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 3_600.0
# Between two looks at the run that a fire waits for: a tenth of the time that it has waited, within these.
SHORTEST_WATCH_S = 0.25
LONGEST_WATCH_S = 5.0
MOST_DOUBLINGS = 20
PAUSED_WAITING = "the cron was paused while this waited for the run before it"


def submitted(cron: Cron, now: datetime, *, fed_from: UUID | None = None) -> Settlement:
    """Its workflow is in."""
    used_up = replace(cron, runs=cron.runs + 1).is_used_up
    settlement = _ended(cron, now, Outcome.SUBMITTED, "", used_up=used_up)
    return replace(settlement, runs=1, failures=0, fed_from=fed_from)


def skipped(cron: Cron, now: datetime, why: str) -> Settlement:
    """It submits nothing, as its cron's policy says."""
    return _ended(cron, now, Outcome.SKIPPED, why)


def waiting(cron: Cron, now: datetime, for_workflow: UUID) -> Settlement:
    """It waits for the end of the run before it. That it was looked at is no try."""
    fire = _pending(cron)
    if cron.state is State.PAUSED:
        return skipped(cron, now, PAUSED_WAITING)
    pause_s = min(LONGEST_WATCH_S, max(SHORTEST_WATCH_S, (now - fire.due).total_seconds() / 10))
    still = _still_pending(cron, now, pause_s, f"waits for workflow {for_workflow}")
    return replace(still, waits_for=for_workflow, untried=1)


def failed(cron: Cron, now: datetime, failure: Failure) -> Settlement:
    """Its submit ended with a failure."""
    fire = _pending(cron)
    error = error_text(failure.message)
    if isinstance(failure, Unavailable):
        return postponed(cron, now, error, at_least_s=failure.retry_delay_s, at_most_s=LONGEST_AWAY_S)
    if isinstance(failure, ResourceExhausted) and fire.limited + 1 < MOST_TRIES:
        # How often it was tried in an outage before is no matter: limits are reached just when that is over.
        pause_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0**fire.limited)
        return replace(_still_pending(cron, now, max(failure.retry_delay_s, pause_s), error), limited=1)
    return _refused(cron, now, error, for_good=isinstance(failure, PermissionDenied) and failure.reason == ON_BEHALF_REVOKED)


def postponed(
    cron: Cron, now: datetime, error: str, *, at_least_s: float = 0.0, at_most_s: float = LONGEST_RETRY_S
) -> Settlement:
    """It is tried again: the fire stays, and with it its ids, so that what was entered unknown to us is not entered twice."""
    doublings = min(_pending(cron).tries - 1, MOST_DOUBLINGS)
    return _still_pending(cron, now, max(at_least_s, min(at_most_s, FIRST_RETRY_S * 2.0**doublings)), error)


def _refused(cron: Cron, now: datetime, error: str, *, for_good: bool) -> Settlement:
    failures = cron.failures + 1
    settlement = replace(_ended(cron, now, Outcome.REFUSED, error), failures=failures)
    if settlement.state is not State.ACTIVE:
        return settlement
    if for_good:
        reason = "the member on whose account it runs is none any more"
        return replace(settlement, state=State.PAUSED, pause_reason=reason, next_fire=None, next_due=None)
    if failures >= cron.policy.max_failures:
        reason = f"{failures} fires one after the other were refused; the last: {error}"[:MAX_ERROR_CHARACTERS]
        return replace(settlement, state=State.PAUSED, pause_reason=reason, next_fire=None, next_due=None)
    pause_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, MOST_DOUBLINGS))
    assert settlement.next_due is not None, "an active cron has a next moment"
    return replace(settlement, next_due=max(settlement.next_due, now + timedelta(seconds=pause_s)))


def _ended(cron: Cron, now: datetime, outcome: Outcome, error: str, *, used_up: bool = False) -> Settlement:
    fire = _pending(cron)
    settlement = Settlement(
        cron, outcome, error, cron.state, cron.pause_reason, cron.next_fire, cron.next_due, fire.due, failures=cron.failures
    )
    if fire.waits_for is not None:
        settlement = _without_overlapped(settlement, now, fire.waits_for)
    if cron.state is State.ACTIVE and (used_up or settlement.next_fire is None):
        return replace(settlement, state=State.ENDED, next_fire=None, next_due=None)
    return settlement


def overlapped(cron: Cron, now: datetime, waited_for: UUID) -> Fire | None:
    """The record of the moments that have passed while a fire waited for a workflow; None if none has."""
    moment = cron.next_fire
    if moment is None or moment > now:
        return None
    count = cron.timetable.passed(moment, now, 0).count
    why = f"another fire waited for workflow {waited_for} already"
    return Fire(cron.fire_id(moment), moment, outcome=Outcome.SKIPPED, moments=max(1, count), error=why, fired=now)


def _without_overlapped(settlement: Settlement, now: datetime, waited_for: UUID) -> Settlement:
    """A fire has waited: the moments that passed meanwhile overlapped too, and only one may wait."""
    left_out = overlapped(settlement.cron, now, waited_for)
    if left_out is None:
        return settlement
    timetable = settlement.cron.timetable
    following = timetable.next_after(now)
    return replace(
        settlement, next_fire=following, next_due=due_of(timetable, following), acted_until=now, left_out=(left_out,)
    )


def _still_pending(cron: Cron, now: datetime, pause_s: float, error: str) -> Settlement:
    fire = _pending(cron)
    return Settlement(
        cron,
        Outcome.PENDING,
        error,
        cron.state,
        cron.pause_reason,
        cron.next_fire,
        cron.next_due,
        fire.due,
        failures=cron.failures,
        waits_for=fire.waits_for,
        retry_at=now + timedelta(seconds=pause_s),
    )


def _pending(cron: Cron) -> Fire:
    assert cron.pending is not None, "only crons with a pending fire are settled"
    return cron.pending
