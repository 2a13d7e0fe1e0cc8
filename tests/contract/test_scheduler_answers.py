"""What goes into one answer, and what is too much for any."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from services.scheduler.domain.records import Assigned
from services.scheduler.domain.spec import Dependency, Selector
from services.scheduler.domain.states import Reason, State
from services.scheduler.store.assigning import MAX_ANSWER_BYTES, MIB
from services.scheduler.store.ending import MAX_INPUT_BYTES

from .scheduler_records import World, spec, success

pytestmark = pytest.mark.asyncio


async def answers(world: World, ids: Sequence[UUID]) -> list[list[Assigned]]:
    """Asks until nothing is left."""
    found, left = [], list(ids)
    while left:
        assigned = await world.begin(*left)
        assert assigned, "the most urgent goes out always"
        found.append(assigned)
        out = {one.live.id for one in assigned}
        left = [one for one in left if one not in out]
    return found


def weight(answer: Sequence[Assigned]) -> int:
    return sum(len(one.spec) + sum(map(len, one.inputs)) for one in answer)


async def test_large_specs_go_out_over_several_answers_in_order_and_each_once(world: World) -> None:
    bodies = [bytes([n]) * (4 * MIB) for n in range(20)]
    ids = list((await world.enter(*[spec(body=body) for body in bodies], workflow=False)).process_ids)
    found = await answers(world, ids)
    assert [one.live.id for answer in found for one in answer] == ids
    assert [one.spec for answer in found for one in answer] == bodies
    assert [len(answer) for answer in found] == [4] * 5
    assert all(weight(answer) <= MAX_ANSWER_BYTES for answer in found)
    await world.check_ledger()


async def test_the_first_goes_out_however_large_it_is(world: World) -> None:
    sizes = [MAX_ANSWER_BYTES + 1, 1, MAX_ANSWER_BYTES, 1]
    ids = list((await world.enter(*[spec(body=b"x" * size) for size in sizes], workflow=False)).process_ids)
    assert [[len(one.spec) for one in answer] for answer in await answers(world, ids)] == [[sizes[0]], [1], [sizes[2]], [1]]


async def test_inputs_count_as_specs_do(world: World) -> None:
    children = [spec(f"c{n}", f"p{n}") for n in range(6)]
    ids = (await world.enter(*[spec(f"p{n}") for n in range(6)], *children)).process_ids
    for one in ids[:6]:
        await world.run(one, success(b"x" * (4 * MIB)))
    assert [len(answer) for answer in await answers(world, ids[6:])] == [4, 2]


async def test_what_is_not_there_any_more_is_no_reason_to_stop(world: World) -> None:
    ids = (await world.enter(*[spec(body=b"x" * MIB) for _ in range(3)], workflow=False)).process_ids
    await world.assign(ids[0])
    assigned = await world.begin(UUID(int=1), *ids, seconds=2)
    assert [one.live.id for one in assigned] == list(ids[1:])


async def fed(world: World, child: Dependency | None, *outputs: Sequence[int]) -> tuple[UUID, UUID, UUID]:
    """Parents that close with outputs of these sizes; the child of all, its child, and their neighbour, a child of the last."""
    names = [f"p{n}" for n in range(len(outputs))]
    nodes = [
        *map(spec, names),
        spec("child", *([child] if child else names)),
        spec("grandchild", "child"),
        spec("neighbour", Dependency(names[-1], Selector.INDEX, 0)),
    ]
    ids = (await world.enter(*nodes)).process_ids
    for one, sizes in zip(ids, outputs, strict=False):
        await world.run(one, success(*(b"x" * size for size in sizes)))
    return ids[-3], ids[-2], ids[-1]


async def test_an_input_at_the_bound_goes_out_whole(world: World) -> None:
    child, _, neighbour = await fed(world, None, *[[4 * MIB]] * 8)
    (assigned,) = await world.begin(child, seconds=9)
    assert weight([assigned]) == MAX_INPUT_BYTES
    assert (await world.states())[neighbour] is State.WAITING


async def test_an_input_beyond_the_bound_fails_its_child_and_what_waits_for_it_and_no_parent(world: World) -> None:
    child, grandchild, neighbour = await fed(world, None, *[[4 * MIB]] * 8, [1])
    states = await world.states()
    assert (states[child], states[grandchild], states[neighbour]) == (State.FAILED, State.FAILED, State.WAITING)
    assert list(states.values()).count(State.SUCCESSFUL) == 9
    rows = {row["id"]: row for row in await world.rows("process")}
    assert rows[child]["errors"] == [f"its input would have {MAX_INPUT_BYTES + 1} bytes; at most {MAX_INPUT_BYTES}"]
    reasons = {row["process_id"]: row["reason"] for row in await world.rows("ledger") if row["to_state"] == State.FAILED}
    assert reasons == {child: Reason.INPUT_TOO_LARGE, grandchild: Reason.PARENT_FAILED}
    assert await world.assign(child, grandchild) == {}
    await world.check_ledger()


@pytest.mark.parametrize(
    ("edge", "good"),
    [
        (Dependency("p0", Selector.INDEX, 1), True),
        (Dependency("p0", Selector.SHARE, 1, 3), True),
        (Dependency("p0", Selector.SHARE, 1, 2), False),
        (Dependency("p0"), False),
    ],
)
async def test_only_what_an_edge_carries_counts(world: World, edge: Dependency, good: bool) -> None:
    child, _, _ = await fed(world, edge, [20 * MIB, 5, 20 * MIB])
    assert (await world.states())[child] is (State.WAITING if good else State.FAILED)
