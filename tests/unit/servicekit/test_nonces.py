"""A nonce is claimed once; a command that the client library sent twice is not a second claim."""

from typing import Any

import pytest

from servicekit import redis as servicekit_redis
from servicekit.failures import Unavailable
from servicekit.nonces import REMEMBERED_MS, RedisNonces
from servicekit.redis import Client

pytestmark = pytest.mark.asyncio

ME, OTHER = "11" * 32, "22" * 32


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
    sent = repeated(repeating, monkeypatch)
    assert await RedisNonces(repeating).claim(ME, "nonce")
    assert sent == ["SET", "SET"]
    assert not await RedisNonces(client).claim(ME, "nonce")
    assert not await RedisNonces(repeating).claim(ME, "nonce"), "a replay, though its claim is repeated too"
    assert await RedisNonces(client).claim(OTHER, "nonce")
    assert await RedisNonces(client).claim(ME, "another")
    await client.aclose()
    await repeating.aclose()


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


async def test_without_redis_nothing_is_claimed(unused_tcp_port: int) -> None:
    gone = servicekit_redis.connect(f"redis://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(Unavailable):
        await RedisNonces(gone).claim(ME, "nonce")
    await gone.aclose()
