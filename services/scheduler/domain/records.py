"""Records: rows as the domain sees them. Times are aware datetimes in UTC."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from services.scheduler.domain.spec import Selector, Spec
from services.scheduler.domain.states import FINAL, Outcome, Reason, State


@dataclass(frozen=True, slots=True)
class Account:
    """The member on whose account something was submitted."""

    identity: str
    name: str


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge between processes. `position` is the parent's place among the child's dependencies."""

    parent: UUID
    child: UUID
    position: int
    selector: Selector
    k: int
    n: int


@dataclass(frozen=True, slots=True)
class NewProcess:
    """A process about to be entered."""

    id: UUID
    spec: Spec
    priority_time: int
    pending_parents: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit as it enters, whole or not at all. `digest` tells a repeated request from another one with the same id."""

    colony: str
    request_id: str
    digest: bytes
    account: Account
    # Identity of the signer: the account itself, or a service that acts for it.
    actor: str
    at: datetime
    processes: list[NewProcess]
    edges: list[Edge] = field(default_factory=list)
    workflow_id: UUID | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What the queue needs to know of a process: which lane, and where in it."""

    id: UUID
    colony: str
    sequence: int
    executor_type: str
    executor_names: tuple[str, ...]
    location: str
    priority_time: int
    wait_deadline: datetime | None


@dataclass(frozen=True, slots=True)
class Live:
    """What is decided by when a process is about to change: its row, locked."""

    id: UUID
    colony: str
    workflow_id: UUID | None
    node_name: str
    func_name: str
    sequence: int
    executor_type: str
    executor_names: tuple[str, ...]
    location: str
    priority_time: int
    state: State
    pending_parents: int
    attempt: int
    retries: int
    max_retries: int
    max_wait_ms: int
    max_exec_ms: int
    executor_id: str
    executor_name: str
    initiator: str
    ready_at: datetime | None
    started_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Nothing will change any more."""
        return self.state in FINAL

    @property
    def is_ready(self) -> bool:
        """Belongs in its lane."""
        return self.state is State.WAITING and self.pending_parents == 0

    @property
    def wait_deadline(self) -> datetime | None:
        """When it fails if it is still in the queue."""
        if not self.max_wait_ms or self.ready_at is None:
            return None
        return self.ready_at + timedelta(milliseconds=self.max_wait_ms)

    @property
    def exec_deadline(self) -> datetime | None:
        """When its running attempt's time is over."""
        if not self.max_exec_ms or self.started_at is None:
            return None
        return self.started_at + timedelta(milliseconds=self.max_exec_ms)

    @property
    def place(self) -> Place:
        """Its place in the queue."""
        return Place(
            self.id,
            self.colony,
            self.sequence,
            self.executor_type,
            self.executor_names,
            self.location,
            self.priority_time,
            self.wait_deadline,
        )


@dataclass(frozen=True, slots=True)
class Ending:
    """What becomes of a process: written with its attempt and its ledger line in one transaction."""

    id: UUID
    to_state: State
    reason: Reason
    actor: str
    # How the live attempt ended; LIVE when there is none.
    outcome: Outcome = Outcome.LIVE
    counts_as_retry: bool = False
    # None keeps what SetOutput stored.
    outputs: list[bytes] | None = None
    errors: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Changes:
    """What a transaction changed, for the queue and for watchers. Applied after the commit, and again if that is lost."""

    # Belong in their lanes now.
    ready: list[Place] = field(default_factory=list)
    # Had a live attempt that is over.
    released: list[Live] = field(default_factory=list)
    # Were in a lane and do not belong there any more.
    withdrawn: list[Place] = field(default_factory=list)
    # Have news for watchers: process ids and workflow ids.
    touched: set[UUID] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Entered:
    """What a submit gave, now or when its request id came first."""

    workflow_id: UUID | None
    process_ids: Sequence[UUID]
    changes: Changes


@dataclass(frozen=True, slots=True)
class Assigned:
    """A new attempt, as it goes out."""

    live: Live
    spec: bytes
    inputs: list[bytes]


@dataclass(frozen=True, slots=True)
class ExecutorProfile:
    """What the registry says an approved executor may run."""

    identity: str
    name: str
    executor_types: tuple[str, ...]
    location: str


@dataclass(frozen=True, slots=True)
class Over:
    """An attempt that has ended, and whose it was."""

    process_id: UUID
    number: int
    executor_id: str


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """Names an attempt."""

    process_id: UUID
    number: int
