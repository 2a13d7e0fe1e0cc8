"""Parent policies: who runs in spite of a failure, who needs one parent only, and what inputs they get."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.records import AttemptRef
from services.scheduler.domain.spec import Dependency, ParentPolicy, Selector, Spec
from services.scheduler.domain.states import Reason, State
from services.scheduler.store.reads import Reads

from .scheduler_records import ALICE, COLONY, World, at, spec, success

pytestmark = pytest.mark.asyncio

FAILURE = Closing(successful=False, errors=("broken",))
GOOD, BAD, CANCELLED = State.SUCCESSFUL, State.FAILED, State.CANCELLED


def all_done(node: str, *parents: str | Dependency) -> Spec:
    return spec(node, *parents, parent_policy=ParentPolicy.ALL_DONE)


def any_done(node: str, *parents: str | Dependency) -> Spec:
    return spec(node, *parents, parent_policy=ParentPolicy.ANY_DONE)


async def come_to(world: World, process_id: UUID, state: State, *, seconds: float) -> list[UUID]:
    """A waiting process ends so; returns those that became ready."""
    if state is CANCELLED:
        changes, _ = await world.end(process_id, lambda row: endings.cancel(row, ALICE.identity), seconds=seconds)
    else:
        closing = success(str(process_id).encode()) if state is GOOD else FAILURE
        changes = await world.run(process_id, closing, seconds=seconds)
    return [place.id for place in changes.ready]


@pytest.mark.parametrize("ends", [(GOOD, GOOD), (BAD, GOOD), (GOOD, BAD), (BAD, BAD), (CANCELLED, GOOD), (BAD, CANCELLED)])
async def test_all_done_waits_for_every_end_whatever_it_is(world: World, ends: Sequence[State]) -> None:
    *parents, child, below = (await world.enter(spec("a"), spec("b"), all_done("c", "b", "a"), spec("d", "c"))).process_ids
    assert await come_to(world, parents[0], ends[0], seconds=1) == []
    assert await world.assign(child, seconds=2) == {}
    assert await come_to(world, parents[1], ends[1], seconds=3) == [child]
    (assigned,) = await world.begin(child, seconds=5)
    # The outputs of those that were successful, in the order of the dependencies.
    wanted = [str(one).encode() for one, end in zip(parents, ends, strict=True) if end is GOOD][::-1]
    assert assigned.inputs == wanted
    assert (await Reads(world.database).process(COLONY, child)).inputs == wanted
    changes, _ = await world.close(child, success(b"1"), seconds=6)
    assert [place.id for place in changes.ready] == [below]
    await world.check_ledger()


@pytest.mark.parametrize("end", [GOOD, BAD, CANCELLED])
async def test_any_done_waits_for_the_first_end_and_no_other(world: World, end: State) -> None:
    a, b, child = (await world.enter(spec("a"), spec("b"), any_done("c", "a", "b"))).process_ids
    assert await come_to(world, b, end, seconds=1) == [child]
    (assigned,) = await world.begin(child, seconds=3)
    assert assigned.inputs == ([str(b).encode()] if end is GOOD else [])
    assert await come_to(world, a, GOOD, seconds=4) == []
    assert (await world.states())[child] is State.RUNNING
    await world.check_ledger()


async def test_two_parents_that_end_together_let_any_done_in_once(world: World) -> None:
    a, b, child = (await world.enter(spec("a"), spec("b"), any_done("c", "a", "b"))).process_ids
    await world.assign(a, b)
    changes, _ = await world.close_all({AttemptRef(a, 1): FAILURE, AttemptRef(b, 1): success(b"B")})
    assert [place.id for place in changes.ready] == [child]
    (assigned,) = await world.begin(child, seconds=3)
    assert assigned.inputs == [b"B"]


async def test_any_done_without_parents_is_ready_at_once(world: World) -> None:
    entered = await world.enter(any_done("a"), all_done("b"))
    assert [place.id for place in entered.changes.ready] == list(entered.process_ids)


@pytest.mark.parametrize(("end", "reason"), [(BAD, Reason.PARENT_FAILED), (CANCELLED, Reason.PARENT_CANCELLED)])
async def test_a_cascade_ends_where_somebody_runs_in_spite_of_it(world: World, end: State, reason: Reason) -> None:
    """a takes b and c with it; d waits for all ends, e for any, and f, which waits for d's success, is not touched."""
    nodes = [
        spec("a"),
        spec("b", "a"),
        spec("c", "b"),
        all_done("d", "c", "other"),
        any_done("e", "c", "other"),
        spec("f", "d"),
        spec("other"),
        spec("g", "e", "c"),
    ]
    a, b, c, d, e, f, other, g = (await world.enter(*nodes)).process_ids
    assert await come_to(world, a, end, seconds=1) == [e]
    states = await world.states()
    assert [states[one] for one in (b, c, g)] == [end] * 3
    assert [states[one] for one in (d, e, f, other)] == [State.WAITING] * 4
    lines = {row["process_id"]: row["reason"] for row in await world.rows("ledger") if row["to_state"] == end}
    assert {lines[one] for one in (b, c, g)} == {reason}
    assert await come_to(world, other, GOOD, seconds=3) == [d]
    assert await come_to(world, d, GOOD, seconds=5) == [f]
    await world.check_ledger()


async def test_a_cascade_that_lets_somebody_in_who_has_no_input_goes_on(world: World) -> None:
    """d becomes ready by a's failure, and fails at once for want of an output; what is below it goes on from there."""
    nodes = [
        spec("good"),
        spec("a"),
        spec("b", "a"),
        all_done("d", "b", Dependency("good", Selector.INDEX, 3)),
        spec("e", "d"),
        all_done("f", "e"),
    ]
    good, a, b, d, e, f = (await world.enter(*nodes)).process_ids
    await come_to(world, good, GOOD, seconds=1)
    assert await come_to(world, a, BAD, seconds=3) == [f]
    states = await world.states()
    assert [states[one] for one in (b, d, e)] == [BAD] * 3
    reasons = {row["process_id"]: row["reason"] for row in await world.rows("ledger") if row["to_state"] == State.FAILED}
    assert [reasons[one] for one in (b, d, e)] == [Reason.PARENT_FAILED, Reason.MISSING_OUTPUT, Reason.PARENT_FAILED]
    await world.check_ledger()


async def test_what_a_parent_without_success_did_not_put_out_is_not_missed(world: World) -> None:
    edges = [Dependency("a", Selector.INDEX, 5), Dependency("b", Selector.SHARE, 1, 2)]
    a, b, child = (await world.enter(spec("a"), spec("b"), all_done("c", *edges))).process_ids
    await come_to(world, a, BAD, seconds=1)
    await world.run(b, success(b"1", b"2"), seconds=3)
    (assigned,) = await world.begin(child, seconds=5)
    assert assigned.inputs == [b"2"]


@pytest.mark.parametrize("policy", [ParentPolicy.ALL_DONE, ParentPolicy.ANY_DONE])
async def test_an_output_that_a_successful_parent_does_not_have_is_missed(world: World, policy: ParentPolicy) -> None:
    a, child = (await world.enter(spec("a"), spec("c", Dependency("a", Selector.INDEX, 1), parent_policy=policy))).process_ids
    assert await come_to(world, a, GOOD, seconds=1) == []
    assert (await world.states())[child] is State.FAILED
    await world.check_ledger()


async def test_cancelling_a_workflow_lets_nobody_in(world: World) -> None:
    entered = await world.enter(spec("a"), spec("b"), all_done("c", "a"), any_done("d", "a", "b"))
    assert entered.workflow_id is not None
    await world.assign(entered.process_ids[0])
    changes = await world.cancel_workflow(entered.workflow_id)
    assert changes.ready == []
    assert set((await world.states()).values()) == {State.CANCELLED}
    await world.check_ledger()


async def test_when_the_wait_of_one_who_was_let_in_begins(world: World) -> None:
    a, child = (
        await world.enter(spec("a"), spec("c", "a", parent_policy=ParentPolicy.ALL_DONE, max_wait_ms=5_000))
    ).process_ids
    changes = await world.run(a, FAILURE, seconds=7)
    (place,) = changes.ready
    (live,) = await world.tables.lives(COLONY, [child])
    assert place == live.place
    assert place.wait_deadline == at(12.5)
