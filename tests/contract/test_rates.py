"""Token buckets in Redis: never more than there are tokens, over all replicas, and a call takes all of its tokens or none."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from servicekit import redis as servicekit_redis
from servicekit.clock import SystemClock
from servicekit.failures import ResourceExhausted
from servicekit.limits import Bucket, Rate
from servicekit.nonces import PREFIX, RedisNonces
from servicekit.redis import Client
from tests.harness.calls import eventually
from tests.harness.nonces import LET_IN, REPLAYED, prefix_of, reason, refused, signed

pytestmark = pytest.mark.asyncio

LIMITED = "RATE_LIMITED"
# None comes back while a test runs.
SLOW = 1 / 600


@pytest_asyncio.fixture
async def clients(redis_url: str) -> AsyncIterator[list[Client]]:
    """Two replicas' connections."""
    opened = [servicekit_redis.connect(redis_url) for _ in range(2)]
    yield opened
    for client in opened:
        await client.aclose()


@pytest_asyncio.fixture
async def replicas(clients: list[Client]) -> list[RedisNonces]:
    return [RedisNonces(client, SystemClock()) for client in clients]


@pytest.mark.parametrize("trial", range(10))
async def test_of_many_calls_at_once_as_many_get_in_as_there_are_tokens(trial: int, replicas: list[RedisNonces]) -> None:
    prefix = await prefix_of(replicas[0])
    bucket = Bucket("identity", "me", Rate(SLOW, 10))
    calls = [signed(prefix=prefix) for _ in range(50)]
    ends = await asyncio.gather(*(reason(replicas[n % 2], call, [bucket]) for n, call in enumerate(calls)))
    assert sorted(ends) == [LET_IN] * 10 + [LIMITED] * 40
    # Those that were refused are used up too: nobody who captured one can have it executed when there are tokens again.
    assert {await reason(replicas[n % 2], call) for n, call in enumerate(calls)} == {REPLAYED}


async def test_a_call_takes_of_both_buckets_or_of_none(replicas: list[RedisNonces], clients: list[Client]) -> None:
    prefix = await prefix_of(replicas[0])
    mine, theirs = Bucket("identity", "me", Rate(SLOW, 3)), Bucket("colony", "acme", Rate(SLOW, 5))
    for order in ([mine, theirs], [theirs, mine]):
        await clients[0].delete(f"{PREFIX}identity:me", f"{PREFIX}colony:acme")
        ends = [await refused(replicas[0], signed(prefix=prefix), order) for _ in range(10)]
        assert [end is None for end in ends] == [True] * 3 + [False] * 7
        for end in ends[3:]:
            assert isinstance(end, ResourceExhausted)
            assert end.metadata["limit"] == "identity"
            assert 590 < end.retry_delay_s <= 600
        # Two are left of the colony's five.
        rest = [await reason(replicas[0], signed(prefix=prefix), [theirs]) for _ in range(4)]
        assert rest == [LET_IN] * 2 + [LIMITED] * 2
        # And a colony without any takes none of the caller's.
        other = Bucket("identity", "other", Rate(SLOW, 3))
        assert await reason(replicas[0], signed(prefix=prefix), [other, theirs]) == LIMITED
        assert not await clients[0].exists(f"{PREFIX}identity:other")


async def test_replays_and_unknown_prefixes_take_no_token(replicas: list[RedisNonces], clients: list[Client]) -> None:
    bucket = Bucket("identity", "me", Rate(SLOW, 2))
    for _ in range(5):
        assert await reason(replicas[0], signed(), [bucket]) == "NONCE_PREFIX_REQUIRED"
    call = signed(prefix=await prefix_of(replicas[0]))
    assert await reason(replicas[0], call, [bucket]) == LET_IN
    for _ in range(5):
        assert await reason(replicas[0], call, [bucket]) == "SIGNATURE_REPLAYED"
    assert await reason(replicas[0], signed(prefix=call.nonce[:16]), [bucket]) == LET_IN
    assert await reason(replicas[0], signed(prefix=call.nonce[:16]), [bucket]) == LIMITED


async def test_a_bucket_that_is_full_takes_no_memory(replicas: list[RedisNonces], clients: list[Client]) -> None:
    prefix = await prefix_of(replicas[0])
    key = f"{PREFIX}identity:me"
    for taken in range(1, 4):
        assert await reason(replicas[0], signed(prefix=prefix), [Bucket("identity", "me", Rate(SLOW, 10))]) == LET_IN
        # It is there until all that was taken has come back.
        assert 600_000 * taken - 30_000 < await clients[0].pttl(key) <= 600_000 * taken


async def test_what_comes_back_is_no_more_than_the_burst(replicas: list[RedisNonces], clients: list[Client]) -> None:
    """However long nobody called: the note of it is as if it had been full for an hour."""
    prefix = await prefix_of(replicas[0])
    seconds, _ = await clients[0].time()
    await clients[0].set(f"{PREFIX}identity:me", str((seconds - 3_600) * 1_000), px=60_000)
    bucket = Bucket("identity", "me", Rate(SLOW, 3))
    ends = [await reason(replicas[0], signed(prefix=prefix), [bucket]) for _ in range(5)]
    assert ends == [LET_IN] * 3 + [LIMITED] * 2


@pytest.mark.parametrize("ahead_s", [700, 3_600, 10 * 365 * 24 * 3_600])
async def test_a_bucket_is_never_emptier_than_empty(ahead_s: int, replicas: list[RedisNonces], clients: list[Client]) -> None:
    """Redis's clock was ahead, and put back: what it noted then locks nobody out for longer than an empty bucket does."""
    prefix = await prefix_of(replicas[0])
    seconds, _ = await clients[0].time()
    key = f"{PREFIX}identity:me"
    await clients[0].set(key, str((seconds + ahead_s) * 1_000), px=ahead_s * 1_000)
    # A token takes 100 ms, all of them 300.
    bucket = Bucket("identity", "me", Rate(10, 3))
    end = await refused(replicas[0], signed(prefix=prefix), [bucket])
    assert isinstance(end, ResourceExhausted)
    assert 0 < end.retry_delay_s <= 0.1
    # What comes back comes back for good, however often it is asked for meanwhile.
    assert 0 < await clients[0].pttl(key) <= 300

    async def let_in() -> bool:
        return await reason(replicas[0], signed(prefix=prefix), [bucket]) == LET_IN

    await eventually(let_in, seconds=5)
