"""Statistics against a real Postgres: whatever happened, they are what a recount gives."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servicekit.clock import ManualClock
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.retention import Retention
from services.scheduler.domain.states import State
from services.scheduler.domain.statistics import Counted, Counting, Rates, oldest_minute
from services.scheduler.store.retention import RetentionStore
from services.scheduler.store.statistics import StatisticsStore

from .scheduler_histories import STEPS, History, numbers
from .scheduler_records import COLONY, START, START_NS, World, at, opened_world, spec, success

FAILURE = Closing(successful=False, errors=("broken",))


async def counted(history: History, limit: int = 1_000) -> None:
    """Counts all that there is. What is removed is counted no more once what was open then has ended: at once, here."""
    while await history.counts.count(history.colony, oldest_minute(history.now), limit) is not Counted.ALL:
        pass


async def lived(url: str, colony: str, steps: list[str], seed: int) -> None:
    async with opened_world(url) as world:
        history = History(world, colony, seed)
        for step in steps:
            await history.step(step)
        await counted(history, 7)
        await history.check(await history.counts.read(colony, history.now))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from((*STEPS, "submit", "assign", "assign", "succeed")), min_size=5, max_size=40),
    seed=st.integers(0, 2**32),
)
def test_after_any_history_they_are_what_a_recount_gives(database_url: str, steps: list[str], seed: int) -> None:
    asyncio.run(lived(database_url, f"colony-{next(numbers)}", steps, seed))


@pytest.mark.asyncio
async def test_replicas_that_count_at_once_count_each_line_once(world: World) -> None:
    history = History(world, COLONY)

    async def live() -> None:
        for round_ in range(6):
            await asyncio.gather(*(world.enter(spec(), spec(), workflow=False) for _ in range(4)))
            waiting = [row["id"] for row in await history.processes(State.WAITING)]
            await world.assign(*waiting, seconds=round_)
            await asyncio.gather(*(world.close(one, success(), seconds=round_ + 0.5) for one in waiting[::2]))
            done = await history.processes(State.SUCCESSFUL)
            await history.record()
            await world.tables.remove_process(COLONY, done[0]["id"], lambda _initiator: None)

    living = asyncio.create_task(live())

    async def count() -> None:
        while not living.done():
            await StatisticsStore(world.database).count(COLONY, oldest_minute(START), 5)

    await asyncio.gather(living, *(count() for _ in range(3)))
    history.now = at(3600)
    await history.record()
    while await history.counts.count(COLONY, oldest_minute(START), 5) is not Counted.ALL:
        await asyncio.sleep(0)
    await history.check(await history.counts.read(COLONY, history.now))


@pytest.mark.asyncio
async def test_totals_are_of_all_colonies(world: World) -> None:
    clock = ManualClock(START_NS)
    counting = Counting(StatisticsStore(world.database), clock)
    await counting.round(full=True)
    assert counting.totals == {}
    await world.enter(spec(), spec(), workflow=False)
    await world.enter(spec(), workflow=False, colony="other")
    await counting.round(full=True)
    await counting.round(full=True)
    assert counting.totals == {State.WAITING: 3}


@pytest.mark.asyncio
async def test_a_minute_counts_when_it_is_over_and_for_an_hour(world: World) -> None:
    clock = ManualClock(START_NS - START_NS % 60_000_000_000 + 58_000_000_000)
    history = History(world, COLONY)
    counting = Counting(history.counts, clock)

    async def rates() -> tuple[int, int]:
        await counting.round(full=True)
        (one,) = (await counting.read(COLONY)).types
        return one.last_minute.submitted, one.last_hour.submitted

    second = -(START_NS % 60_000_000_000) / 1e9
    await world.enter(spec(), workflow=False, at=at(second + 58))
    assert await rates() == (0, 0)
    clock.advance(seconds=1.999999)
    await world.enter(spec(), workflow=False, at=at(second + 59.999999))
    assert await rates() == (0, 0)
    clock.advance(ns=1_000)
    await world.enter(spec(), workflow=False, at=at(second + 60))
    assert await rates() == (2, 2)
    clock.advance(seconds=60)
    assert await rates() == (1, 3)
    clock.advance(seconds=60)
    assert await rates() == (0, 3)
    clock.advance(seconds=60 * 58 - 0.000001)
    assert await rates() == (0, 3)
    clock.advance(ns=1_000)
    assert await rates() == (0, 1)
    clock.advance(seconds=60)
    assert await rates() == (0, 0)
    assert len(await world.rows("statistics_minute")) == 1
    clock.advance(seconds=60)
    assert await rates() == (0, 0)
    assert await world.rows("statistics_minute") == []


@pytest.mark.asyncio
async def test_lines_of_open_transactions_are_counted_later_and_nothing_after_them_is_lost(world: World) -> None:
    counts = StatisticsStore(world.database)
    async with world.database.transaction() as older:
        await older.execute(b"SELECT pg_current_xact_id()")
        await world.enter(spec(), workflow=False)
        assert await counts.count(COLONY, oldest_minute(START), 100) is Counted.LATER
        found = await counts.read(COLONY, at(60))
        # Everything is counted up to the first line that is not.
        assert (found.at, found.types) == (START, [])
    assert await counts.count(COLONY, oldest_minute(START), 100) is Counted.ALL
    found = await counts.read(COLONY, at(60))
    assert (found.at, found.types[0].counts) == (at(60), {State.WAITING: 1})


@pytest.mark.asyncio
async def test_what_is_removed_before_it_is_counted_is_in_the_rates_and_not_in_the_counts(world: World) -> None:
    counts = StatisticsStore(world.database)
    (one,) = (await world.enter(spec(), workflow=False)).process_ids
    await world.run(one, success())
    await world.tables.remove_process(COLONY, one, lambda _initiator: None)
    assert await world.states() == {}
    while await counts.count(COLONY, oldest_minute(START), 1) is not Counted.ALL:
        pass
    (found,) = (await counts.read(COLONY, at(3_000))).types
    assert found.counts == {}
    assert found.last_hour == Rates(submitted=1, assigned=1, successful=1)
    assert (found.wait_ms.count, found.wait_ms.p50, found.run_ms.p50) == (1, 1024.0, 512.0)
    assert await world.rows("ledger") == []
    assert await world.rows("statistics_count") == []


@pytest.mark.asyncio
async def test_colonies_do_not_mix_and_all_that_have_news_are_found(world: World) -> None:
    counts = StatisticsStore(world.database)
    for number in range(5):
        await world.enter(*[spec() for _ in range(number + 1)], workflow=False, colony=f"colony-{number}")
    assert sorted(await counts.uncounted()) == [f"colony-{number}" for number in range(5)]
    counting = Counting(counts, world.clock)
    counting.note("colony-3")
    await counting.round(full=False)
    assert sorted(await counts.uncounted()) == [f"colony-{number}" for number in (0, 1, 2, 4)]
    await counting.round(full=True)
    assert await counts.uncounted() == []
    for number in range(5):
        (one,) = (await counts.read(f"colony-{number}", START)).types
        assert one.counts == {State.WAITING: number + 1}


@pytest.mark.asyncio
async def test_a_removed_colony_leaves_nothing(world: World) -> None:
    counts = StatisticsStore(world.database)
    first = await world.enter(spec(), spec(), workflow=False)
    await world.enter(spec(), workflow=False, colony="other")
    await world.run(first.process_ids[0], success())
    await world.tables.remove_process(COLONY, first.process_ids[0], lambda _initiator: None)
    await counts.count(COLONY, oldest_minute(START), 1)
    await world.tables.purge(COLONY)
    for table in ("ledger", "removal", "statistics_count", "statistics_minute", "statistics_class", "statistics_progress"):
        assert {row["colony"] for row in await world.rows(table)} <= {"other"}, table
    assert await counts.uncounted() == ["other"]


@pytest.mark.asyncio
async def test_retention_lowers_the_counts(world: World) -> None:
    counts = StatisticsStore(world.database)
    counting = Counting(counts, world.clock)
    ids = (await world.enter(*[spec() for _ in range(4)], workflow=False)).process_ids
    for process_id in ids[:3]:
        await world.run(process_id, success())
    async with world.database.transaction() as connection:
        await connection.execute(
            b"INSERT INTO colony_controls (colony, keep_successful_ms, updated_at) VALUES (%s, 60000, now())", [COLONY]
        )
    world.clock.advance(seconds=120)
    assert not await Retention(RetentionStore(world.database), counting, world.clock).step()
    await counting.round(full=False)
    await counting.round(full=False)
    (one,) = (await counting.read(COLONY)).types
    assert one.counts == {State.WAITING: 1}
    assert one.last_hour.successful == 3
