"""Cron expressions: what is one, when it fires, and that looking forward, looking back and counting agree.

Daylight saving is held against an oracle in test_schedule_oracle.py.
"""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cron.domain import zones
from services.cron.domain.expressions import ALIASES, Expression, ScheduleError

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ANY: set[int] = set()


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def fires(expression: Expression, after: datetime, until: datetime) -> Iterator[datetime]:
    """All the moments of an expression in (after, until]."""
    while (following := expression.first_after(after)) is not None and following <= until:
        yield following
        after = following


def matching(fields: list[set[int]], after: datetime, until: datetime) -> list[datetime]:
    """The same by looking at every second. Fields: second, minute, hour, day, month, weekday (Sunday 0); empty: any."""
    moment = after.replace(microsecond=0)
    found = []
    while (moment := moment + SECOND) <= until:
        parts = (moment.second, moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
        if all(not allowed or part in allowed for part, allowed in zip(parts, fields, strict=True)):
            found.append(moment)
    return found


@pytest.mark.parametrize(
    ("expression", "fields"),
    [
        ("* * * * * *", [ANY, ANY, ANY, ANY, ANY, ANY]),
        ("*/7 * * * * *", [set(range(0, 60, 7)), ANY, ANY, ANY, ANY, ANY]),
        ("5,50 59 * * * *", [{5, 50}, {59}, ANY, ANY, ANY, ANY]),
        ("30 10-12 23,0 * * *", [{30}, {10, 11, 12}, {23, 0}, ANY, ANY, ANY]),
        ("*/20 * * * *", [{0}, {0, 20, 40}, ANY, ANY, ANY, ANY]),
        ("0 0 0 1 3 *", [{0}, {0}, {0}, {1}, {3}, ANY]),
        ("15 0 * * * sun", [{15}, {0}, ANY, ANY, ANY, {0}]),
        ("15 0 * * * 7", [{15}, {0}, ANY, ANY, ANY, {0}]),
        ("0 5-05/10 0-0/1,23-23/2 * * SUN-sun/3", [{0}, {5}, {0, 23}, ANY, ANY, {0}]),
        ("0 0 1 L feb *", [{0}, {0}, {1}, {28}, {2}, ANY]),
        ("@every_minute", [{0}, ANY, ANY, ANY, ANY, ANY]),
        ("@hourly", [{0}, {0}, ANY, ANY, ANY, ANY]),
        ("@daily", [{0}, {0}, {0}, ANY, ANY, ANY]),
        ("@midnight", [{0}, {0}, {0}, ANY, ANY, ANY]),
    ],
)
def test_an_expression_gives_just_the_seconds_that_match(expression: str, fields: list[set[int]]) -> None:
    # Over the end of a month of a leap-less February and of a Saturday.
    after = datetime(2026, 2, 28, 22, 30, 0, 250_000, tzinfo=UTC)
    until = after + timedelta(hours=5)
    assert list(fires(Expression.parse(expression), after, until)) == matching(fields, after, until)


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("@yearly", utc(2027, 1, 1)),
        ("@annually", utc(2027, 1, 1)),
        ("@monthly", utc(2026, 4, 1)),
        ("@weekly", utc(2026, 3, 8)),
        ("0 0 29 2 *", utc(2028, 2, 29)),
        ("0 30 12 1 * *", utc(2026, 3, 1, 12, 30)),
        ("0 0 * * MON#2", utc(2026, 3, 9)),
        ("0 0 * * 5L", utc(2026, 3, 27)),
        ("0 0 L * *", utc(2026, 3, 31)),
        ("0 0 LW 5 *", utc(2026, 5, 29)),
        # Neither begins with *: either will do.
        ("0 0 13 * FRI", utc(2026, 3, 6)),
        # One does: both must.
        ("0 0 13 * */5", utc(2026, 3, 13)),
        # The 29 February on a Sunday: after 2004, 2032, and 2072 the next is 40 years away, for 2100 is no leap year.
        ("0 0 0 29 2 */7", utc(2032, 2, 29)),
    ],
)
def test_the_first_moment(expression: str, first: datetime) -> None:
    assert Expression.parse(expression).first_after(NOON) == first


def test_the_longest_pause_of_the_calendar_is_waited_out() -> None:
    assert Expression.parse("0 0 0 29 2 */7").first_after(utc(2088, 3, 1)) == utc(2128, 2, 29)


def test_a_moment_that_matches_is_not_its_own_successor() -> None:
    expression = Expression.parse("0 0 12 * * *")
    assert expression.first_after(NOON) == NOON + timedelta(days=1)
    assert expression.first_after(NOON - timedelta(microseconds=1)) == NOON


def test_every_alias_is_an_expression() -> None:
    for alias in ALIASES:
        assert Expression.parse(alias).text == alias


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 0 31 2 *", "none has a day 31"),
        ("0 0 0 30 2 *", "none has a day 30"),
        ("0 0 31 4,6,9,11 *", "none has a day 31"),
        ("0 0 */16 * MON#5", "never does"),
        ("", "six fields"),
        ("*", "six fields"),
        ("* * * *", "six fields"),
        ("* * * * * * *", "six fields"),
        ("60 * * * * *", "second that is one; '60' is none"),
        ("60 * * * *", "minute that is one; '60' is none"),
        ("* * 24 * * *", "hour"),
        # Hour 30: six fields are never read as five and a year.
        ("0 0 30 12 * SUN", "hour"),
        ("* * * 0 * *", "day of month"),
        ("* * * * 13 *", "month"),
        ("* * * * * 8", "day of week"),
        ("* * * * * MON#6", "day of week"),
        ("5-1 * * * * *", "second"),
        ("*/0 * * * * *", "second"),
        ("*/90 * * * *", "at most 59 in the minute"),
        ("0 0 5/24 * * *", "at most 23 in the hour"),
        ("1,,2 * * * * *", "second"),
        ("-1 * * * * *", "second"),
        ("x * * * * *", "second"),
        ("@reboot", "begins with @"),
        ("@every 5s", "begins with @"),
        ("@DAILY", "begins with @"),
        ("٣ * * * * *", "six fields"),
        ("0 0 * * ſun", "six fields"),
        ("9" * 200 + " * * * * *", "second"),
    ],
)
def test_what_never_comes_true_or_means_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(ScheduleError, match="must ") as refused:
        Expression.parse(text)
    assert says in str(refused.value)
    assert refused.value.field == "expression"


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Stockholm", "America/Argentina/Buenos_Aires", "Etc/GMT+3", "EST5EDT", "Asia/Calcutta"]
)
def test_every_name_of_the_database_is_a_zone(zone: str) -> None:
    assert Expression.parse("@daily", zone).time_zone == zone


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Nowhere",
        "europe/stockholm",
        "EUROPE/STOCKHOLM",
        "Europe",
        "Europe/",
        "/etc/passwd",
        "/usr/share/zoneinfo/Europe/Stockholm",
        "../zoneinfo/UTC",
        "Europe/../UTC",
        "./UTC",
        "posix/UTC",
        "right/UTC",
        "posixrules",
        "localtime",
        "Factory",
        "zone.tab",
        "tzdata.zi",
        "+01:00",
        "UTC+1",
        "CET-1CEST",
        " UTC",
        "UTC\0",
        "\ud800",
        "Å",
        "x" * 10_000,
    ],
)
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ScheduleError, match="IANA") as refused:
        Expression.parse("@daily", zone)
    assert refused.value.field == "time_zone"


def test_machines_without_a_zone_database_have_the_one_that_is_brought() -> None:
    script = (
        "import zoneinfo; from services.cron.domain.expressions import Expression; from datetime import UTC, datetime; "
        "assert not zoneinfo.TZPATH; "
        "print(Expression.parse('@daily', 'Europe/Stockholm').first_after(datetime(2026, 7, 1, tzinfo=UTC)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], env={"PYTHONTZPATH": ""}, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("2026-07-01 22:00:00+00:00\n", "")


@pytest.mark.parametrize(
    ("text", "zone", "words"),
    [
        ("* * * * * *", "", "Every second (UTC)"),
        ("@every_minute", "", "Every minute (UTC)"),
        ("@hourly", "UTC", "At the start of every hour (UTC)"),
        ("@daily", "Europe/Stockholm", "At 00:00 every day (Europe/Stockholm)"),
        ("0 4 * * *", "", "At 04:00 every day (UTC)"),
        ("15 30 4 * * mon-fri", "", "At 04:30:15 on Monday through Friday (UTC)"),
        ("*/10 * * * * *", "", "Every 10th second of every minute (UTC)"),
        ("0 0 22 * *", "", "At 00:00 on the 22nd day of every month (UTC)"),
        ("*/12 * * * *", "", "Every 12th minute of every hour (UTC)"),
        ("*/23 * * * *", "", "Every 23rd minute of every hour (UTC)"),
        ("*/31 * * * *", "", "Every 31st minute of every hour (UTC)"),
        ("0 0 L * *", "", "At 00:00 on the last day of every month (UTC)"),
        ("0 0 * * MON#2", "", "At 00:00 on the second Monday of the month (UTC)"),
    ],
)
def test_an_expression_in_words(text: str, zone: str, words: str) -> None:
    assert Expression.parse(text, zone).describe() == words


def numbers(first: int, last: int, *words: str) -> st.SearchStrategy[str]:
    """A field of an expression that means something: terms of values, ranges and steps, and words for some."""
    value = st.integers(first, last).map(str)
    span = st.tuples(st.integers(first, last), st.integers(first, last)).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.tuples(st.one_of(st.just("*"), value, span), st.integers(1, last)).map(lambda parts: f"{parts[0]}/{parts[1]}")
    term = st.one_of(value, span, step, *(st.just(word) for word in words))
    return st.one_of(st.just("*"), st.lists(term, min_size=1, max_size=3).map(",".join))


EXPRESSIONS = st.tuples(
    numbers(0, 59),
    numbers(0, 59),
    numbers(0, 23),
    numbers(1, 28, "L", "LW", "31,1"),
    numbers(1, 12, "JAN", "MAR-OCT"),
    numbers(0, 7, "MON-FRI", "SUN", "TUE#2", "5L", "0#1"),
).map(" ".join)
ZONES = st.sampled_from(
    ["", "Europe/Stockholm", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "America/Nuuk", "Antarctica/Troll"]
)
# Two years with changes of the clock on many sides, and Samoa's without 30 December.
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))


def parsed(text: str, zone: str) -> Expression | None:
    """None for what never comes true."""
    try:
        return Expression.parse(text, zone)
    except ScheduleError as refused:
        assert "comes true" in str(refused) or "none has" in str(refused)
        return None


@given(EXPRESSIONS, ZONES, MOMENTS, st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_looking_forward_looking_back_and_counting_agree(text: str, zone: str, after: datetime, many: int) -> None:
    expression = parsed(text, zone)
    if expression is None:
        return
    assert expression.describe()
    found = list(islice(fires(expression, after, zones.LATEST), many))
    assert found
    assert all(earlier < later for earlier, later in pairwise(found))
    assert list(expression.newest(found[0], found[-1])) == found[::-1]
    assert (
        list(expression.newest(after + timedelta(microseconds=1), found[-1] + timedelta(microseconds=999_999))) == found[::-1]
    )
    assert expression.count(found[0], found[-1], at_most=10_000) == len(found)
    assert expression.count(found[0], found[-1], at_most=3) == min(3, len(found))
    assert expression.count(after + timedelta(microseconds=1), found[-1] - SECOND, at_most=10_000) == len(found) - 1


@pytest.mark.parametrize(
    "zone",
    # Half an hour; two hours; at midnight; a day left out; once an offset with seconds; in UTC's last hour of a year.
    ["Australia/Lord_Howe", "Antarctica/Troll", "America/Santiago", "Pacific/Apia", "Europe/Amsterdam", "Pacific/Norfolk"],
)
@pytest.mark.parametrize("text", ["* * * * * *", "59 59 * * * *", "*/10 30 * * * *", "0 0,30 1-3 * * *", "7 */45 0,23 * * *"])
def test_moments_only_ever_go_on(zone: str, text: str) -> None:
    expression = Expression.parse(text, zone)
    years = (1900, 1936, 1940, 1942, 2011, 2012, 2025) if zone in {"Europe/Amsterdam", "Pacific/Apia"} else (2024, 2025)
    for year in years:
        for period in zones.periods_from(zone, utc(year, 1, 1)):
            if period.begin.year > year:
                break
            around = list(islice(fires(expression, period.begin - timedelta(minutes=2), zones.LATEST), 200))
            assert all(earlier < later for earlier, later in pairwise(around))
            assert list(expression.newest(around[0], around[-1])) == around[::-1]
            assert expression.count(around[0], around[-1], at_most=10_000) == len(around)


def test_a_day_that_a_zone_left_out_is_left_out() -> None:
    # Samoa went from 29 to 31 December 2011; clocks showed UTC-10, and UTC+14 then.
    daily = Expression.parse("0 0 12 * * *", "Pacific/Apia")
    assert list(fires(daily, utc(2011, 12, 28, 22), utc(2011, 12, 31))) == [utc(2011, 12, 29, 22), utc(2011, 12, 30, 22)]
    assert list(fires(Expression.parse("0 0 12 30 12 *", "Pacific/Apia"), utc(2011, 1, 1), utc(2012, 1, 1))) == []


def test_a_year_of_seconds_is_counted_without_looking_at_each() -> None:
    expression = Expression.parse("* * * * * *", "Europe/Stockholm")
    assert expression.count(utc(2025, 1, 1), utc(2025, 12, 31, 23, 59, 59), at_most=10**9) == 365 * 86_400
    assert (
        Expression.parse("@hourly", "Europe/Stockholm").count(utc(2025, 1, 1), utc(2025, 12, 31), at_most=10**9) == 364 * 24 + 1
    )


@pytest.mark.parametrize("zone", ["", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_beyond_the_years_that_are_looked_at_there_are_no_moments(zone: str) -> None:
    minutely = Expression.parse("@every_minute", zone)
    beyond, before = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    assert minutely.first_after(beyond) is None
    assert minutely.first_after(zones.LATEST - SECOND) is None
    assert minutely.first_after(zones.LATEST - timedelta(minutes=1, seconds=1)) == zones.LATEST - timedelta(minutes=1)
    assert minutely.first_after(before) is not None
    assert minutely.count(before, beyond, at_most=10_000) == 10_000
    assert len(list(islice(minutely.newest(before, beyond), 5))) == 5
    assert minutely.count(beyond, before, at_most=10_000) == 0
    assert list(minutely.newest(beyond, before)) == []


def test_an_hour_that_its_zone_leaves_out_every_year_never_comes() -> None:
    # Minute by minute of the hour that New York's clocks skip.
    expression = Expression.parse("* 2 8-14 3 */7", "America/New_York")
    assert expression.first_after(NOON) is None
