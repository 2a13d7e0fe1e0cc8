"""The queue against a real server: order, lanes, claims, epoch."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local.valkey import Valkey
from servicekit import redis as servicekit_redis
from servicekit.clock import ManualClock
from services.scheduler.domain.records import Changes, ExecutorProfile, Place
from services.scheduler.queue import keys
from services.scheduler.queue.queue import REBUILD_LOCK_MS, SETTLE_MS, Queue
from tests.harness.servers import open_directory

from .scheduler_line import LEASE_MS, START_MS, Line
from .scheduler_records import COLONY, START, START_NS, WORKER, WORKER_2, place

pytestmark = pytest.mark.asyncio


def may_run(executor: ExecutorProfile, one: Place) -> bool:
    return (
        one.executor_type in executor.executor_types
        and (not one.executor_names or executor.name in one.executor_names)
        and one.location in {"", executor.location}
    )


def in_order(places: list[Place]) -> list[UUID]:
    return [one.id for one in sorted(places, key=lambda one: (one.priority_time, one.sequence))]


names = st.sampled_from(["", "a", "b"])
drafts = st.fixed_dictionaries(
    {
        "executor_type": st.sampled_from(["cli", "edge", "cloud"]),
        "executor_names": st.sampled_from([(), ("e1",), ("e2",), ("e2", "e1"), ("e1", "e3")]),
        "location": st.sampled_from(["", "home", "away"]),
        # Within a microsecond of each other, around zero, and as far apart as priorities go.
        "time_ns": st.integers(START_NS, START_NS + 3_000)
        | st.integers(-3_000, 3_000)
        | st.sampled_from([-4_320_000_000_000_000_000, 6_000_000_000_000_000_000, 6_000_000_000_000_000_001]),
    }
)
executors = st.builds(
    ExecutorProfile,
    identity=st.just("11" * 32),
    name=st.sampled_from(["e1", "e2", "e4"]),
    executor_types=st.lists(st.sampled_from(["cli", "edge", "cloud"]), min_size=1, unique=True).map(tuple),
    location=st.sampled_from(["", "home"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(drafts, max_size=25),
    order=st.randoms(use_true_random=False),
    claims=st.lists(st.tuples(executors, st.integers(1, 6)), max_size=12),
)
async def test_an_executor_gets_strictly_the_lowest_that_it_may_run(
    line: Line, data: list[dict[str, Any]], order: Any, claims: list[tuple[ExecutorProfile, int]]
) -> None:
    await line.redis.flushall()
    places = [place(sequence, **draft) for sequence, draft in enumerate(data)]
    shuffled = list(places)
    order.shuffle(shuffled)
    for one in shuffled:
        await line.ready(one)
    left = places
    for executor, at_most in claims:
        expected = in_order([one for one in left if may_run(executor, one)])[:at_most]
        assert await line.claim(at_most, executor) == expected
        left = [one for one in left if one.id not in expected]
    everyone = ExecutorProfile("33" * 32, "", ("cli", "edge", "cloud"), "")
    for name in ("e1", "e2", "e3"):
        for location in ("home", "away"):
            executor = replace(everyone, name=name, location=location)
            expected = in_order([one for one in left if may_run(executor, one)])
            assert await line.claim(100, executor) == expected
            left = [one for one in left if one.id not in expected]
    assert not left
    # All lanes are empty: what stays are the timers that look after the claims.
    assert await line.keys_of_colony() <= {keys.timers(COLONY)}


async def test_a_nanosecond_decides_where_doubles_are_equal(line: Line) -> None:
    times = [START_NS + 1_001, START_NS + 1, START_NS, START_NS + 1_000, START_NS + 999]
    places = [place(10 - sequence, time) for sequence, time in enumerate(times)]
    await line.ready(*places)
    assert await line.claim() == in_order(places)
    places = [place(sequence, START_NS) for sequence in (2, 1, 300, 17, 16)]
    await line.ready(*places)
    assert await line.claim() == in_order(places)


async def test_what_is_claimed_is_gone_and_looked_after(line: Line) -> None:
    one, other = place(1), place(2)
    await line.ready(one, other)
    ids, intended = await line.queue.claim(COLONY, WORKER, 1)
    assert ids == [one.id]
    assert await line.timers() == {keys.settle_timer(one.id, START_MS): START_MS + SETTLE_MS}
    assert intended == [keys.settle_timer(one.id, START_MS)]
    assert await line.claim(100, WORKER_2) == [other.id]
    assert await line.claim() == []
    await line.queue.apply(COLONY, Changes(), intended)
    assert await line.timers() == {keys.settle_timer(other.id, START_MS): START_MS + SETTLE_MS}


async def test_no_process_goes_to_two_of_many_who_claim_at_once(line: Line) -> None:
    places = [place(sequence) for sequence in range(200)]
    await line.ready(*places)
    answers = await asyncio.gather(*(line.claim(7, WORKER if n % 2 else WORKER_2) for n in range(40)))
    claimed = [one for answer in answers for one in answer]
    assert sorted(claimed) == sorted(one.id for one in places)


async def test_withdrawing_the_last_of_a_lane_leaves_no_key(line: Line) -> None:
    places = [place(n, executor_names=("b", "a"), location="home", wait_deadline=START) for n in range(2)]
    await line.ready(*places)
    assert len(await line.keys_of_colony()) == 4  # the lane, an index for each name, timers
    await line.queue.apply(COLONY, Changes(withdrawn=places[:1]), [])
    assert len(await line.keys_of_colony()) == 4
    await line.queue.apply(COLONY, Changes(withdrawn=places[1:]), [])
    assert await line.keys_of_colony() == set()


async def test_forgetting_a_colony_leaves_no_key_of_it_and_all_of_the_others(line: Line) -> None:
    neighbours = ["acme2", "acm", "acme.x"]
    for colony in [COLONY, *neighbours]:
        await line.queue.apply(colony, Changes(ready=[place(1, colony=colony, wait_deadline=START)]), [])
    before = await line.keys_of_colony()
    await line.queue.forget(COLONY)
    assert await line.keys_of_colony() == {key for key in before if not key.startswith(keys.prefix(COLONY))}
    assert len(await line.keys_of_colony()) == 3 * len(neighbours)
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


async def test_a_queue_in_another_run_of_the_server_is_not_current() -> None:
    """The restarted server still has its data: whether it is all of it, nobody knows."""
    with open_directory() as directory:
        for run in range(2):
            with Valkey(directory / "valkey") as server:
                client = servicekit_redis.connect(server.url())
                queue = Queue(client, ManualClock(START_NS), lease_ms=LEASE_MS)
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


async def test_a_lane_that_grows_is_published_once_with_how_many_are_new(line: Line) -> None:
    pubsub = line.redis.pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(keys.READY_CHANNEL + COLONY)
    # The subscription stands once its confirmation was read.
    await pubsub.get_message(timeout=5)
    places = [place(1), place(2), place(3, location="home")]
    await line.ready(*places)
    await line.ready(*places)
    await line.ready(place(4))

    async def messages(count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            message = await pubsub.get_message(timeout=5)
            assert message is not None
            found.append(message["data"])
        return found

    assert await messages(3) == ["cli||\n2", "cli||home\n1", "cli||\n1"]
    await pubsub.aclose()  # type: ignore[no-untyped-call]


async def test_ready_again_after_a_claim_keeps_its_old_place(line: Line) -> None:
    places = [place(sequence, START_NS + sequence) for sequence in range(5)]
    await line.ready(*places)
    first = (await line.claim(1))[0]
    await line.ready(places[0])
    assert first == places[0].id
    assert await line.claim() == in_order(places)
