"""Records: rows as the domain sees them. Times are aware datetimes in UTC."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from services.scheduler.domain.spec import Selector, Spec
from services.scheduler.domain.states import FINAL, Outcome, Reason, State


@dataclass(frozen=True, slots=True)
class Receipt:
    """A signed call that is kept as the proof of what it asked for. `digest` names it in ledger lines."""

    digest: bytes
    method: str
    public_key: bytes
    time_ms: int
    nonce: bytes
    signature: bytes
    body: bytes


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
    """A process about to be entered. `pending_parents` are those that it waits for: with ANY_DONE, one. `place` is that of its
    spec in the call.
    """

    id: UUID
    spec: Spec
    priority_time: int
    pending_parents: int
    place: int


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
    # The caller chose that id, so that it may be taken.
    has_chosen_id: bool = False
    label: str = ""
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class SubmitCall:
    """Submissions of one call: all enter or none. All have its colony, actor and receipt; each has a request id of its own."""

    submissions: Sequence[Submission]

    @property
    def is_plain(self) -> bool:
        """Whether it is one submission that nothing but its request id keeps from entering."""
        return len(self.submissions) == 1 and not self.submissions[0].has_chosen_id

    @property
    def ids(self) -> set[object]:
        """What only one call can enter: its request ids, and the workflow ids that were chosen."""
        keys: set[object] = {(one.colony, one.actor, one.request_id) for one in self.submissions}
        return keys.union([one.workflow_id for one in self.submissions if one.has_chosen_id])

    @property
    def size(self) -> int:
        """How many processes it has."""
        return sum([len(one.processes) for one in self.submissions])

    @property
    def weight(self) -> int:
        """How many rows it is worth when it is written; large specs count for several."""
        size = sum([len(process.spec.body) for one in self.submissions for process in one.processes])
        receipt = self.submissions[0].receipt
        size += len(receipt.body) if receipt else 0
        return self.size + sum([len(one.edges) for one in self.submissions]) + size // (32 * 1024)


@dataclass(frozen=True, slots=True)
class Family:
    """Children that a running process adds to its workflow. `lasts`, unless empty, are those that take its place as parents of
    the children that it has.
    """

    parent: "AttemptRef"
    submission: Submission
    lasts: list[UUID]


@dataclass(frozen=True, slots=True)
class Place:
    """What the queue needs to know of a process: which lane, and where in it."""

    id: UUID
    colony: str
    sequence: int
    executor_type: str
    executor_names: tuple[str, ...]
    location: str
    # What it needs beyond these (matching.Needs), as text.
    needs: str
    priority_time: int
    # The number that its next attempt will have.
    attempt: int
    wait_deadline: datetime | None
    # It backs off until then.
    not_before: datetime | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A process that the queue gave out, and the number of the attempt that this is to become."""

    id: UUID
    attempt: int


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
    needs: str
    priority_time: int
    state: State
    pending_parents: int
    attempt: int
    retries: int
    # How many attempts ended that may never have reached their executors; these are not counted as retries.
    undelivered: int
    max_retries: int
    # Of its retries: first wait in ms, factor, longest wait in ms, jitter; empty for no wait.
    backoff: tuple[float, ...]
    backoff_until: datetime | None
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
        """When it fails if it is still in the queue. Its back-off, at the end of which it is ready, does not count."""
        return None if self.ready_at is None else self.wait_deadline_from(self.ready_at)

    def wait_deadline_from(self, ready_at: datetime) -> datetime | None:
        """The same for a process that comes into the queue at that time."""
        return ready_at + timedelta(milliseconds=self.max_wait_ms) if self.max_wait_ms else None

    @property
    def live_attempt(self) -> "Over":
        """Its running attempt, as what is about to be over."""
        return Over(self.id, self.attempt, self.executor_id)

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
            self.needs,
            self.priority_time,
            self.attempt + 1,
            self.wait_deadline,
            self.backoff_until,
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
    # Set where it goes back to the queue only after a while.
    backoff_until: datetime | None = None
    # None keeps what SetOutput stored.
    outputs: list[bytes] | None = None
    errors: list[str] = field(default_factory=list)
    # The call that asked for it, if somebody did.
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Over:
    """An attempt that has ended, and whose it was."""

    process_id: UUID
    number: int
    executor_id: str


@dataclass(slots=True)
class Changes:
    """What a transaction changed, for the queue and for watchers. Applied after the commit, and again if that is lost."""

    # Belong in their lanes now.
    ready: list[Place] = field(default_factory=list)
    # Attempts that are over.
    released: list[Over] = field(default_factory=list)
    # Were in a lane and do not belong there any more.
    withdrawn: list[Place] = field(default_factory=list)
    # Have news for watchers: process ids and workflow ids.
    touched: set[UUID] = field(default_factory=set)

    def add(self, other: "Changes") -> None:
        """Takes in what another transaction changed after this one."""
        self.ready += other.ready
        self.released += other.released
        self.withdrawn += other.withdrawn
        self.touched |= other.touched


@dataclass(frozen=True, slots=True)
class Entered:
    """What a submit gave, now or when its request id came first."""

    workflow_id: UUID | None
    process_ids: Sequence[UUID]
    changes: Changes


@dataclass(frozen=True, slots=True)
class ExecutorProfile:
    """What the registry says an approved executor may run."""

    identity: str
    name: str
    executor_types: tuple[str, ...]
    location: str
    # What it offers and accepts (matching.Offer), as text.
    offer: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What an executor got from the queue, and wants to begin."""

    colony: str
    executor: ExecutorProfile
    claimed: Sequence[Claimed]


@dataclass(frozen=True, slots=True)
class Assigned:
    """A new attempt, as it goes out."""

    live: Live
    spec: bytes
    inputs: list[bytes]


@dataclass(slots=True)
class Begun:
    """What became of a claim: attempts, most urgent first, and processes that did not go into one answer with them. All others
    were not ready, or somebody was at them.
    """

    assigned: list[Assigned] = field(default_factory=list)
    left: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """Names an attempt."""

    process_id: UUID
    number: int
