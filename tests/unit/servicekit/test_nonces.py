"""A nonce is claimed once; a command that the client library sent twice is not a second claim."""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from servicekit import redis as servicekit_redis
from servicekit.failures import Unavailable
from servicekit.nonces import REMEMBERED_MS, RedisNonces

pytestmark = pytest.mark.asyncio

ME, OTHER = "11" * 32, "22" * 32


class Repeating:
    """A client whose connection breaks after the command arrived and before its answer: the library sends it again."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.sent = 0

    async def set(self, *arguments: Any, **options: Any) -> Any:
        for _ in range(2):
            self.sent += 1
            answer = await self._client.set(*arguments, **options)
        return answer


class Gone:
    """A client without a server."""

    async def set(self, *_arguments: Any, **_options: Any) -> Any:
        raise RedisConnectionError


async def test_a_claim_that_the_client_library_repeats_is_no_replay_and_another_callers_is(redis_url: str) -> None:
    client = servicekit_redis.connect(redis_url)
    repeating: Any = Repeating(client)
    assert await RedisNonces(repeating).claim(ME, "nonce")
    assert repeating.sent == 2
    assert not await RedisNonces(client).claim(ME, "nonce")
    assert not await RedisNonces(repeating).claim(ME, "nonce"), "a replay, though its claim is repeated too"
    assert await RedisNonces(client).claim(OTHER, "nonce")
    assert await RedisNonces(client).claim(ME, "another")
    await client.aclose()


async def test_a_claim_is_kept_as_long_as_a_signature_is_fresh_and_not_lengthened_by_replays(redis_url: str) -> None:
    client = servicekit_redis.connect(redis_url)
    nonces = RedisNonces(client)
    assert await nonces.claim(ME, "nonce")
    (key,) = [key async for key in client.scan_iter(match="*nonce*")]
    assert 120_000 < await client.pttl(key) <= REMEMBERED_MS
    await client.pexpire(key, 60_000)
    assert not await nonces.claim(ME, "nonce")
    assert await client.pttl(key) <= 60_000
    await client.aclose()


async def test_without_redis_nothing_is_claimed() -> None:
    gone: Any = Gone()
    with pytest.raises(Unavailable):
        await RedisNonces(gone).claim(ME, "nonce")
