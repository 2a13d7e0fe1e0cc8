"""Requests to domain words, and domain words to responses. Bounds are checked here and nowhere further in."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.scheduler.v1 import process_pb2, scheduler_service_pb2, spec_pb2
from servicekit import cursors
from servicekit.bounds import Bounds, checked
from servicekit.caller import Caller
from servicekit.clock import EPOCH
from services.scheduler.domain.records import Account, Assigned, AttemptRef, Receipt
from services.scheduler.domain.spec import Spec
from services.scheduler.domain.states import State
from services.scheduler.domain.submitting import CHILDREN_FIELD, Request
from services.scheduler.domain.views import (
    AttemptView,
    AttributeView,
    ColonyFilter,
    EventView,
    LogSource,
    LogView,
    Position,
    ProcessFilter,
    ProcessView,
    Target,
    TransitionView,
    WorkflowFilter,
    WorkflowView,
)
from services.scheduler.rpc.specs import MAX_SPECS, USER_DATA, nodes_of

MAX_ASSIGN = 100
MAX_WAIT_MS = 60_000
MAX_IN_FLIGHT = 1_000
MAX_LINES = 1_000
MAX_LINE = 64 * 1024
MAX_STATES = 10
MAX_FILTERED = 32
LARGEST = 2**63 - 1
LATEST_S = 253_402_300_799  # the end of the year 9999


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment for the wire."""
    if moment is None:
        return None
    since = moment - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def moment_of(bounds: Bounds, field: str, value: Timestamp) -> datetime:
    """A moment from the wire, cut to microseconds."""
    if not (0 <= value.seconds <= LATEST_S and 0 <= value.nanos < 1_000_000_000):
        bounds.refuse(field, "must be a moment from 1970 to 9999")
        return EPOCH
    return EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1_000)


def request_of(message: Message, colony: str, request_id: str, receipt: Receipt | None) -> Request:
    """Who submits what. The digest is over the whole message, so that a request id can't be used for two things."""
    caller = Caller.current()
    digest = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
    account = Account(caller.account.identity, caller.account.name)
    return Request(colony, request_id, digest, account, caller.identity, receipt)


def submit_bounds(bounds: Bounds, request: Message) -> None:
    """What both submits have in common."""
    bounds.name("colony_name", request.colony_name)  # type: ignore[attr-defined]
    bounds.request_id("request_id", request.request_id)  # type: ignore[attr-defined]


def id_of(request: Message, field: str) -> UUID:
    """The one id that a request names."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)  # type: ignore[attr-defined]
        parsed = bounds.uuid(field, getattr(request, field))
    assert parsed is not None, "checked() has refused all else"
    return parsed


def ref_of(bounds: Bounds, field: str, ref: scheduler_service_pb2.AttemptRef) -> AttemptRef:
    """An attempt's name."""
    process_id = bounds.uuid(f"{field}.process_id", ref.process_id)
    bounds.number(f"{field}.attempt", ref.attempt, at_least=1, at_most=2**31 - 1)
    return AttemptRef(process_id or UUID(int=0), ref.attempt)


def attributes_of(bounds: Bounds, attributes: Sequence[process_pb2.Attribute]) -> list[AttributeView]:
    """Attributes to write."""
    bounds.count("attributes", attributes, at_least=1, at_most=MAX_LINES)
    for index, attribute in enumerate(attributes[:MAX_LINES]):
        field = f"attributes[{index}]"
        if attribute.kind not in {1, 2, 3, 4}:
            bounds.refuse(f"{field}.kind", "must be IN, OUT, ERR or ENV")
        bounds.printable(f"{field}.key", attribute.key)
        bounds.text(f"{field}.value", attribute.value, at_most=MAX_LINE)
    if len({(one.kind, one.key) for one in attributes[:MAX_LINES]}) != len(attributes[:MAX_LINES]):
        bounds.refuse("attributes", "must name each kind and key once")
    return [AttributeView(one.kind, one.key, one.value) for one in attributes[:MAX_LINES]]


def lines_of(bounds: Bounds, lines: Sequence[process_pb2.LogLine], arrived: datetime) -> list[tuple[datetime, str]]:
    """Log lines to add."""
    bounds.count("lines", lines, at_least=1, at_most=MAX_LINES)
    found = []
    for index, line in enumerate(lines[:MAX_LINES]):
        bounds.text(f"lines[{index}].message", line.message, at_most=MAX_LINE)
        at = moment_of(bounds, f"lines[{index}].time", line.time) if line.HasField("time") else arrived
        found.append((at, line.message))
    return found


def position_of(field: str, cursor: str) -> Position:
    """Where following goes on."""
    return Position(*cursors.decode(field, cursor, int, int)) if cursor else Position()


def cursor_of(position: Position) -> str:
    """The cursor of a place in a log or ledger."""
    return cursors.encode((position.xid, position.id))


def before_of(cursor: str) -> int:
    """Where a list of newest first goes on."""
    return int(cursors.decode("cursor", cursor, int)[0]) if cursor else LARGEST


def process_filter(request: scheduler_service_pb2.ListProcessesRequest) -> ProcessFilter:
    """Which processes to list; one more than the page, to know whether there is another."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        limit = bounds.page("page_size", request.page_size)
        bounds.count("states", request.states, at_most=MAX_STATES)
        for index, state in enumerate(request.states[:MAX_STATES]):
            bounds.number(f"states[{index}]", state, at_least=1, at_most=5)
        bounds.name("executor_type", request.executor_type, optional=True)
        bounds.name("executor_name", request.executor_name, optional=True)
        bounds.printable("label", request.label, optional=True)
        bounds.name("initiator", request.initiator, optional=True)
        workflow_id = bounds.uuid("workflow_id", request.workflow_id) if request.workflow_id else None
        since = moment_of(bounds, "submitted_from", request.submitted_from)
        until = moment_of(bounds, "submitted_until", request.submitted_until)
    return ProcessFilter(
        states=[State(state) for state in request.states] or None,
        executor_type=request.executor_type or None,
        label=request.label or None,
        initiator=request.initiator or None,
        workflow_id=workflow_id,
        executor_name=request.executor_name or None,
        submitted_from=since if request.HasField("submitted_from") else None,
        submitted_until=until if request.HasField("submitted_until") else None,
        before=before_of(request.cursor),
        limit=limit + 1,
    )


def workflow_filter(request: scheduler_service_pb2.ListWorkflowsRequest) -> WorkflowFilter:
    """Which workflows to list; one more than the page."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        limit = bounds.page("page_size", request.page_size)
        bounds.printable("label", request.label, optional=True)
        bounds.name("initiator", request.initiator, optional=True)
    return WorkflowFilter(request.label or None, request.initiator or None, before_of(request.cursor), limit + 1)


def target_of(request: scheduler_service_pb2.WatchProcessesRequest) -> Target:
    """What is watched."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        if request.HasField("process_id"):
            return Target(process_id=bounds.uuid("process_id", request.process_id) or UUID(int=0))
        if request.HasField("workflow_id"):
            return Target(workflow_id=bounds.uuid("workflow_id", request.workflow_id) or UUID(int=0))
        bounds.refuse("target", "must be a process_id, a workflow_id or a colony filter")
    raise AssertionError


def colony_filter_of(request: scheduler_service_pb2.WatchProcessesRequest) -> ColonyFilter:
    """Which changes of a colony are watched."""
    wanted = request.colony
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        if wanted.executor_types:
            bounds.names("colony.executor_types", wanted.executor_types, at_least=0, at_most=MAX_FILTERED)
        bounds.count("colony.labels", wanted.labels, at_most=MAX_FILTERED)
        for index, label in enumerate(wanted.labels[:MAX_FILTERED]):
            bounds.printable(f"colony.labels[{index}]", label)
        bounds.count("colony.states", wanted.states, at_most=MAX_STATES)
        for index, state in enumerate(wanted.states[:MAX_STATES]):
            bounds.number(f"colony.states[{index}]", state, at_least=1, at_most=5)
    return ColonyFilter(
        list(wanted.executor_types) or None,
        list(wanted.labels) or None,
        [State(state) for state in wanted.states] or None,
    )


def log_source_of(request: scheduler_service_pb2.ListLogsRequest) -> tuple[LogSource, int]:
    """Whose lines to list, and how many."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        limit = bounds.page("page_size", request.page_size)
        if request.HasField("process_id"):
            source = LogSource(process_id=bounds.uuid("process_id", request.process_id))
        else:
            if not request.HasField("executor_name"):
                bounds.refuse("source", "must be a process_id or an executor_name")
            bounds.name("executor_name", request.executor_name, optional=not request.HasField("executor_name"))
            source = LogSource(executor_name=request.executor_name)
    return source, limit


def assignment_of(assigned: Assigned, lease_ms: int) -> scheduler_service_pb2.Assignment:
    """An attempt as it goes out."""
    live = assigned.live
    return scheduler_service_pb2.Assignment(
        process_id=str(live.id),
        attempt=live.attempt,
        spec=spec_pb2.FunctionSpec.FromString(assigned.spec),
        inputs=[spec_pb2.Value.FromString(value) for value in assigned.inputs],
        lease_ms=lease_ms,
        exec_deadline=timestamp(live.exec_deadline),
        workflow_id=str(live.workflow_id or ""),
    )


def process_of(view: ProcessView, *, whole: bool) -> process_pb2.Process:
    """A process; in lists without user data."""
    live = view.live
    spec = spec_pb2.FunctionSpec.FromString(view.spec)
    if not whole:
        # What is listed of a small spec is the spec itself.
        for name in USER_DATA:
            spec.ClearField(name)
    return process_pb2.Process(
        process_id=str(live.id),
        colony_name=live.colony,
        spec=spec,
        state=live.state.value,  # type: ignore[arg-type]
        wait_for_parents=live.pending_parents > 0,
        executor_name=live.executor_name,
        attempt=live.attempt,
        retries=live.retries,
        initiator=live.initiator,
        initiator_name=view.initiator_name,
        priority_time=live.priority_time,
        submission_time=timestamp(view.submitted_at),
        start_time=timestamp(live.started_at),
        end_time=timestamp(view.ended_at),
        wait_deadline=timestamp(live.wait_deadline) if live.is_ready else None,
        exec_deadline=timestamp(live.exec_deadline) if live.state is State.RUNNING else None,
        workflow_id=str(live.workflow_id or ""),
        parent_ids=[str(parent) for parent in view.parent_ids],
        inputs=[spec_pb2.Value.FromString(value) for value in view.inputs] if whole else [],
        outputs=[spec_pb2.Value.FromString(value) for value in view.outputs] if whole else [],
        errors=view.errors,
        backoff_until=timestamp(live.backoff_until) if live.state is State.WAITING else None,
    )


def attempt_of(view: AttemptView) -> process_pb2.Attempt:
    """An attempt."""
    return process_pb2.Attempt(
        number=view.number,
        executor_name=view.executor_name,
        executor_id=view.executor_id,
        start_time=timestamp(view.started_at),
        end_time=timestamp(view.ended_at),
        outcome=view.outcome.value,  # type: ignore[arg-type]
        errors=view.errors,
    )


def transition_of(view: TransitionView) -> process_pb2.Transition:
    """A ledger line."""
    return process_pb2.Transition(
        time=timestamp(view.at),
        from_state=view.from_state.value,  # type: ignore[arg-type]
        to_state=view.to_state.value,  # type: ignore[arg-type]
        attempt=view.attempt,
        actor=view.actor,
        reason=view.reason,
    )


def event_of(view: EventView) -> process_pb2.ProcessEvent:
    """A ledger line as watchers get it."""
    return process_pb2.ProcessEvent(
        cursor=cursor_of(view.position),
        process_id=str(view.process_id),
        node_name=view.node_name,
        func_name=view.func_name,
        transition=transition_of(view.transition),
        executor_name=view.executor_name,
    )


def log_entry_of(view: LogView) -> process_pb2.LogEntry:
    """A log line."""
    return process_pb2.LogEntry(
        cursor=cursor_of(view.position),
        process_id=str(view.process_id),
        attempt=view.attempt,
        executor_name=view.executor_name,
        time=timestamp(view.at),
        message=view.message,
    )


def attributes_with_env(spec: bytes, written: Sequence[AttributeView]) -> list[process_pb2.Attribute]:
    """The attributes of a process; its spec's environment counts as ENV unless an executor wrote the key."""
    env = process_pb2.ATTRIBUTE_KIND_ENV
    values = {(int(env), key): value for key, value in spec_pb2.FunctionSpec.FromString(spec).env.items()}
    values.update({(one.kind, one.key): one.value for one in written})
    return [
        process_pb2.Attribute(kind=kind, key=key, value=value)  # type: ignore[arg-type]
        for (kind, key), value in sorted(values.items())
    ]


def children_of(
    request: scheduler_service_pb2.AddChildrenRequest,
) -> tuple[AttemptRef, list[Spec]]:
    """The running attempt, and what it adds to its workflow."""
    with checked() as bounds:
        submit_bounds(bounds, request)
        ref = ref_of(bounds, "attempt", request.attempt)
        nodes = nodes_of(bounds, CHILDREN_FIELD, request.colony_name, request.nodes, at_most=MAX_SPECS)
    return ref, nodes


def workflow_of(view: WorkflowView) -> process_pb2.Workflow:
    """A workflow."""
    return process_pb2.Workflow(
        workflow_id=str(view.id),
        colony_name=view.colony,
        state=view.state.value,  # type: ignore[arg-type]
        counts=process_pb2.StateCounts(
            waiting=view.counts[State.WAITING],
            running=view.counts[State.RUNNING],
            successful=view.counts[State.SUCCESSFUL],
            failed=view.counts[State.FAILED],
            cancelled=view.counts[State.CANCELLED],
        ),
        label=view.label,
        initiator=view.initiator,
        initiator_name=view.initiator_name,
        submission_time=timestamp(view.submitted_at),
        end_time=timestamp(view.ended_at) if view.is_over else None,
    )
