"""Bounds of requests, and cron messages."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec, Value, WorkflowSpec
from servicekit.failures import InvalidArgument
from services.cron.domain.cron import Cron, Policy, State
from services.cron.domain.schedule import Expression, Interval, Schedule
from services.cron.rpc import convert

WORKFLOW = WorkflowSpec(
    nodes=[FunctionSpec(node_name="a", func_name="f", conditions=Conditions(executor_type="cli"))], label="nightly"
)
TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000


def add_request(**changes: object) -> pb.AddCronRequest:
    request = pb.AddCronRequest(colony_name="dev", name="nightly", schedule=pb.Schedule(expression="@daily"), workflow=WORKFLOW)
    for field, value in changes.items():
        if isinstance(value, str):
            setattr(request, field, value)
        else:
            getattr(request, field).CopyFrom(value)
    return request


def refused_fields(request: pb.AddCronRequest) -> list[str]:
    with pytest.raises(InvalidArgument) as caught:
        convert.new_cron(request)
    return [violation.field for violation in caught.value.violations]


def test_a_good_request() -> None:
    new = convert.new_cron(add_request())
    assert new.name == "nightly"
    assert new.schedule == Schedule(Expression("@daily"))
    assert new.policy == Policy()
    assert WorkflowSpec.FromString(new.workflow) == WORKFLOW


@pytest.mark.parametrize("milliseconds", [1_000, TEN_YEARS_MS])
def test_the_ends_of_the_range_of_intervals_are_in_it(milliseconds: int) -> None:
    new = convert.new_cron(add_request(schedule=pb.Schedule(interval_ms=milliseconds)))
    assert new.schedule == Schedule(Interval(milliseconds))


@pytest.mark.parametrize("milliseconds", [0, -1, 999, TEN_YEARS_MS + 1, -(2**63), 2**63 - 1])
def test_intervals_out_of_range(milliseconds: int) -> None:
    request = add_request(schedule=pb.Schedule(interval_ms=milliseconds))
    assert refused_fields(request) == ["schedule.interval_ms"]


@pytest.mark.parametrize(
    "expression", ["", "0 0 31 2 *", "@never", "* " * 200, "*\n* * * *", "0 0\x00 * * *", "\u2028* * * * *"]
)
def test_bad_expressions(expression: str) -> None:
    assert refused_fields(add_request(schedule=pb.Schedule(expression=expression))) == ["schedule.expression"]


def test_a_schedule_is_required() -> None:
    assert refused_fields(add_request(schedule=pb.Schedule())) == ["schedule"]


def test_all_violations_are_told_at_once() -> None:
    request = add_request(colony_name="", name="-x", schedule=pb.Schedule(interval_ms=0))
    assert refused_fields(request) == ["colony_name", "name", "schedule.interval_ms"]


def test_the_same_content_is_the_same_bytes_in_any_order() -> None:
    keys = [f"k{index}" for index in range(50)]
    forward, backward = WorkflowSpec(), WorkflowSpec()
    for workflow, order in ((forward, keys), (backward, keys[::-1])):
        node = workflow.nodes.add(node_name="a")
        for key in order:
            node.env[key] = key
            node.kwargs[key].CopyFrom(Value(data=key.encode()))
    assert convert.new_cron(add_request(workflow=forward)).workflow == convert.new_cron(add_request(workflow=backward)).workflow


@pytest.mark.parametrize("request_id", ["", "a b", "é", "x" * 129, "a\n"])
def test_bad_request_ids(request_id: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        convert.run_of(pb.RunCronRequest(colony_name="dev", name="nightly", request_id=request_id))
    assert [violation.field for violation in caught.value.violations] == ["request_id"]


def test_pages() -> None:
    assert convert.page_of(pb.ListCronsRequest(colony_name="dev")) == ("", 100)
    cron = a_cron()
    cursor = convert.page_message([cron], more=True).next_cursor
    assert convert.page_of(pb.ListCronsRequest(colony_name="dev", page_size=7, cursor=cursor)) == (cron.name, 7)
    assert convert.page_message([cron], more=False).next_cursor == ""


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("page_size", pb.ListCronsRequest(colony_name="dev", page_size=1_001)),
        ("page_size", pb.ListCronsRequest(colony_name="dev", page_size=-1)),
        ("cursor", pb.ListCronsRequest(colony_name="dev", cursor="nonsense")),
        ("colony_name", pb.ListCronsRequest()),
    ],
)
def test_bad_pages(field: str, request_: pb.ListCronsRequest) -> None:
    with pytest.raises(InvalidArgument) as caught:
        convert.page_of(request_)
    assert [violation.field for violation in caught.value.violations] == [field]


def a_cron() -> Cron:
    return Cron(
        cron_id=UUID("123e4567-e89b-12d3-a456-426614174000"),
        colony="dev",
        name="nightly",
        schedule=Schedule(Interval(90_000)),
        policy=Policy(),
        workflow=WORKFLOW.SerializeToString(),
        workflow_bytes=WORKFLOW.ByteSize(),
        initiator="ab" * 32,
        initiator_name="alice",
        created=datetime(2026, 3, 1, 12, 0, 0, 5_000, tzinfo=UTC),
        since=datetime(2026, 3, 1, 12, 0, 0, 5_000, tzinfo=UTC),
        next_fire=datetime(2026, 3, 1, 12, 1, 30, 5_000, tzinfo=UTC),
        next_due=datetime(2026, 3, 1, 12, 1, 30, 5_000, tzinfo=UTC),
    )


def test_a_message_has_everything() -> None:
    message = convert.cron_message(a_cron())
    assert message.cron_id == "123e4567-e89b-12d3-a456-426614174000"
    assert message.schedule.interval_ms == 90_000
    assert message.workflow == WORKFLOW
    assert (message.initiator, message.initiator_name) == ("ab" * 32, "alice")
    assert message.created_time.ToDatetime(UTC) == a_cron().created
    assert message.next_fire_time.ToDatetime(UTC) == a_cron().next_fire
    assert not message.HasField("last_fire_time")


def test_a_stopped_cron_has_no_next_fire_time() -> None:
    stopped = replace(
        a_cron(), state=State.ENDED, next_fire=None, next_due=None, last_fire=a_cron().created, last_error="stopped"
    )
    message = convert.cron_message(stopped)
    assert not message.HasField("next_fire_time")
    assert message.last_fire_time.ToDatetime(UTC) == a_cron().created
    assert message.last_error == "stopped"


def test_lists_leave_workflows_out() -> None:
    message = convert.page_message([replace(a_cron(), workflow=b"")], more=False)
    assert not message.crons[0].HasField("workflow")
