"""What the domain needs of the world."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.cron.domain.cron import Cron, Fire, NewCron, Outcome, State
from services.cron.domain.due import DueRows, Looks
from services.cron.domain.ticking import Tick

# The reason of a PermissionDenied: the account is no member that may submit (any more).
ON_BEHALF_REVOKED = "ON_BEHALF_REVOKED"


@dataclass(frozen=True, slots=True)
class Launch:
    """A workflow on its way to the scheduler.

    Attributes:
        request_id: the scheduler's idempotency key: whoever submits this, and how often, uses this one.
        workflow_id: the id that the workflow is to have.
        workflow: a serialised WorkflowSpec.
        arguments: serialised Values, which follow the arguments of each of its roots.
    """

    request_id: str
    workflow_id: UUID
    workflow: bytes
    arguments: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What has become of a workflow.

    Attributes:
        is_open: some of its processes have not ended.
        succeeded: all of them have, successfully.
        outputs: of its processes without children, serialised Values; only if they were asked for.
    """

    is_open: bool
    succeeded: bool
    outputs: Sequence[bytes] = ()


class WorkflowSubmitter(Protocol):
    """Where workflows go. Each call ends within a bounded time."""

    async def check(self, *, colony: str, workflow: bytes, account: str) -> None:
        """Refuses what `submit_all` would refuse; enters nothing.

        Raises:
            InvalidArgument: the workflow is not one; its fields are named from `workflow` on.
            PermissionDenied: the account may not submit; ON_BEHALF_REVOKED if it is no member (any more).
            Unavailable: the scheduler is out of reach.
        """
        ...

    async def submit_all(self, *, colony: str, account: str, launches: Sequence[Launch]) -> None:
        """Enters workflows on a member's account, all or none, each once for its request id.

        Raises:
            Failure: as `check`, and ResourceExhausted when the scheduler is over a limit. After Unavailable they may have been
                entered nevertheless: repeat with the same ids.
        """
        ...

    async def runs(self, *, colony: str, workflow_ids: Sequence[UUID], outputs: bool) -> Mapping[UUID, Run]:
        """What has become of workflows, at most 1 000, or 100 with outputs; those that are not there (any more) are left out.

        Raises:
            ResourceExhausted: their outputs are too large.
            Unavailable: the scheduler is out of reach.
        """
        ...

    async def cancel(self, *, colony: str, account: str, workflow_id: UUID) -> None:
        """Cancels a workflow on its account; nothing happens to one that has ended, or is gone.

        Raises:
            PermissionDenied: as `check`.
            Unavailable: the scheduler is out of reach.
        """
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """What a member's request does to a cron.

    Attributes:
        next_due: when to act on `next_fire`.
        new: another schedule, policy and workflow, which begin now; None leaves them.
        give_up: why a fire that waits for the run before it submits nothing; empty lets it wait on.
        left_out: the record of moments that have passed while it waited, and that nobody comes back to.
    """

    state: State
    pause_reason: str
    next_fire: datetime | None
    next_due: datetime | None
    new: NewCron | None = None
    give_up: str = ""
    left_out: Fire | None = None


class CronStore(Protocol):
    """Where crons are kept. Every method may raise Unavailable."""

    async def add(self, cron: Cron) -> Cron:
        """Keeps a new cron; returns it, or the one that has its name in its colony already."""
        ...

    async def find(self, colony: str, name: str) -> Cron | None:
        """One cron."""
        ...

    async def page(self, colony: str, *, after: str, limit: int) -> Sequence[Cron]:
        """Crons by name, beginning after a name, without their workflows."""
        ...

    async def fires(self, cron_id: UUID, *, before: UUID | None, outcomes: Collection[Outcome], limit: int) -> Sequence[Fire]:
        """Fires of one cron, newest first, beginning after one of them; of these outcomes, or of all if there are none."""
        ...

    async def change(self, cron_id: UUID, now: datetime, decide: Callable[[Cron], Change | None]) -> Cron | None:
        """Locks a cron, lets `decide` say what to change (None: nothing), and returns it as it is then; None if it is gone."""
        ...

    async def stop(self, cron_id: UUID) -> bool:
        """Lets no new fire begin of a cron that is about to be removed. False if it is gone."""
        ...

    async def remove(self, cron_id: UUID, now: datetime) -> bool:
        """Deletes a cron unless somebody has a fire of it in hand. False if it is not deleted, or was not there."""
        ...

    async def purge(self, colonies: Collection[str]) -> int:
        """Deletes everything of these colonies; returns how many crons that were."""
        ...

    async def begin_run(self, cron_id: UUID, run: Fire, *, digest: str) -> Fire | None:
        """Keeps a run before it is submitted; returns it, or the one that was kept first under the digest of its request id.

        None if the cron is gone.
        """
        ...

    async def settle_run(
        self, fire_id: UUID, outcome: Outcome, error: str, now: datetime, *, fed_from: UUID | None = None
    ) -> None:
        """Writes what became of a run, and whose outputs were fed to it; one that was submitted stays so."""
        ...

    async def open_runs(self, before: datetime, *, limit: int) -> Sequence[tuple[str, UUID]]:
        """Colony and id of runs that have been pending since before a moment."""
        ...

    async def sweep(self, before: UUID, *, limit: int) -> int:
        """Deletes a portion of the fires with ids below this one, and of crons that are gone.

        Returns how many; less than `limit` if that was all.
        """
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """Crons whose fires are in hand now, as they are now; and when to look at the others that were asked for."""

    crons: Sequence[Cron]
    looks: Looks


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to write about a fire in hand and its cron, as far as no member has changed the cron meanwhile.

    Attributes:
        cron: as it was begun.
        error: why nothing was submitted, or not yet.
        next_due: when to act on `next_fire`.
        acted_until: no moment up to this one is fired any more.
        runs: to be added to its runs.
        failures: fires refused one after the other.
        fed_from: the run whose outputs were fed.
        waits_for: the workflow whose end it waits for.
        retry_at: when to look at a fire that stays pending.
        untried: to be taken off its tries.
        limited: to be added to those of its tries that a limit of the scheduler ended.
        left_out: records of moments that come to nothing for its sake.
    """

    cron: Cron
    outcome: Outcome
    error: str
    state: State
    pause_reason: str
    next_fire: datetime | None
    next_due: datetime | None
    acted_until: datetime
    failures: int
    runs: int = 0
    fed_from: UUID | None = None
    waits_for: UUID | None = None
    retry_at: datetime | None = None
    untried: int = 0
    limited: int = 0
    left_out: Sequence[Fire] = ()


class FireStore(DueRows, Protocol):
    """Where fires are begun and settled. Every method may raise Unavailable."""

    async def begin(
        self, ids: Sequence[UUID], *, now: datetime, claim: UUID, until: datetime, decide: Callable[[Cron], Tick]
    ) -> Begun:
        """Takes those crons in hand that are due and that nobody else has, in one transaction.

        `decide` says what those do that have no fire under way. A claim is good until the moment `until`, or until somebody
        begins them again after it.
        """
        ...

    async def workflows(self, ids: Sequence[UUID]) -> Mapping[UUID, bytes]:
        """What crons submit, of those that are there."""
        ...

    async def settle(self, settlements: Sequence[Settlement], *, claim: UUID, now: datetime) -> Looks:
        """Writes what became of fires that this claim still has in hand; returns when to look at their crons next.

        That a fire was submitted is so whoever has it in hand, and is written as long as it is pending.
        """
        ...

    async def put_off(self, cron_id: UUID, until: datetime) -> None:
        """Lets nobody look at a cron that cannot be dealt with before this moment, and nobody have it in hand."""
        ...
