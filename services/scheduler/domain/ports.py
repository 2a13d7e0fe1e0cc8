"""What the scheduler's decisions need from outside. Postgres (store/), Redis (queue/) and the registry implement these."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias
from uuid import UUID

from services.scheduler.domain.endings import CloseCall
from services.scheduler.domain.records import (
    AttemptRef,
    Begun,
    Changes,
    Claim,
    Claimed,
    Ending,
    Entered,
    ExecutorProfile,
    Family,
    Live,
    Over,
    Place,
    Receipt,
    SubmitCall,
)
from services.scheduler.domain.states import State

Decide: TypeAlias = Callable[[Live], Ending | None]
Allow: TypeAlias = Callable[[str], None]
NO_ATTEMPT = 0


class TimerKind(StrEnum):
    """What is due."""

    WAIT = "wait"
    READY = "ready"
    EXEC = "exec"
    LEASE = "lease"
    OFFER = "offer"


@dataclass(frozen=True, slots=True)
class Timer:
    """Something that is due; `member` is how the queue knows it."""

    member: str
    kind: TimerKind
    process_id: UUID
    attempt: int = NO_ATTEMPT
    # When it is due again, if nobody takes care of it.
    again_ms: float = 0


@dataclass(frozen=True, slots=True)
class Held(Over):
    """An attempt that has a lease, or is on offer."""

    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """A replica that went silent. All that it began before its watermark was told to the queue; `passes` says how often what
    came after was looked through already.
    """

    replica: str
    watermark_ms: int
    passes: int


class Tables(Protocol):
    """The durable truth. Methods that change it return, as Changes, what the queue is still to be told."""

    async def submit(self, calls: Sequence[SubmitCall], at: datetime) -> Sequence[list[Entered] | Exception]: ...

    async def requests(self, colony: str, actor: str, request_ids: Sequence[str]) -> set[str]: ...

    async def assign(self, claims: Sequence[Claim], at: datetime) -> list[Begun]: ...

    async def close_successes(self, calls: Sequence[CloseCall], at: datetime) -> tuple[set[int], dict[str, Changes]]: ...

    async def close(
        self, calls: Sequence[CloseCall], at: datetime, *, patient: bool
    ) -> tuple[list[list[State] | Exception | None], Changes]: ...

    async def ping(self) -> None: ...

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

    async def cancel_workflow(
        self, colony: str, workflow_id: UUID, allow: Allow, actor: str, at: datetime, receipt: Receipt | None = None
    ) -> Changes: ...

    async def retry_workflow(
        self, colony: str, workflow_id: UUID, allow: Allow, actor: str, at: datetime, receipt: Receipt | None = None
    ) -> tuple[int, Changes]: ...

    async def add_children(self, family: Family) -> Sequence[UUID]: ...

    async def remove_process(self, colony: str, process_id: UUID, allow: Allow) -> None: ...

    async def remove_workflow(self, colony: str, workflow_id: UUID, allow: Allow) -> None: ...

    async def purge(self, colony: str) -> None: ...

    async def lives(self, colony: str, ids: Sequence[UUID], *, with_children: bool = False) -> list[Live]: ...

    async def over(self, ids: Sequence[UUID]) -> list[Over]: ...

    async def workflow_ids(self, workflow_id: UUID) -> list[UUID]: ...

    async def open_page(self, after: int, limit: int) -> list[Live]: ...

    async def recent_page(self, since: datetime, after: UUID, limit: int) -> dict[str, list[UUID]]: ...


class Queue(Protocol):
    """Lanes, leases, timers. Every method may raise Unavailable."""

    lease_ms: int

    async def apply(self, colony: str, changes: Changes) -> None: ...

    async def claim(
        self, colony: str, executor: ExecutorProfile, at_most: int, in_flight: int = 0
    ) -> tuple[list[Claimed], bool]: ...

    async def confirm(
        self, colony: str, executor_id: str, assigned: Sequence[Live], undone: Sequence[Claimed]
    ) -> list[UUID]: ...

    async def extend(self, colony: str, refs: Sequence[AttemptRef], executor_id: str) -> list[AttemptRef]: ...

    async def accord(self, colony: str, lives: Sequence[Live], over: Sequence[Over] = ()) -> None: ...

    async def renew(self, colony: str, lives: Sequence[Live]) -> None: ...

    async def colonies(self) -> list[str]: ...

    async def due(self, colony: str, at_most: int) -> list[Timer]: ...

    async def done(self, colony: str, timers: Sequence[Timer], lives: Sequence[Live] = ()) -> None: ...

    async def was_looked_after(self) -> bool: ...

    async def looked_after(self) -> None: ...

    async def grace(self, colony: str) -> int: ...

    async def is_current(self) -> bool: ...

    async def begin_rebuild(self) -> str | None: ...

    async def go_on_rebuilding(self, token: str) -> bool: ...

    async def finish_rebuild(self, token: str) -> bool: ...

    async def announce(self, colony: str, touched: Sequence[UUID]) -> None: ...

    async def set_paused(self, colony: str, *, paused: bool) -> None: ...

    async def is_paused(self, colony: str) -> bool: ...

    async def held_page(self, colony: str, cursor: int, count: int) -> tuple[int, list[Held]]: ...

    async def beat(self, replica: str, watermark_ms: int) -> list[Lost]: ...

    async def recovered(self, lost: Lost) -> None: ...

    async def leave(self, replica: str) -> None: ...

    async def invalidate(self) -> None: ...

    async def forget(self, colony: str) -> None: ...


class Waiter(Protocol):
    """One long poll."""

    event: asyncio.Event

    def look(self) -> None: ...

    def got(self, places: Sequence[Place]) -> None: ...

    def step_aside(self) -> None: ...


class Wakeups(Protocol):
    """Who waits in this replica."""

    def waiting(self, colony: str, executor: ExecutorProfile, in_flight: int = 0) -> AbstractContextManager[Waiter]: ...

    def following(self, colony: str, one: str | None) -> AbstractAsyncContextManager[asyncio.Event]: ...


class Executors(Protocol):
    """What the registry says of executors."""

    async def get(self, colony: str, identity: str) -> ExecutorProfile | None: ...


class Heard(Protocol):
    """Takes note that an executor was heard from."""

    def note(self, colony: str, identity: str) -> None: ...
