"""A generator, what it gathers, and the batches that it makes. Moments are UTC datetimes of whole milliseconds."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.cron.domain.ids import derived_id
from services.cron.domain.packing import Reason, Trigger

# In one call to the scheduler.
MAX_LAUNCHES = 64


@dataclass(frozen=True, slots=True)
class Launchable:
    """What is submitted for each batch: a serialised WorkflowSpec, which the domain never opens, its nodes and its roots."""

    workflow: bytes
    nodes: int
    roots: int


@dataclass(frozen=True, slots=True)
class NewGenerator:
    """What a member asks for."""

    name: str
    trigger: Trigger
    launchable: Launchable


@dataclass(frozen=True, slots=True)
class Generator:
    """A workflow and what waits to become batches for it.

    Attributes:
        launchable: its workflow is empty in lists.
        pause_reason: empty if it is not paused.
        waiting: arguments in bins; `waiting_bytes` of them.
        bins: keys that have arguments in bins.
        oldest: when the argument came that waits longest in a bin.
        unsubmitted: batches that were made and are not submitted.
        submitted: batches that were.
        last_error: why the next batch could not be submitted so far.
    """

    generator_id: UUID
    colony: str
    name: str
    trigger: Trigger
    launchable: Launchable
    initiator: str
    initiator_name: str
    created: datetime
    paused: bool = False
    pause_reason: str = ""
    waiting: int = 0
    waiting_bytes: int = 0
    bins: int = 0
    oldest: datetime | None = None
    unsubmitted: int = 0
    submitted: int = 0
    last_workflow_id: str = ""
    last_error: str = ""

    @property
    def next_deadline(self) -> datetime | None:
        """When the next batch is made even if it is not full."""
        return None if self.paused or self.oldest is None else self.trigger.deadline(self.oldest)

    def asks_for(self, new: NewGenerator, initiator: str) -> bool:
        """Whether this is what the same member would get by adding `new`."""
        return (self.name, self.trigger, self.launchable, self.initiator) == (new.name, new.trigger, new.launchable, initiator)


@dataclass(frozen=True, slots=True)
class Batch:
    """Arguments of one key that are one workflow's, from sequence number `first` to `last`."""

    generator_id: UUID
    number: int
    key: str
    first: int
    last: int
    count: int
    size: int
    reason: Reason
    created: datetime
    oldest: datetime
    submitted: datetime | None = None
    error: str = ""
    tries: int = 0

    @property
    def request_id(self) -> str:
        """The scheduler's idempotency key of its submit: whoever submits it, and how often, uses this one."""
        return f"generator-{self.generator_id}-{self.number}"

    @property
    def workflow_id(self) -> UUID:
        """Of the workflow that it becomes."""
        return derived_id(self.created, "batch", self.generator_id, self.number)


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument on its way in: a serialised Value, and how large its data and media type are."""

    key: str
    value: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Arguments that one call adds to a generator, named by its colony and name.

    Attributes:
        request: digest of who sends it under which request id.
        content: digest of the arguments.
    """

    colony: str
    name: str
    arguments: Sequence[Argument]
    request: bytes
    content: bytes = field(repr=False)

    @classmethod
    def of(cls, colony: str, name: str, *, sender: str, request_id: str, arguments: Sequence[Argument]) -> "Pack":
        """A call's pack."""
        content = hashlib.sha256()
        for argument in arguments:
            for part in (argument.key.encode(), argument.value):
                # With its length before it, so that nothing else reads the same.
                content.update(len(part).to_bytes(4, "big"))
                content.update(part)
        request = hashlib.sha256(f"{sender}\n{request_id}".encode()).digest()
        return cls(colony, name, arguments, request, content.digest())


@dataclass(frozen=True, slots=True)
class Room:
    """How much may wait in one generator: arguments and bytes, in bins and in batches that are not submitted, and keys."""

    arguments: int
    size: int
    keys: int


@dataclass(slots=True)
class Standing:
    """What changes of a generator while its row is locked. See the table for the columns of the same names."""

    generator_id: UUID
    trigger: Trigger
    paused: bool
    blocked: bool
    next_sequence: int
    next_batch: int
    waiting: int
    waiting_bytes: int
    bins: int
    unsubmitted: int
    batched: int
    batched_bytes: int
    due: datetime | None
    claimed_until: datetime | None
    retry_at: datetime | None

    def is_claimed(self, now: datetime) -> bool:
        """Whether somebody is at it; who that is will see what has changed."""
        return self.claimed_until is not None and self.claimed_until > now

    def can_submit(self, now: datetime) -> bool:
        """Whether its next batch may be submitted now."""
        return self.unsubmitted > 0 and not self.blocked and (self.retry_at is None or self.retry_at <= now)

    def look_by(self, moment: datetime | None) -> None:
        """Looks at it no later than this."""
        if moment is not None and (self.due is None or moment < self.due):
            self.due = moment

    def next_submit(self, now: datetime) -> datetime | None:
        """When to submit what it has; None for nothing, or not before it is resumed."""
        if self.unsubmitted == 0 or self.blocked:
            return None
        return now if self.retry_at is None else max(now, self.retry_at)

    def next_look(self, oldest: datetime | None, *, full: bool, now: datetime) -> datetime | None:
        """When there is something to do at it; None for never.

        Args:
            oldest: when the argument came that waits longest in its bins.
            full: whether one of its bins is full.
            now: the time.
        """
        moments = [self.next_submit(now)]
        if not self.paused:
            moments.append(now if full else None)
            moments.append(None if oldest is None else self.trigger.deadline(oldest))
        return min((moment for moment in moments if moment is not None), default=None)
