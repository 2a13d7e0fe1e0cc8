"""Checks an audit file, with nothing but the file and the identities that are trusted.

First every line against the digest before it, and the seal: that finds all that was changed after the file was written, and
then nothing more is looked at. Then, line by line, what the file says: signatures, chains, transitions, and calls.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from colonies.audit.asked import Asking
from colonies.audit.calls import Calls
from colonies.audit.chains import event_hash, process_root
from colonies.audit.earlier import Earlier
from colonies.audit.findings import DEFAULT_MAX_FINDINGS, Kind, Report, TooMany
from colonies.audit.life import Attempt, Life
from colonies.audit.members import Members
from colonies.audit.reading import first_look, read_header, records
from colonies.audit.records import Line, MalformedError, Record
from colonies.audit.scope import Scope
from colonies.audit.trust import Trust


@dataclass(slots=True)
class _Open:
    """The process whose events are being read."""

    line: Line
    life: Life
    # Its hash so far; empty for a process from before receipts.
    hash: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a process."""

    workflow: str
    attempts: tuple[Attempt, ...]


class _Verifier:
    def __init__(self, header: Line, trust: Trust, earlier: Earlier | None, report: Report) -> None:
        record = header.record
        self._report = report
        self._colony: str = record["colony"]
        self._calls = Calls(record["cluster"], report)
        self._members = Members(record, trust, self._calls, report)
        self._asking = Asking(record, trust.crons, self._members, self._calls)
        self._scope = Scope(record["scope"])
        self._earlier = earlier
        self._open: _Open | None = None
        self._processes: dict[str, _Known] = {}

    def read(self, file: BinaryIO) -> None:
        """Checks all records of a file. Raises TooMany when enough was found."""
        for kind, line in records(file, self._report):
            if kind != "event":
                self._end_process()
            match kind:
                case "call":
                    self._calls.add(line)
                case "membership":
                    self._membership(line)
                case "process":
                    self._begin_process(line)
                case "event":
                    self._event(line)
                case "header" if line.number != 1:
                    self._found(line, Kind.MALFORMED, "stands first in a file, and only there")
                case "seal" if line.number != self._report.counts["lines"]:
                    self._found(line, Kind.MALFORMED, "stands last in a file, and only there")
        self._end_process()

    def end(self) -> None:
        """Checks what only the whole file shows."""
        report, last = self._report, self._report.counts["lines"]
        if not report.owner:
            report.found(1, Kind.NOT_PROVEN, "the header", "it names no owner: its colony is older than the membership ledger")
        if problem := self._members.owner_problem:
            report.found(1, Kind.MEMBERSHIP, f"the owner {self._members.owner}".rstrip(), problem)
        if self._members.has_key(report.sealed_by):
            report.found(last, Kind.SEAL, "the seal", "it is made with the key of a member of the colony")
        for digest, growth in self._asking.growths.items():
            parent = self._processes.get(growth.parent.process)
            where = f"call {digest} (AddChildren)"
            if parent is None:
                report.found(last, Kind.NOT_PROVEN, where, "the process whose attempt made it is not in this file")
            elif problem := growth.problem(parent.workflow, parent.attempts):
                report.found(last, Kind.CALL, where, problem)
        self._calls.check_used()
        for kind, message in self._scope.missing(self._processes, {known.workflow for known in self._processes.values()}):
            report.found(last, kind, "the file", message)
        if self._earlier is not None:
            self._earlier.check_missing(self._scope, last, report)

    def _found(self, line: Line, kind: Kind, message: str) -> None:
        self._report.found(line.number, kind, line.label, message)

    def _membership(self, line: Line) -> None:
        if line.record["kind"] == "COLONY_ADDED" and self._processes:
            self._found(line, Kind.MALFORMED, "a colony is added before all that happens in it")
        self._members.add(line)
        if self._earlier is not None:
            self._earlier.check_membership(line, self._report)

    def _begin_process(self, line: Line) -> None:
        record = line.record
        self._report.counts["processes"] += 1
        if record["id"] in self._processes:
            self._found(line, Kind.MALFORMED, "stands in the file twice")
        self._processes[record["id"]] = _Known(record["workflow_id"], ())
        if problem := self._scope.problem(record):
            self._found(line, Kind.SCOPE, problem)
        life = Life(record)
        root = ""
        if record["call"]:
            root = self._root(record)
            submit = self._asking.check_process(record, lambda kind, message: self._found(line, kind, message))
            if submit is not None:
                life.max_retries = submit.max_retries[record["place"]]
        else:
            self._report.counts["processes not audited"] += 1
            self._found(line, Kind.NOT_PROVEN, "it is not audited: calls were not kept when it was submitted, or went on")
        self._open = _Open(line, life, root)
        if self._earlier is not None:
            self._earlier.check_process(line)

    def _root(self, record: Record) -> str:
        return process_root(
            colony=self._colony,
            process=record["id"],
            workflow=record["workflow_id"],
            initiator=record["initiator"],
            initiator_name=record["initiator_name"],
            submitted_us=record["submitted_us"],
            priority_time=record["priority_time"],
            call=record["call"],
            place=record["place"],
        )

    def _event(self, line: Line) -> None:
        event, current = line.record, self._open
        self._report.counts["events"] += 1
        if current is None or event["process"] != current.life.process["id"]:
            self._found(line, Kind.MALFORMED, "does not stand right after its process and the events before it")
            return
        if event["number"] != current.life.events + 1:
            self._found(line, Kind.CHAIN, f"it should be event {current.life.events + 1}")
        if current.life.process["call"]:
            self._check_hash(line, current)
            self._asking.check_event(current.life, event, lambda kind, message: self._found(line, kind, message))
        else:
            if event["hash"]:
                self._found(line, Kind.CHAIN, "it has a hash, and its process has nothing that this could follow from")
            self._calls.get(event["call"])
            self._calls.get(event["output_call"])
        for message in current.life.step(event):
            self._found(line, Kind.TRANSITION, message)
        if self._earlier is not None:
            self._earlier.check_event(line, self._report)

    def _check_hash(self, line: Line, current: _Open) -> None:
        event = line.record
        names = ("at_us", "attempt", "executor_name", "actor", "reason", "outcome", "errors", "call", "output_call")
        fields = {name: event[name] for name in names}
        expected = event_hash(current.hash, from_state=event["from"], to_state=event["to"], **fields)
        if event["hash"] != expected:
            self._found(line, Kind.CHAIN, "its hash does not follow from the one before: one of them was changed")
        current.hash = event["hash"]

    def _end_process(self) -> None:
        current, self._open = self._open, None
        if current is None:
            return
        life = current.life
        self._processes[life.process["id"]] = _Known(life.process["workflow_id"], tuple(life.attempts))
        if life.events != life.process["events"]:
            message = f"it says that it has {life.process['events']} events; there are {life.events}"
            self._found(current.line, Kind.CHAIN, message)


def verify(file: BinaryIO, trust: Trust, *, after: BinaryIO | None = None, max_findings: int = DEFAULT_MAX_FINDINGS) -> Report:
    """Checks an audit file; whatever is in it, the report says what is wrong with it.

    Args:
        file: the file, from its beginning; it is read twice.
        trust: whom to believe what.
        after: an earlier file of the same colony, which this one must bear out.
        max_findings: stop after so many.
    """
    report = Report(max_findings=max_findings)
    with suppress(TooMany):
        _verify(file, trust, after, report)
    report.findings.sort(key=lambda finding: finding.line)
    return report


def _verify(file: BinaryIO, trust: Trust, after: BinaryIO | None, report: Report) -> None:
    header, problem = None, ""
    try:
        header = read_header(file)
    except MalformedError as error:
        problem = str(error)
    else:
        report.cluster, report.colony = header.record["cluster"], header.record["colony"]
        report.owner, report.scope = header.record["owner"], header.record["scope"]
    file.seek(0)
    if not first_look(file, report):
        return
    if header is None:
        report.found(1, Kind.MALFORMED, "the header", problem)
        return
    if report.sealed_by not in trust.sealers:
        message = f"it is by {report.sealed_by}, which is not among the trusted sealers"
        report.found(report.counts["lines"], Kind.SEAL, "the seal", message)
    earlier = Earlier.read(after, trust.sealers, header, report) if after is not None else None
    file.seek(0)
    verifier = _Verifier(header, trust, earlier, report)
    verifier.read(file)
    verifier.end()
