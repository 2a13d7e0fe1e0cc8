"""Retention against a real Postgres: what goes, what stays, and who is in its way."""

import asyncio
import re
from uuid import UUID

import pytest

from servicekit.clock import EPOCH
from servicekit.failures import FailedPrecondition, NotFound
from services.scheduler.domain.controls import ControlsChange
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.retention import Mark, Retention, Sweep
from services.scheduler.domain.states import State
from services.scheduler.domain.statistics import Counted, Counting, oldest_minute
from services.scheduler.store.controls import ControlStore
from services.scheduler.store.reads import Reads
from services.scheduler.store.retention import RetentionStore, depart
from services.scheduler.store.sql import WORKFLOWS
from services.scheduler.store.statistics import StatisticsStore
from tests.harness.calls import eventually

from .scheduler_records import ALICE, COLONY, START, World, at, receipt, spec, submission, success

pytestmark = pytest.mark.asyncio

FAILURE = Closing(successful=False, errors=("broken",))
HOUR = 3_600.0
HOUR_MS = 3_600_000


def retention(world: World, page: int = 500) -> Retention:
    """One replica's."""
    counting = Counting(StatisticsStore(world.database), world.clock)
    return Retention(RetentionStore(world.database), counting, world.clock, page=page)


async def keep(world: World, colony: str = COLONY, **keeps: int) -> None:
    """Sets how long what ended is kept, in milliseconds."""
    change = ControlsChange(
        keep_successful_ms=keeps.get("successful"), keep_failed_ms=keeps.get("failed"), keep_cancelled_ms=keeps.get("cancelled")
    )
    await ControlStore(world.database).update_controls(colony, change, START)


async def swept(one: Retention) -> int:
    """Removes all that is due; how many pages it took."""
    pages = 1
    while await one.step():
        pages += 1
    return pages


async def singles(world: World, *closings: Closing, seconds: float = 1) -> list[UUID]:
    """Processes outside workflows that ended so."""
    ids = (await world.enter(*[spec() for _ in closings], workflow=False)).process_ids
    for one, closing in zip(ids, closings, strict=True):
        await world.run(one, closing, seconds=seconds)
    return list(ids)


async def test_each_state_goes_at_its_time_and_what_is_open_never(world: World) -> None:
    _, broken = await singles(world, success(b"1"), FAILURE)
    waiting, running = (await world.enter(spec(), spec(), workflow=False)).process_ids
    await world.assign(running)
    one = retention(world)
    world.clock.advance(seconds=1.5 + HOUR - 0.001)
    await swept(one)
    assert len(await world.states()) == 4, "nothing was set"
    await keep(world, successful=HOUR_MS, failed=2 * HOUR_MS)
    await swept(one)
    assert len(await world.states()) == 4
    world.clock.advance(seconds=0.001)
    await swept(one)
    assert set(await world.states()) == {broken, waiting, running}
    world.clock.advance(seconds=HOUR)
    await swept(one)
    assert set(await world.states()) == {waiting, running}
    world.clock.advance(seconds=1_000 * HOUR)
    await swept(one)
    assert set(await world.states()) == {waiting, running}


async def test_nothing_hangs_on_after_it(world: World) -> None:
    await keep(world, successful=60_000, failed=60_000, cancelled=60_000)
    await singles(world, success(b"1"), FAILURE)
    flow = await world.enter(spec("a"), spec("b", "a"))
    assert flow.workflow_id is not None
    await world.run(flow.process_ids[0], success(b"1"))
    await world.cancel_workflow(flow.workflow_id)
    world.clock.advance(seconds=25 * HOUR)
    await swept(retention(world))
    counts = StatisticsStore(world.database)
    assert await counts.count(COLONY, oldest_minute(START), 1_000) is Counted.ALL
    assert not any((await world.counts()).values())
    assert await world.rows("departing") == await world.rows("removal") == []


async def test_the_call_of_several_workflows_is_kept_as_long_as_one_of_them(world: World) -> None:
    await keep(world, cancelled=60_000)
    own = receipt()
    given = [submission(spec("a"), spec("b", "a"), workflow=True, receipt=own) for _ in range(3)]
    counts = StatisticsStore(world.database)
    for left, one in zip((4, 2, 0), await world.call(*given), strict=True):
        assert one.workflow_id is not None
        await world.cancel_workflow(one.workflow_id)
        world.clock.advance(seconds=HOUR)
        await swept(retention(world))
        assert await counts.count(COLONY, oldest_minute(START), 1_000) is Counted.ALL
        kept = {bytes(row["digest"]): row["uses"] for row in await world.rows("receipt")}
        assert kept == ({own.digest: left} if left else {})


async def test_other_colonies_keep_what_they_have(world: World) -> None:
    await keep(world, "other", successful=60_000)
    (mine,) = await singles(world, success())
    world.clock.advance(seconds=HOUR)
    await swept(retention(world))
    assert set(await world.states()) == {mine}


async def test_what_is_kept_is_passed_over_once(world: World) -> None:
    """A page of what stays must not hide what is due behind it."""
    await keep(world, failed=60_000)
    await singles(world, *[success()] * 10, seconds=1)
    broken = await singles(world, FAILURE, FAILURE, seconds=2)
    world.clock.advance(seconds=HOUR)
    one = retention(world, page=4)
    assert await swept(one) == 4
    assert not set(broken) & set(await world.states())
    assert await swept(one) == 1


async def test_rows_that_somebody_is_at_are_left_and_not_forgotten(world: World) -> None:
    await keep(world, successful=60_000)
    first, second = await singles(world, success(), success())
    world.clock.advance(seconds=HOUR)
    one = retention(world)
    async with world.database.transaction() as connection:
        await connection.execute(b"SELECT FROM process WHERE id = %s FOR UPDATE", [first])
        await asyncio.wait_for(swept(one), 5)
        assert second not in await world.states()
    assert set(await world.states()) == {first}
    await swept(one)
    assert await world.states() == {}


async def test_a_workflow_goes_whole_by_its_own_state_when_its_last_process_has_ended(world: World) -> None:
    await keep(world, successful=HOUR_MS, failed=3 * HOUR_MS)
    flow = await world.enter(spec("a"), spec("b"), spec("c"))
    assert flow.workflow_id is not None
    a, b, c = flow.process_ids
    await world.run(a, success())
    await world.run(b, FAILURE)
    one = retention(world)
    world.clock.advance(seconds=10 * HOUR)
    await swept(one)
    assert set(await world.states()) == {a, b, c}
    await world.run(c, success(), seconds=10 * HOUR)
    world.clock.advance(seconds=3 * HOUR)
    await swept(one)
    assert set(await world.states()) == {a, b, c}
    world.clock.advance(seconds=0.5)
    await swept(one)
    assert await world.states() == {}
    with pytest.raises(NotFound):
        await Reads(world.database).workflow(COLONY, flow.workflow_id)


async def test_a_large_workflow_is_gone_at_once_and_its_processes_follow_whoever_dies(world: World) -> None:
    await keep(world, cancelled=60_000)
    flow = await world.enter(*[spec(f"n{number}") for number in range(35)])
    small = [await world.enter(spec("a"), spec("b")) for _ in range(3)]
    workflows = [one.workflow_id for one in (flow, *small) if one.workflow_id is not None]
    for one in workflows:
        await world.cancel_workflow(one)
    world.clock.advance(seconds=HOUR)
    first = retention(world, page=10)
    assert await first.step(), "there is more"
    for one in workflows:
        with pytest.raises(NotFound):
            await Reads(world.database).workflow(COLONY, one)
        with pytest.raises(NotFound):
            await world.tables.remove_workflow(COLONY, one, lambda _initiator: None)
    assert len(await world.states()) == 31
    # Another replica goes on where this one stopped.
    await swept(retention(world, page=10))
    assert await world.states() == {}
    assert await world.rows("departing") == []


async def test_a_workflow_that_goes_on_meanwhile_stays(world: World) -> None:
    """Whoever retries a workflow holds its row: retention neither waits nor removes it when that commits."""
    await keep(world, failed=60_000)
    flow = await world.enter(spec("a"))
    await world.run(flow.process_ids[0], FAILURE)
    world.clock.advance(seconds=HOUR)
    one = retention(world)
    async with world.database.transaction() as connection:
        await connection.execute(b"SELECT FROM workflow WHERE id = %s FOR UPDATE", [flow.workflow_id])
        await asyncio.wait_for(swept(one), 5)
        parameters = {"workflow_id": flow.workflow_id, "actor": ALICE.identity, "at": at(HOUR), "receipt": None}
        await connection.execute(WORKFLOWS["retry_failed"], parameters)
        await connection.execute(WORKFLOWS["count_parents"], parameters)
    await swept(one)
    assert await world.states() == {flow.process_ids[0]: State.WAITING}
    await world.check_ledger()
    await world.run(flow.process_ids[0], FAILURE, seconds=HOUR)
    await swept(one)
    assert await world.states() == {flow.process_ids[0]: State.FAILED}
    world.clock.advance(seconds=61.5)
    await swept(one)
    assert await world.states() == {}


async def test_retries_and_retention_at_once_leave_each_workflow_whole_or_gone(world: World) -> None:
    await keep(world, failed=60_000)
    flows = [await world.enter(spec("a"), spec("b", "a")) for _ in range(12)]
    for flow in flows:
        await world.run(flow.process_ids[0], FAILURE)
    world.clock.advance(seconds=HOUR)

    async def retry(workflow_id: UUID | None) -> bool:
        assert workflow_id is not None
        try:
            count, _ = await world.retry_workflow(workflow_id, seconds=HOUR)
        except NotFound:
            return False
        assert count == 2
        return True

    async def some_are_gone() -> bool:
        return len(await world.rows("workflow")) < len(flows)

    sweeping = [asyncio.create_task(swept(retention(world, page=3))) for _ in range(3)]
    await eventually(some_are_gone)
    retried = await asyncio.gather(*(retry(flow.workflow_id) for flow in flows))
    await asyncio.gather(*sweeping)
    states = await world.states()
    for flow, again in zip(flows, retried, strict=True):
        assert [one in states for one in flow.process_ids] == [again, again]
    assert {row["id"] for row in await world.rows("workflow")} == {
        flow.workflow_id for flow, again in zip(flows, retried, strict=True) if again
    }
    assert not all(retried)
    # Until it is counted, what the removed ones did stays.
    assert await StatisticsStore(world.database).count(COLONY, oldest_minute(START), 1_000) is Counted.ALL
    await world.check_ledger()


async def test_replicas_at_once_remove_each_once(world: World) -> None:
    await keep(world, successful=60_000)
    await singles(world, *[success()] * 30)
    world.clock.advance(seconds=HOUR)
    store = RetentionStore(world.database)
    sweep = Sweep(COLONY, State.SUCCESSFUL, workflows=False)
    pages = await asyncio.gather(*(store.sweep(sweep, Mark(), at(HOUR), 500) for _ in range(5)))
    assert sum(page.removed for page in pages) == 30
    removed = await world.rows("removal")
    assert sum(len(row["process_ids"]) for row in removed) == 30


async def test_request_ids_are_good_for_a_day(world: World) -> None:
    first = await world.enter(spec(), workflow=False, request_id="one")
    one = retention(world)
    world.clock.advance(seconds=24 * HOUR)
    await swept(one)
    again = await world.enter(spec(), workflow=False, request_id="one")
    assert again.process_ids == first.process_ids
    world.clock.advance(ns=1_000)
    await swept(one)
    assert await world.rows("submission") == []
    assert set(await world.states()) == set(first.process_ids)


async def test_what_is_open_is_not_removed_by_name_either(world: World) -> None:
    (one,) = (await world.enter(spec(), workflow=False)).process_ids
    with pytest.raises(FailedPrecondition):
        await world.tables.remove_process(COLONY, one, lambda _initiator: None)


async def test_the_searches_use_their_indexes(world: World) -> None:
    """What is looked for is found without a look at all the rest."""
    await singles(world, success())
    async with world.database.transaction() as connection:
        await connection.execute(b"SET LOCAL enable_seqscan = off")
        for table, where, order, index in (
            ("process", "workflow_id IS NULL AND ended_at IS NOT NULL", "ended_at, id", "process_ended"),
            ("workflow", "ended_at IS NOT NULL", "ended_at, id", "workflow_ended"),
            ("submission", "submitted_at < now()", "submitted_at", "submission_by_age"),
        ):
            mine = "true" if table == "submission" else "colony = 'a' AND (ended_at, id) > (now(), gen_random_uuid())"
            statement = f"SELECT FROM {table} WHERE {mine} AND {where} ORDER BY {order} LIMIT 5".encode()
            plan = await (await connection.execute(b"EXPLAIN " + statement)).fetchall()
            text = "\n".join(row["QUERY PLAN"] for row in plan)
            assert index in text, text
            assert "Sort" not in text, text


async def test_a_workflow_that_is_removed_by_name_departs_too_and_soon(world: World) -> None:
    flow = await world.enter(*[spec(f"n{number}") for number in range(8)])
    assert flow.workflow_id is not None
    await world.cancel_workflow(flow.workflow_id)
    one = retention(world, page=3)
    running = asyncio.create_task(one.run())
    try:

        async def began() -> bool:
            return one._marks_since != EPOCH

        # The next round is far away.
        await eventually(began)
        async with world.database.transaction() as connection:
            await depart(connection, COLONY, flow.workflow_id)
        one.note()

        async def gone() -> bool:
            return await world.states() == {} and await world.rows("departing") == []

        assert await eventually(gone, seconds=8) < 8
    finally:
        running.cancel()
    assert await world.rows("workflow") == []


async def test_no_index_mentions_what_changes_before_the_end(world: World) -> None:
    """Else each step of a process's life would write every index anew."""
    async with world.database.transaction() as connection:
        cursor = await connection.execute(b"SELECT indexdef FROM pg_indexes WHERE tablename IN ('process', 'workflow')")
        definitions = [row["indexdef"].partition(" USING ")[2] for row in await cursor.fetchall()]
    assert any("ended_at" in one for one in definitions)
    changing = {"state", "attempt", "started_at", "executor_id", "outputs", "waiting", "running", "successful", "failed"}
    for definition in definitions:
        assert not changing & set(re.findall(r"\w+", definition)), definition
