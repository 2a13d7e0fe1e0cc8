"""An earlier audit file, which a later one must bear out: so that whoever keeps files notices history that was rewritten."""

from dataclasses import dataclass
from typing import BinaryIO

from colonies.audit.findings import Kind, Report
from colonies.audit.reading import first_look, read_header, records
from colonies.audit.records import Line, MalformedError
from colonies.audit.scope import Scope


@dataclass(slots=True)
class _Told:
    """What the earlier file told of a process: its last event, whose hash stands for all before it too."""

    line: int
    workflow: str
    submitted_us: int
    events: int = 0
    hash: str = ""
    # The later file has this event.
    seen: bool = False


class Earlier:
    """What an earlier file told."""

    def __init__(self) -> None:
        self._processes: dict[str, _Told] = {}
        self._memberships: dict[int, str] = {}
        self._members_seen = 0

    @classmethod
    def read(cls, file: BinaryIO, trusted: frozenset[str], later: Line, report: Report) -> "Earlier | None":
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
            elif own.sealed_by not in trusted:
                problem = f"it is sealed by {own.sealed_by}, which is not among the trusted identities"
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
        elif kind == "event" and (told := self._processes.get(record["process"])) is not None:
            told.events, told.hash = record["number"], record["hash"]

    def check_membership(self, line: Line, report: Report) -> None:
        """Compares a membership event of the later file.

        Raises:
            TooMany: enough was found.
        """
        self._members_seen += 1
        told = self._memberships.get(line.record["number"])
        if told is not None and told != line.record["hash"]:
            report.found(line.number, Kind.HISTORY, line.label, "the earlier file tells it otherwise")

    def check_event(self, line: Line, report: Report) -> None:
        """Compares an event of the later file.

        Raises:
            TooMany: enough was found.
        """
        told = self._processes.get(line.record["process"])
        if told is None or told.events != line.record["number"]:
            return
        told.seen = True
        if told.hash != line.record["hash"]:
            report.found(line.number, Kind.HISTORY, line.label, "the earlier file tells it, or what came before it, otherwise")

    def check_missing(self, scope: Scope, line: int, report: Report) -> None:
        """Finds what the earlier file has, and the later one should have and has not.

        Raises:
            TooMany: enough was found.
        """
        if self._members_seen < len(self._memberships):
            report.found(line, Kind.HISTORY, "the file", "the earlier file has more membership events")
        for process, told in self._processes.items():
            if told.events and not told.seen and scope.holds(process, told.workflow, told.submitted_us):
                where = f"event {told.events} of process {process}"
                message = f"line {told.line} of the earlier file begins a process that is not there, or not up to this event"
                report.found(line, Kind.HISTORY, where, message)
