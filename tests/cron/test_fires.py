"""The loop that fires crons, over a real Postgres and a real Redis: never twice, never missed, whatever dies."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from uuid import UUID

import pytest

from servicekit.failures import FailedPrecondition, InvalidArgument, PermissionDenied, ResourceExhausted, Unavailable, Violation
from services.cron.domain.cron import Outcome, Policy, State, fire_request_id
from services.cron.domain.due import HORIZON
from services.cron.domain.ids import derived_id
from services.cron.domain.ports import ON_BEHALF_REVOKED
from services.cron.domain.schedule import Interval, Schedule
from services.cron.domain.settling import LONGEST_AWAY_S, MOST_TRIES
from tests.cron.fakes import cron_at, failing, later
from tests.cron.replica import LEASE_S, Replica

pytestmark = pytest.mark.asyncio

NewReplica = Callable[..., Replica]
INVALID = InvalidArgument([Violation("workflow.nodes", "must be other")])


async def test_a_due_cron_is_submitted_and_leaves_a_row(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    await replica.fire_due()
    assert not replica.scheduler.entered
    replica.clock.advance(seconds=10.25)
    await replica.fire_due()
    moment = later(cron, seconds=10)
    fire_id = derived_id(moment, cron.cron_id)
    (((account, request_id), launch),) = replica.scheduler.entered.items()
    assert (account, request_id, launch.workflow_id) == (cron.initiator, fire_request_id(fire_id), fire_id)
    assert launch.workflow == cron.workflow
    (fire,) = await replica.record(cron)
    assert (fire.fire_id, fire.due, fire.outcome, fire.moments, fire.tries) == (fire_id, moment, Outcome.SUBMITTED, 1, 1)
    assert fire.fired == later(cron, seconds=10.25)
    following = later(cron, seconds=20)
    assert await replica.found(cron) == replace(
        cron,
        next_fire=following,
        next_due=following,
        acted_until=moment,
        last_fire=moment,
        last_workflow_id=fire_id,
        runs=1,
    )
    assert replica.outcomes == [("submitted", 0.25)]


async def test_moments_that_are_only_late_all_fire(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock, schedule=Schedule(Interval(1_000))))
    replica.clock.advance(seconds=8.5)
    await replica.fire_due()
    assert [fire.due for fire in await replica.record(cron)] == [later(cron, seconds=n) for n in range(1, 9)]
    assert len(set(replica.scheduler.workflow_ids)) == 8


async def test_a_crash_after_the_submit_leads_to_the_same_workflow(replica: Replica, new_replica: NewReplica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    replica.clock.advance(seconds=10)
    await replica.die_in_submit()
    assert (await replica.found(cron)).last_workflow_id is None
    other = new_replica()
    await other.fire_due()
    assert not await other.record(cron, Outcome.SUBMITTED)
    # Once the claim of the dead one has run out.
    other.clock.advance(seconds=LEASE_S)
    await other.fire_due()
    (fire,) = await other.record(cron)
    assert (fire.outcome, fire.due, fire.tries) == (Outcome.SUBMITTED, later(cron, seconds=10), 2)
    assert other.scheduler.workflow_ids == [fire.fire_id]
    assert (await other.found(cron)).last_workflow_id == fire.fire_id


async def test_a_crash_before_the_submit_loses_nothing(replica: Replica, new_replica: NewReplica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    replica.clock.advance(seconds=10)
    now = replica.now()
    until = now + timedelta(seconds=LEASE_S)
    await replica.fire_store.begin([cron.cron_id], now=now, claim=UUID(int=1), until=until, decide=replica.fires._decide)
    other = new_replica()
    other.clock.advance(seconds=LEASE_S)
    await other.fire_due()
    (fire,) = await other.record(cron)
    assert (fire.outcome, fire.due) == (Outcome.SUBMITTED, later(cron, seconds=10))


async def test_who_was_slow_changes_nothing_after_another_took_over(replica: Replica, new_replica: NewReplica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    replica.clock.advance(seconds=10)
    hold = replica.scheduler.hold = asyncio.Event()
    slow = asyncio.create_task(replica.fires.work([cron.cron_id]))
    await replica.scheduler.came.wait()
    other, replica.scheduler.hold = new_replica(), None
    other.clock.advance(seconds=LEASE_S)
    await other.fire_due()
    settled = await other.found(cron)
    other.clock.advance(seconds=2)
    hold.set()
    assert not await slow
    assert await other.found(cron) == settled
    assert settled.runs == 1
    assert len(other.scheduler.entered) == 1


async def test_who_looks_at_what_another_has_in_hand_says_nothing_of_it(replica: Replica, new_replica: NewReplica) -> None:
    # What it has read may be old by the time it tells the timers, and would put off what the other said meanwhile.
    cron = await replica.added(cron_at(replica.clock))
    replica.clock.advance(seconds=10)
    hold = replica.scheduler.hold = asyncio.Event()
    firing = asyncio.create_task(replica.fires.work([cron.cron_id]))
    await replica.scheduler.came.wait()
    other = new_replica()
    assert not await other.fires.work([cron.cron_id])
    hold.set()
    assert await firing == {cron.cron_id: later(cron, seconds=20)}
    assert await other.fires.work([cron.cron_id]) == {cron.cron_id: later(cron, seconds=20)}


async def test_a_loop_that_is_told_to_end_ends_what_it_has_in_hand(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    replica.clock.advance(seconds=10)
    hold = replica.scheduler.hold = asyncio.Event()
    running = asyncio.create_task(replica.loop.run())
    await replica.scheduler.came.wait()
    for _ in range(3):
        running.cancel()
        done, _ = await asyncio.wait((running,), timeout=0.05)
        assert not done
    hold.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED]
    assert (await replica.found(cron)).pending is None


async def test_two_replicas_at_once_submit_each_moment_once(replica: Replica, new_replica: NewReplica) -> None:
    other = new_replica()
    every_second = Schedule(Interval(1_000))
    crons = [await replica.added(cron_at(replica.clock, name=f"c{n}", schedule=every_second)) for n in range(40)]
    for _ in range(5):
        replica.clock.advance(seconds=1)
        await asyncio.gather(replica.fire_due(), other.fire_due())
        # What one had locked was passed over by the other, and is seen again after the lease at the latest.
    replica.clock.advance(seconds=LEASE_S)
    await asyncio.gather(replica.fire_due(), other.fire_due())
    await replica.fire_due()
    assert sorted(replica.scheduler.asked.values()) == [1] * len(replica.scheduler.asked)
    for cron in crons:
        fires = await replica.record(cron)
        assert [fire.due for fire in fires] == [later(cron, seconds=n) for n in range(1, 11)]
        assert {fire.outcome for fire in fires} == {Outcome.SUBMITTED}
    assert len(replica.scheduler.entered) == 400


async def test_redis_may_lose_everything(replica: Replica, new_replica: NewReplica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    await replica.fire_due()
    assert await replica.timers()
    await replica.client.flushall()
    replica.clock.advance(seconds=10)
    await new_replica().fire_due()
    assert len(await replica.record(cron, Outcome.SUBMITTED)) == 1


async def test_without_redis_the_rows_are_looked_at(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    await replica.client.aclose()
    replica.client.connection_pool.connection_kwargs["port"] = 1
    replica.client.connection_pool.connection_kwargs["retry"] = None
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    assert len(await replica.record(cron, Outcome.SUBMITTED)) == 1


async def test_redis_knows_only_what_is_due_soon(replica: Replica) -> None:
    soon = await replica.added(cron_at(replica.clock, name="soon"))
    far = Schedule(Interval(round(HORIZON.total_seconds() * 4_000)))
    await replica.added(cron_at(replica.clock, name="far", schedule=far))
    await replica.fire_due()
    assert set(await replica.timers()) == {soon.cron_id}
    await replica.pass_time(seconds=HORIZON.total_seconds() * 4, step_s=5)
    assert len(await replica.record(await replica.store.find("dev", "far"), Outcome.SUBMITTED)) == 1  # type: ignore[arg-type]


async def test_timers_of_crons_that_are_gone_go(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    await replica.fire_due()
    assert await replica.store.remove(cron.cron_id, replica.now())
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    assert not await replica.timers()


async def test_with_the_scheduler_away_the_same_moment_is_tried_later_and_later(replica: Replica) -> None:
    replica.scheduler.refusal = failing(Unavailable, "X", "scheduler away")
    cron = await replica.added(cron_at(replica.clock))
    replica.clock.advance(seconds=10)
    waits = []
    for tries in range(1, 14):
        await replica.fire_due()
        kept = await replica.found(cron)
        assert kept.pending is not None
        assert (kept.pending.due, kept.pending.tries, kept.last_error) == (later(cron, seconds=10), tries, "scheduler away")
        assert (kept.state, kept.failures, kept.last_fire) == (State.ACTIVE, 0, None)
        (looked,) = await replica.fire_store.upcoming(replica.now() + timedelta(days=1), after=None, limit=10)
        waits.append((looked[1] - replica.now()).total_seconds())
        replica.clock.advance(seconds=waits[-1])
    assert waits == [min(LONGEST_AWAY_S, 0.5 * 2**n) for n in range(13)]
    replica.scheduler.refusal = None
    await replica.fire_due()
    first, *rest = await replica.record(cron)
    assert (first.outcome, first.due, first.tries) == (Outcome.SUBMITTED, later(cron, seconds=10), 14)
    # What passed meanwhile was missed: one fire for all of it.
    (once,) = rest
    assert (once.outcome, once.due) == (Outcome.SUBMITTED, later(cron, seconds=20))
    assert once.moments > 3


async def test_a_scheduler_over_its_limit_is_asked_again_and_given_up(replica: Replica) -> None:
    replica.scheduler.refusal = ResourceExhausted("full", reason="QUEUE_FULL", retry_delay_s=30)
    cron = await replica.added(cron_at(replica.clock, schedule=Schedule(Interval(86_400_000))))
    await replica.pass_time(seconds=86_400 + 29, step_s=86_400)
    assert (await replica.found(cron)).pending is not None
    assert sum(replica.scheduler.asked.values()) == 1
    await replica.pass_time(seconds=1_200, step_s=30)
    (fire,) = await replica.record(cron)
    assert (fire.outcome, fire.tries, fire.error) == (Outcome.REFUSED, MOST_TRIES, "full")
    assert (await replica.found(cron)).failures == 1


async def test_refused_fires_come_later_and_later_and_then_pause_the_cron(replica: Replica) -> None:
    replica.scheduler.refusal = INVALID
    policy = Policy(max_failures=6, missed_after_ms=86_400_000)
    cron = await replica.added(cron_at(replica.clock, schedule=Schedule(Interval(1_000)), policy=policy))
    await replica.pass_time(seconds=120)
    kept = await replica.found(cron)
    assert (kept.state, kept.failures, kept.next_fire) == (State.PAUSED, 6, None)
    assert kept.pause_reason == "6 fires one after the other were refused; the last: workflow.nodes: must be other"
    fires = await replica.record(cron)
    assert {(fire.outcome, fire.error) for fire in fires} == {(Outcome.REFUSED, "workflow.nodes: must be other")}
    ends = [fire.fired for fire in fires if fire.fired is not None]
    assert [round((b - a).total_seconds()) for a, b in pairwise(ends)] == [1, 2, 4, 8, 16]


async def test_one_success_forgets_the_refusals(replica: Replica) -> None:
    replica.scheduler.refusal = INVALID
    cron = await replica.added(cron_at(replica.clock))
    await replica.pass_time(seconds=20)
    assert (await replica.found(cron)).failures == 2
    replica.scheduler.refusal = None
    await replica.pass_time(seconds=20)
    assert ((await replica.found(cron)).failures, (await replica.found(cron)).last_error) == (0, "")


async def test_a_revoked_member_pauses_its_cron_at_once(replica: Replica) -> None:
    replica.scheduler.refusal = failing(PermissionDenied, ON_BEHALF_REVOKED, "gone")
    cron = await replica.added(cron_at(replica.clock))
    await replica.pass_time(seconds=40)
    kept = await replica.found(cron)
    assert (kept.state, kept.pause_reason) == (State.PAUSED, "the member on whose account it runs is none any more")
    assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.REFUSED]


async def test_one_that_is_refused_does_not_keep_its_neighbours_from_firing(replica: Replica) -> None:
    good = [await replica.added(cron_at(replica.clock, name=f"good{n}")) for n in range(5)]
    bad = await replica.added(cron_at(replica.clock, name="bad", workflow=b"\x12\x01x"))
    replica.scheduler.refused[bad.workflow] = failing(FailedPrecondition, "Y", "not this one")
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    for cron in good:
        assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED]
    assert [fire.error for fire in await replica.record(bad)] == ["not this one"]
    assert replica.scheduler.calls[0] == 6


async def test_crons_of_one_account_go_in_one_call(replica: Replica) -> None:
    for n in range(30):
        await replica.added(cron_at(replica.clock, name=f"c{n}"))
    await replica.added(cron_at(replica.clock, colony="other"))
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    assert sorted(replica.scheduler.calls) == [1, 30]


async def test_the_same_moment_made_of_something_else_is_taken_for_what_is_there(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    moment = later(cron, seconds=10)
    fire_id = derived_id(moment, cron.cron_id)
    replica.clock.advance(seconds=10)
    await replica.die_in_submit()
    # Its workflow is changed before anybody comes after the one that died.
    key = next(iter(replica.scheduler.entered))
    replica.scheduler.entered[key] = replace(replica.scheduler.entered[key], workflow=b"\x12\x01o")
    replica.clock.advance(seconds=LEASE_S)
    await replica.fire_due()
    assert [(fire.outcome, fire.fire_id) for fire in await replica.record(cron)] == [(Outcome.SUBMITTED, fire_id)]


async def test_a_cron_that_cannot_be_understood_keeps_nobody_from_firing(replica: Replica) -> None:
    good = await replica.added(cron_at(replica.clock, name="good"))
    bad = await replica.added(cron_at(replica.clock, name="bad"))
    async with replica.store._database.transaction() as connection:
        await connection.execute(
            "UPDATE cron SET expression = '* * * * * *', interval_ms = NULL, time_zone = 'Mars/Olympus' WHERE id = %s",
            (bad.cron_id,),
        )
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    assert [fire.outcome for fire in await replica.record(good)] == [Outcome.SUBMITTED]
    assert not await replica.record(bad)


async def test_old_fires_are_swept_and_those_of_removed_crons(replica: Replica) -> None:
    kept = await replica.added(cron_at(replica.clock, name="kept"))
    gone = await replica.added(cron_at(replica.clock, name="gone"))
    await replica.pass_time(seconds=30, step_s=10)
    assert await replica.store.remove(gone.cron_id, replica.now())
    await replica.upkeep.step()
    assert not await replica.record(gone)
    assert len(await replica.record(kept)) == 3
    replica.clock.advance(seconds=30 * 86_400 - 15)
    await replica.upkeep.step()
    assert [fire.due for fire in await replica.record(kept)] == [later(kept, seconds=20), later(kept, seconds=30)]
