"""Time, injected: services read it here and nowhere else, so that tests own it (I10)."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

NS_PER_MS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where time comes from."""

    def now_ns(self) -> int:
        """Unix nanoseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        return time.time_ns()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start_ns: int = 1_679_906_715_000_000_000) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def advance(self, *, seconds: float = 0, ns: int = 0) -> None:
        """Moves time forward."""
        self._now_ns += round(seconds * 1e9) + ns


def datetime_of(unix_ns: int) -> datetime:
    """The moment as Postgres keeps it: UTC, microseconds (what is finer is cut off)."""
    return EPOCH + timedelta(microseconds=unix_ns // 1000)


def unix_ms(moment: datetime) -> int:
    """Unix milliseconds of a moment, rounded down."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def ns_of(moment: datetime) -> int:
    """Unix nanoseconds of a moment."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000
