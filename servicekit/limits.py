"""How much one identity, and one colony, may ask for: token buckets in Redis, and open streams in this replica.

An identity counts in each place by itself (`of`), so that nobody's calls count for another: a key that is nobody's any more, or
somebody's in another colony too, still has an identity that a member here is known by.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from servicekit import metrics
from servicekit.bounds import NAME
from servicekit.caller import MEMBER_ROLES, Caller, Role
from servicekit.failures import ResourceExhausted
from servicekit.settings import ServiceSettings

# Streams end when somebody closes them, not with time: who is told so looks again at this pace.
STREAM_RETRY_S = 1.0
# Unary methods that hold their place for as long as a stream does.
LONG_POLLS = frozenset({"/colonies.scheduler.v1.SchedulerService/AssignProcesses"})


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `burst` tokens when it is full, and `per_second` of them come back."""

    per_second: float
    burst: int

    @property
    def gap_ms(self) -> str:
        """How long a token takes to come."""
        return f"{1000 / self.per_second:.6f}"

    @property
    def depth_ms(self) -> str:
        """How long all of them take."""
        return f"{1000 * self.burst / self.per_second:.6f}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket of one caller or colony. `limit` is which of the two, "identity" or "colony"."""

    limit: str
    of: str
    rate: Rate


def over_limit(bucket: Bucket, wait_ms: int) -> ResourceExhausted:
    """The answer to a call that finds this bucket empty."""
    metrics.LIMITED.labels(bucket.limit).inc()
    rate = bucket.rate
    return ResourceExhausted(
        f"more calls than the {rate.per_second:g} a second that one {bucket.limit} may make, {rate.burst} at once",
        reason="RATE_LIMITED",
        metadata={"limit": bucket.limit, "per_second": f"{rate.per_second:g}", "burst": str(rate.burst)},
        retry_delay_s=wait_ms / 1000,
    )


def whose(caller: Caller) -> str:
    """For whom a call counts: a member of a colony, a service or the server owner, or a key of which no more is known."""
    if caller.role in MEMBER_ROLES:
        return f"member:{caller.colony}:{caller.identity}"
    if caller.role is Role.ANYONE:
        return f"stranger:{caller.call.key}"
    return f"{caller.role}:{caller.identity}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for every identity and every colony; None = no limit, 0 streams too."""

    identity: Rate | None = None
    colony: Rate | None = None
    streams: int = 0

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        """Those of a service's settings."""
        return cls(
            identity=Rate(settings.identity_rate, settings.identity_burst) if settings.identity_rate else None,
            colony=Rate(settings.colony_rate, settings.colony_burst) if settings.colony_rate else None,
            streams=settings.streams_per_identity,
        )

    def buckets(self, caller: Caller) -> Sequence[Bucket]:
        """Where this caller's call takes its tokens. Nobody but who may act in a colony takes any of the colony's."""
        found = []
        if self.identity is not None and caller.role is not Role.SERVICE:
            found.append(Bucket("identity", whose(caller), self.identity))
        # A service or the server owner may name what is no colony's name, and as long as a request may be.
        if self.colony is not None and caller.role is not Role.ANYONE and NAME.match(caller.colony):
            found.append(Bucket("colony", caller.colony, self.colony))
        return found


class Streams:
    """Streams and long polls that are open in this replica, by whom they count for."""

    def __init__(self, most: int) -> None:
        """At most so many of one identity; 0 = any number."""
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_of(self, caller: Caller) -> Iterator[None]:
        """Counts one as open, inside the block. Services may have any number.

        Raises:
            ResourceExhausted: the caller has too many.
        """
        if not self._most or caller.role is Role.SERVICE:
            yield
            return
        one = whose(caller)
        if self._open[one] >= self._most:
            metrics.LIMITED.labels("streams").inc()
            msg = f"this identity has {self._most} streams and long polls open in this replica, which is the most"
            metadata = {"limit": "streams", "most": str(self._most)}
            raise ResourceExhausted(msg, reason="TOO_MANY_STREAMS", metadata=metadata, retry_delay_s=STREAM_RETRY_S)
        self._open[one] += 1
        try:
            yield
        finally:
            self._open[one] -= 1
            if not self._open[one]:
                del self._open[one]
