"""Classes of times and the quantiles that they give."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.domain.quantiles import LOWERS, UPPERS, Quantiles, quantiles_of

TIMES = st.lists(st.integers(0, 10**12), min_size=1, max_size=200)


def test_classes_touch_and_are_at_most_19_percent_wide() -> None:
    assert LOWERS[0] == UPPERS[0] == 0
    for (before, upper), lower in zip(pairwise(UPPERS), LOWERS[1:], strict=True):
        assert lower == before + 1 <= upper
        assert upper <= lower * 2**0.25


def test_powers_of_two_end_their_classes() -> None:
    assert {2**power for power in range(42)} <= set(UPPERS)


def test_nothing_has_no_quantiles() -> None:
    assert quantiles_of([]) == Quantiles(0, 0.0, 0.0, 0.0)


@given(TIMES)
def test_a_quantile_is_the_end_of_the_class_that_holds_it(times: list[int]) -> None:
    held = Counter(next(upper for upper in UPPERS if upper >= time) for time in times)
    found = quantiles_of(sorted(held.items()))
    ordered = sorted(times)
    assert found.count == len(times)
    for value, percent in ((found.p50, 50), (found.p90, 90), (found.p99, 99)):
        true = ordered[-(-len(times) * percent // 100) - 1]
        assert true <= value <= max(true, 1) * 2**0.25
        assert 100 * sum(time <= value for time in times) >= percent * len(times)
