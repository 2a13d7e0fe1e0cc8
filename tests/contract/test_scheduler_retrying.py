"""Workflows are taken up again: what failed or was cancelled comes back, what was successful stays."""

import uuid

import pytest

from servicekit.failures import NotFound
from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.records import Entered
from services.scheduler.domain.spec import ParentPolicy
from services.scheduler.domain.states import Reason, State

from .scheduler_records import ALICE, COLONY, WORKER, World, at, receipt, spec, success
from .scheduler_works import Works

pytestmark = pytest.mark.asyncio

FAILURE = Closing(successful=False, errors=("broken",))
RETRYABLE = Closing(successful=False, errors=("again",), retryable=True)


async def take_up(world: World, entered: Entered, *, seconds: float = 10) -> tuple[int, set[uuid.UUID]]:
    """How many came back, and which wait for no parent."""
    assert entered.workflow_id is not None
    count, changes = await world.retry_workflow(entered.workflow_id, seconds=seconds)
    return count, {place.id for place in changes.ready}


async def test_what_failed_comes_back_with_all_below_it_and_what_was_successful_stays(world: World) -> None:
    entered = await world.enter(spec("a"), spec("b", "a", max_retries=1), spec("c", "b"), spec("d", "c", "a"), spec("e", "a"))
    a, b, c, d, e = entered.process_ids
    await world.run(a, success(b"A"), seconds=1)
    await world.run(b, RETRYABLE, seconds=2)
    await world.run(b, RETRYABLE, seconds=3)
    await world.run(e, success(b"E"), seconds=4)
    states = await world.states()
    assert [states[one] for one in (b, c, d)] == [State.FAILED] * 3
    assert await take_up(world, entered) == (3, {b})
    states = await world.states()
    assert [states[one] for one in entered.process_ids] == [
        *(State.SUCCESSFUL, State.WAITING, State.WAITING, State.WAITING, State.SUCCESSFUL)
    ]
    rows = {row["id"]: row for row in await world.rows("process")}
    assert [rows[one]["pending_parents"] for one in (b, c, d)] == [0, 1, 1]
    assert [(rows[one]["errors"], rows[one]["retries"], rows[one]["ended_at"]) for one in (b, c, d)] == [([], 0, None)] * 3
    reasons = [(row["reason"], row["actor"]) for row in await world.rows("ledger") if row["process_id"] == c]
    assert reasons[-1] == (Reason.RETRY_REQUESTED, ALICE.identity)
    await world.check_ledger()
    # It has all its retries again, and the numbers of its attempts go on.
    await world.run(b, RETRYABLE, seconds=11)
    (assigned,) = await world.begin(b, seconds=12)
    assert (assigned.live.attempt, assigned.inputs) == (4, [b"A"])
    changes, _ = await world.close(b, success(b"B"), number=4, seconds=13)
    assert [place.id for place in changes.ready] == [c]
    await world.run(c, success(b"C"), seconds=14)
    (assigned,) = await world.begin(d, seconds=16)
    assert assigned.inputs == [b"C", b"A"]
    await world.close(d, success(), seconds=17)
    assert set((await world.states()).values()) == {State.SUCCESSFUL}
    await world.check_ledger()


async def test_a_cancelled_workflow_comes_back_whole(world: World) -> None:
    entered = await world.enter(spec("a"), spec("b", "a"), spec("c"))
    a, b, c = entered.process_ids
    await world.assign(a)
    assert entered.workflow_id is not None
    await world.cancel_workflow(entered.workflow_id)
    assert await take_up(world, entered) == (3, {a, c})
    await world.check_ledger()
    await world.run(a, success(b"A"), seconds=11)
    assert await world.assign(b, seconds=13) == {b: 1}


async def test_what_runs_goes_on_and_what_waits_keeps_its_place(world: World) -> None:
    entered = await world.enter(spec("bad"), spec("running"), spec("waiting"), spec("below", "bad", "running"))
    bad, running, waiting, below = entered.process_ids
    await world.assign(running, seconds=1)
    await world.run(bad, FAILURE, seconds=2)
    before = {row["id"]: row for row in await world.rows("process")}
    assert await take_up(world, entered) == (2, {bad, waiting})
    rows = {row["id"]: row for row in await world.rows("process")}
    assert [rows[one] for one in (running, waiting)] == [before[one] for one in (running, waiting)]
    assert rows[below]["pending_parents"] == 2
    changes, _ = await world.close(running, success(b"1"), seconds=11)
    assert changes.ready == []
    assert [place.id for place in (await world.run(bad, success(b"2"), seconds=12)).ready] == [below]
    await world.check_ledger()


async def test_nothing_to_take_up_changes_nothing(world: World) -> None:
    entered = await world.enter(spec("a"), spec("b", "a"))
    await world.run(entered.process_ids[0], success(b"1"))
    before = await world.rows("process"), await world.rows("ledger"), await world.rows("workflow")
    assert await take_up(world, entered) == (0, set())
    assert (await world.rows("process"), await world.rows("ledger"), await world.rows("workflow")) == before
    with pytest.raises(NotFound):
        await world.retry_workflow(uuid.uuid4())


async def test_those_that_ran_in_spite_of_a_failure_stay_and_those_that_were_about_to_wait_again(world: World) -> None:
    policies = {"all_ran": ParentPolicy.ALL_DONE, "all_waits": ParentPolicy.ALL_DONE, "any_waits": ParentPolicy.ANY_DONE}
    nodes = [spec("bad"), *(spec(name, "bad", parent_policy=one) for name, one in policies.items()), spec("other")]
    nodes.append(spec("any_other", "bad", "other", parent_policy=ParentPolicy.ANY_DONE))
    entered = await world.enter(*nodes)
    bad, ran, all_waits, any_waits, other, any_other = entered.process_ids
    await world.run(other, success(b"O"), seconds=1)
    changes = await world.run(bad, FAILURE, seconds=2)
    assert {place.id for place in changes.ready} == {ran, all_waits, any_waits}
    await world.run(ran, success(b"1"), seconds=4)
    assert await take_up(world, entered) == (1, {bad, any_other})
    # What stood in the queue for the old end is not given out.
    assert await world.assign(all_waits, any_waits, seconds=11) == {}
    assert (await world.states())[ran] is State.SUCCESSFUL
    changes = await world.run(bad, success(b"2"), seconds=12)
    assert {place.id for place in changes.ready} == {all_waits, any_waits}
    assert [one.inputs for one in await world.begin(all_waits, any_waits, seconds=15)] == [[b"2"], [b"2"]]
    await world.check_ledger()


async def test_one_that_waited_too_long_has_its_whole_wait_again(world: World) -> None:
    """Its wait begins when it comes back, not when it first came into the queue."""
    entered = await world.enter(spec("a", max_wait_ms=2_000))
    (a,) = entered.process_ids
    await world.end(a, lambda row: endings.wait_out(row, at(3)), seconds=3)
    assert (await world.states())[a] is State.FAILED
    assert entered.workflow_id is not None
    _, changes = await world.retry_workflow(entered.workflow_id, seconds=10)
    assert [place.wait_deadline for place in changes.ready] == [at(12)]
    await world.end(a, lambda row: endings.wait_out(row, at(11)), seconds=11)
    assert (await world.states())[a] is State.WAITING
    await world.end(a, lambda row: endings.wait_out(row, at(12)), seconds=12)
    assert (await world.states())[a] is State.FAILED
    await world.check_ledger()


async def test_one_that_backed_off_when_it_was_cancelled_comes_back_at_once(world: World) -> None:
    entered = await world.enter(spec("a", max_retries=1, backoff=(60_000.0, 1.0, 60_000.0, 0.0)))
    (a,) = entered.process_ids
    await world.run(a, RETRYABLE, seconds=1)
    assert entered.workflow_id is not None
    await world.cancel_workflow(entered.workflow_id, seconds=3)
    _, changes = await world.retry_workflow(entered.workflow_id, seconds=10)
    assert [place.not_before for place in changes.ready] == [None]
    assert await world.assign(a, seconds=10) == {a: 2}
    await world.check_ledger()


async def test_the_queue_gives_out_what_came_back(works: Works) -> None:
    entered = await works.world.enter(spec("a"), spec("b", "a"), spec("c"))
    await works.queue.apply(COLONY, entered.changes)
    a, _, c = entered.process_ids
    assert entered.workflow_id is not None
    assert await works.claim(1) == [a]
    await works.dispatch(a)
    cancelled = await works.world.cancel_workflow(entered.workflow_id, seconds=2)
    await works.queue.apply(COLONY, cancelled)
    assert await works.claim() == []
    assert await works.timers() == {}
    _, changes = await works.world.retry_workflow(entered.workflow_id, seconds=3)
    await works.queue.apply(COLONY, changes)
    assert [(one.id, one.attempt) for one in (await works.queue.claim(COLONY, WORKER, 5))[0]] == [(a, 2), (c, 1)]


async def test_a_call_that_is_let_in_twice_is_kept_once(world: World) -> None:
    """Only a Redis that was meddled with lets a signed call in again; then it does what it says again, and stands for both."""
    (one,) = (await world.enter(spec("a"))).process_ids
    workflow_id = (await world.tables.lives(COLONY, [one]))[0].workflow_id
    assert workflow_id is not None
    again = receipt()
    for seconds in (1, 3):
        await world.tables.cancel_workflow(COLONY, workflow_id, lambda _: None, ALICE.identity, at(seconds), again)
        await world.retry_workflow(workflow_id, seconds=seconds + 1)
    kept = {bytes(row["digest"]): row["uses"] for row in await world.rows("receipt")}
    assert kept[again.digest] == 2
    await world.check_ledger()
