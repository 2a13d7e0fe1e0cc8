"""An earlier audit file, which a later one must bear out: so that whoever keeps files notices history that was rewritten."""

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from colonies.audit.findings import Kind, Report
from colonies.audit.lines import canonical
from colonies.audit.reading import first_look, read_header, records
from colonies.audit.records import Line, MalformedError, Record
from colonies.audit.scope import Scope

# Neither of these is there if a process is not audited; the number of events is another when there are more.
_NOT_SAID = frozenset({"call", "output_call", "hash", "place", "events"})


@dataclass(slots=True)
class _Told:
    """What the earlier file told of a process: its last event, whose hash stands for all before it too."""

    line: int
    workflow: str
    submitted_us: int
    events: int = 0
    hash: str = ""
    # Of what it says, without calls and hashes.
    said: bytes = b""
    # The later file has this process, and this event.
    there: bool = False
    seen: bool = False


class _Sayings:
    """A running digest of what a file says of one process: nothing else holds together one that is not audited."""

    def __init__(self, process: Record) -> None:
        self._digest = hashlib.sha256(canonical({name: process[name] for name in process.keys() - _NOT_SAID}))

    def add(self, event: Record) -> bytes:
        """Up to this event."""
        self._digest.update(b"\n" + canonical({name: event[name] for name in event.keys() - _NOT_SAID}))
        return self._digest.digest()


class Earlier:
    """What an earlier file told."""

    def __init__(self) -> None:
        self._processes: dict[str, _Told] = {}
        self._memberships: dict[int, str] = {}
        self._members_seen = 0
        # Of the process that is being read.
        self._sayings: _Sayings | None = None

    @classmethod
    def read(cls, file: BinaryIO, sealers: frozenset[str], later: Line, report: Report) -> "Earlier | None":
        """Reads a file; None, and a finding, if it is none of the same colony, intact, and sealed by somebody trusted."""
        own = Report(max_findings=1_000_000)
        problem = ""
        try:
            header = read_header(file).record
        except MalformedError as error:
            problem = str(error)
        else:
            own.cluster, own.colony = header["cluster"], header["colony"]
            if any(header[name] != later.record[name] for name in ("cluster", "colony")):
                problem = "it is of another colony"
            file.seek(0)
            if not first_look(file, own) or own.findings:
                problem = str(own.findings[0])
            elif own.sealed_by not in sealers:
                problem = f"it is sealed by {own.sealed_by}, which is not among the trusted sealers"
        if problem:
            report.found(1, Kind.HISTORY, "the earlier file", f"nothing can be compared with it: {problem}")
            return None
        earlier = cls()
        file.seek(0)
        for kind, line in records(file, own):
            earlier._take(kind, line)
        return earlier

    def _take(self, kind: str, line: Line) -> None:
        record = line.record
        if kind == "membership":
            self._memberships[record["number"]] = record["hash"]
        elif kind == "process":
            self._processes[record["id"]] = _Told(line.number, record["workflow_id"], record["submitted_us"])
            self._sayings = _Sayings(record)
        elif kind == "event" and self._sayings is not None and (told := self._processes.get(record["process"])) is not None:
            told.events, told.hash, told.said = record["number"], record["hash"], self._sayings.add(record)

    def check_membership(self, line: Line, report: Report) -> None:
        """Compares a membership event of the later file.

        Raises:
            TooMany: enough was found.
        """
        self._members_seen += 1
        told = self._memberships.get(line.record["number"])
        if told is not None and told != line.record["hash"]:
            report.found(line.number, Kind.HISTORY, line.label, "the earlier file tells it otherwise")

    def check_process(self, line: Line) -> None:
        """Begins to compare a process of the later file."""
        told = self._processes.get(line.record["id"])
        self._sayings = _Sayings(line.record) if told is not None else None
        if told is not None:
            told.there = True

    def check_event(self, line: Line, report: Report) -> None:
        """Compares an event of the later file.

        Raises:
            TooMany: enough was found.
        """
        told = self._processes.get(line.record["process"])
        if told is None or self._sayings is None or told.seen:
            return
        said = self._sayings.add(line.record)
        if told.events != line.record["number"]:
            return
        told.seen = True
        # A chain may end up not audited, but then it still says the same.
        chained = told.hash and line.record["hash"]
        if told.said != said or (chained and told.hash != line.record["hash"]):
            report.found(line.number, Kind.HISTORY, line.label, "the earlier file tells it, or what came before it, otherwise")

    def check_missing(self, scope: Scope, line: int, report: Report) -> None:
        """Finds what the earlier file has, and the later one should have and has not.

        Raises:
            TooMany: enough was found.
        """
        if self._members_seen < len(self._memberships):
            report.found(line, Kind.HISTORY, "the file", "the earlier file has more membership events")
        outside = 0
        for process, told in self._processes.items():
            if not scope.holds(process, told.workflow, told.submitted_us):
                outside += 1
            elif not told.there:
                message = f"line {told.line} of the earlier file begins it, and nothing of it is here: removed, or left out"
                report.found(line, Kind.GONE, f"process {process}", message)
            elif told.events and not told.seen:
                message = f"line {told.line} of the earlier file begins this process, which here does not come to this event"
                report.found(line, Kind.HISTORY, f"event {told.events} of process {process}", message)
        if outside:
            report.counts["processes not compared"] = outside
            message = f"it was asked for less than the earlier file: {outside} processes of that were not compared"
            report.found(1, Kind.NOT_PROVEN, "the header", message)
