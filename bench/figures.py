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
MS = Unit("ms", "less")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure.

    `value` is the median of the repetitions and `spread` their interquartile range, both in `unit`. `limit` is what the
    machine could do at best, in the same unit, and `limit_is` says what that is; a limit itself has none.
    """

    value: float
    unit: Unit
    spread: float
    limit: float | None = None
    limit_is: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times worse than the limit: 1 is as good as can be."""
        if self.limit is None:
            return None
        return self.limit / self.value if self.unit.better == "more" else self.value / self.limit


def figure(samples: Sequence[float], unit: Unit, limit: float | None = None, limit_is: str = "") -> Figure:
    """The figure that repetitions make; there must be two or more of them."""
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Figure(statistics.median(samples), unit, high - low, limit, limit_is)


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
