"""Bad input is refused with the field's name, and leaves nothing behind."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import FunctionSpec, Value
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster

from .scheduler_colony import SERVICES, Acme, rows, spec

pytestmark = pytest.mark.asyncio

NOWHERE = "123e4567-e89b-12d3-a456-426614174000"
FIVE_MB = Value(data=b"x" * 5_000_000)

BAD_SPECS: list[tuple[Any, str]] = [
    (spec(func_name=""), "specs[0].func_name"),
    (spec(executor_type=""), "specs[0].conditions.executor_type"),
    (FunctionSpec(func_name="f"), "specs[0].conditions"),
    (spec(priority=50_001), "specs[0].priority"),
    (spec(priority=-50_001), "specs[0].priority"),
    (spec(max_wait_time_ms=-1), "specs[0].max_wait_time_ms"),
    (spec(max_exec_time_ms=-1), "specs[0].max_exec_time_ms"),
    (spec(max_retries=-2), "specs[0].max_retries"),
    (spec(args=[FIVE_MB]), "specs[0].args"),
    (spec(func_name="f\0g"), "specs[0].func_name"),
    (spec(label="\0"), "specs[0].label"),
    (spec(conditions={"location_name": "\0"}), "specs[0].conditions.location_name"),
    (spec(conditions={"cpu": "lots"}), "specs[0].conditions.cpu"),
    (spec(conditions={"colony_name": "umbrella"}), "specs[0].conditions.colony_name"),
    (spec("", "a"), "specs[0].conditions.dependencies"),
]
BAD_WORKFLOWS: list[tuple[list[Any], str, list[str]]] = [
    ([], "workflow.nodes", []),
    ([spec("")], "workflow.nodes[0].node_name", []),
    ([spec("a\0")], "workflow.nodes[0].node_name", []),
    ([spec("a", "c"), spec("b", "a"), spec("c", "b")], "workflow.nodes", ["a", "b", "c"]),
    ([spec("a", "a")], "workflow.nodes", ["a"]),
    ([spec("a"), spec("b", "ghost")], "workflow.nodes[1].conditions.dependencies[0].node_name", ["ghost"]),
    ([spec("a"), spec("twin"), spec("twin")], "workflow.nodes[1].node_name", ["twin"]),
    ([spec("a"), spec("b", "a", "a")], "workflow.nodes[1].conditions.dependencies[1].node_name", ["a"]),
    ([spec("a"), spec("b", "a", func_name="")], "workflow.nodes[1].func_name", []),
    ([spec("a"), spec("b", "a", args=[FIVE_MB])], "workflow.nodes[1].args", []),
]


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


async def test_bad_specs(acme: Acme, database_url: str) -> None:
    """A good one beside each: all or none."""
    for bad, field in BAD_SPECS:
        error = await refusal(acme.submit(bad, spec()))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, field
        assert field in [violation.field for violation in error.violations]
        assert field in str(error)
    for specs, fields, wanted in (
        ([], {}, "specs"),
        ([spec()] * 10_001, {}, "specs"),
        ([spec()], {"request_id": "a b"}, "request_id"),
        ([spec()], {"request_id": "x" * 129}, "request_id"),
    ):
        error = await refusal(acme.submit(*specs, **fields))
        assert [violation.field for violation in error.violations] == [wanted]
    assert not any(rows(database_url).values())


async def test_bad_workflows(acme: Acme, database_url: str) -> None:
    for nodes, field, names in BAD_WORKFLOWS:
        error = await refusal(acme.submit_workflow(*nodes))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, field
        # Of two with one name, either may be told to be the second.
        found = {violation.field: violation.description for violation in error.violations}
        assert field in found, found
        for name in names:
            assert name in found[field]
    assert not any(rows(database_url).values())


async def test_arguments_nested_10_000_deep_are_carried_untouched(acme: Acme) -> None:
    deep = Value(data=b"[" * 10_000 + b"]" * 10_000)
    broken = Value(media_type="application/x-unknown", data=b"\x00\xff{{")
    (one,) = await acme.submit(spec(args=[deep, broken], kwargs={"k": deep}))
    assignment = await acme.one()
    assert list(assignment.spec.args) == [deep, broken]
    assert assignment.spec.kwargs["k"] == deep
    assert list((await acme.get(one)).spec.args) == [deep, broken]


REF = pb.AttemptRef(process_id=NOWHERE, attempt=1)
LINE = {"message": "x"}
BAD_CALLS: list[tuple[str, Any, str]] = [
    ("AssignProcesses", pb.AssignProcessesRequest(max_processes=0), "max_processes"),
    ("AssignProcesses", pb.AssignProcessesRequest(max_processes=101), "max_processes"),
    ("AssignProcesses", pb.AssignProcessesRequest(max_processes=1, wait_ms=-1), "wait_ms"),
    ("AssignProcesses", pb.AssignProcessesRequest(max_processes=1, wait_ms=60_001), "wait_ms"),
    ("CloseProcesses", pb.CloseProcessesRequest(), "closes"),
    ("CloseProcesses", pb.CloseProcessesRequest(closes=[pb.Close(attempt=REF)]), "closes[0]"),
    ("Heartbeat", pb.HeartbeatRequest(attempts=[REF] * 1_001), "attempts"),
    ("Heartbeat", pb.HeartbeatRequest(attempts=[pb.AttemptRef(process_id=NOWHERE)]), "attempts[0].attempt"),
    ("GetProcess", pb.GetProcessRequest(process_id="x"), "process_id"),
    ("ListProcesses", pb.ListProcessesRequest(cursor="x"), "cursor"),
    ("ListProcesses", pb.ListProcessesRequest(page_size=1_001), "page_size"),
    ("GetProcessHistory", pb.GetProcessHistoryRequest(process_id="\0"), "process_id"),
    ("SetOutput", pb.SetOutputRequest(attempt=REF, outputs=[FIVE_MB]), "outputs"),
    ("SetAttributes", pb.SetAttributesRequest(attempt=REF), "attributes"),
    ("AddLogs", pb.AddLogsRequest(attempt=REF), "lines"),
    ("AddLogs", pb.AddLogsRequest(attempt=REF, lines=[{"message": "\0"}]), "lines[0].message"),  # type: ignore[list-item]
    ("ListLogs", pb.ListLogsRequest(), "source"),
    ("ListLogs", pb.ListLogsRequest(process_id=NOWHERE, cursor="bm8"), "cursor"),
    ("FollowLogs", pb.FollowLogsRequest(process_id=NOWHERE, cursor="bm8"), "cursor"),
    ("WatchProcesses", pb.WatchProcessesRequest(), "target"),
    ("WatchProcesses", pb.WatchProcessesRequest(workflow_id="x"), "workflow_id"),
    ("CancelProcess", pb.CancelProcessRequest(process_id=""), "process_id"),
    ("GetWorkflow", pb.GetWorkflowRequest(workflow_id=NOWHERE[:-1]), "workflow_id"),
    ("ListWorkflows", pb.ListWorkflowsRequest(page_size=-1), "page_size"),
    ("SubmitWorkflows", pb.SubmitWorkflowsRequest(), "submissions"),
    ("GetWorkflowResults", pb.GetWorkflowResultsRequest(workflow_ids=["\0"]), "workflow_ids[0]"),
    ("CancelWorkflow", pb.CancelWorkflowRequest(workflow_id="x"), "workflow_id"),
]


async def test_bad_calls(acme: Acme) -> None:
    for method, request, field in BAD_CALLS:
        request.colony_name = COLONY
        call = getattr(acme.worker, method)(request)
        error = await refusal(call if hasattr(call, "__await__") else anext(aiter(call)))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, method
        assert field in [violation.field for violation in error.violations], method


async def test_cursors_that_somebody_made_up_cause_no_defect(acme: Acme) -> None:
    """They have the right form and no sense: an answer, or a refusal of the field."""
    from servicekit import cursors

    (one,) = await acme.submit(spec())
    for parts in ((-1, -1), (2**63 - 1, 2**63 - 1), (-(2**63) + 1, 0), (0, -(2**63) + 1)):
        cursor = cursors.encode(parts)
        try:
            await acme.user.ListLogs(pb.ListLogsRequest(colony_name=COLONY, process_id=one, cursor=cursor))
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (parts, error.details())
