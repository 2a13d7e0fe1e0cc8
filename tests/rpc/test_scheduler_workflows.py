"""The paper's example by raw stubs, and workflows in general."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

from .scheduler_colony import SERVICES, Acme, rows, spec, value

pytestmark = pytest.mark.asyncio

WAITING, RUNNING = process_pb2.PROCESS_STATE_WAITING, process_pb2.PROCESS_STATE_RUNNING
SUCCESSFUL, FAILED = process_pb2.PROCESS_STATE_SUCCESSFUL, process_pb2.PROCESS_STATE_FAILED
CANCELLED = process_pb2.PROCESS_STATE_CANCELLED
DAY_NS = 24 * 60 * 60 * 1_000_000_000


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


def share(parent: str, index: int, of: int) -> spec_pb2.Dependency:
    return spec_pb2.Dependency(node_name=parent, share=spec_pb2.Dependency.Share(index=index, of=of))


def paper() -> list[Any]:
    limits = {"priority": 1, "max_exec_time_ms": 200_000, "max_retries": 5}
    return [
        spec("Task1", func_name="gen_nums", executor_type="edge", **limits),
        spec("Task2", share("Task1", 0, 2), func_name="square", executor_type="cloud", **limits),
        spec("Task3", share("Task1", 1, 2), func_name="square", executor_type="cloud", **limits),
        spec("Task4", "Task2", "Task3", func_name="sum", executor_type="browser", **limits),
    ]


async def test_the_papers_worked_example(acme: Acme) -> None:
    owner = acme.keys.owner
    await acme.cluster.add_executor(COLONY, owner, "E1", key_of("E1"), executor_types=("edge", "cloud"))
    await acme.cluster.add_executor(COLONY, owner, "E2", key_of("E2"), executor_types=("cloud",))
    await acme.cluster.add_executor(COLONY, owner, "E3", key_of("E3"), executor_types=("browser",))
    e1, e2, e3 = (acme.by(key_of(name)) for name in ("E1", "E2", "E3"))
    _, ids = await acme.submit_workflow(*paper())

    first = await acme.one(e1)
    assert (first.process_id, first.spec.func_name, list(first.inputs)) == (ids[0], "gen_nums", [])
    await acme.close(first, "2", "3", stub=e1)
    second, third = await acme.one(e1), await acme.one(e2)

    middle = [await acme.get(one) for one in ids]
    assert [(one.wait_for_parents, one.executor_name, one.state) for one in middle] == [
        (False, "E1", SUCCESSFUL),
        (False, "E1", RUNNING),
        (False, "E2", RUNNING),
        (True, "", WAITING),
    ]
    assert [(one.spec.priority, one.spec.max_exec_time_ms, one.spec.max_retries) for one in middle] == [(1, 200_000, 5)] * 4
    for one in middle:
        # The submission time is kept to the microsecond.
        assert 0 <= one.priority_time + DAY_NS - one.submission_time.ToNanoseconds() < 1_000
    assert [list(one.parent_ids) for one in middle] == [[], ids[:1], ids[:1], ids[1:3]]

    # The second square is done before the first: the sum's input keeps the order of its dependencies all the same.
    await acme.close(third, "9", stub=e2)
    assert await acme.assign(e3) == []
    await acme.close(second, "4", stub=e1)
    last = await acme.one(e3)
    assert (last.process_id, list(last.inputs)) == (ids[3], [value("4"), value("9")])
    await acme.close(last, "13", stub=e3)

    table = [await acme.get(one) for one in ids]
    assert [([v.data for v in one.inputs], [v.data for v in one.outputs]) for one in table] == [
        ([], [b"2", b"3"]),
        ([b"2"], [b"4"]),
        ([b"3"], [b"9"]),
        ([b"4", b"9"], [b"13"]),
    ]
    assert {one.state for one in table} == {SUCCESSFUL}


async def test_a_workflows_state_and_counts(acme: Acme) -> None:
    workflow_id, (a, _) = await acme.submit_workflow(spec("a"), spec("b", "a"), label="nightly")

    async def state() -> tuple[int, dict[str, int], bool]:
        request = pb.GetWorkflowRequest(colony_name=COLONY, workflow_id=workflow_id)
        found = (await acme.user.GetWorkflow(request)).workflow
        assert (found.label, found.initiator, found.initiator_name) == ("nightly", acme.keys.user.identity, "alice")
        return found.state, {one.name: n for one, n in found.counts.ListFields()}, found.HasField("end_time")

    assert await state() == (WAITING, {"waiting": 2}, False)
    first = await acme.one()
    assert await state() == (RUNNING, {"waiting": 1, "running": 1}, False)
    await acme.close(first)
    assert await state() == (RUNNING, {"waiting": 1, "successful": 1}, False)
    second = await acme.one()
    await acme.close(second, errors=["broken"])
    assert await state() == (FAILED, {"successful": 1, "failed": 1}, True)
    assert first.process_id == a


async def test_cancelling_and_removing_a_workflow(acme: Acme, database_url: str) -> None:
    workflow_id, ids = await acme.submit_workflow(spec("a"), spec("b", "a"))
    running = await acme.one()
    named = {"colony_name": COLONY, "workflow_id": workflow_id}
    error = await refusal(acme.user.RemoveWorkflow(pb.RemoveWorkflowRequest(**named)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WORKFLOW_NOT_FINAL")
    error = await refusal(acme.worker_2.CancelWorkflow(pb.CancelWorkflowRequest(**named)))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_INITIATOR")
    for _ in range(2):
        await acme.user.CancelWorkflow(pb.CancelWorkflowRequest(**named))
        assert {(await acme.get(one)).state for one in ids} == {CANCELLED}
    (drop,) = (await acme.heartbeat(running)).drops
    assert (drop.attempt.process_id, drop.reason) == (running.process_id, pb.DROP_REASON_CANCELLED)
    error = await refusal(acme.user.RemoveProcess(pb.RemoveProcessRequest(colony_name=COLONY, process_id=ids[0])))
    assert error.reason == "PROCESS_IN_WORKFLOW"
    await acme.user.RemoveWorkflow(pb.RemoveWorkflowRequest(**named))

    async def gone() -> bool:
        """Its processes follow the workflow, and their ledger lines when they have been counted."""
        counts = rows(database_url)
        assert counts.pop("submission") == 1
        return not any(counts.values())

    await eventually(gone, seconds=15)


async def test_a_request_id_enters_one_thing(acme: Acme, database_url: str) -> None:
    first = await acme.submit_workflow(spec("a"), spec("b", "a"), request_id="one")
    assert await acme.submit_workflow(spec("a"), spec("b", "a"), request_id="one") == first
    for again in (acme.submit_workflow(spec("a"), request_id="one"), acme.submit(spec(), request_id="one")):
        error = await refusal(again)
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    ids = await acme.submit(spec(), spec(), request_id="two")
    assert await acme.submit(spec(), spec(), request_id="two") == ids
    assert await acme.submit(spec(), spec(), request_id="two", stub=acme.worker) != ids
    assert rows(database_url)["process"] == 6


async def test_only_checking_enters_nothing(acme: Acme, database_url: str) -> None:
    assert await acme.submit_workflow(*paper(), validate_only=True) == ("", [])
    error = await refusal(acme.submit_workflow(spec("a", "b"), spec("b", "a"), validate_only=True))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert not any(rows(database_url).values())
