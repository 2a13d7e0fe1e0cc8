"""When a cron fires: arithmetic on moments (UTC datetimes, whole milliseconds), the same on every replica."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Protocol, TypeAlias
from uuid import UUID

from servicekit.clock import EPOCH
from services.cron.domain.expressions import ALIASES, Expression, ScheduleError

__all__ = ["ALIASES", "Expression", "Interval", "Passed", "RandomInterval", "Schedule", "ScheduleError", "Timetable"]

# Passed moments are not counted beyond this.
MOST_COUNTED = 10_000

_MS = timedelta(milliseconds=1)
_LEAST = timedelta(microseconds=1)
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Interval:
    """A fixed number of milliseconds from one fire to the next."""

    milliseconds: int

    def describe(self) -> str:
        """In English words."""
        return f"Every {_span(self.milliseconds)}"


@dataclass(frozen=True, slots=True)
class RandomInterval:
    """A random moment in each interval of so many milliseconds."""

    milliseconds: int

    def describe(self) -> str:
        """In English words."""
        return f"At a random moment in every {_span(self.milliseconds)}"


When: TypeAlias = Expression | Interval | RandomInterval


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a cron fires.

    Attributes:
        start: no fire before this moment; intervals begin at it.
        end: no fire at or after this moment.
        max_runs: how many workflows it submits; 0 for any number. Moments know nothing of it.
        jitter_ms: each fire is put off by a random time below this.
    """

    when: When
    start: datetime | None = None
    end: datetime | None = None
    max_runs: int = 0
    jitter_ms: int = 0

    def describe(self) -> str:
        """In English words."""
        words = [self.when.describe()]
        if self.start is not None:
            words.append(f"from {_written(self.start)} on")
        if self.end is not None:
            words.append(f"until {_written(self.end)}")
        if self.jitter_ms > 1:
            words.append(f"put off by a random time below {_span(self.jitter_ms, one='1 ')}")
        if self.max_runs:
            words.append("once" if self.max_runs == 1 else f"at most {self.max_runs} times")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Passed:
    """Moments that have passed.

    Attributes:
        count: how many, not counted beyond 10 000.
        newest: the newest of them, in order.
    """

    count: int
    newest: tuple[datetime, ...]


class _Moments(Protocol):
    """An endless row of moments."""

    def first_after(self, after: datetime) -> datetime | None:
        """The first one strictly after this moment."""
        ...

    def newest(self, first: datetime, until: datetime) -> Iterator[datetime]:
        """Those from `first` to `until`, both included, the newest first."""
        ...

    def count(self, first: datetime, until: datetime, *, at_most: int) -> int:
        """How many there are from `first` to `until`, both included, not counted beyond `at_most`."""
        ...


class Timetable:
    """The moments of one cron.

    Args:
        seed: makes its random moments its own.
        created: all of them are later than this.
    """

    def __init__(self, schedule: Schedule, seed: UUID, created: datetime) -> None:
        self._seed = seed
        self._jitter_ms = schedule.jitter_ms
        self._after = created if schedule.start is None else max(created, schedule.start - _LEAST)
        self._until = _END_OF_TIME if schedule.end is None else schedule.end - _LEAST
        self._moments = _moments(schedule.when, seed, created if schedule.start is None else schedule.start)

    def next_after(self, moment: datetime) -> datetime | None:
        """The first moment strictly after this one; None for none."""
        following = self._moments.first_after(max(moment, self._after))
        return None if following is None or following > self._until else following

    def passed(self, first: datetime, until: datetime, newest: int) -> Passed:
        """The moments from `first` to `until`, both included, of which so many of the newest are wanted."""
        first, until = max(first, self._after + _LEAST), min(until, self._until)
        if until < first:
            return Passed(0, ())
        latest = tuple(islice(self._moments.newest(first, until), newest))
        return Passed(self._moments.count(first, until, at_most=MOST_COUNTED), latest[::-1])

    def jitter(self, moment: datetime) -> timedelta:
        """How long the fire of a moment is put off."""
        return _random(self._seed, b"jitter", (moment - EPOCH) // _MS, self._jitter_ms) * _MS if self._jitter_ms else 0 * _MS


def _moments(when: When, seed: UUID, anchor: datetime) -> _Moments:
    if isinstance(when, Expression):
        return when
    # Up to whole milliseconds, so that nothing comes before the anchor.
    anchor_ms = -((EPOCH - anchor) // _MS)
    return _Steps(anchor_ms, when.milliseconds, seed if isinstance(when, RandomInterval) else None)


class _Steps:
    """One moment for each interval, from the anchor on: its end, or a random one in it. Counted in integers, hence no drift.

    Args:
        anchor_ms: where the first interval begins, in Unix milliseconds.
        interval_ms: how long each is.
        seed: None for the ends.
    """

    def __init__(self, anchor_ms: int, interval_ms: int, seed: UUID | None) -> None:
        self._anchor_ms = anchor_ms
        self._interval_ms = interval_ms
        self._seed = seed

    def first_after(self, after: datetime) -> datetime | None:
        return self._moment(self._numbers_to(after))

    def newest(self, first: datetime, until: datetime) -> Iterator[datetime]:
        numbers = range(self._numbers_to(first - _LEAST), self._numbers_to(until))
        return (moment for number in reversed(numbers) if (moment := self._moment(number)) is not None)

    def count(self, first: datetime, until: datetime, *, at_most: int) -> int:
        return min(at_most, self._numbers_to(until) - self._numbers_to(first - _LEAST))

    def _numbers_to(self, moment: datetime) -> int:
        """How many of the moments are at or before this one: the number of the first one after it."""
        passed_ms = (moment - EPOCH) // _MS - self._anchor_ms
        number = max(0, passed_ms // self._interval_ms)
        return number + 1 if self._offset_ms(number) <= passed_ms else number

    def _offset_ms(self, number: int) -> int:
        """Milliseconds from the anchor to a moment."""
        begin_ms = number * self._interval_ms
        if self._seed is None:
            return begin_ms + self._interval_ms
        return begin_ms + _random(self._seed, b"moment", number, self._interval_ms)

    def _moment(self, number: int) -> datetime | None:
        """None for one that no calendar knows any more."""
        try:
            return EPOCH + (self._anchor_ms + self._offset_ms(number)) * _MS
        except OverflowError:
            return None


def _random(seed: UUID, purpose: bytes, number: int, below: int) -> int:
    """A number in [0, below) that is always the same for the same arguments."""
    digest = hashlib.sha256(seed.bytes + purpose + number.to_bytes(8, "big", signed=True)).digest()
    return int.from_bytes(digest[:16], "big") % below


_SPANS = (
    ("week", 7 * 86_400_000),
    ("day", 86_400_000),
    ("hour", 3_600_000),
    ("minute", 60_000),
    ("second", 1_000),
    ("millisecond", 1),
)


def _span(milliseconds: int, *, one: str = "") -> str:
    """A length of time in its largest whole unit: "90 seconds", "hour"."""
    unit, length = next((unit, length) for unit, length in _SPANS if milliseconds % length == 0)
    many = milliseconds // length
    return f"{one}{unit}" if many == 1 else f"{many} {unit}s"


def _written(moment: datetime) -> str:
    """A moment to the second, or to the millisecond if need be."""
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", precision) + " UTC"
