"""Classes of times: each at most 19 % (2^(1/4)) wide, so that a hundred or so numbers stand for any amount of values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# 2^41 ms are 69 years; what took longer counts as that.
_LARGEST_POWER = 41
# The longest time of each class, in whole milliseconds.
UPPERS: Final = (0, *sorted({int(2 ** (quarter / 4)) for quarter in range(4 * _LARGEST_POWER + 1)}))
# The shortest time of each class.
LOWERS: Final = (0, *(upper + 1 for upper in UPPERS[:-1]))


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of `count` values, the upper ends of the classes that hold these; 0 if there are none."""

    count: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0


def quantiles_of(classes: Sequence[tuple[int, int]]) -> Quantiles:
    """Quantiles from classes in order: their upper ends, and how many values each holds."""
    total = sum(count for _, count in classes)
    if not total:
        return Quantiles()
    return Quantiles(total, *(_quantile(classes, total, percent) for percent in (50, 90, 99)))


def _quantile(classes: Sequence[tuple[int, int]], total: int, percent: int) -> float:
    wanted = math.ceil(total * percent / 100)
    seen = 0
    for upper, count in classes:
        seen += count
        if seen >= wanted:
            return float(upper)
    raise AssertionError
