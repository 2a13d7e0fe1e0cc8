"""Followers of logs and ledgers get every line once, in order, however many write at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from servicekit.failures import NotFound
from servicekit.postgres import Queries
from services.scheduler.domain.records import AttemptRef
from services.scheduler.domain.states import State
from services.scheduler.domain.views import ColonyFilter, EventView, LogSource, Position, Target
from services.scheduler.store.reads import Reads

from .scheduler_records import COLONY, WORKER, World, at, spec, success

pytestmark = pytest.mark.asyncio

WRITERS = 8
LINES = 30
SQL = Queries("services.scheduler.store")


async def running(world: World, count: int) -> list[Any]:
    ids = list((await world.enter(*[spec(f"n{n}") for n in range(count)])).process_ids)
    await world.assign(*ids)
    return ids


async def follow(read: Callable[[Position], Awaitable[tuple[list[Any], bool]]], done: asyncio.Event) -> list[Any]:
    """Reads on from the last position, as a follower does, until all is written and nothing more comes."""
    found: list[Any] = []
    position = Position()
    while True:
        over = done.is_set()
        page, unsettled = await read(position)
        found += page
        if page:
            position = page[-1].position
        elif over and not unsettled:
            return found


async def test_no_line_is_skipped_however_late_its_transaction_commits(world: World) -> None:
    """Writers hold their transactions open at random; what commits late has an earlier place than what was there before."""
    ids = await running(world, WRITERS)
    reads, done = Reads(world.database), asyncio.Event()
    turns = asyncio.Semaphore(WRITERS // 2)

    async def write(writer: int) -> None:
        for line in range(LINES):
            async with world.database.transaction() as connection:
                parameters = {
                    "colony": COLONY,
                    "id": ids[writer],
                    "attempt": 1,
                    "executor_name": WORKER.name,
                    "first_number": 0,
                    "times": [at(1), at(2)],
                    "messages": [f"{writer} {line} first", f"{writer} {line} second"],
                }
                await connection.execute(SQL["insert_logs"], parameters)
                # The line is written and not committed: others overtake it while this one waits for its turn.
                async with turns:
                    await connection.execute("SELECT pg_sleep(random() / 200)")

    everyone = LogSource(executor_name=WORKER.name)
    following = [
        asyncio.create_task(follow(lambda position: reads.logs_after(COLONY, everyone, position, 7), done)) for _ in range(2)
    ]
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    done.set()
    complete, unsettled = await reads.logs_after(COLONY, everyone, Position(), 10_000)
    assert not unsettled
    assert len(complete) == WRITERS * LINES * 2
    for task in following:
        assert await task == complete
    for writer in range(WRITERS):
        mine = [view.message for view in complete if view.process_id == ids[writer]]
        assert mine == [f"{writer} {line} {which}" for line in range(LINES) for which in ("first", "second")]


async def test_what_an_open_transaction_could_still_precede_is_held_back(world: World) -> None:
    first, second = await running(world, 2)
    reads, source = Reads(world.database), LogSource(executor_name=WORKER.name)
    parameters = {"colony": COLONY, "attempt": 1, "executor_name": WORKER.name, "first_number": 0, "times": [at(1)]}
    async with world.database.transaction() as early:
        await early.execute(SQL["insert_logs"], {**parameters, "id": first, "messages": ["early"]})
        async with world.database.transaction() as late:
            await late.execute(SQL["insert_logs"], {**parameters, "id": second, "messages": ["late"]})
        assert await reads.logs_after(COLONY, source, Position(), 10) == ([], True)
    page, unsettled = await reads.logs_after(COLONY, source, Position(), 10)
    assert ([view.message for view in page], unsettled) == (["early", "late"], False)


async def test_nobody_elses_transaction_holds_back_a_process(world: World) -> None:
    """Its lines are written under its row's lock, so their ids are their order: it is followed without delay."""
    one, other = await running(world, 2)
    reads, source, target = Reads(world.database), LogSource(process_id=one), Target(process_id=one)
    parameters = {"colony": COLONY, "attempt": 1, "executor_name": WORKER.name, "first_number": 0, "times": [at(1)]}
    async with world.database.transaction() as open_one:
        await open_one.execute(SQL["insert_logs"], {**parameters, "id": other, "messages": ["not committed"]})
        await reads.add_logs(COLONY, WORKER.identity, WORKER.name, AttemptRef(one, 1), [(at(1), "line")])
        await world.close(one, success(b"1"))
        page, unsettled = await reads.logs_after(COLONY, source, Position(), 10)
        assert ([view.message for view in page], unsettled) == (["line"], False)
        assert [view.position.xid for view in page] == [0]
        events, unsettled = await reads.events_after(COLONY, target, Position(), 10)
        assert [view.transition.reason for view in events] == ["SUBMITTED", "ASSIGNED", "CLOSED"]
        assert {view.position.xid for view in events} == {0}
        assert not unsettled
        # The ids of the open transaction's lines lie between: to go on after them misses nothing.
        assert await reads.events_after(COLONY, target, events[-1].position, 10) == ([], False)


async def test_lines_of_one_process_that_many_write_at_once_are_followed_in_order(world: World) -> None:
    (one,) = await running(world, 1)
    reads, done, ref = Reads(world.database), asyncio.Event(), AttemptRef(one, 1)
    source = LogSource(process_id=one)
    following = asyncio.create_task(follow(lambda position: reads.logs_after(COLONY, source, position, 3), done))

    async def write(writer: int) -> None:
        for line in range(LINES):
            lines = [(at(1), f"{writer} {line} first"), (at(2), f"{writer} {line} second")]
            await reads.add_logs(COLONY, WORKER.identity, WORKER.name, ref, lines)

    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    done.set()
    messages = [view.message for view in await following]
    assert len(messages) == WRITERS * LINES * 2
    for writer in range(WRITERS):
        mine = [message for message in messages if message.startswith(f"{writer} ")]
        assert mine == [f"{writer} {line} {which}" for line in range(LINES) for which in ("first", "second")]
    assert [message.removesuffix(" first") + " second" for message in messages[::2]] == messages[1::2]


async def test_no_state_change_is_skipped(world: World) -> None:
    names = [f"n{n}" for n in range(40)]
    entered = await world.enter(*(spec(name) for name in names), spec("last", *names))
    reads, done = Reads(world.database), asyncio.Event()
    target = Target(workflow_id=entered.workflow_id)
    following = asyncio.create_task(follow(lambda position: reads.events_after(COLONY, target, position, 3), done))
    await asyncio.gather(*(world.run(one, success(b"1")) for one in entered.process_ids[:-1]))
    await world.run(entered.process_ids[-1], success(b"1"))
    done.set()
    events = await following
    assert len(events) == 41 * 3
    assert events == (await reads.events_after(COLONY, target, Position(), 10_000))[0]
    for one in entered.process_ids:
        mine = [view.transition.reason for view in events if view.process_id == one]
        assert mine == ["SUBMITTED", "ASSIGNED", "CLOSED"]
    assert events[-1].node_name == "last"
    await world.check_ledger()


async def test_a_cursor_goes_on_after_the_line_it_names(world: World) -> None:
    (one,) = await running(world, 1)
    reads, ref = Reads(world.database), AttemptRef(one, 1)
    await reads.add_logs(COLONY, WORKER.identity, WORKER.name, ref, [(at(n), f"{n}") for n in range(20)])
    source = LogSource(process_id=one)
    whole, _ = await reads.logs_after(COLONY, source, Position(), 100)
    assert [view.message for view in whole] == [f"{n}" for n in range(20)]
    for index, view in enumerate(whole):
        assert (await reads.logs_after(COLONY, source, view.position, 100))[0] == whole[index + 1 :]
        assert (await reads.logs_after(COLONY, source, view.position, 2))[0] == whole[index + 1 : index + 3]


async def test_numbered_lines_that_come_again_are_added_once_and_uncounted_ones_again(world: World) -> None:
    (one,) = await running(world, 1)
    reads, ref = Reads(world.database), AttemptRef(one, 1)
    for first, messages in ((1, "abc"), (1, "abc"), (3, "cde"), (0, "x"), (0, "x"), (2, "b"), (6, "f")):
        lines = [(at(1), message) for message in messages]
        await reads.add_logs(COLONY, WORKER.identity, WORKER.name, ref, lines, first)
    page, _ = await reads.logs_after(COLONY, LogSource(process_id=one), Position(), 100)
    assert "".join(view.message for view in page) == "abcdexxf"


async def test_another_colony_follows_nothing_of_it(world: World) -> None:
    (one,) = await running(world, 1)
    reads = Reads(world.database)
    await reads.add_logs(COLONY, WORKER.identity, WORKER.name, AttemptRef(one, 1), [(at(1), "secret")])
    assert await reads.watched("umbrella", Target(process_id=one)) == (False, False)
    assert await reads.events_after("umbrella", Target(process_id=one), Position(), 10) == ([], False)
    assert await reads.logs_after("umbrella", LogSource(executor_name=WORKER.name), Position(), 10) == ([], False)
    with pytest.raises(NotFound):
        await reads.logs_after("umbrella", LogSource(process_id=one), Position(), 10)


ALL = ColonyFilter(executor_types=None, labels=None, states=None)


async def follow_colony(
    reads: Reads, done: asyncio.Event, *, wanted: ColonyFilter = ALL, position: Position = Position(), page: int = 7
) -> list[EventView]:
    """Goes on from where it was told that it stands, until all is written and nothing more comes."""
    found: list[EventView] = []
    while True:
        over = done.is_set()
        views, following, more = await reads.colony_events_after(COLONY, wanted, position, page)
        found += views
        assert (following.xid, following.id) >= (position.xid, position.id)
        if over and following == position and not more:
            return found
        position = following


async def test_a_colonys_changes_are_followed_without_a_gap_however_late_they_commit(world: World) -> None:
    """Many submit, run and close at once; some hold their transactions open."""
    reads, done = Reads(world.database), asyncio.Event()
    some = ColonyFilter(executor_types=["gpu"], labels=None, states=[State.SUCCESSFUL])
    following = [
        asyncio.create_task(follow_colony(reads, done)),
        asyncio.create_task(follow_colony(reads, done, page=1_000)),
        asyncio.create_task(follow_colony(reads, done, wanted=some)),
    ]

    async def live(number: int) -> None:
        given = spec(executor_type="gpu" if number % 3 == 0 else "cli")
        (one,) = (await world.enter(given, workflow=False)).process_ids
        async with world.database.transaction() as connection:
            # What is written here has an early place, and comes late.
            await connection.execute(
                "INSERT INTO ledger (colony, process_id, executor_type, at, from_state, to_state, attempt, executor_name, actor,"
                " reason) VALUES (%s, %s, 'cli', now(), 1, 1, 0, '', '', 'HELD')",
                (COLONY, one),
            )
            await connection.execute("SELECT pg_sleep(random() / 100)")
        await world.run(one, success(b"1"))

    await asyncio.gather(*(live(number) for number in range(30)))
    await world.enter(spec(), workflow=False, colony="umbrella")
    done.set()
    by_sevens, at_once, wanted = [await task for task in following]
    assert by_sevens == at_once
    assert len(at_once) == 30 * 4
    assert len({view.position for view in at_once}) == 30 * 4
    assert at_once == sorted(at_once, key=lambda view: (view.position.xid, view.position.id))
    assert len(wanted) == 10
    assert wanted == [view for view in at_once if view in wanted]


async def test_a_follower_of_a_colony_goes_on_from_any_position(world: World) -> None:
    ids = (await world.enter(spec("a"), spec("b", "a"))).process_ids
    await world.run(ids[0], success(b"1"))
    reads = Reads(world.database)
    whole, end, more = await reads.colony_events_after(COLONY, ALL, Position(), 100)
    assert [view.transition.reason for view in whole] == ["SUBMITTED", "SUBMITTED", "ASSIGNED", "CLOSED"]
    assert (end, more) == (whole[-1].position, False)
    for index, view in enumerate(whole):
        rest, last, _ = await reads.colony_events_after(COLONY, ALL, view.position, 100)
        assert (rest, last) == (whole[index + 1 :], end)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (ColonyFilter(["gpu"], None, None), ["b", "b"]),
        (ColonyFilter(None, ["red"], None), ["a", "a"]),
        (ColonyFilter(None, ["red", "blue"], None), ["a", "b", "a", "b"]),
        (ColonyFilter(None, None, [State.RUNNING]), ["a", "b"]),
        (ColonyFilter(["cli", "gpu"], ["blue"], [State.WAITING]), ["b"]),
        (ColonyFilter(["other"], None, None), []),
        (ColonyFilter([], None, None), []),
    ],
)
async def test_filters_of_a_colonys_changes(world: World, wanted: ColonyFilter, names: list[str]) -> None:
    """The position goes past what is not wanted, so that it is not looked at again."""
    nodes = [spec("a", label="red"), spec("b", label="blue", executor_type="gpu"), spec("c", "a", executor_type="last")]
    ids = (await world.enter(*nodes)).process_ids
    await world.assign(*ids[:2])
    reads = Reads(world.database)
    whole, end, _ = await reads.colony_events_after(COLONY, ALL, Position(), 100)
    views, position, more = await reads.colony_events_after(COLONY, wanted, Position(), 100)
    assert [view.node_name for view in views] == names
    assert (position, more) == (end, False)
    assert views == [view for view in whole if view in views]


async def test_an_open_transaction_holds_back_what_came_after_it_and_nothing_is_passed_over(world: World) -> None:
    reads = Reads(world.database)
    (first,) = (await world.enter(spec("first"), workflow=False)).process_ids
    before, position, _ = await reads.colony_events_after(COLONY, ALL, Position(), 100)
    assert len(before) == 1
    async with world.database.transaction() as open_one:
        await open_one.execute("SELECT pg_current_xact_id()")
        await world.assign(first)
        assert await reads.colony_events_after(COLONY, ALL, position, 100) == ([], position, True)
        now = await reads.now()
        await open_one.execute("UPDATE ledger SET reason = reason WHERE false")
    views, end, more = await reads.colony_events_after(COLONY, ALL, position, 100)
    assert ([view.transition.reason for view in views], end, more) == (["ASSIGNED"], views[0].position, False)
    # Who begins while it is open gets what commits after that, and it had not committed visibly before.
    assert [view.transition.reason for view in (await reads.colony_events_after(COLONY, ALL, now, 100))[0]] == ["ASSIGNED"]


async def test_who_follows_from_now_on_gets_what_comes_and_nothing_from_before(world: World) -> None:
    reads = Reads(world.database)
    await world.enter(spec("before"), workflow=False)
    now = await reads.now()
    assert await reads.colony_events_after(COLONY, ALL, now, 100) == ([], now, False)
    await world.enter(spec("after"), workflow=False)
    views, _, _ = await reads.colony_events_after(COLONY, ALL, now, 100)
    assert len(views) == 1


async def test_another_colony_sees_nothing_of_these_changes(world: World) -> None:
    await world.enter(spec("secret"), workflow=False)
    assert await Reads(world.database).colony_events_after("umbrella", ALL, Position(), 100) == ([], Position(), False)
