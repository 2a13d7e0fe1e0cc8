"""What a colony's owner sets for its queue: read, changed, and held against a queue that forgot."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import Unavailable
from servicekit.steps import uninterrupted

log = structlog.get_logger()

ACCORD_S = 2.0
# A step between the table and the queue takes seconds at most: what changed in this time is told again.
LATELY = timedelta(minutes=2)
# Rounds after which all is told again, however old.
ROUNDS_PER_FULL = 30


@dataclass(frozen=True, slots=True)
class Controls:
    """What is set. `max_waiting` 0 is no limit; a time of 0 milliseconds is for ever."""

    paused: bool = False
    max_waiting: int = 0
    keep_successful_ms: int = 0
    keep_failed_ms: int = 0
    keep_cancelled_ms: int = 0


@dataclass(frozen=True, slots=True)
class ControlsChange:
    """What to set, as Controls; None leaves it as it is."""

    paused: bool | None = None
    max_waiting: int | None = None
    keep_successful_ms: int | None = None
    keep_failed_ms: int | None = None
    keep_cancelled_ms: int | None = None


class ControlTables(Protocol):
    """Where it is kept. Every method may raise Unavailable."""

    async def controls(self, colony: str) -> Controls: ...

    async def update_controls(self, colony: str, change: ControlsChange, at: datetime) -> Controls: ...

    async def pauses(self, since: datetime | None) -> Sequence[tuple[str, bool]]: ...


class PausableQueue(Protocol):
    """The part of the queue that this is about."""

    async def set_paused(self, colony: str, *, paused: bool) -> None:
        """Nothing is given out, or everything again. Setting what is set does nothing.

        Raises:
            Unavailable: the queue does not answer.
        """
        ...


class Controlling:
    """Reads and changes controls, and keeps the queue in accord with them.

    The table is the truth. A pause is committed there and then told to the queue; if whoever told it died between the two, or
    two told it in another order than they committed, the next round of `run`, on any replica, puts it right.
    """

    def __init__(
        self,
        tables: ControlTables,
        queue: PausableQueue,
        clock: Clock,
        *,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        """`changed` is awaited after every change: this replica's copies take it over."""
        self._tables = tables
        self._queue = queue
        self._clock = clock
        self._changed = changed

    async def get(self, colony: str) -> Controls:
        """What is set.

        Raises:
            Unavailable: Postgres does not answer.
        """
        return await self._tables.controls(colony)

    async def update(self, colony: str, change: ControlsChange) -> Controls:
        """Sets what is not None. When this returns, a pause is in force.

        Raises:
            Unavailable: Postgres or the queue does not answer. What was committed is in force within seconds all the same;
                repeating does no harm.
        """
        return await uninterrupted(self._update(colony, change))

    async def _update(self, colony: str, change: ControlsChange) -> Controls:
        controls = await self._tables.update_controls(colony, change, datetime_of(self._clock.now_ns()))
        if change.paused is not None:
            await self._queue.set_paused(colony, paused=controls.paused)
        await self._changed()
        return controls

    async def tell_pauses(self, *, everything: bool = False) -> None:
        """Tells the queue who is paused, and who was until lately; or of all that ever were, which a rebuild does first.

        Raises:
            Unavailable: Postgres or the queue does not answer.
        """
        since = None if everything else datetime_of(self._clock.now_ns()) - LATELY
        for colony, paused in await self._tables.pauses(since):
            await self._queue.set_paused(colony, paused=paused)

    async def run(self) -> None:
        """Tells until cancelled."""
        rounds = 0
        while True:
            try:
                await self.tell_pauses(everything=rounds % ROUNDS_PER_FULL == 0)
                rounds += 1
            except Unavailable as error:
                log.info("pauses wait", error=error.message)
            await asyncio.sleep(ACCORD_S)
