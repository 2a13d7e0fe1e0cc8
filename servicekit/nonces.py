"""Each signed call is good once: its nonce is claimed in Redis, which all services and replicas share."""

import os
from typing import Protocol

from redis.asyncio import Redis

from servicekit.redis import translated

# A call may be signed 60 s ahead of the server's clock and is fresh for 60 s after: 120 s, and a margin.
REMEMBERED_MS = 130_000


class Nonces(Protocol):
    """Where nonces are claimed."""

    async def claim(self, identity: str, nonce: str) -> bool:
        """True for the first claim of this nonce by this identity.

        Raises:
            Unavailable: it cannot be known; the call must not go on.
        """
        ...


class RedisNonces:
    """Nonces in Redis: `SET NX GET PX`."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def claim(self, identity: str, nonce: str) -> bool:
        with translated():
            mine = os.urandom(8).hex()
            first = await self._redis.set(f"colonies:nonce:{identity}:{nonce}", mine, nx=True, get=True, px=REMEMBERED_MS)
        # The client library repeats a command whose connection broke: finding one's own claim is no replay.
        return first is None or first == mine
