"""What crons do about downtime, and about workflows that are slower than their schedule. Time is the test's own."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from services.cron.domain.cron import Cron, Fire, Missed, NewCron, Outcome, Overlap, Policy, State
from services.cron.domain.schedule import Expression, Interval, RandomInterval, Schedule
from tests.cron.fakes import cron_at, later
from tests.cron.replica import LEASE_S, Replica
from tests.cron.test_crons import ALICE

pytestmark = pytest.mark.asyncio

NewReplica = Callable[..., Replica]
TEN_MINUTES = 600
WORKFLOW_S = 35

SCHEDULES = {
    "interval": Schedule(Interval(10_000)),
    "expression": Schedule(Expression("5-55/10 * * * * *", "Australia/Lord_Howe")),
    "random": Schedule(RandomInterval(10_000)),
    "jitter": Schedule(Interval(10_000), jitter_ms=4_000),
}


def moments_of(cron: Cron, until: datetime) -> list[datetime]:
    """All the moments of a cron up to one."""
    moments = []
    following = cron.timetable.next_after(cron.created)
    while following is not None and following <= until:
        moments.append(following)
        following = cron.timetable.next_after(following)
    return moments


def all_accounted_for(replica: Replica, fires: list[Fire], moments: list[datetime]) -> None:
    """Each moment stands in the record once, and what was submitted was submitted once, in the order of the moments."""
    assert sum(fire.moments for fire in fires) == len(moments)
    begins = [moments.index(fire.due) for fire in fires]
    assert begins == sorted(set(begins))
    assert all(before + fire.moments == after for fire, (before, after) in zip(fires, pairwise(begins), strict=False))
    submitted = [fire.fire_id for fire in fires if fire.outcome is Outcome.SUBMITTED]
    assert submitted == [each for each in replica.scheduler.workflow_ids if each in submitted]


POLICIES = [
    Policy(missed=Missed.SKIP),
    Policy(missed=Missed.ONCE),
    *(Policy(missed=Missed.ALL, missed_at_most=most) for most in (1, 7, 59, 60, 1_000)),
]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
async def test_ten_minutes_of_downtime(replica: Replica, new_replica: NewReplica, schedule: Schedule) -> None:
    crons = [
        await replica.added(cron_at(replica.clock, name=f"c{number}", schedule=schedule, policy=policy))
        for number, policy in enumerate(POLICIES)
    ]
    await replica.pass_time(seconds=30)
    came_next = [(await replica.found(cron)).next_fire for cron in crons]
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    await after.fire_due()
    for cron, following in zip(crons, came_next, strict=True):
        moments = moments_of(cron, after.now())
        assert following is not None
        passed = moments[moments.index(following) :]
        assert 59 <= len(passed) <= 61
        missed = [fire for fire in await after.record(cron) if fire.due >= following]
        as_the_policy_says(cron, passed, missed)
    # From then on as before: nothing again, nothing left out.
    await after.pass_time(seconds=60)
    for cron in crons:
        moments = [each for each in moments_of(cron, after.now()) if each + cron.timetable.jitter(each) <= after.now()]
        record = await after.record(cron)
        all_accounted_for(after, record, moments)
        assert all(fire.outcome is Outcome.SUBMITTED and fire.moments == 1 for fire in record[-5:])
        runs = sum(fire.outcome is Outcome.SUBMITTED for fire in record)
        assert ((await after.found(cron)).runs, (await after.found(cron)).state) == (runs, State.ACTIVE)
    assert len(after.scheduler.entered) == sum([(await after.found(cron)).runs for cron in crons])


def as_the_policy_says(cron: Cron, passed: list[datetime], missed: list[Fire]) -> None:
    """What became of the moments that passed in a downtime."""
    submitted = [fire for fire in missed if fire.outcome is Outcome.SUBMITTED]
    left_out = [fire for fire in missed if fire.outcome is Outcome.MISSED]
    match cron.policy.missed:
        case Missed.SKIP:
            assert [(fire.due, fire.moments) for fire in left_out] == [(passed[0], len(passed))]
            assert not submitted
        case Missed.ONCE:
            assert [(fire.due, fire.moments) for fire in submitted] == [(passed[0], len(passed))]
            assert not left_out
        case Missed.ALL:
            kept = passed[-cron.policy.missed_at_most :]
            # A moment that jitter puts off until after the end of the downtime fires then.
            pending = 1 if cron.schedule.jitter_ms else 0
            assert [fire.due for fire in submitted] == kept[: len(submitted)]
            assert len(kept) - len(submitted) <= pending
            assert sum(fire.moments for fire in left_out) == len(passed) - len(kept)
            assert len(left_out) == (len(passed) > len(kept))


@pytest.mark.parametrize("policy", [Policy(missed=missed) for missed in Missed], ids=[missed.name for missed in Missed])
async def test_a_fire_that_died_in_the_downtime_and_those_that_it_missed(
    replica: Replica, new_replica: NewReplica, policy: Policy
) -> None:
    cron = await replica.added(cron_at(replica.clock, policy=policy))
    replica.clock.advance(seconds=10)
    await replica.die_in_submit()
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    await after.fire_due()
    first, *rest = await after.record(cron)
    assert (first.outcome, first.due, first.moments) == (Outcome.SUBMITTED, later(cron, seconds=10), 1)
    assert len(after.scheduler.workflow_ids) == {Missed.SKIP: 1, Missed.ONCE: 2, Missed.ALL: 61}[policy.missed]
    assert sum(fire.moments for fire in rest) == 60
    all_accounted_for(after, [first, *rest], moments_of(cron, after.now()))


@pytest.mark.parametrize("policy", [Policy(missed=missed) for missed in Missed], ids=[missed.name for missed in Missed])
async def test_two_replicas_that_come_back_together_make_up_for_it_once(
    replica: Replica, new_replica: NewReplica, policy: Policy
) -> None:
    cron = await replica.added(cron_at(replica.clock, policy=policy))
    replica.clock.advance(seconds=TEN_MINUTES)
    one, two = new_replica(), new_replica()
    for _ in range(70):
        # By turns, one look each, as far as neither has to wait for the other's claim.
        await one.loop.step()
        await two.loop.step()
    replica.clock.advance(seconds=LEASE_S)
    await one.fire_due()
    all_accounted_for(one, await one.record(cron), moments_of(cron, one.now()))
    assert set(one.scheduler.asked.values()) <= {1}


async def test_what_is_to_be_made_up_for_is_not_left_out_because_that_takes_long(replica: Replica) -> None:
    policy = Policy(missed=Missed.ALL, missed_at_most=5)
    cron = await replica.added(cron_at(replica.clock, policy=policy))
    replica.clock.advance(seconds=TEN_MINUTES)
    for _ in range(5):
        await replica.fires.work([cron.cron_id])
        # Three more moments pass.
        replica.clock.advance(seconds=30)
    record = await replica.record(cron)
    assert [fire.due for fire in record if fire.outcome is Outcome.SUBMITTED] == [
        later(cron, seconds=second) for second in (560, 570, 580, 590, 600)
    ]
    assert [fire.moments for fire in record if fire.outcome is Outcome.MISSED] == [55]
    await replica.fire_due()
    all_accounted_for(replica, await replica.record(cron), moments_of(cron, replica.now()))


async def test_what_is_less_late_than_the_policy_says_is_not_missed(replica: Replica, new_replica: NewReplica) -> None:
    patient = Policy(missed=Missed.SKIP, missed_after_ms=120_000)
    crons = [
        await replica.added(cron_at(replica.clock, name="patient", policy=patient)),
        await replica.added(cron_at(replica.clock, name="other", policy=replace(patient, missed_after_ms=10_000))),
    ]
    replica.clock.advance(seconds=119.999)
    await new_replica().fire_due()
    outcomes = [[(fire.outcome, fire.moments) for fire in await replica.record(cron)] for cron in crons]
    assert outcomes == [[(Outcome.SUBMITTED, 1)] * 11, [(Outcome.MISSED, 11)]]


async def test_a_year_of_downtime_is_not_counted_to_its_end(replica: Replica, new_replica: NewReplica) -> None:
    policy = Policy(missed=Missed.ALL, missed_at_most=3)
    every_second = Schedule(Expression("* * * * * *", "Europe/Stockholm"))
    cron = await replica.added(cron_at(replica.clock, schedule=every_second, policy=policy))
    replica.clock.advance(seconds=365 * 86_400)
    after = new_replica()
    await after.fire_due()
    missed, *fired = await after.record(cron)
    assert (missed.outcome, missed.due, missed.moments) == (Outcome.MISSED, later(cron, seconds=1), 9_997)
    assert [fire.due for fire in fired] == [after.now() - timedelta(seconds=second) for second in (2, 1, 0)]


async def run_slowly(replica: Replica, *, seconds: int) -> int:
    """Lets time pass; each workflow takes 35 s. Returns how many were open at once at most."""
    ends: dict[int, int] = {}
    most = 0
    for second in range(1, seconds + 1):
        for number, end in list(ends.items()):
            if end == second:
                replica.scheduler.end(replica.scheduler.workflow_ids[number])
        await replica.pass_time(seconds=1)
        for number in range(len(ends), len(replica.scheduler.workflow_ids)):
            ends[number] = second + WORKFLOW_S
        most = max(most, len(replica.scheduler._open))
    return most


async def test_beside_a_slow_workflow_others_are_submitted(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock, policy=Policy(overlap=Overlap.ALLOW)))
    assert await run_slowly(replica, seconds=200) == 4
    record = await replica.record(cron)
    assert [(fire.outcome, fire.due) for fire in record] == [
        (Outcome.SUBMITTED, later(cron, seconds=second)) for second in range(10, 201, 10)
    ]
    all_accounted_for(replica, record, moments_of(cron, replica.now()))


async def test_while_a_slow_workflow_is_open_nothing_is_submitted(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock, policy=Policy(overlap=Overlap.SKIP)))
    assert await run_slowly(replica, seconds=200) == 1
    record = await replica.record(cron)
    # At 10, 50, 90, ...: whenever a moment finds none open.
    assert [fire.outcome for fire in record] == [
        Outcome.SUBMITTED if second % 40 == 10 else Outcome.SKIPPED for second in range(10, 201, 10)
    ]
    assert "is still open" in record[1].error
    all_accounted_for(replica, record, moments_of(cron, replica.now()))


async def test_one_waits_for_a_slow_workflow_and_the_others_are_left_out(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock, policy=Policy(overlap=Overlap.QUEUE_ONE)))
    assert await run_slowly(replica, seconds=400) == 1
    record = await replica.record(cron, Outcome.SUBMITTED, Outcome.SKIPPED)
    submitted = [fire for fire in record if fire.outcome is Outcome.SUBMITTED]
    # The next one is submitted as soon as the end of the one before is seen.
    ends = [fire.fired for fire in submitted if fire.fired is not None]
    gaps = [(after - before).total_seconds() for before, after in pairwise(ends)]
    assert len(submitted) >= 400 / (WORKFLOW_S + 5) - 1
    assert all(WORKFLOW_S <= gap <= WORKFLOW_S + 5 for gap in gaps)
    assert any(fire.outcome is Outcome.SKIPPED and "waited for workflow" in fire.error for fire in record)
    assert all(fire.outcome is Outcome.SUBMITTED or fire.moments <= 4 for fire in record)
    pending = await replica.record(cron, Outcome.PENDING)
    # Those after the one that waits now are not decided on.
    until = pending[0].due if pending else replica.now()
    all_accounted_for(replica, [*record, *pending], moments_of(cron, until))


async def test_a_slow_workflow_is_cancelled_for_the_next(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock, policy=Policy(overlap=Overlap.CANCEL_PREVIOUS)))
    assert await run_slowly(replica, seconds=200) == 1
    record = await replica.record(cron)
    assert {fire.outcome for fire in record} == {Outcome.SUBMITTED}
    all_accounted_for(replica, record, moments_of(cron, replica.now()))
    assert replica.scheduler.cancelled == replica.scheduler.workflow_ids[:-1]


@pytest.mark.parametrize("overlap", Overlap)
async def test_missed_moments_keep_to_the_overlap_policy(replica: Replica, new_replica: NewReplica, overlap: Overlap) -> None:
    policy = Policy(overlap=overlap, missed=Missed.ALL, missed_at_most=5)
    cron = await replica.added(cron_at(replica.clock, policy=policy))
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    await after.fire_due()
    opened = len(after.scheduler._open)
    assert opened == (5 if overlap is Overlap.ALLOW else 1)
    if overlap is Overlap.CANCEL_PREVIOUS:
        assert len(after.scheduler.cancelled) == 4
    for _ in range(4):
        after.scheduler.end_all()
        await after.pass_time(seconds=2.4)
    record = await after.record(cron)
    all_accounted_for(after, record, moments_of(cron, after.now()))


async def test_each_fire_is_put_off_by_its_own_jitter(replica: Replica) -> None:
    schedule = Schedule(Expression("0 * * * * *"), jitter_ms=30_000)
    crons = [await replica.added(cron_at(replica.clock, name=f"c{number}", schedule=schedule)) for number in range(10)]
    await replica.pass_time(seconds=300, step_s=0.1)
    delays = set()
    for cron in crons:
        for fire in await replica.record(cron):
            jitter = cron.timetable.jitter(fire.due)
            assert fire.fired is not None
            assert timedelta(0) <= fire.fired - (fire.due + jitter) < timedelta(seconds=0.1)
            assert fire.due.second == 0
            delays.add(jitter)
        assert (await replica.found(cron)).runs >= 4
    # Ten crons of one moment do not come at once.
    assert len(delays) > 35
    assert max(delays) > timedelta(seconds=20)
    assert min(delays) < timedelta(seconds=10)


async def test_jitter_longer_than_the_schedule_leaves_nothing_out(replica: Replica) -> None:
    schedule = Schedule(Interval(1_000), jitter_ms=9_000)
    cron = await replica.added(cron_at(replica.clock, schedule=schedule, policy=Policy(missed=Missed.SKIP)))
    await replica.pass_time(seconds=120)
    record = await replica.record(cron)
    assert len(record) > 100
    assert {(fire.outcome, fire.moments) for fire in record} == {(Outcome.SUBMITTED, 1)}
    assert [fire.due for fire in record] == moments_of(cron, record[-1].due)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
async def test_nothing_fires_outside_the_window(replica: Replica, schedule: Schedule) -> None:
    start, end = replica.now() + timedelta(seconds=95), replica.now() + timedelta(seconds=205)
    windowed = replace(schedule, start=start, end=end)
    cron = await replica.added(cron_at(replica.clock, schedule=windowed))
    await replica.pass_time(seconds=94)
    assert not await replica.record(cron)
    await replica.pass_time(seconds=206)
    record = await replica.record(cron)
    assert 10 <= len(record) <= 12
    assert all(start <= fire.due < end for fire in record)
    assert {fire.outcome for fire in record} == {Outcome.SUBMITTED}
    ended = await replica.found(cron)
    assert (ended.state, ended.next_fire) == (State.ENDED, None)
    all_accounted_for(replica, record, moments_of(cron, replica.now()))


@pytest.mark.parametrize("missed", Missed)
async def test_a_window_that_closed_in_the_downtime(replica: Replica, new_replica: NewReplica, missed: Missed) -> None:
    schedule = Schedule(Interval(10_000), end=replica.now() + timedelta(seconds=300))
    cron = await replica.added(cron_at(replica.clock, schedule=schedule, policy=Policy(missed=missed)))
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    await after.fire_due()
    record = await after.record(cron)
    # The moment of the end is none.
    assert sum(fire.moments for fire in record) == 29
    assert len(after.scheduler.entered) == {Missed.SKIP: 0, Missed.ONCE: 1, Missed.ALL: 29}[missed]
    assert (await after.found(cron)).state is State.ENDED


async def test_a_cron_ends_after_its_runs_also_when_it_catches_up(replica: Replica, new_replica: NewReplica) -> None:
    schedule = Schedule(Interval(10_000), max_runs=5)
    cron = await replica.added(cron_at(replica.clock, schedule=schedule, policy=Policy(missed=Missed.ALL)))
    await replica.pass_time(seconds=20)
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    await after.fire_due()
    await after.pass_time(seconds=60)
    ended = await after.found(cron)
    assert (ended.state, ended.runs, ended.next_fire) == (State.ENDED, 5, None)
    assert len(after.scheduler.entered) == 5


async def test_only_what_submits_counts_as_a_run(replica: Replica) -> None:
    schedule = Schedule(Interval(10_000), max_runs=3)
    cron = await replica.added(cron_at(replica.clock, schedule=schedule, policy=Policy(overlap=Overlap.SKIP)))
    await run_slowly(replica, seconds=200)
    record = await replica.record(cron)
    assert [fire.due for fire in record if fire.outcome is Outcome.SUBMITTED] == [
        later(cron, seconds=second) for second in (10, 50, 90)
    ]
    assert record[-1].outcome is Outcome.SUBMITTED
    assert (await replica.found(cron)).state is State.ENDED


async def test_moments_of_a_pause_are_not_missed(replica: Replica, new_replica: NewReplica) -> None:
    new = NewCron("c", Schedule(Interval(10_000)), Policy(missed=Missed.ALL), b"\x12\x01w")
    cron = await replica.crons.add(ALICE, new)
    await replica.pass_time(seconds=30)
    await replica.crons.pause(ALICE, "c")
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    await after.fire_due()
    await after.crons.resume(ALICE, "c")
    await after.fire_due()
    await after.pass_time(seconds=30)
    seconds = (10, 20, 30, 640, 650, 660)
    assert [(fire.due, fire.outcome) for fire in await after.record(cron)] == [
        (later(cron, seconds=second), Outcome.SUBMITTED) for second in seconds
    ]


async def test_moments_of_a_schedule_that_was_replaced_are_not_made_up_for(replica: Replica, new_replica: NewReplica) -> None:
    new = NewCron("c", Schedule(Interval(10_000)), Policy(missed=Missed.ALL), b"\x12\x01w")
    cron = await replica.crons.add(ALICE, new)
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    # Before anybody has acted on the old schedule's moments.
    await after.crons.update(ALICE, replace(new, schedule=Schedule(Interval(20_000))))
    await after.pass_time(seconds=60)
    seconds = (620, 640, 660)
    assert [(fire.due, fire.outcome) for fire in await after.record(cron)] == [
        (later(cron, seconds=second), Outcome.SUBMITTED) for second in seconds
    ]
