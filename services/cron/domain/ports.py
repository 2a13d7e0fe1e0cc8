"""What the domain needs of the world."""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.cron.domain.cron import Cron, Idle, Settlement

# The reason of a PermissionDenied: the account is no member that may submit (any more).
ON_BEHALF_REVOKED = "ON_BEHALF_REVOKED"


class WorkflowSubmitter(Protocol):
    """Where workflows go. Each call ends within a bounded time."""

    async def check(self, *, colony: str, workflow: bytes, account: str) -> None:
        """Refuses what `submit` would refuse; enters nothing.

        Raises:
            InvalidArgument: the workflow is not one; its fields are named from `workflow` on.
            PermissionDenied: the account may not submit; ON_BEHALF_REVOKED if it is no member (any more).
            Unavailable: the scheduler is out of reach.
        """
        ...

    async def submit(self, *, colony: str, request_id: str, workflow: bytes, account: str) -> str:
        """Enters a workflow on a member's account, once for each request id. Returns its id.

        Raises:
            Failure: as `check`, and ResourceExhausted when the scheduler is over a limit. After Unavailable it may have been
                entered nevertheless: repeat with the same request id.
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
