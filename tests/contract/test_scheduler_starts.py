"""Assignments lock no workflow: they wait for nobody who is at one, and its counts are right whoever comes in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from servicekit.postgres import Connection
from services.scheduler.domain.records import Claim, Claimed
from services.scheduler.domain.spec import ParentPolicy
from services.scheduler.domain.states import State
from services.scheduler.store.assigning import parameters_of
from services.scheduler.store.sql import ASSIGNING
from tests.harness.calls import eventually

from .scheduler_records import COLONY, WORKER, World, at, spec, success
from .scheduler_works import Works
from .test_scheduler_children import add, begun, edges

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def assigning(world: World, *ids: UUID) -> AsyncIterator[Connection]:
    """An assignment that has not committed until the end."""
    async with world.database.transaction() as connection:
        claim = Claim(COLONY, WORKER, [Claimed(one, 1) for one in ids])
        cursor = await connection.execute(ASSIGNING["assign"], parameters_of([claim], at(1)))
        assert {row["id"] for row in await cursor.fetchall()} == set(ids)
        yield connection


async def blocked(world: World) -> None:
    """Returns when somebody waits for a lock."""

    async def waits() -> bool:
        rows = await world.database.statement(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(rows)

    await eventually(waits)


async def test_an_assignment_goes_by_who_is_at_the_workflow(world: World) -> None:
    flow = await world.enter(spec("a"), spec("b"), spec("c", "a"))
    async with world.database.transaction() as connection:
        await connection.execute("SELECT FROM workflow WHERE id = %s FOR UPDATE", [flow.workflow_id])
        assert len(await asyncio.wait_for(world.assign(*flow.process_ids[:2]), 5)) == 2
        await world.check_ledger()
    await world.close(flow.process_ids[0], success())
    await world.check_ledger()
    # Notes are taken in by the next who has the row, so there are never many.
    assert await world.rows("workflow_start") == []


async def test_many_assignments_before_a_close_are_all_counted(world: World) -> None:
    flow = await world.enter(*(spec(f"n{index}") for index in range(20)))
    other = await world.enter(*(spec(f"n{index}") for index in range(3)))
    for one in (*flow.process_ids, *other.process_ids):
        await world.assign(one)
        await world.check_ledger()
    await world.close(flow.process_ids[3], success())
    await world.check_ledger()
    assert {row["workflow_id"] for row in await world.rows("workflow_start")} == {other.workflow_id}


async def test_a_cancel_that_waits_for_an_assignment_counts_it(world: World) -> None:
    flow = await world.enter(spec("a"), spec("b"), spec("c", "a"))
    assert flow.workflow_id is not None
    async with assigning(world, flow.process_ids[0]):
        cancelling = asyncio.create_task(world.cancel_workflow(flow.workflow_id))
        await blocked(world)
    changes = await cancelling
    assert [over.process_id for over in changes.released] == [flow.process_ids[0]]
    assert set((await world.states()).values()) == {State.CANCELLED}
    await world.check_ledger()
    assert await world.retry_workflow(flow.workflow_id)
    await world.check_ledger()


async def test_a_cancel_comes_after_what_it_waited_for(world: World) -> None:
    """Followers read by the numbers of transactions, and this one's is older than the assignment that it waits to see."""
    flow = await world.enter(spec("a"), spec("b"))
    assert flow.workflow_id is not None
    first, second = sorted(flow.process_ids)
    async with world.database.transaction() as connection:
        await connection.execute("SELECT FROM process WHERE id = %s FOR NO KEY UPDATE", [first])
        cancelling = asyncio.create_task(world.cancel_workflow(flow.workflow_id))
        await blocked(world)
        assert await world.assign(second) == {second: 1}
    await cancelling
    await world.check_ledger()


async def test_an_insertion_that_waits_for_an_assignment_leaves_it_its_parents(works: Works) -> None:
    """What begins while children are inserted keeps the parents whose outputs it got."""
    world = works.world
    a, x, z = await begun(works, spec("a"), spec("x"), spec("z", "x", "a", parent_policy=ParentPolicy.ANY_DONE))
    await world.run(x, success(b"X"))
    async with assigning(world, z):
        adding = asyncio.create_task(add(works, a, spec("b"), insert=True))
        await blocked(world)
    (b,) = await adding
    assert await edges(world) == {z: [x, a], b: [a]}
    await world.check_ledger()


async def test_an_assignment_goes_by_an_insertion(works: Works) -> None:
    """The children whose parents change are nobody's until that is done."""
    world = works.world
    _, x, z = await begun(works, spec("a"), spec("x"), spec("z", "x", "a", parent_policy=ParentPolicy.ANY_DONE))
    await world.run(x, success(b"X"))
    async with world.database.transaction() as connection:
        await connection.execute("SELECT FROM process WHERE id = %s FOR NO KEY UPDATE", [z])
        assert await world.assign(z) == {}
    assert await world.assign(z) == {z: 1}
