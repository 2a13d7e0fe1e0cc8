"""What an audit file was asked for, and so must hold."""

from collections.abc import Collection, Iterator

from colonies.audit.findings import Kind
from colonies.audit.records import Record


class Scope:
    """The filters of an export: without any, all that the colony has."""

    def __init__(self, record: Record) -> None:
        self._processes: list[str] = record["process_ids"]
        self._workflows: list[str] = record["workflow_ids"]
        self._since_us: int | None = record["since_us"]
        self._before_us: int | None = record["before_us"]
        self._named = frozenset(self._processes) | frozenset(self._workflows)

    def holds(self, process: str, workflow: str, submitted_us: int) -> bool:
        """Whether a process belongs in the file."""
        if self._named and process not in self._named and workflow not in self._named:
            return False
        if self._since_us is not None and submitted_us < self._since_us:
            return False
        return self._before_us is None or submitted_us < self._before_us

    def problem(self, process: Record) -> str:
        """Why a process does not belong in the file, if so."""
        if self.holds(process["id"], process["workflow_id"], process["submitted_us"]):
            return ""
        return "the header does not ask for it"

    def missing(self, processes: Collection[str], workflows: Collection[str]) -> Iterator[tuple[Kind, str]]:
        """What was asked for by name, and is not there. With times it may rightly not be."""
        if self._since_us is not None or self._before_us is not None:
            return
        for what, names, present in (("process", self._processes, processes), ("workflow", self._workflows, workflows)):
            for name in names:
                if name not in present:
                    yield Kind.SCOPE, f"the header asks for {what} {name}, which is not there"
