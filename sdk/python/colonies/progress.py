"""A workflow's progress, live in a terminal."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from colonies.scheduler.v1 import process_pb2 as process

MAX_ROWS = 30
REFRESHES_PER_SECOND = 8

_STYLES = {
    process.PROCESS_STATE_WAITING: ("waiting", "dim"),
    process.PROCESS_STATE_RUNNING: ("running", "cyan"),
    process.PROCESS_STATE_SUCCESSFUL: ("successful", "green"),
    process.PROCESS_STATE_FAILED: ("failed", "bold red"),
    process.PROCESS_STATE_CANCELLED: ("cancelled", "yellow"),
}
# Which rows to keep when not all fit: what is happening, and what went wrong.
_URGENCY = {
    process.PROCESS_STATE_FAILED: 0,
    process.PROCESS_STATE_CANCELLED: 1,
    process.PROCESS_STATE_RUNNING: 2,
    process.PROCESS_STATE_WAITING: 3,
    process.PROCESS_STATE_SUCCESSFUL: 4,
}


class Watcher(Protocol):
    """Takes state changes as they are made."""

    def __call__(self, event: process.ProcessEvent, /) -> None: ...


@dataclass(slots=True)
class _Row:
    name: str
    state: process.ProcessState.ValueType = process.PROCESS_STATE_WAITING
    executor: str = ""
    attempt: int = 0


class ProgressTable:
    """The nodes of a workflow with state, executor and attempt; drawn from what it holds at that moment."""

    def __init__(self, workflow_id: str, names: Mapping[str, str]) -> None:
        """`names` has the node name of each process id."""
        self._workflow_id = workflow_id
        self._rows = {process_id: _Row(name) for process_id, name in names.items()}

    def show(self, event: process.ProcessEvent) -> None:
        """Takes in a state change."""
        row = self._rows.setdefault(event.process_id, _Row(event.node_name))
        row.state = event.transition.to_state
        row.executor = event.executor_name or row.executor
        row.attempt = max(row.attempt, event.transition.attempt)

    def __rich__(self) -> RenderableType:
        rows = list(self._rows.values())
        if len(rows) > MAX_ROWS:
            urgent = set(map(id, sorted(rows, key=lambda row: _URGENCY.get(row.state, 3))[:MAX_ROWS]))
            rows = [row for row in rows if id(row) in urgent]
        table = Table("node", "state", "executor", "attempt", title=f"workflow {self._workflow_id}", title_justify="left")
        for row in rows:
            word, style = _STYLES.get(row.state, ("", ""))
            attempt = str(row.attempt) if row.attempt else ""
            table.add_row(Text(row.name), Text(word, style=style), Text(row.executor), attempt)
        return Group(table, Text(self._summary(len(rows))))

    def _summary(self, shown: int) -> str:
        counts = Counter(row.state for row in self._rows.values())
        words = [f"{counts[state]} {word}" for state, (word, _) in _STYLES.items() if counts[state]]
        hidden = len(self._rows) - shown
        return ", ".join(words) + (f" ({hidden} not shown)" if hidden else "")


@contextmanager
def shown_progress(workflow_id: str, names: Mapping[str, str], wanted: bool | None) -> Iterator[Watcher | None]:
    """Shows a table on stderr while its block runs, and gives what to tell state changes to.

    `wanted` None means if stderr is a terminal; when nothing is shown, None is given.
    """
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield None
        return
    table = ProgressTable(workflow_id, names)
    with Live(table, console=Console(stderr=True), refresh_per_second=REFRESHES_PER_SECOND):
        yield table.show
