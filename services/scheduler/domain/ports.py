"""What the scheduler's decisions need from outside. Postgres (store/), Redis (queue/) and the registry implement these."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias
from uuid import UUID

from services.scheduler.domain.endings import Prior
from services.scheduler.domain.records import (
    Assigned,
    AttemptRef,
    Changes,
    Ending,
    Entered,
    ExecutorProfile,
    Live,
    Over,
    Place,
    Submission,
)
from services.scheduler.domain.states import State

Decide: TypeAlias = Callable[[Live, Prior | None], Ending | None]
Allow: TypeAlias = Callable[[str], None]
# What says where to look if a step gets lost between Postgres and the queue.
Intention: TypeAlias = list[str]
NO_ATTEMPT = 0


class TimerKind(StrEnum):
    """What is due."""

    SETTLE = "settle"
    SUBMIT = "submit"
    WORKFLOW = "workflow"
    WAIT = "wait"
    EXEC = "exec"
    LEASE = "lease"
    OFFER = "offer"


@dataclass(frozen=True, slots=True)
class Timer:
    """Something that is due; `member` is how the queue knows it."""

    member: str
    kind: TimerKind
    process_id: UUID | None = None
    workflow_id: UUID | None = None
    attempt: int = NO_ATTEMPT
    actor: str = ""
    request_id: str = ""
    since_ms: int = 0


class Tables(Protocol):
    """The durable truth. Methods that change it return, as Changes, what the queue is still to be told."""

    async def submit(self, submission: Submission) -> Entered: ...

    async def request(self, colony: str, actor: str, request_id: str) -> Sequence[UUID]: ...

    async def ping(self) -> None: ...

    async def assign(
        self, colony: str, executor: ExecutorProfile, ids: Sequence[UUID], at: datetime
    ) -> tuple[list[Assigned], list[UUID]]: ...

    async def end(
        self,
        colony: str,
        refs: Sequence[AttemptRef],
        decide: Decide,
        at: datetime,
        *,
        must_exist: bool = False,
        skip_locked: bool = False,
    ) -> tuple[Changes, dict[UUID, State]]: ...

    async def cancel_workflow(self, colony: str, workflow_id: UUID, allow: Allow, decide: Decide, at: datetime) -> Changes: ...

    async def remove_process(self, colony: str, process_id: UUID, allow: Allow) -> None: ...

    async def remove_workflow(self, colony: str, workflow_id: UUID, allow: Allow) -> None: ...

    async def purge(self, colony: str) -> None: ...

    async def lives(self, colony: str, ids: Sequence[UUID], *, with_children: bool = False) -> list[Live]: ...

    async def over(self, ids: Sequence[UUID]) -> list[Over]: ...

    async def workflow_ids(self, workflow_id: UUID) -> list[UUID]: ...

    async def open_page(self, after: int, limit: int) -> list[Live]: ...


class Queue(Protocol):
    """Lanes, leases, timers. Every method may raise Unavailable."""

    lease_ms: int

    async def intend_submit(self, colony: str, actor: str, request_id: str) -> Intention: ...

    async def intend(self, colony: str, process_ids: Sequence[UUID]) -> Intention: ...

    async def intend_workflow(self, colony: str, workflow_id: UUID) -> Intention: ...

    async def apply(self, colony: str, changes: Changes, intended: Intention) -> None: ...

    async def claim(self, colony: str, executor: ExecutorProfile, at_most: int) -> tuple[list[UUID], Intention]: ...

    async def lease(self, colony: str, lives: Sequence[Live], intended: Intention) -> None: ...

    async def extend(self, colony: str, refs: Sequence[AttemptRef], executor_id: str) -> list[AttemptRef]: ...

    async def accord(self, colony: str, lives: Sequence[Live], over: Sequence[Over] = ()) -> None: ...

    async def renew(self, colony: str, lives: Sequence[Live]) -> None: ...

    async def colonies(self) -> list[str]: ...

    async def due(self, colony: str, at_most: int) -> list[Timer]: ...

    async def done(self, colony: str, timers: Sequence[Timer], later: Sequence[Timer]) -> None: ...

    async def was_looked_after(self) -> bool: ...

    async def looked_after(self) -> None: ...

    async def grace(self, colony: str) -> int: ...

    async def is_current(self) -> bool: ...

    async def begin_rebuild(self) -> str | None: ...

    async def go_on_rebuilding(self, token: str) -> bool: ...

    async def finish_rebuild(self, token: str) -> bool: ...

    async def announce(self, colony: str, touched: Sequence[UUID]) -> None: ...

    async def forget(self, colony: str) -> None: ...


class Waiter(Protocol):
    """One long poll."""

    event: asyncio.Event

    def look(self) -> None: ...

    def got(self, places: Sequence[Place]) -> None: ...


class Wakeups(Protocol):
    """Who waits in this replica."""

    def waiting(self, colony: str, executor: ExecutorProfile) -> AbstractContextManager[Waiter]: ...

    def following(self, one: str) -> AbstractContextManager[asyncio.Event]: ...


class Executors(Protocol):
    """What the registry says of executors."""

    async def get(self, colony: str, identity: str) -> ExecutorProfile | None: ...


class Heard(Protocol):
    """Takes note that an executor was heard from."""

    def note(self, colony: str, identity: str) -> None: ...
