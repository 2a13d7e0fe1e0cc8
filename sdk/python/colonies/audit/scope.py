"""What an audit file was asked for, and so must hold."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

from colonies.audit.findings import Kind
from colonies.audit.records import Record

_SHOWN = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_text(microseconds: int) -> str:
    """A time since 1970, as ISO 8601 has it."""
    try:
        return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()
    except OverflowError:
        return f"{microseconds} us"


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

    def __str__(self) -> str:
        """It in words."""
        parts = [f"process {one}" for one in self._processes] + [f"workflow {one}" for one in self._workflows]
        shown = ", ".join(parts[:_SHOWN]) + (f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else "")
        times = (("since", self._since_us), ("before", self._before_us))
        return " ".join([shown or "everything", *(f"{word} {moment_text(us)}" for word, us in times if us is not None)])

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
