"""Workflows and watching against a server of canned answers."""

import json
from pathlib import Path

import grpc

from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

from .answers import (
    PROCESS_ID,
    SCHEDULER,
    WORKFLOW_ID,
    a_process,
    answers_process,
    answers_watch,
    answers_workflow,
)
from .conftest import FakeServer, Refusal, Shell


def test_workflow_submit_and_wait(shell: Shell, server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "w.json"
    node = {"function": "f", "executor_type": "edge"}
    file.write_text(json.dumps({"label": "l", "nodes": [{"name": "a", **node}, {"name": "b", "after": ["a"], **node}]}))
    server.on(
        SCHEDULER + "SubmitWorkflow",
        scheduler.SubmitWorkflowRequest,
        lambda request: scheduler.SubmitWorkflowResponse(
            workflow_id=WORKFLOW_ID, process_ids=[f"p-{node.node_name}" for node in request.workflow.nodes]
        ),
    )
    assert shell.json("workflow", "submit", str(file)) == {"workflow_id": WORKFLOW_ID, "process_ids": ["p-a", "p-b"]}
    assert server.requests[-1].workflow.label == "l"
    assert shell.json("workflow", "submit", str(file), "--check", "--label", "m") == {"valid": True}
    assert server.requests[-1].validate_only
    assert server.requests[-1].workflow.label == "m"
    answers_watch(server, process_pb2.PROCESS_STATE_SUCCESSFUL)
    answers_workflow(server, process_pb2.PROCESS_STATE_SUCCESSFUL)
    ended = shell("workflow", "submit", str(file), "--wait")
    assert ended.exit_code == 0, ended.output
    assert "1 min 5 s" in ended.stdout
    answers_watch(server, process_pb2.PROCESS_STATE_FAILED)
    answers_process(server, a_process(state=process_pb2.PROCESS_STATE_FAILED, errors=["broke"]))
    failed = shell("workflow", "submit", str(file), "--wait")
    assert failed.exit_code == 1
    assert failed.stderr.splitlines()[-1] == "  broke"


def test_workflow_graph_puts_parents_first(shell: Shell, server: FakeServer) -> None:
    def node(name: str, number: int, *parents: str) -> process_pb2.Process:
        process = a_process(process_id=f"p-{name}", parent_ids=[f"p-{each}" for each in parents], priority_time=number)
        process.spec.node_name = name
        for index, parent in enumerate(parents):
            dependency = process.spec.conditions.dependencies.add(node_name=parent)
            dependency.share.index, dependency.share.of = index, 2
        return process

    # Newest first, all of one moment, as the server lists what came in one submit; but for the parents it would be d, a, b, c.
    nodes = [node("c", 4, "a"), node("b", 4, "a"), node("a", 4), node("d", 1, "b", "c")]
    answers_workflow(server, process_pb2.PROCESS_STATE_RUNNING)
    server.on(
        SCHEDULER + "ListProcesses",
        scheduler.ListProcessesRequest,
        lambda _: scheduler.ListProcessesResponse(processes=nodes),
    )
    document = shell.json("workflow", "graph", WORKFLOW_ID)
    assert [each["spec"]["node_name"] for each in document["nodes"]] == ["a", "b", "c", "d"]
    assert "b[0 of 2], c[1 of 2]" in shell("workflow", "graph", WORKFLOW_ID).stdout


def test_watch(shell: Shell, server: FakeServer) -> None:
    def unknown(_: object) -> None:
        raise Refusal(grpc.StatusCode.NOT_FOUND, "no such workflow")

    server.on(SCHEDULER + "GetWorkflow", scheduler.GetWorkflowRequest, unknown)
    answers_process(server, a_process())
    answers_watch(server, process_pb2.PROCESS_STATE_RUNNING, process_pb2.PROCESS_STATE_SUCCESSFUL)
    lines = shell("--json", "watch", PROCESS_ID)
    assert lines.exit_code == 0, lines.output
    states = [json.loads(line)["transition"]["to_state"] for line in lines.stdout.splitlines()]
    assert states == ["PROCESS_STATE_RUNNING", "PROCESS_STATE_SUCCESSFUL"]
    assert "Running" in shell("watch", PROCESS_ID).stdout
    answers_workflow(server, process_pb2.PROCESS_STATE_CANCELLED)
    assert shell("watch", WORKFLOW_ID).exit_code == 1


def test_watching_the_colony(shell: Shell, server: FakeServer) -> None:
    answers_watch(server, process_pb2.PROCESS_STATE_RUNNING, process_pb2.PROCESS_STATE_FAILED)
    lines = shell("--json", "watch", "--type", "edge", "--label", "l", "--state", "failed", "--cursor", "7")
    assert lines.exit_code == 0, lines.output  # the fake ends the stream, which a server does not
    assert [json.loads(line)["cursor"] for line in lines.stdout.splitlines()] == ["1", "2"]
    (request,) = server.requests
    wanted = request.colony
    assert (list(wanted.executor_types), list(wanted.labels), request.cursor) == (["edge"], ["l"], "7")
    assert list(wanted.states) == [process_pb2.PROCESS_STATE_FAILED]


def test_workflow_retry(shell: Shell, server: FakeServer) -> None:
    counts = iter([3, 3, 0])
    server.on(
        SCHEDULER + "RetryWorkflow",
        scheduler.RetryWorkflowRequest,
        lambda _: scheduler.RetryWorkflowResponse(count=next(counts)),
    )
    assert shell.json("workflow", "retry", WORKFLOW_ID) == {"retried": 3}
    assert shell("workflow", "retry", WORKFLOW_ID).stdout == f"workflow {WORKFLOW_ID}: 3 processes wait to be tried again\n"
    assert shell("workflow", "retry", WORKFLOW_ID).stdout == "there is nothing to try again\n"
    assert server.requests[0].workflow_id == WORKFLOW_ID
