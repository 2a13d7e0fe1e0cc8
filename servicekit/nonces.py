"""Each signed call is good once: its nonce is claimed in Redis, which all services and replicas share."""

import os
from typing import Protocol

from redis.asyncio import Redis

from servicekit.redis import commands_of

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
    """Nonces in Redis: `SET NX GET PX`. Claims of concurrent calls share a round trip."""

    def __init__(self, redis: "Redis") -> None:
        self._commands = commands_of(redis)

    async def claim(self, identity: str, nonce: str) -> bool:
        mine = os.urandom(8).hex()
        key = f"colonies:nonce:{identity}:{nonce}"
        first = await self._commands.execute("SET", key, mine, "NX", "GET", "PX", REMEMBERED_MS)
        # A command whose connection broke is repeated: finding one's own claim is no replay.
        return first is None or first == mine
