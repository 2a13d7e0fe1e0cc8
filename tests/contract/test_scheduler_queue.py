"""The queue against a real server: order, lanes, claims, epoch."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local.valkey import Valkey
from servicekit import redis as servicekit_redis
from servicekit.clock import ManualClock
from services.scheduler.domain.records import Changes, Claimed, ExecutorProfile
from services.scheduler.queue import keys
from services.scheduler.queue.epoch import REBUILD_LOCK_MS
from services.scheduler.queue.queue import CLAIM_MS, Queue
from tests.harness.servers import open_directory

from .scheduler_line import (
    COLONY,
    START,
    START_MS,
    START_NS,
    WORKER,
    WORKER_2,
    Line,
    executor,
    in_order,
    line_over,
    may_run,
    needs,
    offer,
    place,
    running,
)

pytestmark = pytest.mark.asyncio

GPU_HOUSE = needs(l=[["gpu", "?"], ["zone", "in", "a", "b"]])
drafts = st.fixed_dictionaries(
    {
        "executor_type": st.sampled_from(["cli", "edge", "cloud"]),
        "executor_names": st.sampled_from([(), ("e1",), ("e2",), ("e2", "e1"), ("e1", "e3")]),
        "location": st.sampled_from(["", "home", "away"]),
        "needs": st.sampled_from(["", GPU_HOUSE, needs(t={"team": "red"}), needs(l=[["zone", "=", "a"]], t={"team": "blue"})]),
        "attempt": st.sampled_from([1, 1, 2, 10]),
        # Within a microsecond of each other, around zero, and as far apart as priorities go.
        "time_ns": st.integers(START_NS, START_NS + 3_000)
        | st.integers(-3_000, 3_000)
        | st.sampled_from([-4_320_000_000_000_000_000, 6_000_000_000_000_000_000, 6_000_000_000_000_000_001]),
    }
)
offers = st.sampled_from(
    [
        "",
        offer(l={"gpu": "", "zone": "a"}),
        offer(l={"zone": "a"}, a=[["team", "in", "blue", "red"]]),
        offer(l={"gpu": "x", "zone": "c"}, a=[["team", "=", "red"]]),
    ]
)
executors = st.builds(
    ExecutorProfile,
    identity=st.just("11" * 32),
    name=st.sampled_from(["e1", "e2", "e4"]),
    executor_types=st.lists(st.sampled_from(["cli", "edge", "cloud"]), min_size=1, max_size=4).map(tuple),
    location=st.sampled_from(["", "home"]),
    offer=offers,
)
lenient = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@lenient
@given(
    data=st.lists(drafts, max_size=25),
    order=st.randoms(use_true_random=False),
    claims=st.lists(st.tuples(executors, st.integers(1, 6)), max_size=12),
    withdrawn=st.sets(st.integers(0, 24), max_size=5),
)
async def test_an_executor_gets_strictly_the_lowest_that_it_may_run(
    line: Line, data: list[dict[str, Any]], order: Any, claims: list[tuple[ExecutorProfile, int]], withdrawn: set[int]
) -> None:
    await line.redis.flushall()
    places = [place(sequence, **draft) for sequence, draft in enumerate(data)]
    shuffled = list(places)
    order.shuffle(shuffled)
    for one in shuffled:
        await line.ready(one)
    gone = [one for number, one in enumerate(places) if number in withdrawn]
    await line.queue.apply(COLONY, Changes(withdrawn=gone))
    left = [one for one in places if one not in gone]
    for by, at_most in claims:
        expected = in_order([one for one in left if may_run(one, by)])[:at_most]
        assert await line.claim(at_most, by) == expected
        left = [one for one in left if one.id not in expected]
        await assert_heads_are_right(line)
    for name in ("e1", "e2", "e3"):
        for location in ("home", "away"):
            for text in ("", offer(l={"gpu": "", "zone": "a"})):
                by = executor(name, "cli", "edge", "cloud", location=location, offer=text)
                expected = in_order([one for one in left if may_run(one, by)])
                assert await line.claim(100, by) == expected
                left = [one for one in left if one.id not in expected]
    assert not left
    # All lanes are empty, and nothing else of them is left.
    assert not [key for key in await line.keys_of_colony() if ":lane:" in key or ":heads:" in key]


async def assert_heads_are_right(line: Line) -> None:
    """Every lane stands in just its indexes, with the score of its head."""
    stored = await line.everything()
    lanes = {key.partition(":lane:")[2]: members for key, members in stored.items() if ":lane:" in key}
    expected: dict[str, set[tuple[str, float]]] = {}
    for name, members in lanes.items():
        for index in keys.indexes(name):
            expected.setdefault(keys.prefix(COLONY) + index, set()).add((name, members[0][1]))
    assert {key: {tuple(row) for row in rows} for key, rows in stored.items() if ":heads:" in key} == expected


async def test_a_nanosecond_decides_where_doubles_are_equal(line: Line) -> None:
    times = [START_NS + 1_001, START_NS + 1, START_NS, START_NS + 1_000, START_NS + 999]
    places = [place(10 - sequence, time) for sequence, time in enumerate(times)]
    await line.ready(*places)
    assert await line.claim() == in_order(places)
    places = [place(sequence, START_NS) for sequence in (2, 1, 300, 17, 16)]
    await line.ready(*places)
    assert await line.claim() == in_order(places)


@pytest.mark.parametrize("lanes", [1, 2, 7, 100, 600])
async def test_the_order_holds_over_many_lanes(line: Line, lanes: int) -> None:
    """A nanosecond and a microsecond apart, each lane holding some of each: more than one chunk of lanes and of members."""
    places = [place(n, START_NS + (n * 7919 % 1200), needs=needs(c=1 + n * 31 % lanes)) for n in range(1200)]
    await line.ready(*places)
    expected = in_order(places)
    by = executor("e", offer=offer(c=10**9))
    for at_most in (1, 1, 9, 89, 300, 800):
        assert await line.claim(at_most, by) == expected[:at_most]
        expected = expected[at_most:]


async def test_lanes_that_do_not_fit_are_passed_over_up_to_a_bound(line: Line) -> None:
    big = [place(n, START_NS + n, needs=needs(c=10_000 + n)) for n in range(4_990)]
    small = [place(9_000 + n, START_NS + 9_000 + n, needs=needs(c=1)) for n in range(2)]
    await line.ready(*big, *small)
    by = executor("e", offer=offer(c=100))
    assert await line.claim(1, by) == [small[0].id]
    await line.ready(*(place(6_000 + n, START_NS + 6_000 + n, needs=needs(m=n + 1)) for n in range(20)))
    assert await line.claim(1, by) == [], "it looks at 5 000 lanes at most"


async def test_what_is_claimed_is_gone_and_on_offer(line: Line) -> None:
    one, other = place(1), place(2, attempt=3)
    await line.ready(one, other)
    assert await line.claimed(1) == [Claimed(one.id, 1)]
    assert await line.timers() == {keys.offer_timer(one.id, 1, WORKER.identity): START_MS + CLAIM_MS}
    assert await line.claimed(100, WORKER_2) == [Claimed(other.id, 3)]
    assert await line.claim() == []
    await line.queue.confirm(COLONY, WORKER.identity, [], [Claimed(one.id, 1)])
    assert await line.timers() == {keys.offer_timer(other.id, 3, WORKER_2.identity): START_MS + CLAIM_MS}
    assert await line.queue.colonies() == [COLONY]


async def test_no_process_goes_to_two_of_many_who_claim_at_once(line: Line) -> None:
    places = [place(sequence) for sequence in range(200)]
    await line.ready(*places)
    answers = await asyncio.gather(*(line.claim(7, WORKER if n % 2 else WORKER_2) for n in range(40)))
    claimed = [one for answer in answers for one in answer]
    assert sorted(claimed) == sorted(one.id for one in places)


async def test_a_stale_member_of_an_earlier_stay_is_no_second_process(line: Line) -> None:
    first = place(1)
    again = replace(first, attempt=2)
    await line.ready(first, again, place(2))
    claimed = await line.claimed(2)
    assert claimed[0] == Claimed(first.id, 2)
    assert len(claimed) == 2
    assert await line.load() == ({"p": 2}, 2)
    # Nor does one that comes up later take anything from the newer attempt that is held.
    await line.ready(first)
    assert await line.claimed() == [Claimed(first.id, 1)]
    assert await line.load() == ({"p": 2}, 2)
    await line.queue.confirm(COLONY, WORKER.identity, [], [Claimed(first.id, 1)])
    assert await line.load() == ({"p": 2}, 2)


async def test_withdrawing_the_last_of_a_lane_leaves_no_key(line: Line) -> None:
    places = [place(n, executor_names=("b", "a"), location="home", wait_deadline=START) for n in range(2)]
    await line.ready(*places)
    assert len(await line.keys_of_colony()) == 4  # the lane, an index for each name, timers
    await line.queue.apply(COLONY, Changes(withdrawn=places[:1]))
    assert len(await line.keys_of_colony()) == 4
    await assert_heads_are_right(line)
    await line.queue.apply(COLONY, Changes(withdrawn=places[1:]))
    assert await line.keys_of_colony() == set()


async def test_withdrawing_from_the_middle_leaves_the_head(line: Line) -> None:
    places = [place(n, START_NS + n * 1_000) for n in range(3)]
    await line.ready(*places)
    await line.queue.apply(COLONY, Changes(withdrawn=[places[1]]))
    await assert_heads_are_right(line)
    await line.queue.apply(COLONY, Changes(withdrawn=[places[0]]))
    await assert_heads_are_right(line)
    assert await line.claim() == [places[2].id]


async def test_who_backs_off_is_not_in_its_lane_until_then(line: Line) -> None:
    until = START + timedelta(seconds=5)
    one = place(1, attempt=2, not_before=until, wait_deadline=until + timedelta(seconds=1))
    await line.ready(one)
    ready, wait = keys.ready_timer(one.id, START_MS + 5_000), keys.wait_timer(one.id, START_MS + 6_000)
    assert await line.timers() == {ready: START_MS + 5_001, wait: START_MS + 6_001}
    assert await line.claim() == []
    line.clock.advance(seconds=5, ns=1_000_000)
    due = await line.queue.due(COLONY, 10)
    assert [timer.member for timer in due] == [ready]
    await line.ready(one)
    await line.queue.done(COLONY, due)
    assert set(await line.timers()) == {wait}
    assert await line.claimed() == [Claimed(one.id, 2)]


async def test_who_is_withdrawn_while_it_backs_off_leaves_nothing(line: Line) -> None:
    one = place(1, attempt=2, not_before=START + timedelta(seconds=5), wait_deadline=START + timedelta(seconds=9))
    await line.ready(one)
    await line.queue.apply(COLONY, Changes(withdrawn=[one]))
    assert await line.keys_of_colony() == set()


async def test_where_a_process_stands(line: Line) -> None:
    places = [place(n, START_NS + n, needs=needs(c=1)) for n in range(3)]
    await line.ready(*places, place(9))
    assert [await line.queue.position(COLONY, one) for one in places] == [(0, 3), (1, 3), (2, 3)]
    assert await line.queue.position(COLONY, replace(places[0], attempt=2)) == (-1, 3)
    assert await line.queue.position(COLONY, replace(places[0], location="home")) == (-1, 0)


async def test_a_paused_colony_gives_nothing_out(line: Line) -> None:
    one = place(1)
    await line.ready(one)
    await line.queue.set_paused(COLONY, paused=True)
    await line.queue.set_paused(COLONY, paused=True)
    assert await line.queue.is_paused(COLONY)
    assert await line.claim() == []
    assert not await line.queue.is_paused("umbrella")
    await line.queue.set_paused(COLONY, paused=False)
    await line.queue.set_paused(COLONY, paused=False)
    assert not await line.queue.is_paused(COLONY)
    assert await line.claim() == [one.id]


async def test_forgetting_a_colony_leaves_no_key_of_it_and_all_of_the_others(line: Line) -> None:
    neighbours = ["acme2", "acm", "acme.x"]
    for colony in [COLONY, *neighbours]:
        await line.queue.apply(colony, Changes(ready=[place(n, colony=colony, wait_deadline=START) for n in range(2)]))
        await line.queue.claim(colony, WORKER, 1)
        await line.queue.set_paused(colony, paused=True)
    before = await line.keys_of_colony()
    await line.queue.forget(COLONY)
    assert await line.keys_of_colony() == {key for key in before if not key.startswith(keys.prefix(COLONY))}
    # The lane, its index, timers, held, load, paused.
    assert len(await line.keys_of_colony()) == 6 * len(neighbours)
    assert await line.queue.colonies() == sorted(neighbours)


async def rebuilt(queue: Queue) -> None:
    token = await queue.begin_rebuild()
    assert token is not None
    assert await queue.finish_rebuild(token)
    assert await queue.is_current()


async def test_a_queue_that_was_emptied_is_not_current(line: Line) -> None:
    assert not await line.queue.is_current()
    await rebuilt(line.queue)
    await line.redis.flushall()
    assert not await line.queue.is_current()


async def test_a_queue_of_an_earlier_layout_is_not_current_and_what_it_left_goes(line: Line) -> None:
    run = (await line.redis.info("server"))["run_id"]
    await line.redis.set(keys.EPOCH, run)
    assert not await line.queue.is_current()
    await line.redis.sadd(keys.TIMED, COLONY)
    prefix = keys.prefix(COLONY)
    await line.redis.zadd(prefix + "lane:cli||", {"old": 1})
    await line.redis.sadd(prefix + "lanes:cli|*", "cli||")
    await line.redis.zadd(keys.timers(COLONY), {"settle|x|1": 1, "submit|a|b|1": 1})
    await rebuilt(line.queue)
    assert await line.keys_of_colony() == set()


async def test_a_rebuild_forgets_attempts_and_what_they_use_and_keeps_who_waits(line: Line) -> None:
    one, other = place(1, wait_deadline=START), place(2)
    away = place(3, not_before=START + timedelta(seconds=5))
    await line.ready(one, other, away)
    await line.claim(1)
    await line.queue.renew(COLONY, [running(4, max_exec_ms=1)])
    await rebuilt(line.queue)
    assert set(await line.timers()) == {
        keys.wait_timer(one.id, START_MS),
        keys.ready_timer(away.id, START_MS + 5_000),
    }
    assert await line.load() == ({}, 0)
    assert await line.claim() == [other.id]


async def test_a_queue_in_another_run_of_the_server_is_not_current() -> None:
    """The restarted server still has its data: whether it is all of it, nobody knows."""
    with open_directory() as directory:
        for run in range(2):
            with Valkey(directory / "valkey") as server:
                client = servicekit_redis.connect(server.url())
                queue = line_over(client, ManualClock(START_NS)).queue
                assert (await client.get(keys.EPOCH) is not None) == bool(run)
                assert not await queue.is_current()
                await rebuilt(queue)
                await client.aclose()


async def test_one_replica_rebuilds_at_a_time(line: Line) -> None:
    token = await line.queue.begin_rebuild()
    assert token is not None
    assert await line.queue.begin_rebuild() is None
    assert 0 < await line.redis.pttl(keys.REBUILDING) <= REBUILD_LOCK_MS
    await line.redis.pexpire(keys.REBUILDING, 1_000)
    assert await line.queue.go_on_rebuilding(token)
    assert await line.redis.pttl(keys.REBUILDING) > 1_000
    assert not await line.queue.go_on_rebuilding("another")
    assert await line.queue.finish_rebuild(token)
    assert await line.queue.begin_rebuild() is not None


async def test_a_rebuild_during_which_the_server_was_emptied_is_not_declared_whole(line: Line) -> None:
    token = await line.queue.begin_rebuild()
    assert token is not None
    await line.redis.flushall()
    assert not await line.queue.go_on_rebuilding(token)
    assert not await line.queue.finish_rebuild(token)
    assert not await line.queue.is_current()
    assert await line.queue.begin_rebuild() is not None


async def test_ready_again_after_a_claim_keeps_its_old_place(line: Line) -> None:
    places = [place(sequence, START_NS + sequence) for sequence in range(5)]
    await line.ready(*places)
    first = (await line.claim(1))[0]
    await line.ready(places[0])
    assert first == places[0].id
    assert await line.claim() == in_order(places)
