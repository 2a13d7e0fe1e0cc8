"""What crons feed to their next run, and which run is their last one, over a real Postgres."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from servicekit.failures import FailedPrecondition, NotFound, PermissionDenied, ResourceExhausted, Unavailable
from services.cron.domain.cron import NewCron, Outcome, Overlap, Policy, State
from services.cron.domain.schedule import Interval, Schedule
from tests.cron.fakes import Crash, cron_at, failing, later
from tests.cron.replica import LEASE_S, Replica
from tests.cron.test_crons import ALICE, OWNER

pytestmark = pytest.mark.asyncio

FEEDING = NewCron("c", Schedule(Interval(10_000)), Policy(feed_outputs=True), b"\x12\x01w")
PLAIN = replace(FEEDING, policy=Policy())


def fed(replica: Replica) -> list[list[bytes]]:
    """The arguments of each workflow, in the order in which they came in."""
    return [list(launch.arguments) for launch in replica.scheduler.launches]


async def test_a_run_by_hand_is_fed_and_feeds_like_any_other(replica: Replica) -> None:
    await replica.crons.add(ALICE, FEEDING)
    await replica.pass_time(seconds=10)
    replica.scheduler.end(replica.scheduler.workflow_ids[-1], b"1")
    run = await replica.crons.run(ALICE, "c", "r")
    replica.scheduler.end(run, b"2")
    await replica.pass_time(seconds=10)
    assert fed(replica) == [[], [b"1"], [b"2"]]


async def test_after_a_run_by_hand_that_failed_the_last_that_succeeded_is_fed(replica: Replica) -> None:
    await replica.crons.add(ALICE, FEEDING)
    for output in (b"1", b"2"):
        await replica.pass_time(seconds=10)
        replica.scheduler.end(replica.scheduler.workflow_ids[-1], output)
    run = await replica.crons.run(ALICE, "c", "r")
    replica.scheduler.end(run, successful=False)
    await replica.pass_time(seconds=10)
    assert fed(replica) == [[], [b"1"], [b"2"], [b"2"]]


async def test_a_run_by_hand_is_refused_if_its_arguments_are_too_large(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, FEEDING)
    await replica.pass_time(seconds=11)
    replica.scheduler.end(replica.scheduler.workflow_ids[-1], b"1")
    too_large, look = ResourceExhausted("more than 16 MiB", reason="OUTPUTS_TOO_LARGE"), replica.scheduler.runs

    async def only_small(*, outputs: bool, **of: object) -> object:
        if outputs:
            raise too_large
        return await look(outputs=outputs, **of)  # type: ignore[arg-type]

    replica.scheduler.runs = only_small  # type: ignore[method-assign, assignment]
    with pytest.raises(FailedPrecondition) as caught:
        await replica.crons.run(ALICE, "c", "r")
    assert caught.value.reason == "OUTPUTS_TOO_LARGE"
    assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED, Outcome.REFUSED]
    await replica.pass_time(seconds=10)
    assert [(fire.outcome, fire.tries) for fire in await replica.record(cron)][-1] == (Outcome.REFUSED, 1)


async def test_a_run_that_is_settled_late_does_not_take_the_place_of_a_later_one(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, PLAIN)
    replica.scheduler.crash_after = True
    with pytest.raises(Crash):
        await replica.crons.run(ALICE, "c", "r")
    replica.scheduler.crash_after = False
    await replica.pass_time(seconds=700, step_s=10)
    last = (await replica.found(cron)).last_workflow_id
    await replica.upkeep.step()
    assert [fire.outcome for fire in await replica.record(cron, Outcome.PENDING)] == []
    assert (await replica.found(cron)).last_workflow_id == last


async def test_whoever_may_not_update_is_told_who_may(replica: Replica) -> None:
    await replica.crons.add(ALICE, PLAIN)
    with pytest.raises(PermissionDenied) as caught:
        await replica.crons.update(OWNER, FEEDING)
    assert caught.value.reason == "NOT_THE_INITIATOR"
    assert "owner" not in caught.value.message


async def test_a_fire_that_waits_is_given_up_by_a_pause_even_while_it_is_looked_at(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, replace(PLAIN, policy=Policy(overlap=Overlap.QUEUE_ONE)))
    await replica.pass_time(seconds=25, step_s=5)
    assert (await replica.found(cron)).pending is not None
    # Somebody looks at it while it is paused, and dies.
    replica.clock.advance(seconds=LEASE_S)
    now = replica.now()
    until = now + timedelta(seconds=LEASE_S)
    begun = await replica.fire_store.begin(
        [cron.cron_id], now=now, claim=UUID(int=1), until=until, decide=replica.fires._decide
    )
    assert len(begun.crons) == 1
    assert (await replica.crons.pause(ALICE, "c")).state is State.PAUSED
    replica.scheduler.end_all()
    await replica.pass_time(seconds=60)
    # The third is the moment that passed while the second waited.
    assert [(fire.due, fire.outcome) for fire in await replica.record(cron)] == [
        (later(cron, seconds=10), Outcome.SUBMITTED),
        (later(cron, seconds=20), Outcome.SKIPPED),
        (later(cron, seconds=30), Outcome.SKIPPED),
    ]
    assert len(replica.scheduler.entered) == 1


async def test_a_run_of_a_cron_that_is_just_removed_leaves_nothing(replica: Replica) -> None:
    cron = await replica.added(cron_at(replica.clock))
    finding = replica.store.find

    async def found_then_removed(colony: str, name: str) -> object:
        found = await finding(colony, name)
        replica.store.find = finding  # type: ignore[method-assign]
        await replica.crons.remove(OWNER, name)
        return found

    replica.store.find = found_then_removed  # type: ignore[method-assign, assignment]
    with pytest.raises(NotFound):
        await replica.crons.run(OWNER, cron.name, "r")
    assert not replica.scheduler.entered
    assert not await replica.record(cron)


async def test_one_run_that_cannot_be_looked_up_keeps_no_other_from_being_settled(replica: Replica) -> None:
    crons = [await replica.added(cron_at(replica.clock, name="c", colony=colony)) for colony in ("gone", "stays")]
    replica.scheduler.refusal = failing(Unavailable, "X")
    for cron in crons:
        with pytest.raises(Unavailable):
            await replica.crons.run(replace(OWNER, colony=cron.colony), "c", "r")
    replica.scheduler.refusal = None
    look = replica.scheduler.runs

    async def no_such_colony(*, colony: str, **of: object) -> object:
        if colony == "gone":
            raise failing(PermissionDenied, "NOT_A_MEMBER")
        return await look(colony=colony, **of)  # type: ignore[arg-type]

    replica.scheduler.runs = no_such_colony  # type: ignore[method-assign, assignment]
    replica.clock.advance(seconds=601)
    await replica.upkeep.step()
    assert [fire.outcome for fire in await replica.record(crons[1])] == [Outcome.REFUSED]
    assert [fire.outcome for fire in await replica.record(crons[0])] == [Outcome.PENDING]


async def test_replicas_that_sweep_at_the_same_time_do_not_stop_each_other(replica: Replica) -> None:
    gone = [await replica.added(cron_at(replica.clock, name=f"c{n}")) for n in range(10)]
    await replica.pass_time(seconds=60, step_s=10)
    for cron in gone:
        assert await replica.store.remove(cron.cron_id, replica.now())
    await asyncio.gather(*(replica.upkeep.step() for _ in range(4)))
    for cron in gone:
        assert not await replica.record(cron)
