"""The paper's priority time, and that a sorted set keeps its order exactly."""

from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from services.scheduler.domain.priority import (
    PREFIX_LENGTH,
    PRIORITY_MAX,
    PRIORITY_MIN,
    Rank,
    priority_time,
    process_of,
    rank,
)

DAY_NS = 24 * 60 * 60 * 1_000_000_000
# The submit of P1 in the paper's table 2 has priority 1.
P1_PRIORITY_TIME = 1_679_906_715_352_024_000
# Any priority is exact for submission times until 2118; tests use the years from 1970 to 2100.
LATEST_NS = 4_102_444_800_000_000_000  # the beginning of 2100
LARGEST_EXACT = 2**53
PROCESS = "01872f50-5a28-7d4a-8f3c-2f4e6a8b9c0d"
OTHER_PROCESS = "01872f50-5a28-7d4a-8f3c-000000000000"

sequences = st.integers(0, 2**63 - 1)
priority_times = st.integers(PRIORITY_MAX * -DAY_NS, LATEST_NS - PRIORITY_MIN * DAY_NS)


class Entry(NamedTuple):
    """A process in a lane."""

    priority_time: int
    sequence: int


def as_a_sorted_set_sorts(one: Rank) -> tuple[float, bytes]:
    return float(one.score), one.member.encode()


def test_the_formula_of_the_paper() -> None:
    assert priority_time(0, 42) == 42
    assert priority_time(1, P1_PRIORITY_TIME + DAY_NS) == P1_PRIORITY_TIME
    assert priority_time(-1, 42) == 42 + DAY_NS
    assert priority_time(PRIORITY_MAX, 0) == -4_320_000_000_000_000_000
    assert priority_time(PRIORITY_MIN, LATEST_NS) == LATEST_NS + 4_320_000_000_000_000_000


def test_one_step_of_priority_is_one_day_of_head_start_to_the_nanosecond() -> None:
    now = P1_PRIORITY_TIME
    assert priority_time(1, now) < priority_time(0, now - DAY_NS + 1)
    assert priority_time(1, now) == priority_time(0, now - DAY_NS)
    assert priority_time(1, now) > priority_time(0, now - DAY_NS - 1)


@given(st.integers(PRIORITY_MIN, PRIORITY_MAX), st.integers(0, LATEST_NS))
def test_it_fits_into_a_column_of_64_bits_and_its_score_into_a_double(priority: int, submitted_ns: int) -> None:
    value = priority_time(priority, submitted_ns)
    assert -(2**63) <= value < 2**63
    score = rank(value, 0, PROCESS).score
    assert abs(score) < LARGEST_EXACT
    assert int(float(score)) == score


def test_the_extremes_need_more_bits_than_a_double_has_and_keep_their_order() -> None:
    """The trap: as doubles, neighbours of this size are the same number."""
    for extreme in (priority_time(PRIORITY_MAX, 0), priority_time(PRIORITY_MIN, LATEST_NS), P1_PRIORITY_TIME):
        assert float(extreme) == float(extreme + 1)
        assert as_a_sorted_set_sorts(rank(extreme, 9, PROCESS)) < as_a_sorted_set_sorts(rank(extreme + 1, 0, PROCESS))
    assert (P1_PRIORITY_TIME).bit_length() == 61


@given(priority_times, sequences, st.sampled_from([1, 999, 1_000, 1_001, 1_000_000]), sequences)
@example(-1, 5, 1, 0)
@example(-1_000, 5, 1, 0)
def test_neighbours_in_time_are_neighbours_in_the_queue(
    earlier: int, sequence: int, distance: int, other_sequence: int
) -> None:
    """1 ns, 1 µs and 1 ms apart: the earlier is first whatever was submitted first."""
    first, second = rank(earlier, sequence, PROCESS), rank(earlier + distance, other_sequence, OTHER_PROCESS)
    assert as_a_sorted_set_sorts(first) < as_a_sorted_set_sorts(second)


@given(priority_times, st.integers(0, 2**63 - 2))
def test_at_one_time_the_first_submitted_is_first_whatever_its_id(time: int, sequence: int) -> None:
    first, second = rank(time, sequence, PROCESS), rank(time, sequence + 1, OTHER_PROCESS)
    assert as_a_sorted_set_sorts(first) < as_a_sorted_set_sorts(second)


@given(st.lists(st.builds(Entry, priority_times | st.integers(-2_000, 2_000), sequences), unique=True))
def test_the_order_of_ranks_is_the_order_of_priority_time_and_sequence(entries: list[Entry]) -> None:
    ranked = sorted(entries, key=lambda entry: as_a_sorted_set_sorts(rank(entry.priority_time, entry.sequence, PROCESS)))
    assert ranked == sorted(entries)


@given(priority_times, sequences)
def test_the_member_gives_back_its_process_and_its_prefix_has_one_width(time: int, sequence: int) -> None:
    member = rank(time, sequence, PROCESS).member
    assert process_of(member) == PROCESS
    assert len(member) == PREFIX_LENGTH + len(PROCESS)
