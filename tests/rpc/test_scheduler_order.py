"""I5 through the RPCs and the real queue: strictly the lowest priority time first, then the order of submission."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.servers import Databases
from tests.harness.stepped import SteppedCluster
from tests.model.model import DAY_NS, Wanted
from tests.model.stage import EXECUTORS, Stage, spec_of

LEASE_MS = 30_000
NS, US = 1, 1_000
# Nanoseconds between one submit and the next: at once, one nanosecond, around a microsecond, and whole days but for a nanosecond,
# which a step of priority makes up for.
BETWEEN = (0, 0, 0, NS, US - NS, US, US + NS, DAY_NS - NS, DAY_NS, DAY_NS + NS)
PRIORITIES = st.sampled_from((0, 0, 0, 0, 1, -1, 2, -2, -50_000, -49_999, 49_999, 50_000))
SPECS = st.builds(
    Wanted,
    executor_type=st.sampled_from(("cpu", "gpu")),
    names=st.sampled_from(((), (), ("two",), ("one", "two"), ("three", "two"))),
    priority=PRIORITIES,
)
BATCHES = st.lists(
    st.tuples(st.sampled_from(BETWEEN), st.lists(SPECS, min_size=1, max_size=4), st.integers(0, 1)), min_size=1, max_size=12
)
ASKS = st.lists(st.tuples(st.sampled_from(tuple(EXECUTORS)), st.sampled_from((1, 1, 2, 5)), st.integers(0, 1)), max_size=20)


@pytest.fixture(scope="module")
def stepped(databases: Databases, valkey_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SteppedCluster]:
    """Two schedulers on one clock that stands still."""
    directory: Path = tmp_path_factory.mktemp("order")
    with databases.fresh() as url, SteppedCluster(url, valkey_server.url(), directory, lease_ms=LEASE_MS) as running:
        yield running


@pytest.mark.timeout(300)
@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(batches=BATCHES, asks=ASKS)
def test_exact_order(
    stepped: SteppedCluster, batches: list[tuple[int, list[Wanted], int]], asks: list[tuple[str, int, int]]
) -> None:
    stage = Stage(stepped)
    stepped.run(stage.open())
    waiting: list[tuple[int, int, str, Wanted]] = []
    for number, (between_ns, wanted, replica) in enumerate(batches):
        stepped.clock.advance(ns=between_ns)
        request = pb.SubmitProcessesRequest(
            colony_name=stage.colony, request_id=f"request-{number}", specs=[spec_of(one) for one in wanted]
        )
        ids = stepped.run(stage.submit(request, replica)).process_ids
        for order, (one, process_id) in enumerate(zip(wanted, ids, strict=True)):
            # Each of a batch counts as submitted a nanosecond after the last.
            priority_time = stepped.clock.now_ns() + order - one.priority * DAY_NS
            waiting.append((priority_time, len(waiting), process_id, one))
    waiting.sort(key=lambda entry: entry[:2])
    # As drawn, and then everybody one by one until nothing is left.
    for executor, at_most, replica in [*asks, *((name, 1, 0) for name in EXECUTORS for _ in range(len(waiting)))]:
        mine = [entry for entry in waiting if _may_run(executor, entry[3])][:at_most]
        got = [one.process_id for one in stepped.run(stage.assign(executor, at_most, replica))]
        assert got == [entry[2] for entry in mine]
        if not waiting:
            break
        waiting = [entry for entry in waiting if entry not in mine]
    assert not waiting


def _may_run(executor: str, wanted: Wanted) -> bool:
    return wanted.executor_type in EXECUTORS[executor] and (not wanted.names or executor in wanted.names)
