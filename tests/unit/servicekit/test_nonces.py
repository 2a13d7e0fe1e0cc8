"""A nonce is claimed once; a command that the client library sent twice is not a second claim."""

from typing import Any

import pytest

from servicekit import redis as servicekit_redis
from servicekit.clock import SystemClock
from servicekit.failures import Unavailable
from servicekit.limits import Bucket, Rate
from servicekit.nonces import RedisNonces
from servicekit.redis import Client
from tests.harness.nonces import LET_IN, OTHER, REPLAYED, prefix_of, reason, signed

pytestmark = pytest.mark.asyncio

# A token a minute: none comes back while the test runs.
ONE = Bucket("identity", "me", Rate(1 / 60, 1))


def repeated(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on every command arrives twice, as when its connection breaks before the answer. Returns what was sent."""
    execute = client.commands.execute
    sent: list[str] = []

    async def twice(*command: Any) -> Any:
        for _ in range(2):
            sent.append(command[0])
            answer = await execute(*command)
        return answer

    monkeypatch.setattr(client.commands, "execute", twice)
    return sent


async def test_a_claim_that_the_client_library_repeats_is_no_replay_and_another_callers_is(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, repeating = servicekit_redis.connect(redis_url), servicekit_redis.connect(redis_url)
    nonces, nonces_repeating = RedisNonces(client, SystemClock()), RedisNonces(repeating, SystemClock())
    prefix = await prefix_of(nonces)
    sent = repeated(repeating, monkeypatch)
    mine = signed(prefix=prefix)
    # The second time finds its own claim, and takes no second token.
    assert await reason(nonces_repeating, mine, [ONE]) == LET_IN
    assert sent == ["EVALSHA", "EVALSHA"]
    assert await reason(nonces, mine) == REPLAYED
    assert await reason(nonces_repeating, mine) == REPLAYED, "a replay, though its claim is repeated too"
    assert await reason(nonces, signed(key=OTHER, nonce=mine.nonce)) == LET_IN
    assert await reason(nonces, signed(prefix=prefix)) == LET_IN
    await client.aclose()
    await repeating.aclose()


async def test_a_claim_of_a_call_over_the_limit_that_is_repeated_is_over_the_limit(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds its own claim, and that is none of a call that was let in; nor does it call its own caller a thief."""
    client, repeating = servicekit_redis.connect(redis_url), servicekit_redis.connect(redis_url)
    nonces, nonces_repeating = RedisNonces(client, SystemClock()), RedisNonces(repeating, SystemClock())
    prefix = await prefix_of(nonces)
    assert await reason(nonces, signed(prefix=prefix), [ONE]) == LET_IN
    sent = repeated(repeating, monkeypatch)
    over = signed(prefix=prefix)
    assert await reason(nonces_repeating, over, [ONE]) == "RATE_LIMITED"
    assert sent == ["EVALSHA", "EVALSHA"]
    (key,) = [key async for key in client.scan_iter(match=f"*{over.nonce}*")]
    assert 129_000 < await client.pttl(key) <= 130_000
    assert await reason(nonces, over) == REPLAYED
    assert await reason(nonces_repeating, over) == REPLAYED
    await client.aclose()
    await repeating.aclose()


async def test_a_claim_is_kept_as_long_as_a_signature_is_fresh_and_not_lengthened_by_replays(redis_url: str) -> None:
    client = servicekit_redis.connect(redis_url)
    nonces = RedisNonces(client, SystemClock())
    mine = signed(prefix=await prefix_of(nonces))
    assert await reason(nonces, mine) == LET_IN
    (key,) = [key async for key in client.scan_iter(match=f"*{mine.nonce}*")]
    # A minute ahead and a minute after, and what clocks may differ by.
    assert 129_000 < await client.pttl(key) <= 130_000
    await client.pexpire(key, 60_000)
    assert await reason(nonces, mine) == REPLAYED
    assert await client.pttl(key) <= 60_000
    await client.aclose()


async def test_without_redis_nothing_is_claimed(unused_tcp_port: int) -> None:
    gone = servicekit_redis.connect(f"redis://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(Unavailable):
        await RedisNonces(gone, SystemClock()).claim(signed(), [])
    await gone.aclose()


async def test_a_redis_that_has_no_room_claims_nothing(redis_url: str) -> None:
    client = servicekit_redis.connect(redis_url)
    nonces = RedisNonces(client, SystemClock())
    prefix = await prefix_of(nonces)
    await client.config_set("maxmemory", 1)
    try:
        with pytest.raises(Unavailable):
            await nonces.claim(signed(prefix=prefix), [ONE])
    finally:
        await client.config_set("maxmemory", 0)
    assert await reason(nonces, signed(prefix=prefix), [ONE]) == LET_IN
    await client.aclose()
