"""Each signed call is good once: its nonce is claimed in Redis, which all services and replicas share.

Redis may lose what it knows at any time (a crash, a flush, a fail-over), and then a call that was let in a moment ago would be
let in again. So what is remembered begins with a note of its own: the **memory**, which says in which run of the server and
since when claims are kept without a gap, and has a random prefix (`scripts/admit.lua` makes it when it is missing or of
another run). While the memory is young, a call must show that it was not let in before, by one of two:

- it was signed more than 70 s after the memory began. Whoever was let in before had signed at most 60 s ahead of the clock of
  the service that let it in, and that clock was at most 10 s ahead when the memory began;
- its nonce begins with the memory's prefix, which nobody could know before. The refusal tells it, and the caller signs anew.

After 70 s nobody has to ask any more. The 10 s are what a service's clock may be ahead of Redis's and of that of the service
that began the memory, both; by as much, the clocks of two services may differ and a claim still outlives its call's freshness.
"""

import os
from collections.abc import Sequence
from typing import Final, Protocol

from redis.asyncio import Redis

from servicekit import metrics
from servicekit.clock import NS_PER_MS, Clock
from servicekit.failures import Unauthenticated
from servicekit.limits import Bucket, over_limit
from servicekit.redis import Script
from servicekit.signature import Signed

# One hash tag: all that is claimed is in one slot of a Redis Cluster.
PREFIX: Final = "colonies:gate:{gate}:"
MEMORY: Final = f"{PREFIX}memory"
# What the script answers.
_LET_IN, _REPLAYED, _YOUNG, _LIMITED = range(4)


class Nonces(Protocol):
    """Where nonces are claimed."""

    async def claim(self, call: Signed, buckets: Sequence[Bucket]) -> None:
        """Claims the nonce of a call, and a token from each bucket or from none.

        Raises:
            Unauthenticated: it was claimed before, or that cannot be told and the call must be signed with a prefix.
            ResourceExhausted: a bucket is empty. The nonce is used up: the call has to be signed anew.
            Unavailable: it cannot be known; the call must not go on.
        """
        ...


class RedisNonces:
    """Nonces in Redis, a script for each claim. Claims of concurrent calls share a round trip."""

    def __init__(self, redis: "Redis", clock: Clock) -> None:
        self._admit = Script(redis, "servicekit.scripts", "admit.lua")
        self._clock = clock

    async def claim(self, call: Signed, buckets: Sequence[Bucket]) -> None:
        now_ms = self._clock.now_ns() // NS_PER_MS
        random = os.urandom(16).hex()
        keys = [MEMORY, f"{PREFIX}nonce:{call.key}:{call.nonce}"]
        arguments: list[str | int] = [call.time_ms, now_ms, call.nonce, random[:16], random[16:]]
        for bucket in buckets:
            keys.append(f"{PREFIX}{bucket.limit}:{bucket.of}")
            arguments += (bucket.rate.gap_ms, bucket.rate.depth_ms)
        answer, *rest = await self._admit(keys, arguments)
        if answer == _LET_IN:
            return
        if answer == _LIMITED:
            which, wait_ms = rest
            raise over_limit(buckets[which - 1], wait_ms)
        if answer == _YOUNG:
            metrics.PREFIX_REQUIRED.inc()
            msg = "what calls were made before cannot be told any more: sign this one anew, with a nonce that has the prefix"
            told = {"nonce_prefix": rest[0], "server_time_ms": str(now_ms)}
            raise Unauthenticated(msg, reason="NONCE_PREFIX_REQUIRED", metadata=told)
        msg = "this signed call was made before; each needs a nonce of its own"
        raise Unauthenticated(msg, reason="SIGNATURE_REPLAYED")
