"""The limit on waiting processes, kept without a round trip per submit.

Each replica holds, of the colonies that have a limit, how many of their processes waited at the last look (every second), and
what it has let in and given out itself since then. So with one replica the limit is never passed; with several, at most by what
the others let in within that second. Submits may be refused early by as many as stopped waiting within it, other than by an
assignment of this replica: they are told to come again after a second.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import ResourceExhausted, Unavailable

log = structlog.get_logger()

LOOK_S = 1.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A colony with a limit, and how many of its processes wait now."""

    colony: str
    max_waiting: int
    waiting: int


class LimitTables(Protocol):
    """Where it is looked up."""

    async def limited(self) -> Sequence[Waiting]:
        """All colonies that have a limit.

        Raises:
            Unavailable: Postgres does not answer.
        """
        ...


class Room:
    """Room for processes that are about to enter: taken when it is entered, and kept if they did."""

    def __init__(self, colony: str, count: int, since: dict[str, int], entering: dict[str, int]) -> None:
        self._colony = colony
        self._count = count
        self._since = since
        self._entering = entering

    def __enter__(self) -> Self:
        self._since[self._colony] += self._count
        self._entering[self._colony] += self._count
        return self

    def __exit__(self, *_: object) -> None:
        # After an error too: whether they entered may not be known, and the next look tells.
        self._entering[self._colony] -= self._count

    def keep(self, count: int) -> None:
        """So many of them entered; the others had before."""
        self._since[self._colony] += count - self._count


class Limits:
    """Lets submits in, as long as there is room for them."""

    def __init__(self, tables: LimitTables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock
        # When the last look was over; None while there is one.
        self._looked: datetime | None = datetime_of(clock.now_ns())
        self._look = asyncio.Lock()
        self._known: dict[str, Waiting] = {}
        # What came in, less what went out, since the last look began or in steps that were under way then.
        self._since: dict[str, int] = defaultdict(int)
        # Of that, what is being entered right now: a look may or may not see it.
        self._entering: dict[str, int] = defaultdict(int)
        self.refused = 0
        """How many processes were not let in."""

    def admit(self, colony: str, count: int) -> "Room":
        """Room for `count` processes; to be held (`with`) while they enter, up to the commit.

        Raises:
            ResourceExhausted: QUEUE_FULL: there is no room for all of them; nothing may enter.
        """
        known = self._known.get(colony)
        if known is not None and count and max(known.waiting + self._since[colony], 0) + count > known.max_waiting:
            self.refused += count
            raise _full(known.max_waiting, count)
        return Room(colony, count, self._since, self._entering)

    def left(self, colony: str, count: int, began: datetime) -> None:
        """This replica committed that `count` processes wait no more, in a step that began then."""
        # What a look may have seen is left to the next one: room is never made twice.
        if colony in self._known and self._looked is not None and began > self._looked:
            self._since[colony] -= count

    async def refresh(self) -> None:
        """Looks how many wait now.

        Raises:
            Unavailable: Postgres does not answer; what was known stays in force.
        """
        async with self._look:
            await self._refresh()

    async def _refresh(self) -> None:
        # What was committed before the look is in it. What is being entered is counted on top: better once too often.
        before = dict(self._since)
        carried = dict(self._entering)
        self._looked = None
        try:
            known = {one.colony: one for one in await self._tables.limited()}
        finally:
            self._looked = datetime_of(self._clock.now_ns())
        for colony in list(self._since):
            self._since[colony] += carried.get(colony, 0) - before.get(colony, 0)
            if colony not in known and not self._entering[colony]:
                del self._since[colony], self._entering[colony]
        self._known = known

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            try:
                await self.refresh()
            except Unavailable as error:
                log.info("limits wait", error=error.message)
            await asyncio.sleep(LOOK_S)


def _full(max_waiting: int, count: int) -> ResourceExhausted:
    message = (
        f"{count} processes are more than may ever wait in this colony: {max_waiting}"
        if count > max_waiting
        else f"no room for {count} more: {max_waiting} processes may wait in this colony"
    )
    return ResourceExhausted(message, reason="QUEUE_FULL", metadata={"max_waiting": str(max_waiting)}, retry_delay_s=RETRY_S)
