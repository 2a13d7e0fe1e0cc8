"""Figures: the median of repetitions, their spread, and the machine they belong to."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

GIB = 1 << 30
Better = Literal["more", "less"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit, and whether more of it is better."""

    name: str
    better: Better


PROCESSES_PER_S = Unit("processes/s", "more")
CYCLES_PER_S = Unit("cycles/s", "more")
CALLS_PER_S = Unit("calls/s", "more")
PACKS_PER_S = Unit("packs/s", "more")
MS = Unit("ms", "less")
RATIO = Unit("times as long", "less")
SPEED_UP = Unit("times as much", "more")
SHARE = Unit("of the rate without", "more")
# 10^6 bytes.
MB = Unit("MB", "less")
BYTES = Unit("bytes", "less")
# Of one processor, user and system.
PERCENT = Unit("% of a processor", "less")
COMMANDS_PER_S = Unit("commands/s", "less")
TRANSACTIONS_PER_S = Unit("transactions/s", "less")
UNITS = {
    unit.name: unit
    for unit in (
        PROCESSES_PER_S, CYCLES_PER_S, CALLS_PER_S, PACKS_PER_S, MS, RATIO, SPEED_UP, SHARE, MB, BYTES, PERCENT, COMMANDS_PER_S,
        TRANSACTIONS_PER_S,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reach:
    """What a figure is to reach: a value in its unit, and how many times worse than its limit it may be at most."""

    value: float
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure.

    `value` is the median of the repetitions and `spread` their interquartile range, both in `unit`. `limit` is what the
    machine could do at best, in the same unit, and `limit_is` says what that is; a limit itself has none. `reach` is set
    where there is something to reach.
    """

    value: float
    unit: Unit
    spread: float
    limit: float | None = None
    limit_is: str = ""
    reach: Reach | None = None

    @property
    def met(self) -> bool | None:
        """Whether it reaches what it is to reach; None if that is nothing."""
        if self.reach is None:
            return None
        far = self.value >= self.reach.value if self.unit.better == "more" else self.value <= self.reach.value
        return far and (self.reach.ratio is None or self.ratio is None or self.ratio <= self.reach.ratio)

    @property
    def ratio(self) -> float | None:
        """How many times worse than the limit: 1 is as good as can be. None where one of them is nothing."""
        if self.limit is None or 0 in {self.limit, self.value}:
            return None
        return self.limit / self.value if self.unit.better == "more" else self.value / self.limit


def figure(
    samples: Sequence[float], unit: Unit, limit: float | None = None, limit_is: str = "", reach: Reach | None = None
) -> Figure:
    """The figure that repetitions make; there must be two or more of them."""
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Figure(statistics.median(samples), unit, high - low, limit, limit_is, reach)


def percentile(samples: Sequence[float], percent: int) -> float:
    """A percentile (1 to 99) of two or more samples, interpolated between neighbours."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def machine() -> str:
    """This machine in a line: figures of different machines must not be compared."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return (
        f"{os.cpu_count()} x {_processor()}, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def now() -> str:
    """The moment, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def file_system(path: Path) -> str:
    """The type of the file system that holds a path: a commit to memory is not durable, and must not look like it."""
    best, kind = "", "unknown"
    target = str(path.resolve())
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, mounted_kind, *_ = line.split()
        if len(mount) >= len(best) and f"{target}/".startswith(f"{mount.rstrip('/')}/"):
            best, kind = mount, mounted_kind
    return kind


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
