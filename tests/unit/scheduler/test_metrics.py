"""What the scheduler counts, as Prometheus reads it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from servicekit.batching import GroupCommit
from services.scheduler.domain.ports import TimerKind
from services.scheduler.domain.states import State
from services.scheduler.metrics import COLLECTOR, Measured, SchedulerCollector


async def _nothing(_items: list[int]) -> list[int]:
    return []


def parts(**counts: int) -> Any:
    """The counters of one scheduler, all 0 but for these."""

    def group(name: str) -> GroupCommit[int, int]:
        made: GroupCommit[int, int] = GroupCommit(_nothing)
        made.batches, made.weight = counts.get(f"{name}_batches", 0), counts.get(f"{name}_weight", 0)
        return made

    return Measured(
        submitting=cast(Any, SimpleNamespace(group=group("submit"), large=group("large"))),
        dispatching=cast(
            Any, SimpleNamespace(group=group("assign"), assigned=counts.get("assigned", 0), undone=counts.get("undone", 0))
        ),
        finishing=cast(Any, SimpleNamespace(plain=group("plain"), other=group("other"))),
        aftermath=cast(Any, SimpleNamespace(doubts=counts.get("doubts", 0), unsettled=counts.get("unsettled", 0))),
        upkeep=cast(
            Any,
            SimpleNamespace(
                rebuilds=counts.get("rebuilds", 0),
                takeovers=counts.get("takeovers", 0),
                fired={kind: counts.get(kind, 0) for kind in TimerKind},
            ),
        ),
        recovery=cast(Any, SimpleNamespace(looked_after=counts.get("looked_after", 0))),
        limits=cast(Any, SimpleNamespace(refused=counts.get("refused", 0))),
        counting=cast(Any, SimpleNamespace(totals={State.WAITING: counts["waiting"]} if "waiting" in counts else {})),
    )


@pytest.fixture
def collector() -> SchedulerCollector:
    return SchedulerCollector()


def read(collector: SchedulerCollector, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry.get_sample_value(f"colonies_scheduler_{name}", labels)


@pytest.mark.parametrize(
    ("count", "name", "labels"),
    [
        ("assigned", "assigned_total", {}),
        ("undone", "claims_undone_total", {}),
        ("doubts", "doubts_total", {}),
        ("unsettled", "unsettled", {}),
        ("rebuilds", "rebuilds_total", {}),
        ("takeovers", "takeovers_total", {}),
        ("looked_after", "replicas_recovered_total", {}),
        ("refused", "queue_full_total", {}),
        ("waiting", "processes", {"state": "waiting"}),
        (TimerKind.LEASE, "deadlines_total", {"due": "lease"}),
        (TimerKind.OFFER, "deadlines_total", {"due": "offer"}),
        (TimerKind.EXEC, "deadlines_total", {"due": "max_exec_time"}),
        (TimerKind.WAIT, "deadlines_total", {"due": "max_wait_time"}),
        ("submit_batches", "batches_total", {"group": "submit"}),
        ("large_batches", "batches_total", {"group": "submit"}),
        ("assign_batches", "batches_total", {"group": "assign"}),
        ("plain_batches", "batches_total", {"group": "close"}),
        ("other_batches", "batches_total", {"group": "close"}),
        ("submit_weight", "batched_total", {"group": "submit"}),
        ("assign_weight", "batched_total", {"group": "assign"}),
        ("other_weight", "batched_total", {"group": "close"}),
    ],
)
def test_each_count_has_its_metric(collector: SchedulerCollector, count: str, name: str, labels: dict[str, str]) -> None:
    assert read(collector, name, **labels) == 0
    collector.measure(parts(**{count: 7}))
    assert read(collector, name, **labels) == 7


def test_schedulers_add_up_but_for_what_all_of_them_see(collector: SchedulerCollector) -> None:
    end = collector.measure(parts(assigned=2, waiting=5))
    collector.measure(parts(assigned=3, waiting=5))
    assert (read(collector, "assigned_total"), read(collector, "processes", state="waiting")) == (5, 5)
    end()
    assert read(collector, "assigned_total") == 3


def test_the_process_serves_them() -> None:
    end = COLLECTOR.measure(parts(rebuilds=1))
    try:
        assert REGISTRY.get_sample_value("colonies_scheduler_rebuilds_total") == 1
    finally:
        end()


async def _echo(items: list[int]) -> list[int]:
    return items


@pytest.mark.asyncio
async def test_a_group_commit_counts_its_batches_and_what_they_weigh() -> None:
    group: GroupCommit[int, int] = GroupCommit(_echo)
    await group.do(1, 3)
    await group.do(1, 4)
    assert (group.batches, group.weight) == (2, 7)
