"""Metrics of the scheduler, beside those that every service has.

The domain counts in plain numbers and knows nothing of metrics: they are read here when somebody asks. No label is one that
could have many values, such as the colony.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from servicekit.batching import GroupCommit
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.dispatching import Dispatching
from services.scheduler.domain.finishing import Finishing
from services.scheduler.domain.limits import Limits
from services.scheduler.domain.patrol import Recovery
from services.scheduler.domain.ports import TimerKind
from services.scheduler.domain.states import State
from services.scheduler.domain.statistics import Counting
from services.scheduler.domain.submitting import Submitting
from services.scheduler.domain.upkeep import Upkeep

# What upkeep ends, as an operator calls it.
DEADLINES: Final = {
    TimerKind.LEASE: "lease",
    TimerKind.OFFER: "offer",
    TimerKind.EXEC: "max_exec_time",
    TimerKind.WAIT: "max_wait_time",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """The parts of one scheduler that are read."""

    submitting: Submitting
    dispatching: Dispatching
    finishing: Finishing
    aftermath: Aftermath
    upkeep: Upkeep
    recovery: Recovery
    limits: Limits
    counting: Counting


class SchedulerCollector(Collector):
    """Reads the schedulers of this interpreter: one, but for tests."""

    def __init__(self) -> None:
        self._measured: list[Measured] = []

    def measure(self, measured: Measured) -> Callable[[], None]:
        """Reads these parts too, until what is returned is called."""
        self._measured.append(measured)
        return lambda: self._measured.remove(measured)

    def collect(self) -> Iterator[Metric]:
        """What is measured now."""
        parts = list(self._measured)
        yield from _counters(parts)
        yield from _groups(parts)
        yield from _gauges(parts)


def _counters(parts: Iterable[Measured]) -> Iterator[Metric]:
    deadlines = CounterMetricFamily(
        "colonies_scheduler_deadlines",
        "Attempts (max_wait_time: processes) that ended because something was due.",
        labels=["due"],
    )
    for kind, name in DEADLINES.items():
        deadlines.add_metric([name], sum(part.upkeep.fired[kind] for part in parts))
    yield deadlines
    plain: list[tuple[str, str, int]] = [
        ("assigned", "Attempts given out.", sum(part.dispatching.assigned for part in parts)),
        ("claims_undone", "Claims of what its row said was not ready.", sum(part.dispatching.undone for part in parts)),
        ("doubts", "Steps that left the queue to be told later.", sum(part.aftermath.doubts for part in parts)),
        ("rebuilds", "Times that the queue was built anew.", sum(part.upkeep.rebuilds for part in parts)),
        ("takeovers", "Times that the queue was found alone, so that all leases were extended.", _takeovers(parts)),
        ("replicas_recovered", "Looks through what a lost replica left; two for each.", _recovered(parts)),
        ("queue_full", "Processes refused because too many waited.", sum(part.limits.refused for part in parts)),
    ]
    for name, text, value in plain:
        yield CounterMetricFamily(f"colonies_scheduler_{name}", text, value=value)


def _takeovers(parts: Iterable[Measured]) -> int:
    return sum(part.upkeep.takeovers for part in parts)


def _recovered(parts: Iterable[Measured]) -> int:
    return sum(part.recovery.looked_after for part in parts)


def _groups(parts: Iterable[Measured]) -> Iterator[Metric]:
    batches = CounterMetricFamily("colonies_scheduler_batches", "Group commits: batches written.", labels=["group"])
    items = CounterMetricFamily(
        "colonies_scheduler_batched", "Group commits: processes in the batches written.", labels=["group"]
    )
    gathered = GaugeMetricFamily("colonies_scheduler_gathered", "Group commits: calls that wait for a batch.", labels=["group"])
    groups: dict[str, list[GroupCommit[Any, Any]]] = {
        "submit": [group for part in parts for group in (part.submitting.group, part.submitting.large)],
        "assign": [part.dispatching.group for part in parts],
        "close": [group for part in parts for group in (part.finishing.plain, part.finishing.other)],
    }
    for name, mine in groups.items():
        batches.add_metric([name], sum(group.batches for group in mine))
        items.add_metric([name], sum(group.weight for group in mine))
        gathered.add_metric([name], sum(group.gathered for group in mine))
    yield from (batches, items, gathered)


def _gauges(parts: Iterable[Measured]) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "colonies_scheduler_unsettled",
        "Processes and workflows of which the queue is still to be told.",
        value=sum(part.aftermath.unsettled for part in parts),
    )
    processes = GaugeMetricFamily(
        "colonies_scheduler_processes",
        "Processes of all colonies by state, as counted seconds ago. Every replica says the same.",
        labels=["state"],
    )
    totals = next((part.counting.totals for part in parts if part.counting.totals), {})
    for state in State:
        if state is not State.NONE:
            processes.add_metric([state.name.lower()], totals.get(state, 0))
    yield processes


COLLECTOR: Final = SchedulerCollector()
REGISTRY.register(COLLECTOR)
