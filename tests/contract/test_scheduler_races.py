"""Many who change the same workflow at once: every outcome is one that some order of theirs would have given."""

import asyncio
import os
from collections.abc import Sequence
from uuid import UUID

import pytest

from servicekit.failures import FailedPrecondition
from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.records import AttemptRef, Changes
from services.scheduler.domain.states import FINAL, Reason, State

from .scheduler_records import WORKER, World, at, spec, success

pytestmark = pytest.mark.asyncio

FAN_IN = 50
FAILURE = Closing(successful=False, errors=("broken",))


async def fan_in(world: World, parents: int, *, children: int = 1) -> tuple[UUID, Sequence[UUID], Sequence[UUID]]:
    """A workflow whose children all wait for all parents, which run: its id, its parents, its children."""
    names = [f"p{index}" for index in range(parents)]
    nodes = [*(spec(name) for name in names), *(spec(f"c{index}", *names) for index in range(children))]
    entered = await world.enter(*nodes)
    assert entered.workflow_id is not None
    mine = entered.process_ids[:parents]
    await world.assign(*mine)
    return entered.workflow_id, mine, entered.process_ids[parents:]


def unlocked(answers: Sequence[Changes]) -> list[UUID]:
    return [place.id for changes in answers for place in changes.ready]


async def test_many_parents_at_once_unlock_each_child_exactly_once(world: World) -> None:
    _, parents, children = await fan_in(world, FAN_IN, children=3)
    answers = await asyncio.gather(*(world.close(parent, success(b"%d" % n)) for n, parent in enumerate(parents)))
    assert sorted(unlocked([changes for changes, _ in answers])) == sorted(children)
    rows = {row["id"]: row["pending_parents"] for row in await world.rows("process")}
    assert {rows[child] for child in children} == {0}
    (assigned,) = await world.begin(children[0], seconds=3)
    assert assigned.inputs == [b"%d" % n for n in range(FAN_IN)]
    await world.check_ledger()


async def test_many_parents_in_batches_unlock_each_child_exactly_once(world: World) -> None:
    _, parents, children = await fan_in(world, FAN_IN, children=3)

    async def close_all(batch: Sequence[UUID]) -> Changes:
        changes, states = await world.close_all({AttemptRef(one, 1): success(b"1") for one in batch})
        assert set(states) == {State.SUCCESSFUL}
        return changes

    # Neighbouring batches overlap: what two of them close is closed once.
    batches = [parents[start : start + 10] for start in range(0, FAN_IN, 5)]
    assert sorted(unlocked(await asyncio.gather(*map(close_all, batches)))) == sorted(children)
    await world.check_ledger()


@pytest.mark.parametrize("failing", [1, 25, 49])
async def test_parents_that_fail_and_parents_that_succeed_at_once(world: World, failing: int) -> None:
    _, parents, children = await fan_in(world, FAN_IN, children=2)
    closings = [FAILURE if n < failing else success(b"1") for n in range(FAN_IN)]
    answers = await asyncio.gather(*(world.close(parent, one) for parent, one in zip(parents, closings, strict=True)))
    assert unlocked([changes for changes, _ in answers]) == []
    states = await world.states()
    assert {states[child] for child in children} == {State.FAILED}
    ends = [row for row in await world.rows("ledger") if row["process_id"] in children and row["to_state"] == State.FAILED]
    assert [row["reason"] for row in ends] == [Reason.PARENT_FAILED] * len(children)
    await world.check_ledger()


# More often with COLONIES_TEST_REPEATS, when a race is being looked for.
REPEATS = int(os.environ.get("COLONIES_TEST_REPEATS", "10"))


@pytest.mark.parametrize("_time", range(REPEATS))
async def test_cancelling_a_workflow_while_its_processes_close(world: World, _time: int) -> None:
    workflow_id, parents, children = await fan_in(world, 8, children=2)

    async def close(parent: UUID) -> State | None:
        try:
            return (await world.close(parent, success(b"1")))[1]
        except FailedPrecondition as error:
            assert error.reason == "ATTEMPT_SUPERSEDED"
            return None

    *closed, _ = await asyncio.gather(*(close(parent) for parent in parents), world.cancel_workflow(workflow_id))
    states = await world.states()
    for parent, answer in zip(parents, closed, strict=True):
        assert states[parent] is (State.CANCELLED if answer is None else State.SUCCESSFUL)
    assert set(states.values()) <= FINAL
    assert {states[child] for child in children} == {State.CANCELLED}
    await world.check_ledger()


async def test_a_lost_lease_and_a_close_at_once_end_an_attempt_once(world: World) -> None:
    ids = (await world.enter(*[spec(f"n{n}", max_retries=1) for n in range(FAN_IN)])).process_ids
    await world.assign(*ids)

    async def close(one: UUID) -> bool:
        try:
            await world.close(one, success(b"1"))
        except FailedPrecondition:
            return False
        return True

    async def lose(one: UUID) -> bool:
        changes, _ = await world.end(one, lambda row: endings.lose(row, 1, at(2)))
        return bool(changes.released)

    closed = asyncio.gather(*(close(one) for one in ids))
    lost = asyncio.gather(*(lose(one) for one in ids))
    for won, other in zip(await closed, await lost, strict=True):
        assert won is not other
    await world.check_ledger()


async def test_transactions_over_the_same_rows_in_any_order_all_come_through(world: World) -> None:
    """Parents and children have ids in no particular order; but whoever changes any of them has the workflow's row first."""
    _, parents, children = await fan_in(world, 20, children=20)

    async def cancel(child: UUID) -> None:
        await world.end(child, lambda row: endings.cancel_open(row, WORKER.identity))

    await asyncio.gather(
        *(world.close(parent, success(b"1")) for parent in parents), *(cancel(child) for child in children[:10])
    )
    states = await world.states()
    assert {states[child] for child in children[:10]} == {State.CANCELLED}
    assert {states[child] for child in children[10:]} == {State.WAITING}
    await world.check_ledger()
