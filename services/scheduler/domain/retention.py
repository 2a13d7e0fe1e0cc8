"""What has ended goes after the time that its colony's owner has set; request ids go after a day.

Any replica removes, several at once do no harm: a page is locked row by row, and rows that somebody is at are left for the next
time. A workflow goes at once for everyone who looks, and its processes follow page by page; whoever dies in between leaves that
to the next.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import structlog

from servicekit.clock import EPOCH, Clock, datetime_of
from servicekit.failures import Unavailable
from services.scheduler.domain.states import State
from services.scheduler.domain.statistics import Counting

log = structlog.get_logger()

ROUND_S = 10.0
# Between two pages, so that the queue's own work comes first.
PAGE_PAUSE_S = 0.05
PAGE = 500
# How long a repeated request id gets its first answer.
REQUEST_IDS_KEPT = timedelta(hours=24)
# What is kept is passed over once and not looked at again; but what was committed late hides behind, so now and then all is.
LOOK_AGAIN = timedelta(hours=6)
_NO_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Mark:
    """A position among what has ended, oldest first."""

    ended_at: datetime = EPOCH
    id: UUID = _NO_ID


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a colony keeps what ended in each state; states that it keeps for ever are not there."""

    colony: str
    keep: dict[State, timedelta]


@dataclass(frozen=True, slots=True)
class Swept:
    """What a page gave: how many were removed, whether there may be more, and where to go on."""

    removed: int
    full: bool
    mark: Mark


@dataclass(frozen=True, slots=True)
class Sweep:
    """What ended in one state of one colony, within workflows or without."""

    colony: str
    state: State
    workflows: bool


class RetentionTables(Protocol):
    """Where it is removed from. Every method may raise Unavailable."""

    async def policies(self) -> Sequence[Policy]: ...

    async def sweep(self, sweep: Sweep, mark: Mark, until: datetime, limit: int) -> Swept: ...

    async def remove_departing(self, limit: int) -> tuple[int, set[str]]:
        """Removes processes of workflows that are gone: how many, and of which colonies."""
        ...

    async def forget_submissions(self, before: datetime, limit: int) -> int: ...


class Retention:
    """Removes."""

    def __init__(self, tables: RetentionTables, counting: Counting, clock: Clock, *, page: int = PAGE) -> None:
        self._tables = tables
        self._counting = counting
        self._clock = clock
        self._page = page
        self._marks: dict[Sweep, Mark] = {}
        self._marks_since = EPOCH
        self._noted = asyncio.Event()

    def note(self) -> None:
        """A workflow was removed: its processes are to follow soon."""
        self._noted.set()

    async def run(self) -> None:
        """Removes until cancelled."""
        while True:
            self._noted.clear()
            try:
                pause = PAGE_PAUSE_S if await self.step() else ROUND_S
            except Unavailable as error:
                log.info("retention waits", error=error.message)
                pause = ROUND_S
            await self._wait(pause)

    async def _wait(self, pause: float) -> None:
        """Until the next step: shorter when there is news, but never without a pause."""
        await asyncio.sleep(PAGE_PAUSE_S)
        if pause > PAGE_PAUSE_S:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._noted.wait(), pause - PAGE_PAUSE_S)

    async def step(self) -> bool:
        """At most a page of everything that is due; true if there was more of something.

        Raises:
            Unavailable: Postgres does not answer, or somebody holds the same rows.
        """
        now = datetime_of(self._clock.now_ns())
        if now - self._marks_since >= LOOK_AGAIN:
            self._marks.clear()
            self._marks_since = now
        more = False
        for policy in await self._tables.policies():
            for state, keep in policy.keep.items():
                for workflows in (False, True):
                    more |= await self._sweep(Sweep(policy.colony, state, workflows), now - keep)
        removed, colonies = await self._tables.remove_departing(self._page)
        for colony in colonies:
            self._counting.note(colony)
        forgotten = await self._tables.forget_submissions(now - REQUEST_IDS_KEPT, self._page)
        return more or self._page in {removed, forgotten}

    async def _sweep(self, sweep: Sweep, until: datetime) -> bool:
        swept = await self._tables.sweep(sweep, self._marks.get(sweep, Mark()), until, self._page)
        self._marks[sweep] = swept.mark
        if swept.removed:
            self._counting.note(sweep.colony)
            what = "workflows" if sweep.workflows else "processes"
            log.info("kept long enough", colony=sweep.colony, state=sweep.state.name, removed=swept.removed, what=what)
        return swept.full
