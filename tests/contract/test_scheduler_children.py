"""Running processes add children to their workflows: below themselves, or between themselves and what waits for them."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from servicekit.failures import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.records import AttemptRef
from services.scheduler.domain.spec import Dependency, ParentPolicy, Selector, Spec
from services.scheduler.domain.states import State
from services.scheduler.domain.submitting import Request, Submitting
from services.scheduler.store import children
from services.scheduler.store.reads import Reads

from .scheduler_records import ALICE, COLONY, NO_PROCESS, TABLES, WORKER, WORKER_2, World, spec, success
from .scheduler_works import Works

pytestmark = pytest.mark.asyncio

FAILURE = Closing(successful=False, errors=("broken",))
# More often with COLONIES_TEST_REPEATS, when a race is being looked for.
REPEATS = int(os.environ.get("COLONIES_TEST_REPEATS", "10"))


async def add(
    works: Works,
    parent: UUID,
    *nodes: Spec,
    insert: bool = False,
    number: int = 1,
    request_id: str = "",
    digest: bytes = b"digest",
    colony: str = COLONY,
    actor: str = WORKER.identity,
) -> Sequence[UUID]:
    """As the executor that runs the parent does it."""
    service = Submitting(works.world.tables, works.aftermath, works.steps, works.limits, works.world.clock)
    request = Request(colony, request_id or uuid4().hex, digest, ALICE, actor)
    return await service.children(request, AttemptRef(parent, number), nodes, insert=insert)


async def edges(world: World) -> dict[UUID, list[UUID]]:
    """Of each child its parents, in the order of its input."""
    found: dict[UUID, list[UUID]] = {}
    for row in sorted(await world.rows("edge"), key=lambda row: int(row["position"])):
        found.setdefault(row["child_id"], []).append(row["parent_id"])
    return found


async def pending(world: World) -> dict[UUID, int]:
    return {row["id"]: row["pending_parents"] for row in await world.rows("process")}


async def begun(works: Works, *nodes: Spec) -> Sequence[UUID]:
    """A workflow whose first process runs."""
    ids = (await works.world.enter(*nodes)).process_ids
    await works.world.assign(ids[0])
    return ids


async def test_children_wait_for_the_running_one_and_for_each_other(works: Works) -> None:
    world = works.world
    a, z = await begun(works, spec("a"), spec("z", "a"))
    b, c, d = await add(works, a, spec("b"), spec("c", "b", "a"), spec("d", "a"))
    assert await edges(world) == {z: [a], b: [a], c: [b, a], d: [a]}
    assert await pending(world) == {a: 0, z: 1, b: 1, c: 2, d: 1}
    changes, _ = await world.close(a, success(b"A"))
    assert {place.id for place in changes.ready} == {z, b, d}
    await world.run(b, success(b"B"), seconds=4)
    (assigned,) = await world.begin(c, seconds=6)
    assert assigned.inputs == [b"B", b"A"]
    (row,) = await world.rows("workflow")
    assert row["waiting"] + row["running"] + row["successful"] == 5
    initiators = {(one["initiator"], one["initiator_name"]) for one in await world.rows("process")}
    assert initiators == {(ALICE.identity, ALICE.name)}
    await world.check_ledger()


async def test_what_is_inserted_takes_the_parents_place_in_the_order_of_the_input(works: Works) -> None:
    """Its children wait for the last of the new ones: c and e. Their other parents stay where they were."""
    world = works.world
    nodes = [spec("a"), spec("x"), spec("y"), spec("z", "x", Dependency("a", Selector.INDEX, 7), "y"), spec("w", "z")]
    a, x, y, z, w = await begun(works, *nodes)
    b, c, e = await add(works, a, spec("b"), spec("c", "b"), spec("e"), insert=True)
    assert await edges(world) == {z: [x, c, e, y], w: [z], b: [a], c: [b], e: [a]}
    assert await pending(world) == {a: 0, x: 0, y: 0, z: 4, w: 1, b: 1, c: 1, e: 1}
    seconds = 2.0
    await world.close(a, success(b"A"), seconds=seconds)
    for one, output in ((x, b"X"), (y, b"Y"), (b, b"B"), (e, b"E")):
        seconds += 2
        assert z not in [place.id for place in (await world.run(one, success(output), seconds=seconds)).ready]
    assert [place.id for place in (await world.run(c, success(b"C"), seconds=20)).ready] == [z]
    (assigned,) = await world.begin(z, seconds=22)
    assert assigned.inputs == [b"X", b"C", b"E", b"Y"]
    await world.check_ledger()


async def test_one_inserted_after_the_other(works: Works) -> None:
    world = works.world
    a, z = await begun(works, spec("a"), spec("z", "a"))
    (b,) = await add(works, a, spec("b"), insert=True)
    # Now b is what waits for a, and what is inserted comes before it.
    (c,) = await add(works, a, spec("c"), insert=True)
    (d,) = await add(works, a, spec("d"))
    assert await edges(world) == {z: [b], b: [c], c: [a], d: [a]}
    assert await pending(world) == {a: 0, z: 1, b: 1, c: 1, d: 1}
    await world.check_ledger()


@pytest.mark.parametrize(
    ("policy", "left"), [(ParentPolicy.ALL_SUCCESSFUL, 3), (ParentPolicy.ALL_DONE, 3), (ParentPolicy.ANY_DONE, 1)]
)
async def test_policies_count_what_is_inserted(works: Works, policy: ParentPolicy, left: int) -> None:
    world = works.world
    a, x, z = await begun(works, spec("a"), spec("x"), spec("z", "a", "x", parent_policy=policy))
    new = await add(works, a, spec("b"), spec("c", "a", parent_policy=policy), insert=True)
    assert await edges(world) == {z: [*new, x], new[0]: [a], new[1]: [a]}
    assert (await pending(world))[z] == left
    assert (await pending(world))[new[1]] == 1


async def test_what_has_begun_keeps_the_parents_that_it_had(works: Works) -> None:
    """A child that needs one parent only runs while another still does: it has its input."""
    world = works.world
    nodes = [spec("a"), spec("x"), spec("z", "x", "a", parent_policy=ParentPolicy.ANY_DONE)]
    a, x, z = await begun(works, *nodes)
    await world.run(x, success(b"X"), seconds=2)
    (assigned,) = await world.begin(z, seconds=4)
    assert assigned.inputs == [b"X"]
    new = await add(works, a, spec("b"), insert=True)
    assert (await edges(world))[z] == [x, a]
    assert await edges(world) == {z: [x, a], new[0]: [a]}
    await world.check_ledger()


async def test_nothing_to_take_the_place_of(works: Works) -> None:
    (a,) = await begun(works, spec("a"))
    (b,) = await add(works, a, spec("b"), insert=True)
    assert await edges(works.world) == {b: [a]}


async def test_a_failure_takes_the_added_with_it(works: Works) -> None:
    world = works.world
    a, z = await begun(works, spec("a"), spec("z", "a"))
    new = await add(works, a, spec("b"), spec("c", "b", parent_policy=ParentPolicy.ALL_DONE), insert=True)
    changes, _ = await world.close(a, FAILURE)
    states = await world.states()
    assert [states[one] for one in (new[0], new[1], z)] == [State.FAILED, State.WAITING, State.WAITING]
    assert [place.id for place in changes.ready] == [new[1]]
    await world.check_ledger()


async def test_a_repeated_request_gives_the_first_answer_also_when_the_attempt_is_over(works: Works) -> None:
    world = works.world
    (a,) = await begun(works, spec("a"))
    first = await add(works, a, spec("b"), spec("c"), request_id="one")
    counts = await world.counts()
    assert list(await add(works, a, spec("b"), spec("c"), request_id="one")) == list(first)
    await world.close(a, success(b"1"))
    assert list(await add(works, a, spec("b"), spec("c"), request_id="one")) == list(first)
    with pytest.raises(AlreadyExists) as caught:
        await add(works, a, spec("d"), request_id="one", digest=b"other")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    after = await world.counts()
    assert {table: after[table] for table in ("process", "edge", "submission")} == {
        table: counts[table] for table in ("process", "edge", "submission")
    }
    # A refused call takes no request id: it can be made again with it.
    with pytest.raises(FailedPrecondition):
        await add(works, a, spec("d"), request_id="two")
    assert len(await world.rows("submission")) == 2


async def test_twenty_at_once_with_one_request_id_add_once(works: Works) -> None:
    (a,) = await begun(works, spec("a"))
    answers = await asyncio.gather(*(add(works, a, spec("b"), request_id="one") for _ in range(20)))
    assert len({tuple(one) for one in answers}) == 1
    assert len(await works.world.states()) == 2
    await works.world.check_ledger()


async def test_refusals_name_what_is_wrong_and_add_nothing(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    world = works.world
    a, z = await begun(works, spec("a"), spec("z", "a"))
    (single,) = (await world.enter(spec(), workflow=False)).process_ids
    await world.assign(single)
    before = [await world.rows(table) for table in TABLES]

    async def refused(kind: type[Exception], parent: UUID, *nodes: Spec, **fields: Any) -> Exception:
        with pytest.raises(kind) as caught:
            await add(works, parent, *nodes, **fields)
        return caught.value

    for found in (
        await refused(FailedPrecondition, a, spec("b"), number=2),
        await refused(FailedPrecondition, a, spec("b"), actor=WORKER_2.identity),
        await refused(FailedPrecondition, z, spec("b")),
    ):
        assert isinstance(found, FailedPrecondition)
        assert found.reason == "ATTEMPT_SUPERSEDED"
    found = await refused(FailedPrecondition, single, spec("b"))
    assert isinstance(found, FailedPrecondition)
    assert found.reason == "NOT_IN_WORKFLOW"
    await refused(NotFound, NO_PROCESS, spec("b"))
    await refused(NotFound, a, spec("b"), colony="umbrella")
    for nodes, field, words in (
        ([spec("b"), spec("z")], "nodes[1].node_name", "has a node 'z' already"),
        ([spec("a")], "nodes[0].node_name", "'a' is the running process"),
        ([spec("b"), spec("b")], "nodes[0].node_name", "more than once"),
        ([spec("b", "z")], "nodes[0].conditions.dependencies[0].node_name", "there is no node 'z'"),
        ([spec("b", "c"), spec("c", "b")], "nodes", "cycle"),
    ):
        found = await refused(InvalidArgument, a, *nodes)
        assert isinstance(found, InvalidArgument)
        ((violation,),) = ([one for one in found.violations if words in one.description],)
        assert violation.field == field
    monkeypatch.setattr(children, "MAX_PROCESSES", 3)
    found = await refused(FailedPrecondition, a, spec("b"), spec("c"))
    assert isinstance(found, FailedPrecondition)
    assert found.reason == "WORKFLOW_FULL"
    assert "would have 4 processes; at most 3" in found.message
    assert [await world.rows(table) for table in TABLES] == before
    await add(works, a, spec("b"))


@pytest.mark.parametrize("insert", [False, True])
@pytest.mark.parametrize("_time", range(REPEATS))
@pytest.mark.usefixtures("no_deadlocks")
async def test_adding_while_the_parent_closes(works: Works, insert: bool, _time: int) -> None:
    """Either all of them are children of a process that then ended, or the call is refused and there is none."""
    world = works.world
    a, z = await begun(works, spec("a"), spec("z", "a"))

    async def adding(number: int) -> Sequence[UUID]:
        try:
            return await add(works, a, spec(f"b{number}"), spec(f"c{number}"), insert=insert)
        except FailedPrecondition as error:
            assert error.reason == "ATTEMPT_SUPERSEDED"
            return []

    adds = asyncio.gather(*(adding(n) for n in range(3)))
    changes, _ = await world.close(a, success(b"1"))
    new = [one for answer in await adds for one in answer]
    assert len(await world.states()) == 2 + len(new)
    found = await edges(world)
    heads = [child for child, parents in found.items() if parents == [a]]
    # All that hangs on the parent is ready by its end, told once, and nothing else is.
    assert sorted(place.id for place in changes.ready) == sorted(heads)
    assert {one: count for one, count in (await pending(world)).items() if count} == {
        one: len(parents) for one, parents in found.items() if one not in heads
    }
    if not insert:
        assert sorted(heads) == sorted([z, *new])
    await world.check_ledger()


async def test_the_view_of_an_added_one_names_its_parents(works: Works) -> None:
    (a,) = await begun(works, spec("a"))
    b, c = await add(works, a, spec("b"), spec("c", "b", "a"))
    assert (await Reads(works.world.database).process(COLONY, c)).parent_ids == [b, a]
