"""Counting what happens in a colony, off the hot path: whoever changes something only notes where (`note`).

The ledger is followed by transaction id, up to the oldest transaction still open, and each line is counted once: up to where a
colony is counted is written in the transaction that counts. One replica counts a colony at a time, any of them. What a replica
noted is lost with it; so now and then each looks for colonies that have lines which nobody counted.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import Unavailable
from services.scheduler.domain.quantiles import Quantiles
from services.scheduler.domain.states import State

log = structlog.get_logger()

COUNT_S = 1.0
ROUNDS_PER_FULL = 10
# Lines counted in one transaction: a few tenths of a second's work.
PAGE = 20_000
HOUR = timedelta(minutes=60)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Rates:
    """How many steps of each kind were made."""

    submitted: int = 0
    assigned: int = 0
    successful: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0


@dataclass(slots=True)
class TypeStatistics:
    """Processes of one executor type; times in milliseconds."""

    executor_type: str
    counts: dict[State, int] = field(default_factory=dict)
    last_minute: Rates = field(default_factory=Rates)
    last_hour: Rates = field(default_factory=Rates)
    wait_ms: Quantiles = field(default_factory=Quantiles)
    run_ms: Quantiles = field(default_factory=Quantiles)


@dataclass(frozen=True, slots=True)
class Statistics:
    """All types of a colony by name, and up to when everything is counted."""

    at: datetime
    types: Sequence[TypeStatistics]


class Counted(Enum):
    """How far a colony is counted after a page."""

    ALL = auto()
    # The next page should follow at once.
    MORE = auto()
    # Somebody else is at it, or something is still under way: look again in the next round.
    LATER = auto()


class StatisticsTables(Protocol):
    """Where it is counted. Every method may raise Unavailable."""

    async def uncounted(self) -> Sequence[str]:
        """Colonies with something to count."""
        ...

    async def count(self, colony: str, oldest: datetime, limit: int) -> Counted:
        """Counts a page of a colony's lines; those before `oldest` belong to no minute that is kept."""
        ...

    async def drop_before(self, oldest: datetime) -> None:
        """Forgets minutes."""
        ...

    async def read(self, colony: str, now: datetime) -> Statistics:
        """What is counted."""
        ...

    async def totals(self) -> dict[State, int]:
        """Processes by state, of all colonies together."""
        ...


def minute_of(moment: datetime) -> datetime:
    """The minute that a moment is in."""
    return moment.replace(second=0, microsecond=0)


def oldest_minute(now: datetime) -> datetime:
    """The first minute that is kept: sixty that are over, and one more for who lags behind."""
    return minute_of(now) - HOUR - MINUTE


class Counting:
    """Counts, and reads what was counted."""

    def __init__(self, tables: StatisticsTables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock
        self._noted: set[str] = set()
        self.totals: dict[State, int] = {}
        """Processes by state, of all colonies together, as of the last full round."""

    def note(self, colony: str) -> None:
        """Something was committed in this colony. Costs nothing."""
        self._noted.add(colony)

    async def read(self, colony: str) -> Statistics:
        """What is counted of a colony.

        Raises:
            Unavailable: Postgres does not answer.
        """
        return await self._tables.read(colony, self._now())

    def _now(self) -> datetime:
        return datetime_of(self._clock.now_ns())

    async def run(self) -> None:
        """Counts until cancelled."""
        rounds = 0
        while True:
            try:
                await self.round(full=rounds % ROUNDS_PER_FULL == 0)
                rounds += 1
            except Unavailable as error:
                log.info("counting waits", error=error.message)
            await asyncio.sleep(COUNT_S)

    async def round(self, *, full: bool) -> None:
        """Counts what was noted; in a full round, whatever is there, and forgets old minutes.

        Raises:
            Unavailable: Postgres does not answer.
        """
        if full:
            self._noted.update(await self._tables.uncounted())
            await self._tables.drop_before(oldest_minute(self._now()))
            self.totals = await self._tables.totals()
        noted, self._noted = self._noted, set()
        try:
            # A page of each in turn: no colony waits for the whole of another.
            while noted:
                for colony in sorted(noted):
                    counted = await self._tables.count(colony, oldest_minute(self._now()), PAGE)
                    if counted is not Counted.MORE:
                        noted.discard(colony)
                    if counted is Counted.LATER:
                        self._noted.add(colony)
        finally:
            self._noted |= noted
