"""Moments of expressions, held against an oracle that looks at every minute: over all changes of the clock from 2024 to 2030.

COLONIES_TEST_SCHEDULE_EXAMPLES sets how many examples the property tests draw.
"""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.clock import ManualClock, datetime_of, ns_of
from services.cron.domain.expressions import Expression, ScheduleError
from services.cron.domain.schedule import Schedule, Timetable
from tests.unit.cron.wall_clock import HOUR, MINUTE, Tick, changes, fires, ticks

EXAMPLES = int(os.environ.get("COLONIES_TEST_SCHEDULE_EXAMPLES", "75"))
FIRST_YEAR, LAST_YEAR = 2024, 2030
SECOND = timedelta(seconds=1)
SEED = UUID(int=1)

ZONES = (
    "Europe/Stockholm",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "America/Santiago",  # at midnight
    "Africa/Cairo",
    "Asia/Gaza",  # around Ramadan, too
    "Pacific/Chatham",  # three quarters of an hour from whole hours
    "Africa/Casablanca",  # the other way round, for Ramadan
    "Asia/Tokyo",  # none
    "America/St_Johns",
    "Antarctica/Troll",  # two hours
    "America/Nuuk",  # the last hour of a day
)
CHANGES = [(zone, change) for zone in ZONES for change in changes(zone, FIRST_YEAR, LAST_YEAR)]

# Each once in a minute at most, so that a day and a half of them is quickly done.
TELLING = (
    "0 30 2 * * *",
    "0 30 1 * * *",
    "0 0 3 * * *",
    "0 0 0 * * *",
    "0 30 0 * * *",
    "0 45 23 * * *",
    "0 0 * * * *",
    "0 30 * * * *",
    "0 */15 * * * *",
    "0 */20 2 * * *",
    "0 30 */2 * * *",
    "0 0,30 1-3 * * *",
    "0 0-59/7 0-4 * * *",
    "0 0 1,2,3,23 * * SUN",
    "0 15 0,2 * * MON-FRI",
    "0 45 2 L * *",
    "0 30 1 LW * *",
    "0 30 1 * * 0L",
    "0 30 2 * * SUN#2",
    "15,45 30 2 8-14 * SUN",
)
# Each second, as a run of the clock, as times of day, and in one hour.
EVERY_SECOND = ("* * * * * *", "* 0-59 0-23 * * *", "*/5 * 0-2 * * *", "* 30-59 1-2 * * *")


def found(expression: Expression, first: datetime, last: datetime) -> Iterator[datetime]:
    """The moments from `first` on, before `last`, one after the other."""
    moment = expression.first_after(first - timedelta(microseconds=1))
    while moment is not None and moment < last:
        yield moment
        moment = expression.first_after(moment)


def hold(text: str, zone: str, looked_at: list[Tick]) -> None:
    """Forward, backward and by number, these minutes are as the oracle says."""
    expression = Expression.parse(text, zone)
    first, last = looked_at[0].moment, looked_at[-1].moment + MINUTE
    expected = fires(text, looked_at)
    assert list(found(expression, first, last)) == expected, (text, zone, first)
    assert list(expression.newest(first, last - SECOND)) == expected[::-1], (text, zone, first)
    assert expression.count(first, last - SECOND, at_most=10**9) == len(expected), (text, zone, first)


def test_the_zones_change_their_clocks_in_every_way() -> None:
    assert {zone for zone in ZONES if not changes(zone, FIRST_YEAR, LAST_YEAR)} == {"Asia/Tokyo"}
    steps = {
        (after.utcoffset() or timedelta()) - (before.utcoffset() or timedelta())
        for zone, change in CHANGES
        for after, before in [(change.astimezone(ZoneInfo(zone)), (change - SECOND).astimezone(ZoneInfo(zone)))]
    }
    assert steps == {HOUR, -HOUR, HOUR / 2, -HOUR / 2, 2 * HOUR, -2 * HOUR}
    assert len(CHANGES) > 150


@pytest.mark.parametrize("zone", ZONES)
def test_all_changes_of_the_clock(zone: str) -> None:
    quiet = [datetime(2025, 3, 30, tzinfo=UTC)]
    for change in changes(zone, FIRST_YEAR, LAST_YEAR) or quiet:
        looked_at = list(ticks(zone, change - 4 * HOUR, change + 24 * HOUR))
        for text in TELLING:
            hold(text, zone, looked_at)


@pytest.mark.parametrize("zone", ZONES)
def test_every_second_across_the_changes(zone: str) -> None:
    in_a_year = [change for change in changes(zone, FIRST_YEAR, LAST_YEAR) if change.year == 2025]
    for change in in_a_year or [datetime(2025, 3, 30, tzinfo=UTC)]:
        for after in (timedelta(), HOUR / 2, HOUR, 2 * HOUR):
            looked_at = list(ticks(zone, change + after - MINUTE, change + after + 2 * MINUTE))
            for text in EVERY_SECOND:
                hold(text, zone, looked_at)


def terms(first: int, last: int, *words: str) -> st.SearchStrategy[str]:
    """A field: *, or up to three values, ranges, steps and words."""
    value = st.integers(first, last).map(str)
    span = st.tuples(st.integers(first, last), st.integers(first, last)).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.builds("{}/{}".format, st.one_of(st.just("*"), value, span), st.integers(1, last))
    term = st.one_of(value, span, step, *(st.just(word) for word in words))
    return st.one_of(st.just("*"), term, st.lists(term, min_size=2, max_size=3).map(",".join))


TEXTS = st.tuples(
    st.one_of(st.just("0"), terms(0, 59)),
    terms(0, 59),
    # The hours at which clocks are changed, more often than others.
    st.one_of(terms(0, 3), terms(0, 23), st.just("23"), st.just("22-23,0")),
    st.one_of(st.just("*"), terms(1, 31, "L", "LW")),
    st.one_of(st.just("*"), terms(1, 12, "MAR", "OCT-NOV")),
    st.one_of(st.just("*"), terms(0, 7, "MON-FRI", "SUN", "SUN#2", "0#5", "0L", "5L,SAT")),
).map(" ".join)
SEVEN_YEARS = st.datetimes(datetime(FIRST_YEAR, 1, 1), datetime(LAST_YEAR, 12, 31)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)
NEAR_A_CHANGE = st.builds(
    lambda where, hours: (where[0], where[1] + timedelta(hours=hours)),
    st.sampled_from(CHANGES),
    st.floats(-5, 3, allow_nan=False),
)
WHERE_AND_WHEN = st.one_of(NEAR_A_CHANGE, NEAR_A_CHANGE, st.tuples(st.sampled_from(ZONES), SEVEN_YEARS))
# How far the clock goes on between two looks at it: from under a second to hours of downtime, yet fewer seconds than are counted.
LOOKS = st.lists(st.floats(0.2, 9_000, allow_nan=False), min_size=1, max_size=12)


@given(TEXTS, WHERE_AND_WHEN, LOOKS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_whenever_one_looks_at_the_clock_just_the_right_moments_have_passed(
    text: str, where: tuple[str, datetime], looks: list[float]
) -> None:
    zone, begin = where
    try:
        schedule = Schedule(Expression.parse(text, zone))
    except ScheduleError as refused:
        assert "none has a day" in str(refused) or "never does" in str(refused)
        return
    clock = ManualClock(ns_of(begin))
    timetable = Timetable(schedule, SEED, datetime_of(clock.now_ns()))
    following = timetable.next_after(begin)
    acted_on: list[datetime] = []
    counted = 0
    for seconds in looks:
        clock.advance(seconds=seconds)
        now = datetime_of(clock.now_ns())
        if following is not None and following <= now:
            passed = timetable.passed(following, now, 10_000)
            counted += passed.count
            acted_on += passed.newest
            following = timetable.next_after(acted_on[-1])
        assert following is None or following > now
    now = datetime_of(clock.now_ns())
    looked_at = list(ticks(zone, begin.replace(second=0, microsecond=0), now + MINUTE))
    expected = [moment for moment in fires(text, looked_at) if begin < moment <= now]
    assert acted_on == expected
    assert counted == len(expected)


# What is said of croniter in docs/schedules.md, and nothing else, is different.
def croniter_differs(text: str) -> set[str]:
    minute, hour, day, _, weekday = text.split()
    by_the_clock = minute.startswith("*") or hour.startswith("*")
    said = {"in a gap"} if by_the_clock else {"the second time"}
    if (day + weekday).count("*") == 1 and day != "*" != weekday:
        said.add("either day")
    return said


def kind_of_difference(zone: str, moment: datetime) -> str:
    """Why croniter has a moment that we have not."""
    info = ZoneInfo(zone)
    wall = moment.astimezone(info)
    if wall.fold:
        return "the second time"
    before = (moment - SECOND).astimezone(info)
    if wall.utcoffset() != before.utcoffset() and wall.utcoffset() > before.utcoffset():  # type: ignore[operator]
        return "in a gap"
    return "either day"


CRONITER_TEXTS = (
    "30 2 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "59 23 * * *",
    "0 * * * *",
    "*/15 * * * *",
    "0,30 1-3 * * *",
    "*/20 2 * * *",
    "30 */2 * * *",
    "15 0,2 * * MON-FRI",
    "45 2 L * *",
    "30 2 * * SUN#2",
    "0 0 13 * FRI",
    "0 12 13 * */5",
    "0 12 */2 * MON",
)


@pytest.mark.parametrize("text", CRONITER_TEXTS)
def test_croniter_differs_only_where_the_page_says_so(text: str) -> None:
    said = croniter_differs(text)
    seen = set()
    for zone, change in CHANGES:
        if change.year not in {2025, 2026}:
            continue
        first, last = change - 14 * HOUR, change + 26 * HOUR
        expression = Expression.parse(text, zone)
        ours = set(found(expression, first, last))
        theirs = set()
        for moment in croniter(text, (first - SECOND).astimezone(ZoneInfo(zone))).all_next(datetime):
            if moment.astimezone(UTC) >= last:
                break
            theirs.add(moment.astimezone(UTC))
        assert ours <= theirs, (text, zone, change)
        kinds = {kind_of_difference(zone, moment) for moment in theirs - ours}
        assert kinds <= said, (text, zone, change, sorted(theirs - ours))
        seen |= kinds
    # What is said can be seen, if the expression is about such an hour at all.
    told_apart = {
        "30 2 * * *": {"the second time"},
        "*/20 2 * * *": {"in a gap"},
        "0 12 13 * */5": {"either day"},
        "0 12 */2 * MON": {"either day"},
        "0 0 13 * FRI": set(),
    }
    if text in told_apart:
        assert seen == told_apart[text]


def day_of(zone: ZoneInfo, fire: datetime, at: time) -> date:
    """For which day a daily job fired: on time, or at the end of the gap that its time is in."""
    wall = fire.astimezone(zone).replace(tzinfo=None)
    if wall.time() == at:
        return wall.date()
    gap = (fire - SECOND).astimezone(zone).replace(tzinfo=None) + SECOND
    skipped = datetime.combine(gap.date(), at)
    if skipped < gap:
        skipped += timedelta(days=1)
    assert gap <= skipped < wall, f"{fire} is neither on time nor the end of a gap"
    return skipped.date()


def once_a_day(zone: str, at: time, first: datetime, last: datetime) -> None:
    """A daily job fires exactly once for each day of the local calendar between two moments."""
    info = ZoneInfo(zone)
    expression = Expression(f"{at.second} {at.minute} {at.hour} * * *", zone)
    days = [day_of(info, fire, at) for fire in found(expression, first, last)]
    assert all(following - day == timedelta(days=1) for day, following in pairwise(days)), (zone, at, days)
    # Nothing is left out at the ends: one day of slack is what a part of a day makes.
    assert first.astimezone(info).date() >= days[0] - timedelta(days=1)
    assert last.astimezone(info).date() <= days[-1] + timedelta(days=1)


ALL_ZONES = sorted(available_timezones() - {"localtime", "Factory"})
TIMES = st.times().map(lambda at: at.replace(microsecond=0))


@given(
    st.sampled_from(ALL_ZONES),
    st.one_of(TIMES, TIMES.map(lambda at: at.replace(hour=at.hour % 4))),
    st.integers(FIRST_YEAR, LAST_YEAR),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_daily_job_once_a_day(zone: str, at: time, year: int) -> None:
    once_a_day(zone, at, datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 2, tzinfo=UTC))


@cache
def days_of_change(zone: str) -> tuple[datetime, ...]:
    """The days of UTC on which a zone's clocks are changed."""
    info = ZoneInfo(zone)
    days = [datetime(FIRST_YEAR, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(7 * 366)]
    offsets = [day.astimezone(info).utcoffset() for day in days]
    return tuple(day for day, before, after in zip(days, offsets, offsets[1:], strict=False) if before != after)


def test_a_daily_job_once_a_day_in_every_zone() -> None:
    looked_at = 0
    times = (time(0, 0), time(0, 30), time(1, 30), time(2, 15, 1), time(23, 30))
    for zone in ALL_ZONES:
        # Many zones share their clocks' changes; each is looked at at one time of day and in one year, and all are over the zones.
        changed = days_of_change(zone)
        for number, day in enumerate(changed):
            once_a_day(zone, times[(looked_at + number) % len(times)], day - timedelta(days=1), day + timedelta(days=3))
        looked_at += len(changed)
    assert looked_at > 2_000
