"""A cron, its fires, and what becomes of them. Moments are UTC datetimes of whole milliseconds."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

from services.cron.domain.ids import derived_id
from services.cron.domain.schedule import Schedule, Timetable

# What a fire's error says at most.
MAX_ERROR_CHARACTERS = 1024


class State(IntEnum):
    """Whether a cron fires; numbered as in the contract and in the table."""

    ACTIVE = 1
    PAUSED = 2
    ENDED = 3


class Overlap(IntEnum):
    """What a fire does when the last workflow of its cron is open; numbered as in the contract."""

    ALLOW = 1
    SKIP = 2
    QUEUE_ONE = 3
    CANCEL_PREVIOUS = 4


class Missed(IntEnum):
    """What becomes of moments that passed while nobody could act; numbered as in the contract."""

    SKIP = 1
    ONCE = 2
    ALL = 3


class Kind(IntEnum):
    """Why a cron fired; numbered as in the contract."""

    SCHEDULED = 1
    RUN = 2


class Outcome(IntEnum):
    """What became of a fire; numbered as in the contract."""

    PENDING = 1
    SUBMITTED = 2
    SKIPPED = 3
    MISSED = 4
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Policy:
    """What a fire does when others are open or were missed; see FirePolicy in the contract."""

    overlap: Overlap = Overlap.ALLOW
    missed: Missed = Missed.ONCE
    missed_at_most: int = 100
    missed_after_ms: int = 10_000
    feed_outputs: bool = False
    max_failures: int = 10


@dataclass(frozen=True, slots=True)
class NewCron:
    """What a member asks for. `workflow` is a serialised WorkflowSpec; the domain never opens it."""

    name: str
    schedule: Schedule
    policy: Policy
    workflow: bytes


@dataclass(frozen=True, slots=True)
class Fire:
    """One fire, or several moments that came to nothing together.

    Attributes:
        fire_id: also the id of the workflow that it submits.
        due: the scheduled moment, before jitter.
        moments: how many moments it stands for.
        tries: how often its submit was begun; above zero its workflow may be there although the fire is pending.
        limited: how many of these a limit of the scheduler ended.
        waits_for: the workflow whose end it waits for, by the overlap policy.
        fired: when it came to its end.
    """

    fire_id: UUID
    due: datetime
    kind: Kind = Kind.SCHEDULED
    outcome: Outcome = Outcome.PENDING
    moments: int = 1
    tries: int = 0
    limited: int = 0
    waits_for: UUID | None = None
    error: str = ""
    fired: datetime | None = None


@dataclass(frozen=True, slots=True)
class Cron:
    """A workflow, its schedule, and how far it has come.

    Attributes:
        workflow: the serialised WorkflowSpec; empty where it was not asked for.
        workflow_bytes: its size.
        since: when its schedule began: when it was added or updated.
        version: counts what its members change.
        next_fire: the moment that comes next; None for never again, and while it is paused.
        next_due: when to act on it: jitter and back-off included.
        acted_until: no moment up to this one is fired any more.
        catch_up_until: moments up to this one fire however late they are.
        pending: the scheduled fire that has begun and has not come to its end.
        last_fire: the scheduled moment of the last fire that came to its end.
        fed_from: the last run that is known to have succeeded, for feeding its outputs.
    """

    cron_id: UUID
    colony: str
    name: str
    schedule: Schedule
    policy: Policy
    workflow: bytes
    workflow_bytes: int
    initiator: str
    initiator_name: str
    created: datetime
    since: datetime
    next_fire: datetime | None
    next_due: datetime | None
    state: State = State.ACTIVE
    pause_reason: str = ""
    version: int = 0
    acted_until: datetime | None = None
    catch_up_until: datetime | None = None
    pending: Fire | None = None
    runs: int = 0
    failures: int = 0
    last_fire: datetime | None = None
    last_workflow_id: UUID | None = None
    last_error: str = ""
    fed_from: UUID | None = None

    @property
    def timetable(self) -> Timetable:
        """Its moments."""
        return Timetable(self.schedule, self.cron_id, self.since)

    @property
    def is_used_up(self) -> bool:
        """Whether it has submitted all that its schedule lets it."""
        return 0 < self.schedule.max_runs <= self.runs

    def asks_for(self, new: NewCron, initiator: str) -> bool:
        """Whether this is what the same member would get by adding `new`."""
        return (self.name, self.schedule, self.policy, self.workflow, self.initiator) == (
            new.name,
            new.schedule,
            new.policy,
            new.workflow,
            initiator,
        )

    def fire_id(self, moment: datetime) -> UUID:
        """The id of the fire at a scheduled moment, and of its workflow: the same for whoever fires it, and how often."""
        return derived_id(moment, self.cron_id)


def first_fire(timetable: Timetable, now: datetime, acted_until: datetime | None) -> datetime | None:
    """The moment from which a schedule goes on that begins or is taken up again now."""
    # Whoever acted last may have had a clock that is ahead of ours: never the same moment twice.
    return timetable.next_after(now if acted_until is None else max(now, acted_until))


def due_of(timetable: Timetable, moment: datetime | None) -> datetime | None:
    """When a moment is to be acted on: jitter included."""
    return None if moment is None else moment + timetable.jitter(moment)


def fire_request_id(fire_id: UUID) -> str:
    """The scheduler's idempotency key of a fire: whoever submits it, and how often, uses this one."""
    return f"cron-{fire_id}"


def error_text(message: str) -> str:
    """As much of an error as a record says, of what can be stored."""
    return message[:MAX_ERROR_CHARACTERS].replace("\0", "?").encode(errors="replace").decode()


def run_digest(request_id: str) -> str:
    """A client's request id of any length and form, as 64 hex digits."""
    return hashlib.sha256(request_id.encode()).hexdigest()
