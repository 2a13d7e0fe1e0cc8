"""Each signed call is good once: its nonce is claimed in Redis, which all services and replicas share."""

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
    """Nonces in Redis: `SET NX PX`."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def claim(self, identity: str, nonce: str) -> bool:
        with translated():
            return bool(await self._redis.set(f"colonies:nonce:{identity}:{nonce}", "", nx=True, px=REMEMBERED_MS))
