"""What executors hold and use: never more than they offer, told once, and given back whatever comes in whatever order."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.scheduler.domain.ports import Held
from services.scheduler.domain.records import Changes, Claimed, Live, Place
from services.scheduler.domain.states import State
from services.scheduler.queue import keys

from .scheduler_line import (
    COLONY,
    START,
    START_NS,
    WORKER,
    WORKER_2,
    Line,
    assigned,
    executor,
    needs,
    offer,
    over_of,
    place,
    ref_of,
    running,
    waiting,
)

pytestmark = pytest.mark.asyncio

lenient = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LARGEST = 2**53 - 1
BOX = executor(
    "box", offer=offer(c=4_000, m=LARGEST, s=100, d=3, p=6, g=[{"k": 2, "m": 80, "n": "a100"}, {"k": 3, "m": 24, "n": "l4"}])
)


async def test_what_is_claimed_in_one_call_counts_for_the_rest_of_it(line: Line) -> None:
    by = executor("two-cores", offer=offer(c=2_000))
    places = [place(n, START_NS + n, needs=needs(c=1_000)) for n in range(3)]
    free = place(9, START_NS + 9)
    await line.ready(*places, free)
    assert await line.claim(10, by) == [places[0].id, places[1].id, free.id]
    assert await line.load(by) == ({"c": 2_000, "p": 3}, 3)
    assert await line.claim(10, by) == []
    await line.released(assigned(places[0], Claimed(places[0].id, 1), by))
    assert await line.claim(10, by) == [places[2].id]


async def test_a_lower_one_that_fits_not_does_not_keep_a_smaller_one_waiting(line: Line) -> None:
    by = executor("small", offer=offer(c=1_000))
    big, small, next_big = place(1, needs=needs(c=2_000)), place(2, needs=needs(c=500)), place(3, needs=needs(c=501))
    await line.ready(big, small, next_big)
    assert await line.claim(10, by) == [small.id]
    assert await line.claim(10, executor("large", offer=offer(c=9_000))) == [big.id, next_big.id]


@pytest.mark.parametrize(
    ("wanted", "offered", "fits"),
    [
        ({"c": 1}, {}, False),
        ({"c": 1}, {"c": 1}, True),
        ({"m": LARGEST}, {"m": LARGEST}, True),
        ({"m": LARGEST}, {"m": LARGEST - 1}, False),
        ({"s": 5}, {"s": 4}, False),
        ({"d": 2}, {"d": 2}, True),
        ({"p": 3}, {"p": 2}, False),
        ({"p": 3}, {"p": 0}, True),
        ({"g": {"k": 1}}, {}, False),
        ({"g": {"k": 1}}, {"g": [{"k": 1, "m": 0, "n": "x"}]}, True),
        ({"g": {"k": 2}}, {"g": [{"k": 1, "m": 0, "n": "x"}, {"k": 1, "m": 0, "n": "y"}]}, False),
        ({"g": {"k": 1, "n": "y"}}, {"g": [{"k": 1, "m": 0, "n": "x"}]}, False),
        ({"g": {"k": 1, "m": 40}}, {"g": [{"k": 4, "m": 24, "n": "x"}, {"k": 1, "m": 80, "n": "y"}]}, True),
        ({"g": {"k": 2, "m": 40}}, {"g": [{"k": 4, "m": 24, "n": "x"}, {"k": 1, "m": 80, "n": "y"}]}, False),
        ({"l": [["a", "=", "1"]]}, {"l": {"a": "1"}}, True),
        ({"l": [["a", "=", "1"]]}, {"l": {"a": "2"}}, False),
        ({"l": [["a", "=", ""]]}, {"l": {}}, False),
        ({"l": [["a", "in", "1", "2"]]}, {"l": {"a": "2"}}, True),
        ({"l": [["a", "in", "1", "2"]]}, {"l": {"a": "3"}}, False),
        ({"l": [["a", "?"]]}, {"l": {"a": ""}}, True),
        ({"l": [["a", "?"]]}, {"l": {"b": ""}}, False),
        ({"l": [["a", "?"], ["b", "?"]]}, {"l": {"a": ""}}, False),
        ({}, {"a": [["team", "=", "red"]]}, False),
        ({"t": {"team": "red"}}, {"a": [["team", "=", "red"]]}, True),
        ({"t": {"team": "red", "x": "|,"}}, {"a": [["team", "in", "blue"]]}, False),
        ({"t": {"te|am": "r,e\nd"}}, {"a": [["te|am", "=", "r,e\nd"]]}, True),
    ],
)
async def test_what_goes_into_an_offer(line: Line, wanted: dict[str, Any], offered: dict[str, Any], fits: bool) -> None:
    one = place(1, needs=needs(**wanted) if wanted else "", executor_names=("b", "e"), location="home")
    await line.ready(one)
    by = executor("e", location="home", offer=offer(**offered))
    assert line.wakeups.absorbable(COLONY, [(keys.lane(one), 1)]) == [0]
    with line.wakeups.waiting(COLONY, by):
        # Who is woken and who is given are decided in two places, and must agree.
        assert line.wakeups.absorbable(COLONY, [(keys.lane(one), 1)]) == [int(fits)]
    assert await line.claim(1, by) == ([one.id] if fits else [])


async def test_the_least_kind_that_will_do_is_given(line: Line) -> None:
    wants = [{"k": 1, "m": 20}, {"k": 1}, {"k": 1, "n": "a100"}, {"k": 1}, {"k": 2}, {"k": 1}]
    places = [place(n, START_NS + n, needs=needs(g=one)) for n, one in enumerate(wants)]
    await line.ready(*places)
    got = await line.claim(10, BOX)
    assert got == [one.id for n, one in enumerate(places) if n != 4], "two of one kind are not left for the fifth"
    used, count = await line.load(BOX)
    assert used == {"p": 5, "g:24:l4": 3, "g:80:a100": 2}
    assert count == 5


async def test_in_flight_bounds_open_attempts(line: Line) -> None:
    await line.ready(*(place(n) for n in range(10)))
    assert len(await line.claim(2, WORKER, 3)) == 2
    got = await line.claimed(5, WORKER, 3)
    assert len(got) == 1
    assert await line.claim(5, WORKER, 3) == []
    await line.queue.confirm(COLONY, WORKER.identity, [], got)
    assert len(await line.claim(5, WORKER, 3)) == 1
    assert len(await line.claim(5, WORKER, 0)) == 5


async def test_with_nothing_held_nothing_is_used_whatever_the_sums_drifted_to(line: Line) -> None:
    one, other = place(1), place(2, START_NS + 1)
    await line.ready(one, other)
    first, second = await line.claimed()
    await line.redis.hincrby(keys.load(COLONY, WORKER.identity), "c", 77)
    await line.released(assigned(one, first))
    assert await line.load() == ({"c": 77, "p": 1}, 1)
    await line.released(assigned(other, second))
    assert await line.load() == ({}, 0)
    assert not await line.redis.exists(keys.load(COLONY, WORKER.identity))


async def test_only_the_attempt_that_is_held_gives_back(line: Line) -> None:
    live = running(attempt=2, needs=needs(c=5))
    await line.queue.accord(COLONY, [live])
    for wrong in (replace(live, attempt=1), replace(live, attempt=3), replace(live, executor_id=WORKER_2.identity)):
        await line.released(wrong)
        assert await line.load() == ({"c": 5, "p": 1}, 1)
    await line.released(live)
    await line.released(live)
    assert await line.load() == ({}, 0)


async def test_attempts_that_the_rows_tell_of_count_too(line: Line) -> None:
    """After a rebuild nobody knows which kind of GPU an attempt was given: it counts where it may be."""
    live = replace(
        running(1, needs=needs(c=3_000, m=LARGEST, p=2, g={"k": 1, "m": 40})), executor_id=BOX.identity, executor_name=BOX.name
    )
    for _ in range(2):
        await line.queue.accord(COLONY, [live])
    assert await line.load(BOX) == ({"c": 3_000, "m": LARGEST, "p": 2, "g?:40:": 1}, 1)
    large = [place(n, START_NS + n, needs=needs(g={"k": 1, "n": "a100"})) for n in range(2)]
    await line.ready(*large, place(5, needs=needs(c=1_001)), place(6, needs=needs(m=1)))
    assert await line.claim(10, BOX) == [large[0].id]
    await line.released(live)
    assert len(await line.claim(10, BOX)) == 3


async def test_a_lease_that_is_done_with_lets_go(line: Line) -> None:
    one, two = place(1), place(2, START_NS + 1)
    await line.ready(one, two)
    claimed = await line.claimed()
    await line.queue.confirm(COLONY, WORKER.identity, [assigned(two, claimed[1])], [])
    line.clock.advance(seconds=3)
    due = await line.queue.due(COLONY, 10)
    assert [timer.process_id for timer in due] == [one.id]
    await line.queue.done(COLONY, due)
    assert await line.load() == ({"p": 1}, 1)
    line.clock.advance(seconds=8)
    await line.queue.done(COLONY, await line.queue.due(COLONY, 10))
    assert await line.load() == ({}, 0)
    assert await line.keys_of_colony() == set()


async def test_a_later_attempt_takes_the_place_of_an_earlier_one(line: Line) -> None:
    live = running(1, needs=needs(c=7))
    await line.queue.accord(COLONY, [live])
    await line.queue.accord(COLONY, [replace(live, attempt=2)])
    assert await line.load() == ({"c": 7, "p": 1}, 1)
    await line.queue.accord(COLONY, [live])
    await line.released(live)
    assert await line.load() == ({"c": 7, "p": 1}, 1)
    await line.queue.accord(COLONY, [], [over_of(replace(live, attempt=2))])
    assert await line.load() == ({}, 0)


async def test_all_open_attempts_are_found_page_by_page(line: Line) -> None:
    await line.ready(*(place(n, wait_deadline=START) for n in range(300)))
    lives = [running(n) for n in range(1_000, 1_400)]
    await line.queue.accord(COLONY, lives)
    await line.queue.extend(COLONY, [ref_of(live) for live in lives[::2]], WORKER.identity)
    cursor, found, pages = 0, set(), 0
    while pages == 0 or cursor:
        cursor, page = await line.queue.held_page(COLONY, cursor, 50)
        found |= set(page)
        pages += 1
    assert found == {Held(live.id, live.attempt, live.executor_id, live in lives[::2]) for live in lives}
    assert pages > 3


wanted = st.sampled_from(
    ["", needs(c=1_500), needs(c=700, m=LARGEST // 2), needs(s=40), needs(d=2), needs(p=3)]
    + [needs(g={"k": k, **kind}) for k in (1, 2) for kind in ({}, {"n": "l4"}, {"m": 40})]
)


@dataclass
class Model:
    """What must be so, whatever happened."""

    line: Line
    open: dict[Any, tuple[Place, Claimed]]

    async def check(self) -> None:
        used, count = await self.line.load(BOX)
        assert count == len(self.open)
        capacity = {"c": 4_000, "m": LARGEST, "s": 100, "d": 3, "p": 6, "g:80:a100": 2, "g:24:l4": 3}
        assert all(quantity <= capacity[field] for field, quantity in used.items())
        costs = [json.loads(one.needs or "{}") for one, _ in self.open.values()]
        for field in "cmsd":
            assert used.get(field, 0) == sum(cost.get(field, 0) for cost in costs)
        assert used.get("p", 0) == sum(cost.get("p", 1) for cost in costs)
        kinds = used.get("g:80:a100", 0) + used.get("g:24:l4", 0)
        assert kinds == sum(cost.get("g", {}).get("k", 0) for cost in costs)


@lenient
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.lists(wanted, min_size=1, max_size=4)),
            st.tuples(st.just("claim"), st.integers(1, 5)),
            st.tuples(st.sampled_from(["release", "undo", "confirm", "accord", "stale"]), st.integers(0, 5)),
        ),
        max_size=40,
    )
)
async def test_loads_are_what_is_open_and_never_more_than_is_offered(line: Line, steps: list[tuple[str, Any]]) -> None:
    await line.redis.flushall()
    model, sequence = Model(line, {}), 0
    by_id: dict[Any, Place] = {}
    for step, detail in steps:
        if step == "push":
            places = [place(sequence + n, needs=text) for n, text in enumerate(detail)]
            sequence += len(places)
            by_id |= {one.id: one for one in places}
            await line.ready(*places)
        elif step == "claim":
            for claimed in await line.claimed(detail, BOX):
                model.open[claimed.id] = (by_id[claimed.id], claimed)
        elif model.open:
            process_id = list(model.open)[detail % len(model.open)]
            one, claimed = model.open[process_id]
            live = assigned(one, claimed, BOX)
            if step in {"release", "undo"}:
                del model.open[process_id]
                by_id[process_id] = replace(one, attempt=claimed.attempt + 1)
            if step == "release":
                changes = Changes(released=[over_of(live)], ready=[by_id[process_id]])
                await line.queue.apply(COLONY, changes)
                await line.queue.apply(COLONY, Changes(released=changes.released))
            elif step == "undo":
                await line.queue.confirm(COLONY, BOX.identity, [], [claimed])
            elif step == "confirm":
                await line.queue.confirm(COLONY, BOX.identity, [live], [])
            elif step == "accord":
                await line.queue.accord(COLONY, [live])
            else:
                await line.released(replace(live, attempt=claimed.attempt + 1))
        await model.check()


def ends(line: Line, live: Live, one: Place) -> dict[str, Callable[[], Any]]:
    """What may be told of an attempt that ran and ended, in no particular order."""
    claimed = Claimed(live.id, live.attempt)
    return {
        "confirm": lambda: line.queue.confirm(COLONY, WORKER.identity, [live], []),
        "heartbeat": lambda: line.queue.extend(COLONY, [ref_of(live)], WORKER.identity),
        "close": lambda: line.queue.apply(COLONY, Changes(released=[over_of(live)])),
        "undo": lambda: line.queue.confirm(COLONY, WORKER.identity, [], [claimed]),
        "over": lambda: line.queue.accord(COLONY, [replace(live, state=State.SUCCESSFUL)], [over_of(live)]),
    }


@lenient
@given(data=st.data())
async def test_an_end_is_the_end_in_any_order_and_as_often_as_it_is_told(line: Line, data: st.DataObject) -> None:
    await line.redis.flushall()
    one = place(1, needs=needs(c=0))
    await line.ready(one)
    by = executor("worker-1", identity=WORKER.identity, offer=offer(c=1))
    (claimed,) = await line.claimed(1, by)
    tellings = ends(line, assigned(one, claimed), one)
    order = data.draw(st.lists(st.sampled_from(sorted(tellings)), max_size=8).map(lambda names: [*names, "close"]))
    order = data.draw(st.permutations(order))
    for name in order:
        await tellings[name]()
    assert await line.load() == ({}, 0)
    assert await line.timers() == {}
    assert await line.keys_of_colony() == set()


async def test_a_confirmation_that_a_close_overtook_brings_nothing_back(line: Line) -> None:
    one = place(1)
    await line.ready(one)
    (claimed,) = await line.claimed()
    live = assigned(one, claimed, max_exec_ms=1_000)
    await line.released(live)
    await line.queue.confirm(COLONY, WORKER.identity, [live], [])
    assert await line.keys_of_colony() == set()


async def test_a_confirmation_that_a_heartbeat_overtook_leaves_the_lease(line: Line) -> None:
    one = place(1)
    await line.ready(one)
    (claimed,) = await line.claimed()
    live = assigned(one, claimed, max_exec_ms=60_000)
    assert await line.queue.extend(COLONY, [ref_of(live)], WORKER.identity) == []
    before = await line.timers()
    line.clock.advance(seconds=1)
    await line.queue.confirm(COLONY, WORKER.identity, [live], [])
    assert (await line.timers()).items() > before.items()
    assert set(await line.timers()) - set(before) == {keys.exec_timer(one.id, 1)}


async def test_claims_at_once_do_not_overload_an_executor(line: Line) -> None:
    by = executor("e", offer=offer(c=10))
    await line.ready(*(place(n, needs=needs(c=3)) for n in range(20)))
    answers = await asyncio.gather(*(line.claim(2, by) for _ in range(10)))
    assert sum(map(len, answers)) == 3
    assert await line.load(by) == ({"c": 9, "p": 3}, 3)


async def test_who_goes_back_to_its_lane_is_claimed_under_the_next_number(line: Line) -> None:
    one = place(1, needs=needs(c=1))
    by = executor("e", offer=offer(c=1))
    await line.ready(one)
    for number in range(1, 13):
        (claimed,) = await line.claimed(1, by)
        assert claimed == Claimed(one.id, number)
        live = assigned(one, claimed, by)
        await line.queue.confirm(COLONY, by.identity, [live], [])
        await line.queue.apply(COLONY, Changes(released=[over_of(live)], ready=[waiting(live).place]))
    assert await line.load(by) == ({}, 0)
