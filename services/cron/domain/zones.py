"""Time zones as stretches of time in which the wall clock runs evenly."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

# Where moments are looked for. Before, clocks showed the sun's time, and zones are a fiction.
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(3000, 1, 1, tzinfo=UTC)

# Changes up to this are daylight saving and its like; what is more, as when the date line moves, sets the clock anew.
LARGEST_CHANGE = timedelta(hours=3)

# No zone has ever changed its clocks twice in two days.
_STEP = timedelta(days=1)
_SECOND = timedelta(seconds=1)
# In the database of zones, but none: what a machine happens to be set to, and what it says of itself when it is not.
_NO_ZONES = frozenset({"localtime", "Factory", "posixrules"})


class Period(NamedTuple):
    """A stretch of time without a change of the clock; `wall` times are naive datetimes. Years begin new ones, too.

    Attributes:
        begin: its first second.
        end: the first second after it.
        offset: what the wall clock shows more than UTC.
        wall: what the wall clock shows at `begin`.
        reached: the first wall time that had not been shown before `begin`: earlier than `wall` if the clock was put forward by
            daylight saving, later if it was put back.
    """

    begin: datetime
    end: datetime
    offset: timedelta
    wall: datetime
    reached: datetime


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    # Reads the whole database, hence once.
    return frozenset(available_timezones()) - _NO_ZONES


def is_zone(name: str) -> bool:
    """Whether this is the name of a zone of the IANA database, spelled as there."""
    return name in _names()


def periods_from(zone: str, moment: datetime) -> Iterator[Period]:
    """The period of a moment, and those after it, up to the end of a year."""
    periods = _periods(zone, moment.year)
    yield from periods[bisect_right(periods, moment, key=_begin) - 1 :]
    for year in range(moment.year + 1, LATEST.year):
        yield from _periods(zone, year)


def periods_back(zone: str, moment: datetime) -> Iterator[Period]:
    """The period of a moment, and those before it, the newest first."""
    periods = _periods(zone, moment.year)
    yield from reversed(periods[: bisect_right(periods, moment, key=_begin)])
    for year in range(moment.year - 1, EARLIEST.year - 1, -1):
        yield from reversed(_periods(zone, year))


def _begin(period: Period) -> datetime:
    return period.begin


@lru_cache(maxsize=8192)
def _periods(zone: str, year: int) -> tuple[Period, ...]:
    """The periods of a year of UTC, in order."""
    info = ZoneInfo(zone)
    first, last = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    begins = sorted({first, *_changes(info, first, last)})
    ends = [*begins[1:], last]
    return tuple(_period(info, begin, end) for begin, end in zip(begins, ends, strict=True))


def _changes(info: ZoneInfo, first: datetime, last: datetime) -> Iterator[datetime]:
    """The moments in [first, last) at which another offset begins."""
    # From the day before: the first moment itself may be one.
    moment, offset = first - _STEP, _offset(info, first - _STEP)
    while moment < last:
        following = moment + _STEP
        offset, before = _offset(info, following), offset
        if offset != before:
            change = _change(info, moment, following)
            if first <= change < last:
                yield change
        moment = following


def _change(info: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second with the offset of `after`; there is one change between the two."""
    old = _offset(info, before)
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if _offset(info, middle) == old:
            before = middle
        else:
            after = middle
    return after


def _period(info: ZoneInfo, begin: datetime, end: datetime) -> Period:
    offset = _offset(info, begin)
    wall = reached = (begin + offset).replace(tzinfo=None)
    # Put back by three hours at most, the clock has made up for it a day later.
    for change in _changes(info, begin - _STEP, begin + _SECOND):
        before = _offset(info, change - _SECOND)
        if abs(_offset(info, change) - before) <= LARGEST_CHANGE:
            until = (change + before).replace(tzinfo=None)
            reached = until if change == begin else max(reached, until)
    return Period(begin, end, offset, wall, reached)


def _offset(info: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(info).utcoffset()
    assert offset is not None, "a zone knows its offset"
    return offset
