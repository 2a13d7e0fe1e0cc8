"""When a cron fires: intervals held against arithmetic on integers, and what windows, jitter and words make of a schedule."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cron.domain.schedule import (
    MOST_COUNTED,
    Expression,
    Interval,
    Passed,
    RandomInterval,
    Schedule,
    Timetable,
    When,
)

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MS = timedelta(milliseconds=1)
SEED = UUID(int=5)
DAY_MS = 86_400_000
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
)
LENGTHS = st.one_of(st.integers(1_000, 100_000), st.integers(1_000, 10 * 365 * DAY_MS))


def timetable(when: When, *, start: datetime | None = None, end: datetime | None = None, created: datetime = NOON) -> Timetable:
    return Timetable(Schedule(when, start, end), SEED, created)


def moments(table: Timetable, after: datetime, many: int) -> list[datetime]:
    """The first so many moments after one."""
    found: list[datetime] = []
    while len(found) < many and (following := table.next_after(after)) is not None:
        found.append(following)
        after = following
    return found


@given(MOMENTS, MOMENTS, LENGTHS)
def test_an_interval_fires_at_whole_multiples_from_its_creation(created: datetime, after: datetime, milliseconds: int) -> None:
    step = milliseconds * MS
    following = timetable(Interval(milliseconds), created=created).next_after(after)
    assert following is not None
    assert following > after
    assert following >= created + step
    assert (following - created) % step == timedelta(0)
    # The first such moment, unless that would be before the first interval is over.
    assert following - step <= after or following == created + step


@given(MOMENTS, st.integers(1_000, 100_000), st.integers(2, 200))
def test_an_interval_does_not_drift(created: datetime, milliseconds: int, fires_made: int) -> None:
    table = timetable(Interval(milliseconds), created=created)
    moment = created
    for _ in range(fires_made):
        # Each fire is settled 17 ms late.
        following = table.next_after(moment + 17 * MS)
        assert following is not None
        moment = following
    assert moment == created + fires_made * milliseconds * MS


@pytest.mark.parametrize("kind", [Interval, RandomInterval])
def test_intervals_begin_at_the_start_if_there_is_one(kind: type[Interval | RandomInterval]) -> None:
    for days in (-1, 3):
        start = NOON + timedelta(days=days, seconds=0.123)
        first = timetable(kind(60_000), start=start).next_after(NOON - timedelta(days=10))
        assert first is not None
        assert first > NOON
        if kind is Interval:
            assert (first - start) % timedelta(minutes=1) == timedelta(0)
        if days == 3:
            assert start <= first <= start + timedelta(minutes=1)
        else:
            assert first <= NOON + timedelta(minutes=2)


def test_an_interval_that_begins_within_a_millisecond_comes_after_it() -> None:
    start = NOON + timedelta(microseconds=1)
    assert timetable(Interval(1_000), start=start).next_after(NOON) == NOON + timedelta(seconds=1) + MS


@given(MOMENTS, LENGTHS, st.uuids(), st.integers(0, 1_000_000))
def test_one_random_moment_in_each_interval(created: datetime, milliseconds: int, seed: UUID, skipped: int) -> None:
    step = milliseconds * MS
    if (skipped + 20) * milliseconds > 500 * 365 * DAY_MS:
        skipped = 0
    table = Timetable(Schedule(RandomInterval(milliseconds)), seed, created)
    begin = created + skipped * step
    found = moments(table, begin - MS, 10)
    assert all(moment > created for moment in found)
    numbers = [(moment - created) // step for moment in found]
    assert numbers[0] == skipped or (skipped == 0 and numbers[0] == 1 and table.next_after(created) == found[0])
    assert numbers == list(range(numbers[0], numbers[0] + 10))
    assert all((moment - created) % MS == timedelta(0) for moment in found)
    # Nobody needs to have seen those before.
    assert Timetable(Schedule(RandomInterval(milliseconds)), seed, created).next_after(found[4]) == found[5]


def test_random_moments_are_all_over_the_interval_and_everybodys_are_others() -> None:
    interval = timedelta(hours=1)
    found = moments(timetable(RandomInterval(3_600_000)), NOON, 2_000)
    tenths = {(moment - NOON) % interval * 10 // interval for moment in found}
    assert tenths == set(range(10))
    assert len({(moment - NOON) % interval for moment in found}) > 1_900
    others = moments(Timetable(Schedule(RandomInterval(3_600_000)), UUID(int=6), NOON), NOON, 2_000)
    assert not set(found) & set(others)


@pytest.mark.parametrize(
    "when", [Expression("*/20 * * * * *"), Expression("@daily", "Asia/Tokyo"), Interval(60_000), RandomInterval(60_000)]
)
def test_nothing_outside_the_window(when: When) -> None:
    start, end = NOON + timedelta(days=1), NOON + timedelta(days=4)
    table = timetable(when, start=start, end=end)
    inside = moments(table, NOON, 1_000_000)
    assert inside
    assert all(start <= moment < end for moment in inside)
    assert all(earlier < later for earlier, later in pairwise(inside))
    assert table.next_after(inside[-1]) is None
    assert table.next_after(end + timedelta(days=1)) is None
    assert table.passed(NOON, end + timedelta(days=9), 1_000_000) == Passed(min(MOST_COUNTED, len(inside)), tuple(inside))


def test_the_start_is_in_the_window_and_the_end_is_not() -> None:
    hourly = Expression("@hourly")
    table = timetable(hourly, start=NOON + timedelta(hours=2), end=NOON + timedelta(hours=4))
    assert moments(table, NOON, 10) == [NOON + timedelta(hours=2), NOON + timedelta(hours=3)]
    late = timetable(hourly, start=NOON + timedelta(hours=2, microseconds=1), end=NOON + timedelta(hours=4, microseconds=1))
    assert moments(late, NOON, 10) == [NOON + timedelta(hours=3), NOON + timedelta(hours=4)]
    assert moments(timetable(Interval(3_600_000), end=NOON + timedelta(hours=2)), NOON, 10) == [NOON + timedelta(hours=1)]


def test_nothing_before_the_creation_or_at_it() -> None:
    long_ago = NOON - timedelta(days=300)
    for when in (Expression("* * * * * *"), Interval(1_000), RandomInterval(1_000)):
        first = timetable(when).next_after(long_ago)
        assert first is not None
        assert NOON < first <= NOON + timedelta(seconds=2)
        assert timetable(when, start=long_ago).next_after(long_ago) is not None
        assert timetable(when, start=long_ago).next_after(long_ago) > NOON  # type: ignore[operator]
        assert timetable(when).passed(long_ago, first, 10) == Passed(1, (first,))


@given(
    st.one_of(
        st.builds(Interval, LENGTHS),
        st.builds(RandomInterval, LENGTHS),
        st.sampled_from([Expression("*/7 * * * * *"), Expression("0 30 2 * * *", "Europe/Stockholm")]),
    ),
    MOMENTS,
    st.integers(1, 50),
    st.integers(0, 60),
)
def test_what_passed_is_what_would_have_come(when: When, created: datetime, many: int, wanted: int) -> None:
    table = timetable(when, created=created)
    found = moments(table, created, many)
    newest = tuple(found[max(0, len(found) - wanted) :])
    assert table.passed(found[0], found[-1], wanted) == Passed(len(found), newest)
    following = table.next_after(found[-1])
    assert following is not None
    assert table.passed(found[0], following - MS, wanted) == Passed(len(found), newest)
    assert table.passed(found[-1], found[0], wanted) == (Passed(0, ()) if len(found) > 1 else Passed(1, newest))


@pytest.mark.parametrize("when", [Expression("* * * * * *", "Europe/Stockholm"), Interval(1_000), RandomInterval(1_000)])
def test_the_newest_are_exact_even_if_nobody_counts_so_far(when: When) -> None:
    table = timetable(when)
    first = table.next_after(NOON)
    assert first is not None
    until = NOON + timedelta(days=365)
    passed = table.passed(first, until, 1_000)
    assert passed.count == MOST_COUNTED
    assert len(passed.newest) == 1_000
    assert moments(table, passed.newest[0] - MS, 1_000) == list(passed.newest)
    following = table.next_after(passed.newest[-1])
    assert following is not None
    assert following > until


@given(MOMENTS, st.integers(0, DAY_MS), st.uuids())
def test_jitter_is_below_its_bound_and_always_the_same(moment: datetime, jitter_ms: int, seed: UUID) -> None:
    schedule = Schedule(Interval(1_000), jitter_ms=jitter_ms)
    jitter = Timetable(schedule, seed, NOON).jitter(moment)
    assert timedelta(0) <= jitter < max(1, jitter_ms) * MS
    assert jitter % MS == timedelta(0)
    assert Timetable(schedule, seed, NOON).jitter(moment) == jitter


def test_many_crons_of_one_moment_come_apart() -> None:
    schedule = Schedule(Expression("@hourly"), jitter_ms=60_000)
    tenths = {Timetable(schedule, UUID(int=cron), NOON).jitter(NOON) // timedelta(seconds=6) for cron in range(500)}
    assert tenths == set(range(10))
    assert len({Timetable(schedule, SEED, NOON).jitter(NOON + timedelta(hours=hour)) for hour in range(100)}) > 90


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Schedule(Interval(90_000)), "Every 90 seconds"),
        (Schedule(Interval(1_000)), "Every second"),
        (Schedule(Interval(7_200_000)), "Every 2 hours"),
        (Schedule(Interval(1_500)), "Every 1500 milliseconds"),
        (Schedule(Interval(7 * DAY_MS)), "Every week"),
        (Schedule(RandomInterval(3_600_000)), "At a random moment in every hour"),
        (Schedule(Expression("0 4 * * *", "Europe/Stockholm")), "At 04:00 every day (Europe/Stockholm)"),
        (
            Schedule(Expression("@hourly"), NOON, NOON + timedelta(days=1), max_runs=7, jitter_ms=60_000),
            (
                "At the start of every hour (UTC), from 2026-03-01 12:00:00 UTC on, until 2026-03-02 12:00:00 UTC, "
                "put off by a random time below 1 minute, at most 7 times"
            ),
        ),
        (
            Schedule(Interval(60_000), max_runs=1, jitter_ms=250),
            "Every minute, put off by a random time below 250 milliseconds, once",
        ),
        (Schedule(Interval(60_000), NOON + 5 * MS), "Every minute, from 2026-03-01 12:00:00.005 UTC on"),
    ],
)
def test_a_schedule_in_words(schedule: Schedule, words: str) -> None:
    assert schedule.describe() == words
