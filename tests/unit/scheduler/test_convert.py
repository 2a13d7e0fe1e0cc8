"""Requests to domain words, and domain words to responses: nothing is lost or made up on the way."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from colonies.scheduler.v1 import process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from servicekit.bounds import Bounds
from servicekit.clock import EPOCH
from servicekit.failures import InvalidArgument
from services.scheduler.domain.records import Assigned, AttemptRef
from services.scheduler.domain.states import Outcome, State
from services.scheduler.domain.views import (
    AttemptView,
    AttributeView,
    EventView,
    Position,
    ProcessView,
    TransitionView,
    WorkflowView,
)
from services.scheduler.rpc import closes as closing_rules
from services.scheduler.rpc import convert
from services.scheduler.rpc.closes import closes_of

from .lives import NOW, live

ID = uuid.UUID("01872f50-5a28-7d4a-8f3c-2f4e6a8b9c0d")
REF = pb.AttemptRef(process_id=str(ID), attempt=1)
SPEC = spec_pb2.FunctionSpec(
    func_name="f", args=[spec_pb2.Value(data=b"1")], env={"A": "1", "B": "2"}, filesystem=spec_pb2.Value(data=b"{}")
)
LARGEST = 2**63 - 1

moments = st.integers(0, 253_402_300_799_999_999).map(lambda us: EPOCH + timedelta(microseconds=us))


def closing(process_id: str = str(ID), attempt: int = 1, **outcome: Any) -> pb.Close:
    return pb.Close(attempt=pb.AttemptRef(process_id=process_id, attempt=attempt), **outcome)


def refused(action: Any, *arguments: Any) -> list[str]:
    with pytest.raises(InvalidArgument) as caught:
        action(*arguments)
    return [violation.field for violation in caught.value.violations]


@given(moments)
def test_moments_there_and_back(moment: datetime) -> None:
    bounds, wire = Bounds(), convert.timestamp(moment)
    assert wire is not None
    assert wire.ToDatetime(tzinfo=UTC) == moment
    assert convert.moment_of(bounds, "time", wire) == moment
    assert not bounds.violations


@pytest.mark.parametrize(("seconds", "nanos"), [(-1, 0), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000), (2**63 - 1, 0)])
def test_moments_that_no_calendar_has(seconds: int, nanos: int) -> None:
    bounds = Bounds()
    convert.moment_of(bounds, "time", Timestamp(seconds=seconds, nanos=nanos))
    assert [violation.field for violation in bounds.violations] == ["time"]


@given(st.integers(0, LARGEST), st.integers(0, LARGEST))
def test_cursors_there_and_back(xid: int, number: int) -> None:
    position = Position(xid, number)
    assert convert.position_of("cursor", convert.cursor_of(position)) == position


@given(st.text())
def test_cursors_that_were_never_ours_are_refused_or_begin_at_the_start(text: str) -> None:
    if not text:
        assert convert.position_of("cursor", text) == Position()
        return
    assert refused(convert.position_of, "cursor", text) == ["cursor"]


def test_the_cursor_of_one_kind_of_list_is_none_of_another() -> None:
    assert refused(convert.before_of, convert.cursor_of(Position(1, 2))) == ["cursor"]
    assert convert.before_of("") == LARGEST


def test_closes() -> None:
    other = pb.AttemptRef(process_id=str(uuid.UUID(int=1)), attempt=2)
    request = pb.CloseProcessesRequest(
        colony_name="acme",
        closes=[
            pb.Close(attempt=REF, success=pb.Close.Success(outputs=[spec_pb2.Value(data=b"4")])),
            pb.Close(attempt=other, failure=pb.Close.Failure(errors=["broken"], retryable=True)),
        ],
    )
    closes = closes_of(request)
    assert list(closes) == [AttemptRef(ID, 1), AttemptRef(uuid.UUID(int=1), 2)]
    success, failure = closes.values()
    assert (success.successful, success.outputs) == (True, [spec_pb2.Value(data=b"4").SerializeToString()])
    assert (failure.successful, failure.errors, failure.retryable) == (False, ("broken",), True)


def test_a_close_without_outputs_keeps_what_was_set() -> None:
    close = pb.Close(attempt=REF, success=pb.Close.Success())
    (closing,) = closes_of(pb.CloseProcessesRequest(colony_name="acme", closes=[close])).values()
    assert closing.outputs is None


@pytest.mark.parametrize(
    ("closes", "field"),
    [
        ([], "closes"),
        ([pb.Close(attempt=REF)], "closes[0]"),
        (
            [pb.Close(attempt=pb.AttemptRef(process_id="x", attempt=1), success=pb.Close.Success())],
            "closes[0].attempt.process_id",
        ),
        ([pb.Close(attempt=pb.AttemptRef(process_id=str(ID)), success=pb.Close.Success())], "closes[0].attempt.attempt"),
        ([pb.Close(attempt=REF, success=pb.Close.Success()), pb.Close(attempt=REF, failure=pb.Close.Failure())], "closes"),
        ([pb.Close(attempt=REF, failure=pb.Close.Failure(errors=["x"] * 101))], "closes[0].failure.errors"),
        ([pb.Close(attempt=REF, failure=pb.Close.Failure(errors=["", "x" * 65_537]))], "closes[0].failure.errors[1]"),
        ([pb.Close(attempt=REF, failure=pb.Close.Failure(errors=["\0"]))], "closes[0].failure.errors[0]"),
    ],
)
def test_bad_closes(closes: list[pb.Close], field: str) -> None:
    assert refused(closes_of, pb.CloseProcessesRequest(colony_name="acme", closes=closes)) == [field]


def test_too_many_closes() -> None:
    closes = [
        pb.Close(attempt=pb.AttemptRef(process_id=str(uuid.UUID(int=n)), attempt=1), success=pb.Close.Success())
        for n in range(1_001)
    ]
    assert len(closes_of(pb.CloseProcessesRequest(colony_name="acme", closes=closes[:-1]))) == 1_000
    assert refused(closes_of, pb.CloseProcessesRequest(colony_name="acme", closes=closes)) == ["closes"]


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ([], "attributes"),
        ([{"kind": 0, "key": "k"}], "attributes[0].kind"),
        ([{"kind": 1}], "attributes[0].key"),
        ([{"kind": 1, "key": "k", "value": "v" * 65_537}], "attributes[0].value"),
        ([{"kind": 1, "key": "k", "value": "\0"}], "attributes[0].value"),
        ([{"kind": 1, "key": "k"}, {"kind": 1, "key": "k"}], "attributes"),
    ],
)
def test_bad_attributes(attributes: list[dict[str, Any]], field: str) -> None:
    bounds = Bounds()
    convert.attributes_of(bounds, [process_pb2.Attribute(**one) for one in attributes])
    assert [violation.field for violation in bounds.violations] == [field]


def test_the_environment_of_the_spec_counts_unless_an_executor_wrote_the_key() -> None:
    written = [AttributeView(4, "B", "mine"), AttributeView(2, "A", "out")]
    found = convert.attributes_with_env(SPEC.SerializeToString(), written)
    assert [(one.kind, one.key, one.value) for one in found] == [(2, "A", "out"), (4, "A", "1"), (4, "B", "mine")]


def test_log_lines_get_the_time_of_their_arrival_unless_they_have_one() -> None:
    bounds, early = Bounds(), NOW - timedelta(days=1)
    lines = [process_pb2.LogLine(message="now"), process_pb2.LogLine(message="then", time=convert.timestamp(early))]
    assert convert.lines_of(bounds, lines, NOW) == [(NOW, "now"), (early, "then")]
    assert not bounds.violations


def test_a_process() -> None:
    row = live(
        id=ID,
        workflow_id=uuid.UUID(int=3),
        pending_parents=0,
        retries=2,
        attempt=3,
        priority_time=1_679_906_715_352_024_000,
        max_exec_ms=1_000,
        max_wait_ms=1_000,
    )
    parents = [uuid.UUID(int=5), uuid.UUID(int=4)]
    value = spec_pb2.Value(data=b"2")
    view = ProcessView(
        live=row,
        spec=SPEC.SerializeToString(),
        label="",
        initiator_name="alice",
        submitted_at=NOW,
        ended_at=None,
        outputs=[value.SerializeToString()],
        errors=["before"],
        parent_ids=parents,
        inputs=[value.SerializeToString()],
    )
    whole = convert.process_of(view, whole=True)
    assert whole.spec == SPEC
    assert (whole.process_id, whole.state, whole.attempt, whole.retries) == (str(ID), int(State.RUNNING), 3, 2)
    assert (whole.priority_time, whole.initiator_name) == (1_679_906_715_352_024_000, "alice")
    assert list(whole.parent_ids) == [str(parent) for parent in parents]
    assert (list(whole.inputs), list(whole.outputs), list(whole.errors)) == ([value], [value], ["before"])
    assert whole.exec_deadline.ToDatetime(tzinfo=UTC) == NOW + timedelta(seconds=1)
    assert not whole.HasField("wait_deadline")
    assert not whole.HasField("end_time")

    listed = convert.process_of(view, whole=False)
    assert not listed.inputs
    assert not listed.outputs
    # Nobody lists user data: the store leaves it out of large specs, and here it is left out of small ones.
    assert listed.spec == spec_pb2.FunctionSpec(func_name="f")


def test_an_assignment() -> None:
    value = spec_pb2.Value(media_type="text/plain", data=b"x")
    assigned = Assigned(live(id=ID, attempt=4, max_exec_ms=500), SPEC.SerializeToString(), [value.SerializeToString()])
    found = convert.assignment_of(assigned, 30_000)
    assert (found.process_id, found.attempt, found.lease_ms, found.workflow_id) == (str(ID), 4, 30_000, "")
    assert (found.spec, list(found.inputs)) == (SPEC, [value])
    assert found.exec_deadline.ToDatetime(tzinfo=UTC) == NOW + timedelta(milliseconds=500)


def test_history_and_events() -> None:
    attempt = convert.attempt_of(AttemptView(2, "worker-1", "11" * 32, NOW, None, Outcome.LOST, ["lost"]))
    assert (attempt.number, attempt.outcome, list(attempt.errors)) == (2, int(Outcome.LOST), ["lost"])
    assert not attempt.HasField("end_time")
    line = TransitionView(NOW, State.RUNNING, State.WAITING, 2, "", "LEASE_EXPIRED")
    event = convert.event_of(EventView(Position(7, 8), ID, "node", "f", "worker-1", line))
    assert event.transition == convert.transition_of(line)
    assert (event.transition.from_state, event.transition.to_state) == (int(State.RUNNING), int(State.WAITING))
    assert convert.position_of("cursor", event.cursor) == Position(7, 8)


COUNTS: list[tuple[dict[str, int], bool, State]] = [
    ({"waiting": 2}, False, State.WAITING),
    ({"waiting": 2}, True, State.RUNNING),
    ({"waiting": 1, "successful": 1}, True, State.RUNNING),
    ({"successful": 2}, True, State.SUCCESSFUL),
    ({"running": 1, "failed": 1}, True, State.FAILED),
    ({"cancelled": 1, "failed": 1}, True, State.FAILED),
    ({"waiting": 1, "cancelled": 1}, False, State.CANCELLED),
]


@pytest.mark.parametrize(("counts", "begun", "state"), COUNTS)
def test_the_state_of_a_workflow_derives_from_its_processes(counts: dict[str, int], begun: bool, state: State) -> None:
    every: dict[State, int] = {one: counts.get(one.name.lower(), 0) for one in State if one is not State.NONE}
    view = WorkflowView(ID, "acme", 1, "", "33" * 32, "alice", NOW, every, begun, NOW)
    found = convert.workflow_of(view)
    assert found.state == int(state)
    assert found.HasField("end_time") == (not counts.get("waiting") and not counts.get("running"))
    assert {name: getattr(found.counts, name) for name in counts} == counts


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"colony_name": ""}, ["colony_name"]),
        ({"page_size": -1}, ["page_size"]),
        ({"page_size": 1_001}, ["page_size"]),
        ({"states": [0]}, ["states[0]"]),
        ({"states": [1, 6]}, ["states[1]"]),
        ({"executor_type": "a b"}, ["executor_type"]),
        ({"executor_name": "\0"}, ["executor_name"]),
        ({"label": "\0"}, ["label"]),
        ({"initiator": "a b"}, ["initiator"]),
        ({"workflow_id": "1"}, ["workflow_id"]),
        ({"submitted_from": Timestamp(seconds=-1)}, ["submitted_from"]),
        ({"cursor": "?"}, ["cursor"]),
    ],
)
def test_bad_filters(changes: dict[str, Any], fields: list[str]) -> None:
    assert refused(convert.process_filter, pb.ListProcessesRequest(**{"colony_name": "acme", **changes})) == fields


def test_what_is_not_set_lets_everything_through() -> None:
    where = convert.process_filter(pb.ListProcessesRequest(colony_name="acme"))
    assert {where.states, where.executor_type, where.label, where.initiator, where.workflow_id} == {None}
    assert {where.executor_name, where.submitted_from, where.submitted_until} == {None}
    assert (where.before, where.limit) == (LARGEST, 101)


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "ä", "a\0"])
def test_request_ids(request_id: str) -> None:
    bounds = Bounds()
    convert.submit_bounds(bounds, pb.SubmitProcessesRequest(colony_name="acme", request_id=request_id))
    assert [violation.field for violation in bounds.violations] == ["request_id"]


@pytest.mark.parametrize(
    "process_id", ["", "x", str(ID)[:-1], str(ID) + "0", "{" + str(ID) + "}", str(ID).replace("-", ""), f"urn:uuid:{ID}"]
)
def test_only_canonical_ids(process_id: str) -> None:
    request = pb.GetProcessRequest(colony_name="acme", process_id=process_id)
    assert refused(convert.id_of, request, "process_id") == ["process_id"]
    good = pb.GetProcessRequest(colony_name="acme", process_id=str(ID).upper())
    assert convert.id_of(good, "process_id") == ID


def test_targets_are_required() -> None:
    assert refused(convert.target_of, pb.WatchProcessesRequest(colony_name="acme")) == ["target"]
    assert refused(convert.log_source_of, pb.ListLogsRequest(colony_name="acme")) == ["source"]
    assert refused(convert.target_of, pb.WatchProcessesRequest(colony_name="acme", process_id="")) == ["process_id"]


def test_closes_are_the_same_at_a_glance_and_looked_at_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    value = spec_pb2.Value(data=b"4", media_type="text/plain")
    all_closes = [
        closing(success=pb.Close.Success()),
        closing(str(ID).upper(), 2**31 - 1, success=pb.Close.Success(outputs=[value, spec_pb2.Value()])),
        closing(failure=pb.Close.Failure(errors=["broken"], retryable=True)),
    ]
    requests = [pb.CloseProcessesRequest(colony_name="acme", closes=[close]) for close in all_closes]
    glanced = [closes_of(request) for request in requests]
    assert [list(found) for found in glanced] == [[AttemptRef(ID, 1)], [AttemptRef(ID, 2**31 - 1)], [AttemptRef(ID, 1)]]
    assert glanced[1][AttemptRef(ID, 2**31 - 1)].outputs == [value.SerializeToString(), b""]
    monkeypatch.setattr(closing_rules, "_plain_close", lambda _: None)
    assert [closes_of(request) for request in requests] == glanced


@pytest.mark.parametrize(
    ("close", "field"),
    [
        (closing("x", success=pb.Close.Success()), "closes[0].attempt.process_id"),
        (closing(ID.hex, success=pb.Close.Success()), "closes[0].attempt.process_id"),
        (closing(f"{{{ID}}}", success=pb.Close.Success()), "closes[0].attempt.process_id"),
        (closing(attempt=0, success=pb.Close.Success()), "closes[0].attempt.attempt"),
        (closing(), "closes[0]"),
        (closing(success=pb.Close.Success(outputs=[spec_pb2.Value()] * 10_001)), "closes[0].success.outputs"),
        (
            closing(success=pb.Close.Success(outputs=[spec_pb2.Value(data=b"x" * 3 * 1024 * 1024)] * 2)),
            "closes[0].success.outputs",
        ),
        (
            closing(success=pb.Close.Success(outputs=[spec_pb2.Value(media_type="a\nb")])),
            "closes[0].success.outputs[0].media_type",
        ),
    ],
)
def test_closes_out_of_bounds(close: pb.Close, field: str) -> None:
    assert refused(closes_of, pb.CloseProcessesRequest(colony_name="acme", closes=[close])) == [field]
