"""Streams that follow a log or a ledger: everything in order, nothing twice, nothing lost, to its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from servicekit.failures import NotFound
from services.scheduler.domain.ports import Wakeups
from services.scheduler.domain.views import ColonyFilter, EventView, LogSource, LogView, Position, Target

# A wake-up is a published message and can be lost: look again this often anyway, and show that the stream lives.
LOOK_AGAIN_S = 5.0
# Lines of a transaction are held back while an older one is open; that is a matter of milliseconds.
UNSETTLED_PAUSE_S = 0.02
# What happens in a workflow within this time is read together.
GATHER_S = 0.02
PAGE = 500

V = TypeVar("V", LogView, EventView)


class Readers(Protocol):
    """The parts of the tables that are followed."""

    async def watched(self, colony: str, target: Target) -> tuple[bool, bool]:
        """Whether it exists, and whether any of it is still open."""
        ...

    async def logs_after(self, colony: str, source: LogSource, position: Position, limit: int) -> tuple[list[LogView], bool]:
        """Settled lines after a position, and whether there are lines that are not settled yet."""
        ...

    async def events_after(self, colony: str, target: Target, position: Position, limit: int) -> tuple[list[EventView], bool]:
        """Settled events after a position, and whether there are events that are not settled yet."""
        ...

    async def colony_events_after(
        self, colony: str, wanted: ColonyFilter, position: Position, limit: int
    ) -> tuple[list[EventView], Position, bool]:
        """Settled events after a position that are wanted; up to where everything was looked at; and whether there is more."""
        ...

    async def now(self) -> Position:
        """Before everything that is still to come."""
        ...


class Following:
    """Follows logs and state changes."""

    def __init__(self, readers: Readers, wakeups: Wakeups) -> None:
        self._readers = readers
        self._wakeups = wakeups

    def logs(self, colony: str, target: Target, position: Position) -> AsyncIterator[Sequence[LogView]]:
        """Log lines of a process; an empty page is a sign of life.

        Raises:
            NotFound: no such process in this colony.
        """
        source = LogSource(process_id=target.process_id)
        return self._follow(colony, target, position, lambda at: self._readers.logs_after(colony, source, at, PAGE))

    def events(self, colony: str, target: Target, position: Position) -> AsyncIterator[Sequence[EventView]]:
        """State changes of a process or a workflow; an empty page is a sign of life.

        Raises:
            NotFound: no such process or workflow in this colony.
        """
        return self._follow(colony, target, position, lambda at: self._readers.events_after(colony, target, at, PAGE))

    async def colony_events(
        self, colony: str, wanted: ColonyFilter, position: Position | None
    ) -> AsyncIterator[tuple[Sequence[EventView], Position]]:
        """State changes in a colony, with where the follower stands then, for ever; without a position, those from now on. No
        events are a sign of life, or of many that were not wanted.
        """
        async with self._wakeups.following(colony, None) as news:
            if position is None:
                position = await self._readers.now()
                # At once, so that the follower can go on from here whatever happens.
                yield (), position
            while True:
                news.clear()
                before = position
                views, position, more = await self._readers.colony_events_after(colony, wanted, position, PAGE)
                if views:
                    yield views, position
                if position != before:
                    continue
                if more:
                    await asyncio.sleep(UNSETTLED_PAUSE_S)
                    continue
                try:
                    await asyncio.wait_for(news.wait(), LOOK_AGAIN_S)
                except TimeoutError:
                    yield (), position

    async def _follow(
        self,
        colony: str,
        target: Target,
        position: Position,
        read: Callable[[Position], Awaitable[tuple[list[V], bool]]],
    ) -> AsyncIterator[Sequence[V]]:
        async with self._wakeups.following(colony, str(target)) as news:
            while True:
                # News from here on wakes us: nothing falls between looking and waiting.
                news.clear()
                # First whether it is over, then the lines: after its end none are added.
                exists, is_open = await self._readers.watched(colony, target)
                if not exists:
                    msg = "no such process or workflow in this colony"
                    raise NotFound(msg, reason="NOTHING_TO_FOLLOW")
                page, unsettled = await read(position)
                if page:
                    position = page[-1].position
                    yield page
                if len(page) == PAGE:
                    continue
                if unsettled:
                    await asyncio.sleep(0 if page else UNSETTLED_PAUSE_S)
                    continue
                if not is_open:
                    return
                try:
                    await asyncio.wait_for(news.wait(), LOOK_AGAIN_S)
                except TimeoutError:
                    yield ()
                else:
                    if target.workflow_id is not None:
                        await asyncio.sleep(GATHER_S)
