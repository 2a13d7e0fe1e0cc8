"""Claims of nonces as the call pipeline makes them, without calls."""

import os
import time
from collections.abc import Sequence

from servicekit.failures import Failure
from servicekit.limits import Bucket
from servicekit.nonces import RedisNonces
from servicekit.signature import Signed

PREFIX_LENGTH = 16
NONCE_LENGTH = 32
LET_IN, REPLAYED, PREFIX_REQUIRED = "", "SIGNATURE_REPLAYED", "NONCE_PREFIX_REQUIRED"
ME, OTHER = "11" * 32, "22" * 32


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def signed(*, prefix: str = "", time_ms: int | None = None, key: str = ME, nonce: str = "") -> Signed:
    """A call that was signed with a nonce of its own, or with this one."""
    chosen = nonce or prefix + os.urandom(NONCE_LENGTH // 2).hex()[len(prefix) :]
    return Signed(key, "/a.B/C", "", now_ms() if time_ms is None else time_ms, chosen, "", b"", b"")


async def refused(nonces: RedisNonces, call: Signed, buckets: Sequence[Bucket] = ()) -> Failure | None:
    """Why a call is not let in; None if it is."""
    try:
        await nonces.claim(call, buckets)
    except Failure as failure:
        return failure
    return None


async def reason(nonces: RedisNonces, call: Signed, buckets: Sequence[Bucket] = ()) -> str:
    """The same as a word; empty if it is let in."""
    failure = await refused(nonces, call, buckets)
    return "" if failure is None else failure.reason


async def prefix_of(nonces: RedisNonces) -> str:
    """The prefix that the memory asks for."""
    failure = await refused(nonces, signed(time_ms=0))
    assert failure is not None
    assert failure.reason == PREFIX_REQUIRED
    prefix = failure.metadata["nonce_prefix"]
    assert len(prefix) == PREFIX_LENGTH
    return prefix
