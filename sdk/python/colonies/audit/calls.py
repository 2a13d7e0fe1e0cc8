"""The signed calls of an audit file: that each was signed, and what it asked for.

Of a call's body only that is kept, for a file may hold very many, and large ones.
"""

import base64
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from colonies.audit.findings import Kind, Report
from colonies.audit.records import Line
from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.errors import UnreadableRequestError
from colonies.json_calls import base_of, request_of
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.signing import call_digest, call_text
from colonies.verifying import signer_of

_AUTH = "/colonies.auth.v1.AuthService/"
_REGISTRY = "/colonies.registry.v1.RegistryService/"
_SCHEDULER = "/colonies.scheduler.v1.SchedulerService/"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Names one attempt."""

    process: str
    number: int


@dataclass(slots=True)
class Submit:
    """A call that entered processes."""

    colony: str
    on_behalf_of: str
    # Of each workflow that it entered the place of its first spec; what it entered else is no workflow of its own.
    firsts: "array[int]"
    # Of each, the id that was chosen for it, or nothing.
    chosen: Sequence[str]
    # Of each; or of the call, if there is none.
    request_ids: Sequence[str]
    # It added to the workflow of this attempt.
    parent: Attempt | None
    # Of each spec.
    priorities: "array[int]"
    max_retries: "array[int]"
    # Places of the specs whose processes were seen, and the workflows that they belong to.
    seen: set[int] = field(default_factory=set)
    workflows: dict[int, str] = field(default_factory=dict)

    def part_of(self, place: int) -> int:
        """Which of its workflows the spec at a place belongs to; 0 where there is none."""
        return max(0, bisect_right(self.firsts, place) - 1)


@dataclass(frozen=True, slots=True)
class Closed:
    """What an executor reported of an attempt."""

    attempt: int
    successful: bool
    errors: tuple[str, ...]
    retryable: bool


@dataclass(frozen=True, slots=True)
class Closes:
    """A call that closed attempts: what it reported, by process."""

    colony: str
    closes: Mapping[str, Closed]


@dataclass(frozen=True, slots=True)
class Output:
    """A call that set the outputs of a running attempt."""

    colony: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Cancel:
    """A call that cancelled a process, or a whole workflow; the other is empty."""

    colony: str
    process: str
    workflow: str
    on_behalf_of: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """A call that took up a workflow again."""

    colony: str
    workflow: str


@dataclass(frozen=True, slots=True)
class Check:
    """A call that entered nothing."""

    colony: str


@dataclass(frozen=True, slots=True)
class Membership:
    """A call about members: its request, whole."""

    request: Any


Asked = Submit | Closes | Output | Cancel | Retry | Check | Membership


@dataclass(slots=True)
class Call:
    """A call that was signed. `signer` is the identity of the key, and `asked` what was asked for."""

    line: int
    digest: str
    method: str
    signer: str
    time_ms: int
    asked: Asked
    used: bool = False

    @property
    def at_us(self) -> int:
        """When it was signed, by its signer's clock."""
        return self.time_ms * 1000


def _decoded(text: str) -> bytes | None:
    """What is written in base64; None if it is not, or in another form than the one."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode("ascii") == text else None


def _submit(request: Any, specs: Any, *, parent: Attempt | None = None) -> Submit:
    return Submit(
        request.colony_name,
        getattr(request, "on_behalf_of", ""),
        array("i"),
        (),
        (request.request_id,),
        parent,
        array("i", [spec.priority for spec in specs]),
        array("i", [spec.max_retries for spec in specs]),
    )


def _submit_workflows(request: Any, submissions: Sequence[Any], chosen: Sequence[str]) -> Submit:
    submit = Submit(
        request.colony_name,
        request.on_behalf_of,
        array("i"),
        chosen,
        [one.request_id for one in submissions],
        None,
        array("i"),
        array("i"),
    )
    for one in submissions:
        submit.firsts.append(len(submit.priorities))
        submit.priorities.extend(spec.priority for spec in one.workflow.nodes)
        submit.max_retries.extend(spec.max_retries for spec in one.workflow.nodes)
    return submit


def _attempt(ref: scheduler.AttemptRef) -> Attempt:
    return Attempt(ref.process_id.lower(), ref.attempt)


def _closed(close: scheduler.Close) -> Closed:
    successful = close.WhichOneof("outcome") == "success"
    return Closed(
        close.attempt.attempt,
        successful,
        tuple(close.failure.errors),
        close.failure.retryable,
    )


def _submitted(request: scheduler.SubmitProcessesRequest) -> Submit:
    return _submit(request, request.specs)


def _submitted_workflow(request: scheduler.SubmitWorkflowRequest) -> Asked:
    if request.validate_only:
        return Check(request.colony_name)
    return _submit_workflows(request, [request], [""])


def _submitted_workflows(request: scheduler.SubmitWorkflowsRequest) -> Submit:
    return _submit_workflows(request, request.submissions, [one.workflow_id.lower() for one in request.submissions])


def _children(request: scheduler.AddChildrenRequest) -> Submit:
    return _submit(request, request.nodes, parent=_attempt(request.attempt))


def _closes(request: scheduler.CloseProcessesRequest) -> Closes:
    return Closes(request.colony_name, {close.attempt.process_id.lower(): _closed(close) for close in request.closes})


def _output(request: scheduler.SetOutputRequest) -> Output:
    return Output(request.colony_name, _attempt(request.attempt))


def _cancel(request: scheduler.CancelProcessRequest) -> Cancel:
    return Cancel(request.colony_name, request.process_id.lower(), "")


def _cancel_workflow(request: scheduler.CancelWorkflowRequest) -> Cancel:
    return Cancel(request.colony_name, "", request.workflow_id.lower(), request.on_behalf_of)


def _retry(request: scheduler.RetryWorkflowRequest) -> Retry:
    return Retry(request.colony_name, request.workflow_id.lower())


# Every method whose calls a file may hold, in JSON too: its request, and what that asks for.
_METHODS: Mapping[str, tuple[type[Message], Callable[[Any], Asked]]] = {
    _SCHEDULER + "SubmitProcesses": (scheduler.SubmitProcessesRequest, _submitted),
    _SCHEDULER + "SubmitWorkflow": (scheduler.SubmitWorkflowRequest, _submitted_workflow),
    _SCHEDULER + "SubmitWorkflows": (scheduler.SubmitWorkflowsRequest, _submitted_workflows),
    _SCHEDULER + "AddChildren": (scheduler.AddChildrenRequest, _children),
    _SCHEDULER + "CloseProcesses": (scheduler.CloseProcessesRequest, _closes),
    _SCHEDULER + "SetOutput": (scheduler.SetOutputRequest, _output),
    _SCHEDULER + "CancelProcess": (scheduler.CancelProcessRequest, _cancel),
    _SCHEDULER + "CancelWorkflow": (scheduler.CancelWorkflowRequest, _cancel_workflow),
    _SCHEDULER + "RetryWorkflow": (scheduler.RetryWorkflowRequest, _retry),
    _AUTH + "AddColony": (auth.AddColonyRequest, Membership),
    _AUTH + "RemoveColony": (auth.RemoveColonyRequest, Membership),
    _AUTH + "AddUser": (auth.AddUserRequest, Membership),
    _AUTH + "RemoveUser": (auth.RemoveUserRequest, Membership),
    _AUTH + "RotateKey": (auth.RotateKeyRequest, Membership),
    _REGISTRY + "RegisterExecutor": (registry.RegisterExecutorRequest, Membership),
    _REGISTRY + "ApproveExecutor": (registry.ApproveExecutorRequest, Membership),
    _REGISTRY + "RejectExecutor": (registry.RejectExecutorRequest, Membership),
    _REGISTRY + "RemoveExecutor": (registry.RemoveExecutorRequest, Membership),
}


class Calls:
    """The calls of a file that were signed as they say, by digest."""

    def __init__(self, cluster: str, report: Report) -> None:
        self._cluster = cluster
        self._report = report
        self._calls: dict[str, Call] = {}

    def get(self, digest: str) -> Call | None:
        """The call, which is used from now on; None if the file has no such call, or not before this line."""
        call = self._calls.get(digest)
        if call is not None:
            call.used = True
        return call

    def add(self, line: Line) -> None:
        """Takes in a call, if it is one.

        Raises:
            TooMany: enough was found.
        """
        record, report = line.record, self._report
        report.counts["calls"] += 1
        public_key, signature = bytes.fromhex(record["public_key"]), bytes.fromhex(record["signature"])
        body = _decoded(record["body"])
        if body is None:
            report.found(line.number, Kind.MALFORMED, line.label, "its body is no base64 in its one form")
            return
        text = call_text(
            method=record["method"], audience=self._cluster, time_ms=record["time_ms"], nonce=record["nonce"], body=body
        )
        digest = call_digest(text, public_key, signature)
        if digest != record["digest"]:
            report.found(line.number, Kind.CHAIN, line.label, "its digest is another")
            return
        if digest in self._calls:
            report.found(line.number, Kind.MALFORMED, line.label, f"stands in line {self._calls[digest].line} already")
            return
        report.counts["signatures"] += 1
        signer = signer_of(public_key, signature, text)
        if signer is None:
            report.found(line.number, Kind.SIGNATURE, line.label, "its signature does not fit it, its key and this cluster")
            return
        asked = self._asked(line, body)
        if asked is not None:
            method = base_of(record["method"]).rpartition("/")[2]
            self._calls[digest] = Call(line.number, digest, method, signer, record["time_ms"], asked)

    def _asked(self, line: Line, body: bytes) -> Asked | None:
        method = line.record["method"]
        known = _METHODS.get(base_of(method))
        if known is None:
            self._report.found(line.number, Kind.CALL, line.label, f"no event is asked for by {method}")
            return None
        request_type, read = known
        try:
            return read(request_of(method, body, request_type))
        except UnreadableRequestError:
            self._report.found(line.number, Kind.CALL, line.label, "its body is no request of this method")
            return None

    def check_used(self) -> None:
        """Finds the calls that nothing in the file refers to.

        Raises:
            TooMany: enough was found.
        """
        for call in self._calls.values():
            if not call.used:
                where = f"call {call.digest} ({call.method})"
                self._report.found(call.line, Kind.CALL, where, "nothing in this file was asked for by it")
