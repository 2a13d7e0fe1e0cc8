"""A cron and what becomes of it when it fires. Moments are UTC datetimes."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from servicekit.clock import unix_ms
from services.cron.domain.schedule import Schedule


@dataclass(frozen=True, slots=True)
class NewCron:
    """What a member asks for. `workflow` is a serialised WorkflowSpec; the domain never opens it."""

    name: str
    schedule: Schedule
    workflow: bytes


@dataclass(frozen=True, slots=True)
class Cron:
    """A workflow and its schedule.

    Attributes:
        workflow: the serialised WorkflowSpec; empty in lists.
        next_fire: the scheduled moment that comes next, or that is being retried; None for never again.
        tries: how often the fire of `next_fire` could not be made so far.
        last_fire: the scheduled moment of the last fire.
        last_workflow_id: empty for none.
        last_error: why the last fire submitted nothing; empty when it did.
    """

    cron_id: UUID
    colony: str
    name: str
    schedule: Schedule
    workflow: bytes
    initiator: str
    initiator_name: str
    created: datetime
    next_fire: datetime | None
    tries: int = 0
    last_fire: datetime | None = None
    last_workflow_id: str = ""
    last_error: str = ""

    def asks_for(self, new: NewCron, initiator: str) -> bool:
        """Whether this is what the same member would get by adding `new`."""
        return (self.name, self.schedule, self.workflow, self.initiator) == (
            new.name,
            new.schedule,
            new.workflow,
            initiator,
        )

    def next_after(self, moment: datetime) -> datetime | None:
        """The first scheduled moment strictly after this one."""
        return self.schedule.next_after(moment, created=self.created)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to write after an attempt to fire.

    Attributes:
        next_fire: the scheduled moment to fire at next; unchanged while it is retried; None for never again.
        due: when to act on it: `next_fire`, or later when retrying; None exactly if `next_fire` is.
        tries: how often the fire of `next_fire` could not be made so far.
        last_fire: the scheduled moment of the last fire that came to an end.
        workflow_id: what was submitted; None leaves what the cron has.
        error: why nothing was submitted; empty if it was.
    """

    next_fire: datetime | None
    due: datetime | None
    tries: int
    last_fire: datetime | None
    workflow_id: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing is due that nobody else is at. `next_due` is the next moment when something will be, if it is known."""

    next_due: datetime | None


def fire_request_id(cron_id: UUID, moment: datetime) -> str:
    """The scheduler's idempotency key of the fire at a scheduled moment: whoever fires it, and how often, uses this one."""
    return f"cron-{cron_id}-{unix_ms(moment)}"


def run_digest(request_id: str) -> str:
    """A client's request id of any length and form, as 64 hex digits."""
    return hashlib.sha256(request_id.encode()).hexdigest()


def run_request_id(cron_id: UUID, digest: str) -> str:
    """The scheduler's idempotency key of a run that a client asked for."""
    return f"run-{cron_id}-{digest}"
