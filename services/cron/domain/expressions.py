"""Cron expressions: the moments at which the wall clock of a time zone shows what was asked for.

What a wall clock shows (a naive datetime here) is matched by CronSim. How moments and wall times belong together where clocks
are changed is decided here, as Debian's cron does it:

    times of day      neither the minute nor the hour field begins with *. They fire when the clock first shows them, or is put
                      forward past them: those of one gap together, when it ends.
    runs of the clock the others. They fire whenever the clock shows what they say: never in a gap, twice where it is put back.

A clock that is set by more than three hours is a new clock to both.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Final

from cronsim import CronSim, CronSimError

from services.cron.domain import zones
from services.cron.domain.zones import Period

ALIASES: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@every_minute": "0 * * * * *",
}

_FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
_LAST_VALUES = (59, 59, 23, 31, 12, 7)
_STEP = re.compile(r"/([0-9]+)")
# CronSim takes "5-5/10" for "5/10", which goes on after 5.
_ONE_VALUE = re.compile(r"\b0*(\w+)-0*\1/[0-9]+", re.IGNORECASE)
# CronSim says "22th".
_TH = re.compile(r"(?<!1)[123]th\b")
_ORDINALS = {"1": "st", "2": "nd", "3": "rd"}
# Whether an expression ever matches does not depend on when it is asked: the calendar's longest pause between two matches is
# 40 years (29 February on a given weekday, around 2100), and the search gives up after 50.
_ANY_WALL = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall time
_MOST_YEARS = 50
_SECOND = timedelta(seconds=1)


class ScheduleError(ValueError):
    """A schedule that means nothing, or never comes true; the message says why.

    Attributes:
        field: which part of the schedule is wrong: "expression" or "time_zone".
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Expression:
    """A cron expression as its author wrote it, and the time zone whose clock it is about. Made by `parse`.

    Moments are UTC, from 1900 to 2999; those of an expression are whole seconds.

    Attributes:
        time_zone: a name of the IANA database; empty means UTC.
    """

    text: str
    time_zone: str = ""

    @classmethod
    def parse(cls, text: str, time_zone: str = "") -> "Expression":
        """Reads an expression of six fields (seconds first) or five, or an alias such as "@daily".

        Raises:
            ScheduleError: it is none, or no clock ever shows it; or there is no such time zone.
        """
        if time_zone and not zones.is_zone(time_zone):
            msg = 'must be a name of the IANA time zone database, spelled as there, such as "Europe/Stockholm"'
            raise ScheduleError("time_zone", msg)
        if _pattern(_checked(text)).first(_ANY_WALL) is None:
            raise ScheduleError("expression", "must be an expression that comes true some day; this one never does")
        return cls(text, time_zone)

    def first_after(self, after: datetime) -> datetime | None:
        """The first moment strictly after this one; None for none in 50 years."""
        at = _second_after(max(after, zones.EARLIEST))
        if at >= zones.LATEST:
            return None
        pattern = self._pattern
        searched, found = _ANY_WALL, None
        for period in zones.periods_from(self._zone, at):
            start = pattern.start(period, at)
            # What was found for the period before is still the first, unless the clock jumped past it, or back.
            if found is None or not searched <= start <= found:
                searched, found = start, pattern.first(start)
                if found is None:
                    return None
            moment = _moment(found, period)
            if moment < period.end:
                return moment
            if period.begin.year > at.year + _MOST_YEARS:
                return None
        return None

    def newest(self, first: datetime, until: datetime) -> Iterator[datetime]:
        """The moments from `first` to `until`, both included, the newest first."""
        first = max(first, zones.EARLIEST)
        after = _second_after(min(until, zones.LATEST - _SECOND))
        if first >= after:
            return
        pattern = self._pattern
        for period in zones.periods_back(self._zone, after - _SECOND):
            end = _wall(min(period.end, after), period)
            low = pattern.start(period, period.begin)
            for wall in pattern.back_from(end):
                if wall < low:
                    break
                moment = _moment(wall, period)
                if moment < first:
                    return
                yield moment
                if moment == period.begin:
                    break  # All that is left of the period is the gap before it, whose times fire now, too.
            if period.begin <= first:
                return

    def count(self, first: datetime, until: datetime, *, at_most: int) -> int:
        """How many moments there are from `first` to `until`, both included, not counted beyond `at_most`."""
        at = _second_after(max(first, zones.EARLIEST) - timedelta(microseconds=1))
        after = _second_after(min(until, zones.LATEST - _SECOND))
        pattern = self._pattern
        counted = 0
        if at >= after:
            return 0
        for period in zones.periods_from(self._zone, at):
            if period.begin >= after or counted >= at_most:
                break
            start = pattern.start(period, at)
            if start < period.wall:
                # Times in the gap and the one at its end are one moment.
                following = pattern.first(start)
                counted += following is not None and following <= period.wall
                start = period.wall + _SECOND
            counted += pattern.count(start, _wall(min(period.end, after), period), at_most=at_most)
        return min(counted, at_most)

    def describe(self) -> str:
        """In English words."""
        return f"{self._pattern.explain()} ({self._zone})"

    @property
    def _pattern(self) -> "_Pattern":
        return _pattern(self.text)

    @property
    def _zone(self) -> str:
        return self.time_zone or "UTC"


def _checked(text: str) -> str:
    """The text, if it is an expression that CronSim understands as its author does."""
    if text.startswith("@"):
        if text not in ALIASES:
            raise ScheduleError("expression", f"must be one of {', '.join(ALIASES)} if it begins with @")
        return text
    fields = text.split()
    if not text.isascii() or len(fields) not in {5, 6}:
        raise ScheduleError("expression", "must be a cron expression of six fields, seconds first, or of five")
    fields = ["0"] * (6 - len(fields)) + fields
    for index, field in enumerate(fields):
        _check_field(index, field)
    try:
        CronSim(text, _ANY_WALL)
    except CronSimError as error:
        # Every field is right by itself.
        raise ScheduleError(
            "expression", f"must have a day that is in one of its months; none has a day {fields[3]}"
        ) from error
    return text


def _check_field(index: int, field: str) -> None:
    name, last = _FIELDS[index], _LAST_VALUES[index]
    try:
        CronSim(" ".join(field if place == index else "*" for place in range(6)), _ANY_WALL)
    except CronSimError as error:
        raise ScheduleError("expression", f"must have a {name} that is one; {field!r} is none") from error
    if any(int(step) > last for step in _STEP.findall(field)):
        # It would begin again with every round of the field: "*/90" minutes would be every hour.
        raise ScheduleError("expression", f"must have steps of at most {last} in the {name}; {field!r} has a longer one")


@lru_cache(maxsize=1024)
def _pattern(text: str) -> "_Pattern":
    return _Pattern(_ONE_VALUE.sub(r"\1", ALIASES.get(text, text)))


class _Pattern:
    """What a wall clock is to show. Wall times are naive datetimes of whole seconds."""

    def __init__(self, text: str) -> None:
        self._forward = CronSim(text, _ANY_WALL)
        self._back = CronSim(text, _ANY_WALL, reverse=True)
        _, minute, hour, *_ = self._forward.parts
        self._times_of_day = not minute.startswith("*") and not hour.startswith("*")
        self._seconds, self._minutes, self._hours = (
            sorted(allowed) for allowed in (self._forward.seconds, self._forward.minutes, self._forward.hours)
        )

    def start(self, period: Period, at: datetime) -> datetime:
        """The first wall time that can fire in a period, at a moment or later."""
        first = period.reached if self._times_of_day else period.wall
        return first if at <= period.begin else max(first, _wall(at, period))

    def first(self, wall: datetime) -> datetime | None:
        """The first match at a wall time or later; None for none in 50 years."""
        # Set to another time, it need not read the expression again.
        self._forward.dt = wall - _SECOND
        return next(self._forward, None)

    def back_from(self, wall: datetime) -> Iterator[datetime]:
        """The matches before a wall time, the latest first."""
        following: datetime | None = wall
        while following is not None:
            # Set again and again, as others may use it in between.
            self._back.dt = following
            following = next(self._back, None)
            if following is not None:
                yield following

    def count(self, start: datetime, end: datetime, *, at_most: int) -> int:
        """How many matches there are in [start, end), give or take what is beyond `at_most`."""
        if start >= end:
            return 0
        day, counted = start.date(), 0
        while day <= end.date() and counted < at_most:
            if day.month in self._forward.months and self._forward.match_day(day):
                begins = self._before(start.time()) if day == start.date() else 0
                ends = self._before(end.time()) if day == end.date() else self._in_a_day
                counted += ends - begins
            day += timedelta(days=1)
        return counted

    @property
    def _in_a_day(self) -> int:
        return len(self._hours) * len(self._minutes) * len(self._seconds)

    def _before(self, of_day: time) -> int:
        """How many matches a day that matches has before this time of day."""
        counted, in_one = 0, self._in_a_day
        fields = ((of_day.hour, self._hours), (of_day.minute, self._minutes), (of_day.second, self._seconds))
        for value, allowed in fields:
            in_one //= len(allowed)
            index = bisect_left(allowed, value)
            counted += index * in_one
            if index == len(allowed) or allowed[index] != value:
                break
        return counted

    def explain(self) -> str:
        """In English words."""
        return _TH.sub(lambda ordinal: ordinal[0][0] + _ORDINALS[ordinal[0][0]], self._forward.explain())


def _second_after(moment: datetime) -> datetime:
    """The first whole second strictly after a moment; not much after the last of all."""
    return min(moment, zones.LATEST).replace(microsecond=0) + _SECOND


def _wall(moment: datetime, period: Period) -> datetime:
    """What the clock shows at a moment of a period."""
    return (moment + period.offset).replace(tzinfo=None)


def _moment(wall: datetime, period: Period) -> datetime:
    """When a wall time fires that can in a period: at once, if it was skipped when the period began."""
    return max((wall - period.offset).replace(tzinfo=UTC), period.begin)
