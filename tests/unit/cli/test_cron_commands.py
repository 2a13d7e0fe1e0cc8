"""`colonies cron` against a server of canned answers."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.cron.v1 import cron_service_pb2 as cron

from .answers import CRON, WORKFLOW_ID
from .conftest import FakeServer, Refusal, Shell

DUE = Timestamp(seconds=1_679_906_715)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "w.json"
    path.write_text(json.dumps({"nodes": [{"name": "a", "function": "f", "executor_type": "edge", "args": [1]}]}))
    return str(path)


def a_cron(**changes: Any) -> cron.Cron:
    fields: dict[str, Any] = {
        "name": "c",
        "state": cron.CRON_STATE_ACTIVE,
        "description": "At 04:30:00",
        "schedule": cron.Schedule(expression="0 30 4 * * *", time_zone="Europe/Stockholm", max_runs=10),
        "policy": cron.FirePolicy(overlap=cron.OVERLAP_POLICY_QUEUE_ONE, missed=cron.MISSED_POLICY_ALL),
        "next_fire_time": DUE,
        "runs": 3,
    }
    return cron.Cron(**{**fields, **changes})


def a_fire(**changes: Any) -> cron.Fire:
    fields: dict[str, Any] = {
        "kind": cron.FIRE_KIND_SCHEDULED,
        "due_time": DUE,
        "fired_time": DUE,
        "outcome": cron.FIRE_OUTCOME_REFUSED,
        "error": "no\x1b[31m such type",
        "moments": 4,
        "delay_ms": 1500,
    }
    return cron.Fire(**{**fields, **changes})


def answers(server: FakeServer, found: cron.Cron) -> None:
    """A server with one cron, and two fires a page."""

    def entered(response: Any) -> Any:
        def answer(request: Any) -> Any:
            made = cron.Cron(name=request.name, schedule=request.schedule, policy=request.policy, workflow=request.workflow)
            return response(cron=made)

        return answer

    def fires(request: cron.ListFiresRequest) -> cron.ListFiresResponse:
        first = int(request.cursor or 0)
        end = min(first + min(request.page_size, 2), 5)
        cursor = str(end) if end < 5 else ""
        return cron.ListFiresResponse(fires=[a_fire(moments=n + 1) for n in range(first, end)], next_cursor=cursor)

    def preview(request: cron.PreviewScheduleRequest) -> cron.PreviewScheduleResponse:
        return cron.PreviewScheduleResponse(fire_times=[DUE] * min(3, request.count), description="At 04:30:00")

    server.on(CRON + "AddCron", cron.AddCronRequest, entered(cron.AddCronResponse))
    server.on(CRON + "UpdateCron", cron.UpdateCronRequest, entered(cron.UpdateCronResponse))
    server.on(CRON + "GetCron", cron.GetCronRequest, lambda _: cron.GetCronResponse(cron=found))
    server.on(CRON + "ListCrons", cron.ListCronsRequest, lambda _: cron.ListCronsResponse(crons=[found]))
    server.on(CRON + "ListFires", cron.ListFiresRequest, fires)
    server.on(CRON + "PreviewSchedule", cron.PreviewScheduleRequest, preview)
    server.on(CRON + "PauseCron", cron.PauseCronRequest, lambda _: cron.PauseCronResponse(cron=found))
    server.on(CRON + "ResumeCron", cron.ResumeCronRequest, lambda _: cron.ResumeCronResponse(cron=found))
    server.on(CRON + "RunCron", cron.RunCronRequest, lambda _: cron.RunCronResponse(workflow_id=WORKFLOW_ID))
    server.on(CRON + "RemoveCron", cron.RemoveCronRequest, lambda _: cron.RemoveCronResponse())


EVERYTHING = (
    *("--expression", "0 30 4 * * *", "--time-zone", "Europe/Stockholm", "--start", "2026-12-01T08:30:00+01:00"),
    *("--end", "2027-01-01", "--max-runs", "7", "--jitter", "1.5s", "--overlap", "queue", "--missed", "ALL"),
    *("--missed-at-most", "5", "--missed-after", "1m", "--feed-outputs", "--max-failures", "3"),
)


@pytest.mark.parametrize("command", ["add", "update"])
def test_all_options_arrive(shell: Shell, server: FakeServer, file: str, command: str) -> None:
    answers(server, a_cron())
    shell.json("cron", command, "c", file, *EVERYTHING)
    request = server.requests[-1]
    assert request.schedule == cron.Schedule(
        expression="0 30 4 * * *",
        time_zone="Europe/Stockholm",
        start_time=Timestamp(seconds=1_796_110_200),
        end_time=Timestamp(seconds=1_798_761_600),
        max_runs=7,
        jitter_ms=1500,
    )
    assert request.policy == cron.FirePolicy(
        overlap=cron.OVERLAP_POLICY_QUEUE_ONE,
        missed=cron.MISSED_POLICY_ALL,
        missed_at_most=5,
        missed_after_ms=60_000,
        feed_outputs=True,
        max_failures=3,
    )
    assert (request.name, [node.func_name for node in request.workflow.nodes]) == ("c", ["f"])


def test_intervals(shell: Shell, server: FakeServer, file: str) -> None:
    answers(server, a_cron())
    assert "every 10 min" in shell("cron", "add", "c", file, "--every", "10m").stdout
    assert server.requests[-1].schedule == cron.Schedule(interval_ms=600_000)
    assert "at random every 1 h" in shell("cron", "add", "c", file, "--random-every", "1h").stdout
    assert server.requests[-1].schedule == cron.Schedule(random_interval_ms=3_600_000)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ((), "give one of --expression, --every and --random-every"),
        (("--every", "1s", "--random-every", "1s"), "give one of"),
        (("--expression", ""), "--expression is empty"),
        (("--every", "1s", "--time-zone", "UTC"), "--time-zone is for an --expression"),
        (("--every", "soon"), "--every: 'soon' is not a duration"),
        (("--every", "1s", "--start", "tomorrow"), "--start: 'tomorrow' is not a moment"),
        (("--every", "1s", "--overlap", "both"), "--overlap: 'both' is none of allow, skip, queue, cancel"),
        (("--every", "1s", "--missed", "x"), "--missed: 'x' is none of skip, once, all"),
        (("--every", "1s", "--max-runs", "-1"), "--max-runs"),
    ],
)
def test_what_cannot_be_used_is_named_before_any_call(
    shell: Shell, server: FakeServer, file: str, options: tuple[str, ...], error: str
) -> None:
    result = shell("cron", "add", "c", file, *options)
    assert result.exit_code == 2
    assert error in result.stderr
    assert server.requests == []


def test_the_server_refuses_with_the_field(shell: Shell, server: FakeServer, file: str) -> None:
    def refused(_: Any) -> Any:
        text = "no day is 31 February"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad schedule", [("schedule.expression", text)])

    server.on(CRON + "AddCron", cron.AddCronRequest, refused)
    result = shell("cron", "add", "c", file, "--expression", "0 0 0 31 2 *")
    assert result.exit_code == 2
    assert "schedule.expression: no day is 31 February" in result.stderr


def test_get_shows_state_policy_moments_and_fires(shell: Shell, server: FakeServer) -> None:
    answers(server, a_cron(pending=a_fire(tries=2), policy=cron.FirePolicy(feed_outputs=True)))
    shown = shell("cron", "get", "c").stdout
    for text in ("active", "At 04:30:00", "3 of 10", "allow", "once, after 10.0 s", "to the next run", "tried 2 times"):
        assert text in shown, shown
    assert "2023-03-27 08:45:15 UTC" in shown
    assert "2023-03-27 10:45:15 CEST" in shown
    assert r"no\x1b[31m such type" in shown
    document = shell.json("cron", "get", "c")
    assert document["next_fire_times"] == ["2023-03-27T08:45:15Z"] * 3
    assert [fire["moments"] for fire in document["fires"]] == [1, 2, 3, 4, 5]
    assert document["policy"]["feed_outputs"] is True


def test_a_paused_cron_says_why_and_promises_no_moments(shell: Shell, server: FakeServer) -> None:
    answers(server, a_cron(state=cron.CRON_STATE_PAUSED, pause_reason="10 fires were refused"))
    shown = shell("cron", "get", "c").stdout
    assert "10 fires were refused" in shown
    assert shell.json("cron", "get", "c")["next_fire_times"] == []
    result = shell("cron", "next", "c")
    assert "cron c is paused: 10 fires were refused" in result.stderr
    assert "10 fires were refused" in shell("cron", "list").stdout


def test_fires_come_in_pages_and_by_outcome(shell: Shell, server: FakeServer) -> None:
    answers(server, a_cron())
    found = shell.json("cron", "fires", "c", "--outcome", "refused", "--outcome", "MISSED", "--limit", "3")
    assert [fire["moments"] for fire in found] == [1, 2, 3]
    assert list(server.requests[-1].outcomes) == [cron.FIRE_OUTCOME_REFUSED, cron.FIRE_OUTCOME_MISSED]
    shown = shell("cron", "fires", "c").stdout
    assert "refused" in shown
    assert "1.5 s" in shown
    result = shell("cron", "fires", "c", "--outcome", "lost")
    assert (result.exit_code, "--outcome: 'lost' is none of pending" in result.stderr) == (2, True)


def test_moments_of_a_cron_and_of_a_schedule(shell: Shell, server: FakeServer) -> None:
    answers(server, a_cron())
    shown = shell("cron", "next", "c", "--count", "3", "--after", "2026-01-01T00:00Z").stdout
    assert (shown.count("08:45:15 UTC"), shown.count("10:45:15 CEST")) == (3, 3)
    assert "never again" not in shown
    request = server.requests[-1]
    assert (request.name, request.count, request.after_time.seconds) == ("c", 3, 1_767_225_600)
    result = shell("cron", "preview", "--expression", "0 30 4 * * *", "--time-zone", "Europe/Stockholm", "-n", "4")
    assert result.stdout.startswith("At 04:30:00\n")
    assert "then never again" in result.stdout
    request = server.requests[-1]
    assert (request.schedule.time_zone, request.count, request.HasField("after_time")) == ("Europe/Stockholm", 4, False)
    document = shell.json("cron", "preview", "--every", "1m", "-n", "1")
    assert document == {"fire_times": ["2023-03-27T08:45:15Z"], "description": "At 04:30:00"}


def test_run_pause_resume_remove_and_list(shell: Shell, server: FakeServer) -> None:
    answers(server, a_cron())
    assert shell.json("cron", "run", "c", "--request-id", "mine") == {"workflow_id": WORKFLOW_ID}
    assert server.requests[-1].request_id == "mine"
    assert shell("cron", "run", "c").stdout == f"submitted workflow {WORKFLOW_ID}\n"
    assert shell("cron", "pause", "c").stdout == "paused cron c\n"
    assert shell.json("cron", "pause", "c")["state"] == "CRON_STATE_ACTIVE"
    assert shell("cron", "resume", "c").stdout == "resumed cron c\n"
    assert shell.json("cron", "remove", "c") == {"removed": "c"}
    assert shell("cron", "remove", "c").stdout == "removed cron c\n"
    assert [each["name"] for each in shell.json("cron", "list")] == ["c"]
    server.on(CRON + "ListCrons", cron.ListCronsRequest, lambda _: cron.ListCronsResponse())
    assert shell("cron", "list").stdout == "no crons\n"


def test_exit_codes_say_what_happened(shell: Shell, server: FakeServer) -> None:
    for code, expected in ((grpc.StatusCode.NOT_FOUND, 3), (grpc.StatusCode.FAILED_PRECONDITION, 6)):

        def refused(_: Any, code: grpc.StatusCode = code) -> Any:
            raise Refusal(code, "it says no")

        server.on(CRON + "PauseCron", cron.PauseCronRequest, refused)
        result = shell("cron", "pause", "c")
        assert (result.exit_code, result.stderr) == (expected, "error: it says no\n")
