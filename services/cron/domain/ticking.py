"""What a cron does at a moment of its schedule: pure decisions, made again by whoever comes after a crash."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.cron.domain.cron import Cron, Fire, Missed, Outcome, State, due_of
from services.cron.domain.schedule import Timetable

_LATE = "nobody could act on it in time"
# Moments whose jitter may put off a later one. Of more, one of the last puts it off most, as good as surely.
MOST_BEFORE = 2_000


@dataclass(frozen=True, slots=True)
class Tick:
    """What to write when a cron's time has come.

    Attributes:
        fire: what to submit; None for nothing.
        left_out: the record of moments that were missed.
        next_fire: the moment after these; None for never again.
        next_due: when to act on it: jitter included.
        acted_until: all moments up to this one are dealt with.
        catch_up_until: moments up to this one fire however late they are.
        state: ENDED if nothing comes any more and nothing is under way.
    """

    fire: Fire | None
    left_out: Fire | None
    next_fire: datetime | None
    next_due: datetime | None
    acted_until: datetime
    catch_up_until: datetime | None = None
    state: State = State.ACTIVE


def tick(cron: Cron, now: datetime) -> Tick:
    """What a cron without a pending fire does when its next moment, `cron.next_fire`, has come."""
    moment, timetable = cron.next_fire, cron.timetable
    assert moment is not None, "only crons with a next fire tick"
    if cron.is_used_up:
        # Its members changed the bound while its last fire was under way.
        return Tick(None, None, None, None, moment, state=State.ENDED)
    caught_up = cron.catch_up_until is None or moment > cron.catch_up_until
    if caught_up and _is_late(cron, moment, now - timedelta(milliseconds=cron.policy.missed_after_ms)):
        return _missed(cron, moment, now)
    catch_up_until = None if caught_up else cron.catch_up_until
    return _tick(timetable, timetable.next_after(moment), moment, fire=_fire(cron, moment), catch_up_until=catch_up_until)


def _is_late(cron: Cron, moment: datetime, bound: datetime) -> bool:
    """Whether a moment could be acted on at the bound or before it: moments fire in order, each after its jitter and theirs."""
    timetable = cron.timetable
    if moment + timetable.jitter(moment) > bound:
        return False
    jitter = timedelta(milliseconds=cron.schedule.jitter_ms)
    if not jitter or moment + jitter <= bound:
        return True
    before = timetable.passed(moment - jitter, moment, MOST_BEFORE).newest
    return all(each + timetable.jitter(each) <= bound for each in before)


def _missed(cron: Cron, moment: datetime, now: datetime) -> Tick:
    timetable, policy = cron.timetable, cron.policy
    if policy.missed is Missed.ALL:
        passed = timetable.passed(moment, now, policy.missed_at_most)
        # None, if the zone's rules have changed since this moment was worked out.
        newest = passed.newest or (moment,)
        first, last = newest[0], newest[-1]
        left_out = _left_out(cron, moment, passed.count - len(passed.newest), now) if first > moment else None
        following = timetable.next_after(first)
        return _tick(timetable, following, first, fire=_fire(cron, first), left_out=left_out, catch_up_until=last)
    count = timetable.passed(moment, now, 0).count
    following = timetable.next_after(now)
    if policy.missed is Missed.ONCE:
        return _tick(timetable, following, now, fire=_fire(cron, moment, count))
    return _tick(timetable, following, now, left_out=_left_out(cron, moment, count, now))


def _tick(
    timetable: Timetable,
    following: datetime | None,
    acted_until: datetime,
    *,
    fire: Fire | None = None,
    left_out: Fire | None = None,
    catch_up_until: datetime | None = None,
) -> Tick:
    state = State.ENDED if fire is None and following is None else State.ACTIVE
    return Tick(fire, left_out, following, due_of(timetable, following), acted_until, catch_up_until, state)


def _fire(cron: Cron, moment: datetime, moments: int = 1) -> Fire:
    return Fire(cron.fire_id(moment), moment, moments=max(1, moments))


def _left_out(cron: Cron, moment: datetime, count: int, now: datetime) -> Fire:
    return Fire(cron.fire_id(moment), moment, outcome=Outcome.MISSED, moments=max(1, count), error=_LATE, fired=now)
