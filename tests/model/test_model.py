"""The scheduler against its model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from services.scheduler.rpc.servicer import Servicer
from tests.harness.servers import Databases
from tests.harness.stepped import SteppedCluster
from tests.model.features import RicherMachine
from tests.model.machine import LEASE_MS, SchedulerMachine


@pytest.fixture
def stepped(databases: Databases, redis_url: str, tmp_path: Path) -> Iterator[SteppedCluster]:
    """Two schedulers that wait for the test."""
    with databases.fresh() as url, SteppedCluster(url, redis_url, tmp_path, lease_ms=LEASE_MS) as running:
        yield running


def play(stepped: SteppedCluster, machine: type[SchedulerMachine], *, examples: int, steps: int) -> None:
    """So many stories of at most so many steps each. With MODEL_NO_SHRINK set, the first that fails is shown as it is."""
    machine.stepped = stepped
    quiet = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=(Phase.generate,) if os.environ.get("MODEL_NO_SHRINK") else (Phase.generate, Phase.shrink),
    )
    run_state_machine_as_test(machine, settings=quiet)


def has(method: str) -> bool:
    """Whether this scheduler has an RPC of the contract."""
    return getattr(Servicer, method) is not getattr(SchedulerServiceServicer, method)


needs_features = pytest.mark.skipif(
    not (has("UpdateControls") and has("RetryWorkflow")), reason="the scheduler has no controls and no retry of workflows"
)


@pytest.mark.timeout(600)
def test_a_few_hundred_steps(stepped: SteppedCluster) -> None:
    play(stepped, SchedulerMachine, examples=16, steps=30)


@needs_features
@pytest.mark.timeout(600)
def test_a_few_hundred_steps_with_every_feature(stepped: SteppedCluster) -> None:
    play(stepped, RicherMachine, examples=16, steps=30)


@pytest.mark.model
@pytest.mark.timeout(3_600)
def test_ten_thousand_steps(stepped: SteppedCluster) -> None:
    play(stepped, SchedulerMachine, examples=125, steps=80)


@needs_features
@pytest.mark.model
@pytest.mark.timeout(3_600)
def test_ten_thousand_steps_with_every_feature(stepped: SteppedCluster) -> None:
    play(stepped, RicherMachine, examples=125, steps=80)
