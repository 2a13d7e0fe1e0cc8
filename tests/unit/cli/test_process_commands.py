"""Submitting, processes and logs against a server of canned answers: requests, JSON, exit codes."""

import base64
import json
import threading
from collections.abc import Iterator

import grpc
import pytest

from colonies.cli.output import note
from colonies.scheduler.v1 import explain_pb2 as explain
from colonies.scheduler.v1 import process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

from .answers import (
    BIG,
    PROCESS_ID,
    SCHEDULER,
    a_process,
    an_event,
    answers_process,
    answers_submit,
    answers_watch,
)
from .conftest import FakeServer, Refusal, Shell


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 2),
        (grpc.StatusCode.NOT_FOUND, 3),
        (grpc.StatusCode.PERMISSION_DENIED, 4),
        (grpc.StatusCode.UNAUTHENTICATED, 4),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 5),
        (grpc.StatusCode.INTERNAL, 5),
        (grpc.StatusCode.ALREADY_EXISTS, 6),
        (grpc.StatusCode.FAILED_PRECONDITION, 6),
    ],
)
def test_a_refusal_has_its_exit_code_and_is_one_line(
    shell: Shell, server: FakeServer, code: grpc.StatusCode, exit_code: int
) -> None:
    def refuse(_: object) -> None:
        raise Refusal(code, "because\x1b[31m\nof this")

    server.on(SCHEDULER + "GetProcess", scheduler.GetProcessRequest, refuse)
    result = shell("process", "get", PROCESS_ID)
    assert result.exit_code == exit_code
    assert result.stderr == "error: because\\x1b[31m of this\n"
    assert result.stdout == ""


def test_field_violations_have_a_line_each(shell: Shell, server: FakeServer) -> None:
    def refuse(_: object) -> None:
        violations = [("specs[0].func_name", "must not be empty"), ("specs[0].label", "too long")]
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "2 fields are out of bounds", violations)

    server.on(SCHEDULER + "SubmitProcesses", scheduler.SubmitProcessesRequest, refuse)
    result = shell("submit", "f")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: 2 fields are out of bounds",
        "  specs[0].func_name: must not be empty",
        "  specs[0].label: too long",
    ]


def test_a_single_violation_that_is_the_message_is_not_repeated(shell: Shell, server: FakeServer) -> None:
    def refuse(_: object) -> None:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "process_id: must be a UUID", [("process_id", "must be a UUID")])

    server.on(SCHEDULER + "GetProcess", scheduler.GetProcessRequest, refuse)
    assert shell("process", "get", "1").stderr == "error: process_id: must be a UUID\n"


def test_a_server_out_of_reach(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonies.cli.connection.RETRY_SECONDS", 0.0)
    result = shell("process", "get", PROCESS_ID, "--port", "1", "--cluster", "test")
    assert result.exit_code == 5
    assert "127.0.0.1:1" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_colony_is_named_before_anything_is_sent(shell: Shell, server: FakeServer) -> None:
    result = shell("submit", "f", COLONIES_COLONY="")
    assert result.exit_code == 2
    assert "no colony" in result.stderr
    assert server.requests == []


def test_submit_sends_what_the_command_line_says(shell: Shell, server: FakeServer) -> None:
    answers_submit(server)
    result = shell(
        *("submit", "f", "2", "two", '{"a":1}', "--type", "cloud", "--kwarg", "k=[1]", "--priority", "-3"),
        *("--max-exec-time", "200", "--max-retries", "5", "--max-wait-time", "1m", "--label", "l", "--executor", "e1"),
        *("--location", "here", "--env", "A=b=c", "--colony", "other"),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == PROCESS_ID + "\n"
    (request,) = server.requests
    assert request.colony_name == "other"
    (spec,) = request.specs
    assert [value.data for value in spec.args] == [b"2", b'"two"', b'{"a":1}']
    assert spec.kwargs["k"].data == b"[1]"
    assert (spec.func_name, spec.priority, spec.max_exec_time_ms, spec.max_wait_time_ms) == ("f", -3, 200_000, 60_000)
    assert (spec.max_retries, spec.label, dict(spec.env)) == (5, "l", {"A": "b=c"})
    assert spec.conditions.executor_type == "cloud"
    assert list(spec.conditions.executor_names) == ["e1"]
    assert spec.conditions.location_name == "here"


def test_submit_sends_every_condition(shell: Shell, server: FakeServer) -> None:
    answers_submit(server)
    result = shell(
        *("submit", "f", "--require", "arch=arm64", "--require", "zone=a", "--require", "zone=b", "--require", "gpu"),
        *("--labels", "team=x", "--backoff", "1.5s,factor=3,longest=1h,jitter=0", "--cpu", "1500m", "--memory", "10Gi"),
        *("--storage", "1Ti", "--gpu", "a100:2", "--gpu-memory", "80Gi", "--nodes", "2", "--processes", "8"),
        *("--processes-per-node", "4", "--wall-time", "1h"),
    )
    assert result.exit_code == 0, result.output
    (spec,) = server.requests[0].specs
    wanted = spec.conditions
    assert [(each.key, each.operator, list(each.values)) for each in wanted.labels] == [
        ("arch", spec_pb2.LABEL_OPERATOR_EQUALS, ["arm64"]),
        ("zone", spec_pb2.LABEL_OPERATOR_IN, ["a", "b"]),
        ("gpu", spec_pb2.LABEL_OPERATOR_EXISTS, []),
    ]
    assert dict(spec.labels) == {"team": "x"}
    backoff = spec.backoff
    assert (backoff.first_ms, backoff.factor, backoff.longest_ms, backoff.jitter) == (1500, 3, 3_600_000, 0)
    assert (wanted.cpu, wanted.memory, wanted.storage, wanted.wall_time_ms) == ("1500m", "10Gi", "1Ti", 3_600_000)
    assert (wanted.gpu.name, wanted.gpu.count, wanted.gpu.memory) == ("a100", 2, "80Gi")
    assert (wanted.nodes, wanted.processes, wanted.processes_per_node) == (2, 8, 4)
    assert shell("submit", "f", "--gpu", "2", "--backoff", "1s").exit_code == 0
    assert not server.requests[1].specs[0].conditions.gpu.name


def an_explanation() -> explain.Explanation:
    return explain.Explanation(
        reason=explain.WAIT_REASON_NO_MATCH,
        summary="no approved executor meets all conditions",
        pending_parents=["a", "b"],
        pending_parent_count=5,
        executors=3,
        conditions=[
            explain.ConditionReport(
                kind=explain.CONDITION_KIND_EXECUTOR_TYPE, wanted="cloud", failing=2, failing_names=["e1", "e2"]
            ),
        ],
    )


def test_explain(shell: Shell, server: FakeServer) -> None:
    server.on(
        SCHEDULER + "ExplainProcess",
        explain.ExplainProcessRequest,
        lambda _: explain.ExplainProcessResponse(explanation=an_explanation()),
    )
    server.on(
        SCHEDULER + "ExplainSpec",
        explain.ExplainSpecRequest,
        lambda _: explain.ExplainSpecResponse(explanation=an_explanation()),
    )
    shown = shell("explain", PROCESS_ID)
    assert shown.exit_code == 0, shown.output
    assert "No match" in shown.stdout
    assert "a, b and 3 more" in shown.stdout
    assert [line.split() for line in shown.stdout.splitlines()][-1] == ["Executor", "type", "cloud", "2", "e1,", "e2"]
    assert server.requests[0].process_id == PROCESS_ID
    document = shell.json("explain", "--spec", "square", "2", "--type", "cloud", "--cpu", "2")
    assert document["reason"] == "WAIT_REASON_NO_MATCH"
    asked = server.requests[1].spec
    assert (asked.func_name, asked.args[0].data, asked.conditions.executor_type) == ("square", b"2", "cloud")
    assert shell("explain", PROCESS_ID, "--cpu", "2").exit_code == 2
    assert len(server.requests) == 2


def test_arguments_after_dashes_are_arguments(shell: Shell, server: FakeServer) -> None:
    answers_submit(server)
    assert shell.json("submit", "f", "--", "-5", "--json") == {"process_id": PROCESS_ID}
    assert [value.data for value in server.requests[0].specs[0].args] == [b"-5", b'"--json"']


def test_deep_json_on_the_command_line(shell: Shell, server: FakeServer) -> None:
    result = shell("submit", "f", "[" * 10_000 + "]" * 10_000)
    assert result.exit_code == 2
    assert result.stderr == "error: argument 1: the JSON is nested too deeply\n"
    assert server.requests == []


def test_exec_prints_the_outputs(shell: Shell, server: FakeServer) -> None:
    answers_submit(server)
    answers_watch(server, process_pb2.PROCESS_STATE_RUNNING, process_pb2.PROCESS_STATE_SUCCESSFUL)
    answers_process(server, a_process(outputs=[spec_pb2.Value(data=b"4"), spec_pb2.Value(data=b'{"a": "x"}')]))
    result = shell("exec", "square", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout == '4\n{"a": "x"}\n'
    assert shell.json("exec", "square", "2")["outputs"] == [4, {"a": "x"}]


def test_exec_tells_why_nobody_takes_the_process(shell: Shell, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonies.cli.waiting.TELL_AFTER_SECONDS", 0.0)
    noted = threading.Event()

    def noting(text: str) -> None:
        note(text)
        noted.set()

    monkeypatch.setattr("colonies.cli.waiting.note", noting)

    def changes(_: scheduler.WatchProcessesRequest) -> Iterator[scheduler.WatchProcessesResponse]:
        assert noted.wait(30), "it waits, and nobody says why"
        yield scheduler.WatchProcessesResponse(events=[an_event(process_pb2.PROCESS_STATE_SUCCESSFUL, "1")])

    answers_submit(server)
    answers_process(server, a_process())
    server.on(SCHEDULER + "WatchProcesses", scheduler.WatchProcessesRequest, changes)
    server.on(
        SCHEDULER + "ExplainProcess",
        explain.ExplainProcessRequest,
        lambda _: explain.ExplainProcessResponse(explanation=an_explanation()),
    )
    result = shell("exec", "square", "2")
    assert (result.exit_code, result.stdout) == (0, "4\n")
    assert (
        result.stderr
        == f"process {PROCESS_ID} waits: no approved executor meets all conditions (colonies explain {PROCESS_ID})\n"
    )


def test_exec_of_a_failure_exits_with_1_and_its_errors(shell: Shell, server: FakeServer) -> None:
    answers_submit(server)
    answers_watch(server, process_pb2.PROCESS_STATE_FAILED)
    answers_process(server, a_process(state=process_pb2.PROCESS_STATE_FAILED, errors=["it broke", "badly"], outputs=[]))
    result = shell("exec", "square", "2")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error: square, process {PROCESS_ID}: failed",
        "  it broke",
        "  badly",
    ]


def test_process_get_as_json_follows_proto3_json(shell: Shell, server: FakeServer) -> None:
    blob = spec_pb2.Value(media_type="application/octet-stream", data=b"\x00\xff")
    answers_process(server, a_process(outputs=[spec_pb2.Value(data=b"4"), blob]))
    document = shell.json("process", "get", PROCESS_ID)
    assert document["priority_time"] == str(BIG)
    assert document["state"] == "PROCESS_STATE_SUCCESSFUL"
    assert document["submission_time"] == "2023-03-27T08:45:15.352Z"
    assert document["start_time"] is None
    assert document["wait_for_parents"] is False
    assert document["spec"]["args"] == [[2]]
    assert document["spec"]["conditions"]["executor_type"] == "cloud"
    assert document["outputs"] == [
        4,
        {"media_type": "application/octet-stream", "base64": base64.b64encode(b"\x00\xff").decode()},
    ]


@pytest.mark.parametrize("data", [b"{nope", b"[" * 10_000 + b"]" * 10_000])
def test_undecodable_values(shell: Shell, server: FakeServer, data: bytes) -> None:
    bad = a_process(outputs=[spec_pb2.Value(data=b"1"), spec_pb2.Value(data=data)])
    answers_process(server, bad)
    server.on(
        SCHEDULER + "ListProcesses",
        scheduler.ListProcessesRequest,
        lambda _: scheduler.ListProcessesResponse(processes=[bad]),
    )
    (listed,) = shell.json("process", "list")
    assert listed["outputs"][0] == 1
    assert listed["outputs"][1].startswith("<undecodable: ")
    assert shell("process", "list").exit_code == 0
    for command in ("get", "output"):
        for flags in ((), ("--json",)):
            result = shell(*flags, "process", command, PROCESS_ID)
            assert result.exit_code == 1
            assert "outputs[1] is undecodable" in result.stderr
            assert result.stdout == ""
    raw = shell("process", "output", PROCESS_ID, "--raw", "1")
    assert raw.exit_code == 0
    assert raw.stdout_bytes == data
    assert shell("process", "output", PROCESS_ID, "--raw", "2").exit_code == 2


def test_process_list_filters_and_pages(shell: Shell, server: FakeServer) -> None:
    def page(request: scheduler.ListProcessesRequest) -> scheduler.ListProcessesResponse:
        begin = int(request.cursor or 0)
        count = min(request.page_size, 2)
        processes = [a_process(process_id=f"p{begin + number}") for number in range(count)]
        return scheduler.ListProcessesResponse(processes=processes, next_cursor=str(begin + count))

    server.on(SCHEDULER + "ListProcesses", scheduler.ListProcessesRequest, page)
    listed = shell.json("process", "list", "--state", "Running", "--state", "failed", "--limit", "5", "--label", "l")
    assert [each["process_id"] for each in listed] == ["p0", "p1", "p2", "p3", "p4"]
    first = server.requests[0]
    assert list(first.states) == [process_pb2.PROCESS_STATE_RUNNING, process_pb2.PROCESS_STATE_FAILED]
    assert (first.label, first.colony_name) == ("l", "dev")


def test_what_users_wrote_is_neither_markup_nor_control(shell: Shell, server: FakeServer) -> None:
    process = a_process()
    process.spec.label = "[bold]x[/bold]\x1b]0;title\x07"
    server.on(
        SCHEDULER + "ListProcesses",
        scheduler.ListProcessesRequest,
        lambda _: scheduler.ListProcessesResponse(processes=[process]),
    )
    shown = shell("process", "list").stdout
    assert "[bold]x[/bold]\\x1b]0;title\\x07" in shown
    assert "\x1b" not in shown


def test_process_history_attributes_cancel_and_remove(shell: Shell, server: FakeServer) -> None:
    attempt = process_pb2.Attempt(number=1, executor_name="e1", outcome=process_pb2.ATTEMPT_OUTCOME_TIMED_OUT)
    change = process_pb2.Transition(to_state=process_pb2.PROCESS_STATE_WAITING, reason="SUBMITTED")
    server.on(
        SCHEDULER + "GetProcessHistory",
        scheduler.GetProcessHistoryRequest,
        lambda _: scheduler.GetProcessHistoryResponse(attempts=[attempt], transitions=[change]),
    )
    attribute = process_pb2.Attribute(kind=process_pb2.ATTRIBUTE_KIND_ENV, key="K", value="v")
    server.on(
        SCHEDULER + "ListAttributes",
        scheduler.ListAttributesRequest,
        lambda _: scheduler.ListAttributesResponse(attributes=[attribute]),
    )
    server.on(SCHEDULER + "CancelProcess", scheduler.CancelProcessRequest, lambda _: scheduler.CancelProcessResponse())
    server.on(SCHEDULER + "RemoveProcess", scheduler.RemoveProcessRequest, lambda _: scheduler.RemoveProcessResponse())
    shown = shell("process", "history", PROCESS_ID).stdout
    assert "Timed out" in shown
    assert "SUBMITTED" in shown
    assert shell.json("process", "history", PROCESS_ID)["attempts"][0]["outcome"] == "ATTEMPT_OUTCOME_TIMED_OUT"
    assert shell.json("process", "attributes", PROCESS_ID) == [{"kind": "ATTRIBUTE_KIND_ENV", "key": "K", "value": "v"}]
    assert shell.json("process", "cancel", PROCESS_ID) == {"cancelled": PROCESS_ID}
    assert shell.json("process", "remove", PROCESS_ID) == {"removed": PROCESS_ID}


def test_logs(shell: Shell, server: FakeServer) -> None:
    entries = [process_pb2.LogEntry(cursor=str(n), process_id=PROCESS_ID, message=f"line {n}\x1b[2J") for n in (1, 2)]
    server.on(SCHEDULER + "ListLogs", scheduler.ListLogsRequest, lambda _: scheduler.ListLogsResponse(entries=entries))
    server.on(
        SCHEDULER + "FollowLogs",
        scheduler.FollowLogsRequest,
        lambda _: [
            scheduler.FollowLogsResponse(entries=entries[:1]),
            scheduler.FollowLogsResponse(entries=entries[1:]),
        ],
    )
    for command in ("get", "follow"):
        shown = shell("log", command, PROCESS_ID)
        assert shown.exit_code == 0, shown.output
        assert [line[-12:] for line in shown.stdout.splitlines()] == ["line 1\\x1b[2J"[-12:], "line 2\\x1b[2J"[-12:]]
    assert shell("log", "get", "e1", "--executor").exit_code == 0
    assert server.requests[-1].executor_name == "e1"
    lines = shell("--json", "log", "follow", PROCESS_ID).stdout.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["line 1\x1b[2J", "line 2\x1b[2J"]
