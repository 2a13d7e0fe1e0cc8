"""What an audit file says of each process, for people: who asked for what, and who reported which result."""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO

from google.protobuf.message import Message

from colonies.audit.findings import Report, TooMany
from colonies.audit.life import State
from colonies.audit.reading import records
from colonies.audit.records import Record
from colonies.cli.failure import CliError, ExitCode, one_line
from colonies.errors import UnreadableRequestError
from colonies.json_calls import base_of, request_of
from colonies.keys import identity_of
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

# Of each call that enters processes, the specs in their order.
_SUBMITS: Mapping[str, tuple[type[Message], Callable[[Any], Iterable[Any]]]] = {
    "SubmitProcesses": (scheduler.SubmitProcessesRequest, lambda request: request.specs),
    "SubmitWorkflow": (scheduler.SubmitWorkflowRequest, lambda request: request.workflow.nodes),
    "SubmitWorkflows": (
        scheduler.SubmitWorkflowsRequest,
        lambda request: [node for one in request.submissions for node in one.workflow.nodes],
    ),
    "AddChildren": (scheduler.AddChildrenRequest, lambda request: request.nodes),
}


@dataclass(frozen=True, slots=True)
class _Call:
    """A call, as far as it is told."""

    method: str
    key: str
    time_ms: int
    functions: Sequence[str]

    @property
    def document(self) -> dict[str, Any]:
        return {"method": self.method, "key": self.key, "time_ms": self.time_ms}


@dataclass(slots=True)
class Story:
    """One process: its record, events and calls, as a document and as lines for people."""

    document: dict[str, Any]
    lines: list[str] = field(default_factory=list)


def _time(microseconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(microseconds / 1e6, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{microseconds} us"
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{microseconds % 1_000_000 // 1000:03d}"


def _call(record: Record) -> _Call:
    method = base_of(record["method"]).rpartition("/")[2]
    functions: list[str] = []
    if (submit := _SUBMITS.get(method)) is not None:
        request_type, specs = submit
        # What is neither base64 nor a request, verify says so.
        with suppress(UnreadableRequestError, ValueError):
            request = request_of(record["method"], base64.b64decode(record["body"]), request_type)
            functions = [spec.func_name for spec in specs(request)]
    return _Call(method, identity_of(bytes.fromhex(record["public_key"])), record["time_ms"], functions)


class _Teller:
    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._names: dict[str, str] = {}

    def take(self, kind: str, record: Record) -> None:
        """Remembers calls and names."""
        if kind == "call":
            self._calls[record["digest"]] = _call(record)
        elif kind == "membership":
            name = "the colony's owner" if record["role"] == "colony_owner" else f"{record['role']} {record['name']}"
            self._names[record["identity"]] = self._names[record["key"]] = name

    def _who(self, identity: str) -> str:
        return self._names.get(identity) or identity

    def begin(self, record: Record) -> Story:
        """A process."""
        call = self._calls.get(record["call"])
        place = record["place"]
        function = call.functions[place] if call is not None and place < len(call.functions) else ""
        document = {name: value for name, value in record.items() if name != "record"}
        document |= {"function": function, "call": call.document if call else None, "events": []}
        story = Story(document)
        workflow = f" of workflow {record['workflow_id']}" if record["workflow_id"] else ""
        story.lines.append(f"\nprocess {record['id']}{workflow}" + (f": {function}" if function else ""))
        story.lines.append(f"  on the account of {record['initiator_name']} ({record['initiator']})")
        return story

    def add(self, story: Story, record: Record) -> None:
        """An event of it."""
        call = self._calls.get(record["call"])
        document = {name: value for name, value in record.items() if name not in {"record", "process", "hash"}}
        story.document["events"].append(document | {"call": call.document if call else None})
        attempt = f", attempt {record['attempt']} on {record['executor_name']}" if record["attempt"] else ""
        by = f", by {self._who(record['actor'])}" if record["actor"] else ""
        change = f"{State(record['from']).name} -> {State(record['to']).name}"
        story.lines.append(f"  {_time(record['at_us'])}  {record['reason']}: {change}{attempt}{by}")
        if call is not None:
            signed = _time(call.time_ms * 1000)
            story.lines.append(f"      asked for by {call.method}, signed with the key of {self._who(call.key)} at {signed}")
        story.lines += [f"      error: {one_line(error)}" for error in record["errors"]]


def stories(file: BinaryIO, wanted: frozenset[str]) -> Iterator[Story]:
    """The processes of a file whose lines are as they were written; all, or only those wanted.

    Raises:
        CliError: a line is no record.
    """
    report, teller = Report(max_findings=1), _Teller()
    story: Story | None = None
    try:
        for kind, line in records(file, report):
            record = line.record
            if kind == "event":
                if story is not None and story.document["id"] == record["process"]:
                    teller.add(story, record)
                continue
            if story is not None:
                yield story
            is_wanted = kind == "process" and (not wanted or record["id"] in wanted)
            story = teller.begin(record) if is_wanted else None
            teller.take(kind, record)
    except TooMany:
        raise CliError(str(report.findings[0]), ExitCode.FAILED) from None
