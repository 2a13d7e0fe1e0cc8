"""When crons fire: held against brute force over every second, and against arithmetic on integers."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cron.domain.schedule import ALIASES, Expression, Interval, ScheduleError

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))


def fires(expression: str, after: datetime, until: datetime) -> list[datetime]:
    """All the moments of an expression in (after, until]."""
    schedule = Expression.parse(expression)
    found = []
    moment = schedule.next_after(after, created=after)
    while moment is not None and moment <= until:
        found.append(moment)
        moment = schedule.next_after(moment, created=after)
    return found


def matching(fields: list[set[int]], after: datetime, until: datetime) -> list[datetime]:
    """The same by looking at every second. Fields: second, minute, hour, day, month, weekday (Sunday 0); empty: any."""
    moment = after.replace(microsecond=0)
    found = []
    while (moment := moment + timedelta(seconds=1)) <= until:
        parts = (moment.second, moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
        if all(not allowed or part in allowed for part, allowed in zip(parts, fields, strict=True)):
            found.append(moment)
    return found


ANY: set[int] = set()


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
        ("@hourly", [{0}, {0}, ANY, ANY, ANY, ANY]),
        ("@daily", [{0}, {0}, {0}, ANY, ANY, ANY]),
        ("@midnight", [{0}, {0}, {0}, ANY, ANY, ANY]),
    ],
)
def test_an_expression_gives_just_the_seconds_that_match(expression: str, fields: list[set[int]]) -> None:
    # Over the end of a month of a leap-less February and of a Saturday.
    after = datetime(2026, 2, 28, 22, 30, 0, 250_000, tzinfo=UTC)
    until = after + timedelta(hours=5)
    assert fires(expression, after, until) == matching(fields, after, until)


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("@yearly", datetime(2027, 1, 1, tzinfo=UTC)),
        ("@annually", datetime(2027, 1, 1, tzinfo=UTC)),
        ("@monthly", datetime(2026, 4, 1, tzinfo=UTC)),
        ("@weekly", datetime(2026, 3, 8, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
        ("0 30 12 1 * *", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
    ],
)
def test_the_first_moment(expression: str, first: datetime) -> None:
    assert Expression.parse(expression).next_after(NOON, created=NOON) == first


def test_a_moment_that_matches_is_not_its_own_successor() -> None:
    schedule = Expression.parse("0 0 12 * * *")
    assert schedule.next_after(NOON, created=NOON) == NOON + timedelta(days=1)
    assert schedule.next_after(NOON - timedelta(microseconds=1), created=NOON) == NOON


def test_every_alias_is_an_expression() -> None:
    for alias in ALIASES:
        assert Expression.parse(alias).text == alias


@pytest.mark.parametrize(
    "text",
    [
        "0 0 31 2 *",
        "0 0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 */16 * MON#5",
        "",
        "*",
        "* * * *",
        "* * * * * * *",
        "60 * * * * *",
        "* * 24 * * *",
        # Hour 30: six fields are never read as five and a year.
        "0 0 30 12 * SUN",
        "* * * 0 * *",
        "* * * * 13 *",
        "* * * * * 8",
        "5-1 * * * * *",
        "*/0 * * * * *",
        "1,,2 * * * * *",
        "-1 * * * * *",
        "x * * * * *",
        "@reboot",
        "@every 5s",
        "@DAILY",
        "٣ * * * * *",
        "9" * 200 + " * * * * *",
    ],
)
def test_what_never_comes_true_or_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError, match="must be"):
        Expression.parse(text)


@given(MOMENTS, MOMENTS, st.integers(1_000, 10 * 365 * 86_400_000))
def test_an_interval_fires_at_whole_multiples_from_its_creation(created: datetime, after: datetime, milliseconds: int) -> None:
    step = timedelta(milliseconds=milliseconds)
    following = Interval(milliseconds).next_after(after, created=created)
    assert following is not None
    assert following > after
    assert following >= created + step
    assert (following - created) % step == timedelta(0)
    # The first such moment, unless that would be before the first interval is over.
    assert following - step <= after or following == created + step


@given(MOMENTS, st.integers(1_000, 100_000), st.integers(2, 200))
def test_an_interval_does_not_drift(created: datetime, milliseconds: int, fires_made: int) -> None:
    moment = created
    for _ in range(fires_made):
        # Each fire is settled 17 ms late.
        following = Interval(milliseconds).next_after(moment + timedelta(milliseconds=17), created=created)
        assert following is not None
        moment = following
    assert moment == created + fires_made * timedelta(milliseconds=milliseconds)


def test_an_interval_counts_one_fire_for_all_that_were_missed() -> None:
    following = Interval(1_000).next_after(NOON + timedelta(days=400, milliseconds=1), created=NOON)
    assert following == NOON + timedelta(days=400, seconds=1)
