"""An oracle for cron expressions: looks at every minute of UTC, at what the clock on the wall shows then, and does what Debian's
cron does with it. Slow and simple, and it knows nothing of the code under test, nor of the library that this stands on.
"""

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
THREE_HOURS = timedelta(hours=3)

MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
DAYS = {"SUN": 0} | {name.upper(): number for number, name in enumerate(calendar.day_abbr, 1) if name != "Sun"}


def values(text: str, first: int, last: int, names: dict[str, int]) -> set[int]:
    """What a term without L, W and # stands for."""
    span, _, step = text.partition("/")
    if span == "*":
        low, high = first, last
    elif "-" in span:
        low, high = (names[end] if end in names else int(end) for end in span.split("-"))
    else:
        low = names[span] if span in names else int(span)
        high = last if step else low
    return set(range(low, high + 1, int(step or 1)))


@dataclass
class Wanted:
    """An expression of six fields, as sets."""

    seconds: set[int]
    minutes: set[int]
    hours: set[int]
    days: set[int]
    months: set[int]
    weekdays: set[int]
    last_day: bool
    last_weekday: bool
    nth: set[tuple[int, int]]
    last_nth: set[int]
    both: bool
    time_of_day: bool

    @classmethod
    def of(cls, text: str) -> "Wanted":
        second, minute, hour, day, month, weekday = text.upper().split()
        plain = [term for term in weekday.split(",") if "#" not in term and not term.endswith("L")]
        return cls(
            seconds=set().union(*(values(term, 0, 59, {}) for term in second.split(","))),
            minutes=set().union(*(values(term, 0, 59, {}) for term in minute.split(","))),
            hours=set().union(*(values(term, 0, 23, {}) for term in hour.split(","))),
            days=set().union(*(values(term, 1, 31, {}) for term in day.split(",") if term not in {"L", "LW"})),
            months=set().union(*(values(term, 1, 12, MONTHS) for term in month.split(","))),
            weekdays={number % 7 for term in plain for number in values(term, 0, 7, DAYS)},
            last_day="L" in day.split(","),
            last_weekday="LW" in day.split(","),
            nth={
                (next(iter(values(name, 0, 7, DAYS))) % 7, int(number))
                for term in weekday.split(",")
                if "#" in term
                for name, number in [term.split("#")]
            },
            last_nth={int(term[:-1]) % 7 for term in weekday.split(",") if term.endswith("L")},
            both=day.startswith("*") or weekday.startswith("*"),
            time_of_day=not minute.startswith("*") and not hour.startswith("*"),
        )

    def day_matches(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        length = calendar.monthrange(day.year, day.month)[1]
        workdays = [number for number in range(1, length + 1) if date(day.year, day.month, number).isoweekday() <= 5]
        weekday = day.isoweekday() % 7
        by_number = (
            day.day in self.days or (self.last_day and day.day == length) or (self.last_weekday and day.day == workdays[-1])
        )
        by_name = (
            weekday in self.weekdays
            or (weekday, (day.day - 1) // 7 + 1) in self.nth
            or (weekday in self.last_nth and day.day + 7 > length)
        )
        return by_number and by_name if self.both else by_number or by_name


class Tick(NamedTuple):
    """A minute of UTC: what the wall clock shows, and which wall minutes it makes times of day fire (all that are new)."""

    moment: datetime
    wall: datetime
    new: list[datetime]


def ticks(zone: str, first: datetime, last: datetime) -> Iterator[Tick]:
    """The minutes from `first` on, before `last`, the way Debian's cron looks at them."""
    info = ZoneInfo(zone)
    # Long enough before for every change whose effects still last.
    moment = first - 12 * HOUR
    virtual = moment.astimezone(info).replace(tzinfo=None) - MINUTE
    while moment < last:
        wall = moment.astimezone(info).replace(tzinfo=None)
        assert wall.second == 0, "this looks at whole minutes only"
        ahead = wall - virtual - MINUTE
        if abs(ahead) > THREE_HOURS:
            new = [wall]  # the clock was set
        else:
            # One, when time just goes on; more after a gap; none while it makes up for having been put back.
            new = [virtual + number * MINUTE for number in range(1, (wall - virtual) // MINUTE + 1)]
        if new:
            virtual = wall
        if moment >= first:
            yield Tick(moment, wall, new)
        moment += MINUTE


def fires(text: str, looked_at: list[Tick]) -> list[datetime]:
    """All the moments of an expression in these minutes."""
    wanted = Wanted.of(text)
    matches_day = cache(wanted.day_matches)

    def matches(wall: datetime) -> bool:
        return wall.minute in wanted.minutes and wall.hour in wanted.hours and matches_day(wall.date())

    found = []
    seconds = [timedelta(seconds=second) for second in sorted(wanted.seconds)]
    for moment, wall, new in looked_at:
        due = [minute for minute in new if matches(minute)] if wanted.time_of_day else [wall] * matches(wall)
        if not due:
            continue
        at = {moment + second for second in seconds if wall in due}
        # What was skipped happens as soon as it can.
        at |= {moment for minute in due if minute != wall}
        found += sorted(at)
    return found


@cache
def changes(zone: str, first_year: int, last_year: int) -> list[datetime]:
    """The minutes at which the zone's clocks are changed."""
    info = ZoneInfo(zone)
    found = []
    begin = datetime(first_year, 1, 1, tzinfo=UTC)
    while begin.year <= last_year:
        # No clock was changed there and back within so short a time.
        end = begin + 6 * HOUR
        if begin.astimezone(info).utcoffset() != end.astimezone(info).utcoffset():
            minutes = [begin + number * MINUTE for number in range(361)]
            offsets = [minute.astimezone(info).utcoffset() for minute in minutes]
            found += [minute for minute, (was, now) in zip(minutes[1:], pairwise(offsets), strict=True) if was != now]
        begin = end
    return found
