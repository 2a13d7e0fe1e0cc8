"""A call that was let in is never let in again, whatever Redis loses; and one that is signed as it is told gets in."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local.valkey import Valkey
from servicekit import redis as servicekit_redis
from servicekit.clock import ManualClock
from servicekit.failures import Unavailable
from servicekit.nonces import MEMORY, RedisNonces
from servicekit.redis import Client
from servicekit.signature import MAX_SKEW_MS, Signed
from tests.harness.calls import eventually
from tests.harness.nonces import (
    LET_IN,
    ME,
    OTHER,
    PREFIX_REQUIRED,
    REPLAYED,
    now_ms,
    prefix_of,
    reason,
    refused,
    signed,
)
from tests.harness.servers import running_valkey

pytestmark = pytest.mark.asyncio

COPIES = 50
# Every moment at which a caller's clock may be, to the second.
SKEWS_MS = range(-MAX_SKEW_MS, MAX_SKEW_MS + 1, 1_000)
# Signed so long after the memory began that it asks for nothing.
LATER_MS = 100_000


class Replica:
    """What a service's replica claims by: a connection of its own, and a clock that the test owns."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.clock = ManualClock(now_ms() * 1_000_000)
        self.nonces = RedisNonces(client, self.clock)


@asynccontextmanager
async def replica_of(url: str) -> AsyncIterator[Replica]:
    client = servicekit_redis.connect(url)
    yield Replica(client)
    await client.aclose()


@pytest_asyncio.fixture
async def one(redis_url: str) -> AsyncIterator[Replica]:
    async with replica_of(redis_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def other(redis_url: str) -> AsyncIterator[Replica]:
    async with replica_of(redis_url) as opened:
        yield opened


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server that the test may kill."""
    with running_valkey() as server:
        yield server


async def test_who_makes_the_memory_at_the_same_time_makes_one(one: Replica, other: Replica) -> None:
    both = (one, other)
    answers = await asyncio.gather(*(refused(both[n % 2].nonces, signed()) for n in range(COPIES)))
    assert {answer.reason for answer in answers if answer is not None} == {PREFIX_REQUIRED}
    assert len(answers) == COPIES
    assert len({answer.metadata["nonce_prefix"] for answer in answers if answer is not None}) == 1


@pytest.mark.parametrize("trial", range(10))
async def test_of_copies_over_two_replicas_one_gets_in_while_the_memory_is_made(
    trial: int, one: Replica, other: Replica
) -> None:
    both = (one, other)
    late = signed(time_ms=now_ms() + LATER_MS)
    # Some of them find no memory, and each of these could make one in which nobody has claimed anything.
    answers = await asyncio.gather(*(reason(both[n % 2].nonces, late) for n in range(COPIES)))
    assert sorted(answers) == [LET_IN, *[REPLAYED] * (COPIES - 1)]
    told = signed(prefix=await prefix_of(one.nonces))
    answers = await asyncio.gather(*(reason(both[n % 2].nonces, told) for n in range(COPIES)))
    assert sorted(answers) == [LET_IN, *[REPLAYED] * (COPIES - 1)]


async def test_copies_while_redis_is_flushed_again_and_again_get_in_once(one: Replica, other: Replica) -> None:
    both = (one, other)
    told = signed(prefix=await prefix_of(one.nonces))

    async def flush() -> None:
        for _ in range(10):
            await one.client.flushall()
            await asyncio.sleep(0)

    *answers, _ = await asyncio.gather(*(reason(both[n % 2].nonces, told) for n in range(COPIES)), flush())
    assert answers.count(LET_IN) <= 1
    assert set(answers) <= {LET_IN, REPLAYED, PREFIX_REQUIRED}


async def let_in_at_every_skew(replica: Replica) -> list[Signed]:
    """Calls that were let in, signed at every moment that is fresh."""
    prefix = await prefix_of(replica.nonces)
    base = replica.clock.now_ns() // 1_000_000
    calls = [signed(prefix=prefix, time_ms=base + skew) for skew in SKEWS_MS]
    assert {await reason(replica.nonces, call) for call in calls} == {LET_IN}
    return calls


async def none_gets_in_again(replica: Replica, calls: list[Signed], expected: set[str]) -> None:
    """Not at any moment at which its signature is fresh."""
    for _ in range(4):
        fresh = [call for call in calls if abs(call.time_ms - replica.clock.now_ns() // 1_000_000) <= MAX_SKEW_MS]
        assert fresh
        assert {await reason(replica.nonces, call) for call in fresh} <= expected
        replica.clock.advance(seconds=29)
    # And who does as it is told gets in.
    assert await reason(replica.nonces, signed(prefix=await prefix_of(replica.nonces), key=OTHER)) == LET_IN


async def test_what_was_let_in_before_a_flush_is_refused_after_it(one: Replica) -> None:
    calls = await let_in_at_every_skew(one)
    await one.client.flushall()
    await none_gets_in_again(one, calls, {PREFIX_REQUIRED})


@settings(max_examples=200, deadline=None)
@given(
    skew_ms=st.integers(-MAX_SKEW_MS, MAX_SKEW_MS),
    lost_after_s=st.integers(0, 120),
    then_s=st.integers(0, 120),
    # How far the clock of the replica that finds nothing may be behind, or ahead.
    apart_s=st.integers(-10, 10),
)
async def test_no_loss_at_any_moment_lets_a_call_in_twice(
    valkey_server: Valkey, skew_ms: int, lost_after_s: int, then_s: int, apart_s: int
) -> None:
    async with replica_of(valkey_server.url()) as first, replica_of(valkey_server.url()) as second:
        await first.client.flushall()
        call = signed(prefix=await prefix_of(first.nonces), time_ms=first.clock.now_ns() // 1_000_000 + skew_ms)
        assert await reason(first.nonces, call) == LET_IN
        second.clock.advance(seconds=lost_after_s + apart_s)
        await first.client.flushall()
        # Somebody begins the memory, and the call comes later.
        await prefix_of(second.nonces)
        second.clock.advance(seconds=then_s)
        if abs(second.clock.now_ns() // 1_000_000 - call.time_ms) <= MAX_SKEW_MS:
            assert await reason(second.nonces, call) == PREFIX_REQUIRED


async def test_after_its_youth_a_memory_asks_for_nothing(one: Replica) -> None:
    await prefix_of(one.nonces)
    _, _, _, since = str(await one.client.get(MEMORY)).split()
    assert await reason(one.nonces, signed(time_ms=int(since) + 70_000)) == PREFIX_REQUIRED
    assert await reason(one.nonces, signed(time_ms=int(since) + 70_001)) == LET_IN


async def test_a_clock_that_is_ahead_of_redis_lengthens_the_youth(one: Replica) -> None:
    """Else what a service ahead of Redis let in could come again: it may be signed as far ahead."""
    one.clock.advance(seconds=300)
    await prefix_of(one.nonces)
    ahead_ms = one.clock.now_ns() // 1_000_000
    assert await reason(one.nonces, signed(time_ms=ahead_ms + MAX_SKEW_MS)) == PREFIX_REQUIRED


async def test_a_memory_that_began_far_in_the_future_begins_anew_and_nothing_gets_in_by_it(one: Replica) -> None:
    """Redis's clock was ahead when it began, and was put back."""
    old = await prefix_of(one.nonces)
    *run, _, _ = str(await one.client.get(MEMORY)).split()
    await one.client.set(MEMORY, " ".join([*run, old, str(now_ms() + 3_600_000)]))
    calls = [signed(prefix=old, time_ms=now_ms() + skew) for skew in SKEWS_MS]
    assert {await reason(one.nonces, call) for call in calls} == {PREFIX_REQUIRED}
    assert await prefix_of(one.nonces) != old
    _, _, _, since = str(await one.client.get(MEMORY)).split()
    assert abs(int(since) - now_ms()) < 60_000
    assert await reason(one.nonces, signed(time_ms=int(since) + 70_001)) == LET_IN


async def test_what_was_let_in_before_such_a_beginning_is_refused_after_it(one: Replica) -> None:
    calls = await let_in_at_every_skew(one)
    *run, prefix, _ = str(await one.client.get(MEMORY)).split()
    await one.client.set(MEMORY, " ".join([*run, prefix, str(now_ms() + 3_600_000)]))
    await none_gets_in_again(one, calls, {PREFIX_REQUIRED, REPLAYED})


async def test_a_memory_that_is_as_far_ahead_as_clocks_may_be_stays(one: Replica) -> None:
    """Else services whose clocks differ would take turns in beginning it, and nobody's prefix would be good."""
    prefix = await prefix_of(one.nonces)
    *run, _, _ = str(await one.client.get(MEMORY)).split()
    await one.client.set(MEMORY, " ".join([*run, prefix, str(now_ms() + 300_000)]))
    assert await prefix_of(one.nonces) == prefix
    assert await reason(one.nonces, signed(prefix=prefix)) == LET_IN


async def restarted(server: Valkey, replica: Replica) -> None:
    """Starts a server that was killed, and waits until the replica has a connection to it."""
    server.start()

    async def answers() -> bool:
        try:
            await prefix_of(replica.nonces)
        except Unavailable:
            return False
        return True

    await eventually(answers)


def journal(server: Valkey) -> Path:
    """The file that every write goes to."""
    (found,) = server.home.glob("appendonlydir/*.incr.aof")
    return found


async def test_what_was_let_in_before_a_crash_is_refused_by_an_empty_server(own_valkey: Valkey) -> None:
    async with replica_of(own_valkey.url()) as one:
        calls = await let_in_at_every_skew(one)
        own_valkey.kill()
        os.truncate(journal(own_valkey), 0)
        await restarted(own_valkey, one)
        await none_gets_in_again(one, calls, {PREFIX_REQUIRED})


async def test_what_was_let_in_before_a_crash_is_refused_by_what_came_back_older(own_valkey: Valkey) -> None:
    """It has a memory, with the prefix of all these calls, and lacks their claims: but it is of another run."""
    async with replica_of(own_valkey.url()) as one:
        prefix = await prefix_of(one.nonces)
        older = journal(own_valkey).stat().st_size
        assert older > 0
        calls = await let_in_at_every_skew(one)
        own_valkey.kill()
        os.truncate(journal(own_valkey), older)
        own_valkey.start()
        assert prefix in str(await one.client.get(MEMORY))
        await none_gets_in_again(one, calls, {PREFIX_REQUIRED})


async def test_after_a_crash_that_lost_nothing_replays_are_refused_too(own_valkey: Valkey) -> None:
    async with replica_of(own_valkey.url()) as one:
        calls = await let_in_at_every_skew(one)
        own_valkey.kill()
        await restarted(own_valkey, one)
        await none_gets_in_again(one, calls, {PREFIX_REQUIRED, REPLAYED})


async def follow(follower: Replica, leader: Valkey) -> None:
    """Makes a server a copy of another one."""
    await follower.client.config_set("masterauth", (leader.directory / "password").read_text().strip())
    await follower.client.replicaof("127.0.0.1", leader.port)

    async def in_step() -> bool:
        return bool((await follower.client.info("replication"))["master_link_status"] == "up")

    await eventually(in_step, seconds=20)


async def test_a_server_that_came_back_as_a_copy_of_an_older_one_begins_anew(own_valkey: Valkey) -> None:
    """Its run is the same, and so is the note of it in what it copied."""
    with running_valkey() as second:
        async with replica_of(own_valkey.url()) as one, replica_of(second.url()) as two:
            await prefix_of(one.nonces)
            await follow(two, own_valkey)
            # Beginning to lead a copy is a beginning of its own: from here on both agree on what is remembered.
            await prefix_of(one.nonces)
            await two.client.replicaof("NO", "ONE")
            calls = await let_in_at_every_skew(one)
            await follow(one, second)
            await one.client.replicaof("NO", "ONE")
            assert await one.client.get(MEMORY) is not None
            await none_gets_in_again(one, calls, {PREFIX_REQUIRED})


async def test_an_identity_is_not_in_anothers_way(one: Replica) -> None:
    mine = signed(prefix=await prefix_of(one.nonces))
    assert await reason(one.nonces, mine) == LET_IN
    assert await reason(one.nonces, signed(key=OTHER, nonce=mine.nonce)) == LET_IN
    assert await reason(one.nonces, signed(key=ME, nonce=mine.nonce)) == REPLAYED
