"""What members read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.scheduler.domain.records import Live
from services.scheduler.domain.states import Outcome, State


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a log or ledger that is being followed: all that was read up to here is settled."""

    xid: int = 0
    id: int = 0


@dataclass(frozen=True, slots=True)
class ProcessView:
    """A process as it is read; `spec`, `inputs` and `outputs` are serialised messages."""

    live: Live
    spec: bytes
    label: str
    initiator_name: str
    submitted_at: datetime
    ended_at: datetime | None
    outputs: list[bytes]
    errors: list[str]
    parent_ids: list[UUID]
    inputs: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AttemptView:
    """An attempt as it is read."""

    number: int
    executor_name: str
    executor_id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    errors: list[str]


@dataclass(frozen=True, slots=True)
class TransitionView:
    """A ledger line as it is read."""

    at: datetime
    from_state: State
    to_state: State
    attempt: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class EventView:
    """A ledger line as followers get it."""

    position: Position
    process_id: UUID
    node_name: str
    func_name: str
    executor_name: str
    transition: TransitionView


@dataclass(frozen=True, slots=True)
class LogView:
    """A log line."""

    position: Position
    process_id: UUID
    attempt: int
    executor_name: str
    at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class AttributeView:
    """An attribute; `kind` as in the protos."""

    kind: int
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """A workflow with its processes by state."""

    id: UUID
    colony: str
    sequence: int
    label: str
    initiator: str
    initiator_name: str
    submitted_at: datetime
    counts: dict[State, int]
    begun: bool
    ended_at: datetime | None

    @property
    def state(self) -> State:
        """Derived: any failed, else any cancelled, else all successful, else running once begun."""
        if self.counts[State.FAILED]:
            return State.FAILED
        if self.counts[State.CANCELLED]:
            return State.CANCELLED
        if not self.counts[State.WAITING] and not self.counts[State.RUNNING]:
            return State.SUCCESSFUL
        return State.RUNNING if self.begun else State.WAITING

    @property
    def is_over(self) -> bool:
        """No process will change any more."""
        return not self.counts[State.WAITING] and not self.counts[State.RUNNING]


@dataclass(frozen=True, slots=True)
class OutputsView:
    """What a process of a workflow returned, serialised."""

    process_id: UUID
    node_name: str
    outputs: list[bytes]


@dataclass(frozen=True, slots=True)
class ResultView:
    """A workflow, and what its processes without children returned, in the order of their submission."""

    workflow: WorkflowView
    outputs: list[OutputsView] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ProcessFilter:
    """Which processes to list; None lets everything through. `before` is the sequence to begin below."""

    states: Sequence[State] | None
    executor_type: str | None
    label: str | None
    initiator: str | None
    workflow_id: UUID | None
    executor_name: str | None
    submitted_from: datetime | None
    submitted_until: datetime | None
    before: int
    limit: int


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Which workflows to list, as ProcessFilter."""

    label: str | None
    initiator: str | None
    before: int
    limit: int


@dataclass(frozen=True, slots=True)
class ColonyFilter:
    """Which changes of a colony are followed; None lets everything through."""

    executor_types: Sequence[str] | None
    labels: Sequence[str] | None
    states: Sequence[State] | None


@dataclass(frozen=True, slots=True)
class Target:
    """What is followed: one process, or one workflow."""

    process_id: UUID | None = None
    workflow_id: UUID | None = None

    def __str__(self) -> str:
        return str(self.process_id or self.workflow_id)


@dataclass(frozen=True, slots=True)
class LogSource:
    """Whose log lines: of a process, or of an executor."""

    process_id: UUID | None = None
    executor_name: str | None = None


class Reads(Protocol):
    """What is read straight from the tables."""

    async def process(self, colony: str, process_id: UUID) -> ProcessView: ...

    async def processes(self, colony: str, where: ProcessFilter) -> list[ProcessView]: ...

    async def history(self, colony: str, process_id: UUID) -> tuple[list[AttemptView], list[TransitionView]]: ...

    async def attributes(self, colony: str, process_id: UUID) -> tuple[bytes, list[AttributeView]]: ...

    async def workflow(self, colony: str, workflow_id: UUID) -> WorkflowView: ...

    async def workflows(self, colony: str, where: WorkflowFilter) -> list[WorkflowView]: ...

    async def results(self, colony: str, workflow_ids: Sequence[UUID], *, with_outputs: bool) -> dict[UUID, ResultView]: ...

    async def logs_after(
        self, colony: str, source: LogSource, position: Position, limit: int
    ) -> tuple[list[LogView], bool]: ...
