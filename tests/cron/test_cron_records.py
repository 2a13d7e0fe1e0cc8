"""What is missed and what is not, and what the records and the metrics say of it. Time is the test's own."""

from collections import Counter
from collections.abc import Callable

import pytest

from servicekit.failures import FailedPrecondition, ResourceExhausted, Unavailable
from services.cron.domain.cron import Missed, Outcome, Overlap, Policy
from services.cron.domain.schedule import Interval, Schedule
from tests.cron.fakes import cron_at, failing, later
from tests.cron.replica import Replica
from tests.cron.test_cron_policies import TEN_MINUTES, moments_of

pytestmark = pytest.mark.asyncio

NewReplica = Callable[..., Replica]


@pytest.mark.parametrize("missed", Missed)
async def test_what_waits_for_the_jitter_of_those_before_it_is_not_missed(replica: Replica, missed: Missed) -> None:
    # They fire in their order: one that is put off for long puts off those after it, too.
    schedule = Schedule(Interval(60_000), jitter_ms=600_000)
    cron = await replica.added(cron_at(replica.clock, schedule=schedule, policy=Policy(missed=missed)))
    await replica.pass_time(seconds=3_600, step_s=5)
    record = await replica.record(cron)
    assert len(record) >= 50
    assert {(fire.outcome, fire.moments) for fire in record} == {(Outcome.SUBMITTED, 1)}
    assert [fire.due for fire in record] == moments_of(cron, record[-1].due)


async def test_missed_moments_are_told_to_the_metrics(replica: Replica, new_replica: NewReplica) -> None:
    policies = [Policy(missed=Missed.SKIP), Policy(missed=Missed.ALL, missed_at_most=7), Policy(overlap=Overlap.QUEUE_ONE)]
    for number, policy in enumerate(policies):
        await replica.added(cron_at(replica.clock, name=f"c{number}", policy=policy))
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    await after.fire_due()
    outcomes = Counter(outcome for outcome, _ in after.outcomes)
    assert outcomes == {"missed": 2, "submitted": 8}
    # What is left out for the sake of one that waited is told, too.
    await after.pass_time(seconds=60)
    after.scheduler.end_all()
    await after.pass_time(seconds=6)
    record = await after.record(await after.store.find("dev", "c2"), Outcome.SKIPPED)  # type: ignore[arg-type]
    assert Counter(outcome for outcome, _ in after.outcomes)["skipped"] == len(record) > 0


async def test_a_cron_says_that_its_last_fire_was_missed(replica: Replica, new_replica: NewReplica) -> None:
    cron = await replica.added(cron_at(replica.clock, policy=Policy(missed=Missed.SKIP)))
    replica.clock.advance(seconds=TEN_MINUTES)
    after = new_replica()
    await after.fire_due()
    kept = await after.found(cron)
    assert (kept.last_fire, kept.last_error) == (later(cron, seconds=10), "nobody could act on it in time")


async def test_an_error_of_any_text_is_kept(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    replica.scheduler.refusal = failing(FailedPrecondition, "X", "a\0b\ud800c")
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    assert [fire.error for fire in await replica.record(cron)] == ["a?b?c"]


async def test_a_limit_that_is_reached_after_an_outage_is_waited_out(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock, schedule=Schedule(Interval(86_400_000))))
    replica.scheduler.refusal = failing(Unavailable, "X")
    await replica.pass_time(seconds=86_400, step_s=86_400)
    await replica.pass_time(seconds=120)
    (pending,) = await replica.record(cron)
    assert pending.tries > 10
    replica.scheduler.refusal = ResourceExhausted("full", reason="QUEUE_FULL", retry_delay_s=0.5)
    await replica.pass_time(seconds=30)
    replica.scheduler.refusal = None
    await replica.pass_time(seconds=60)
    assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED]
