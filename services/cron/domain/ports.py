"""What the domain needs of the world."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.cron.domain.cron import Cron, Idle, Settlement

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


class CronStore(Protocol):
    """Where crons are kept. Every method may raise Unavailable."""

    async def add(self, cron: Cron) -> Cron:
        """Keeps a new cron; returns it, or the one that has its name in its colony already."""
        ...

    async def find(self, colony: str, name: str) -> Cron | None:
        """One cron."""
        ...

    async def page(self, colony: str, *, after: str, limit: int) -> list[Cron]:
        """Crons by name, beginning after a name, without their workflows."""
        ...

    async def remove(self, cron_id: UUID) -> bool:
        """Deletes a cron, after a fire under way has ended. False if it is not there."""
        ...

    async def purge(self, colonies: Collection[str]) -> int:
        """Deletes everything of these colonies; returns how many crons that were."""
        ...

    async def note_run(self, cron_id: UUID, *, digest: str, workflow_id: str) -> None:
        """Notes the workflow of a run; a repetition of the last run changes nothing."""
        ...

    async def fire_next(self, now: datetime, fire: Callable[[Cron], Awaitable[Settlement]]) -> Idle | None:
        """Locks the cron that is longest due, lets `fire` act on it and writes what it says, all in one transaction.

        Crons that somebody else has locked are passed over. When `fire` raises, nothing is written and the cron stays due.

        Returns:
            None when a cron was fired; else how long there is nothing to do.
        """
        ...
