"""The loop that looks at what is due, in every replica.

The row in Postgres says when it is to be looked at, and whether somebody is at it: the loop's `work` decides by it, always.
Timers in Redis only say where to look. They hold what is due within a quarter of a minute, loaded from the rows' index again
and again; so an idle cron costs nothing, and a Redis that has lost everything is full again at the next look. While Redis is
out of reach the loop looks at the index itself.

A claim puts an id off by the lease. Whoever claimed it says when to look next; if it died, another looks after the lease.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import Unavailable

log = structlog.get_logger()

# What another replica is told to be due, and what one that died had in hand, is seen after this at the latest.
LONGEST_WAIT_S = 0.5
# What is due within the horizon is loaded, three times as often.
HORIZON = timedelta(seconds=15)
# What a call wakes goes first, but for no longer than this: then the timers have a turn.
WOKEN_FOR = timedelta(milliseconds=100)
LOAD_EVERY_MS = 5_000
LOAD_PAGE = 5_000

Looks = Mapping[UUID, datetime | None]


@dataclass(frozen=True, slots=True)
class Claimed:
    """Ids to look at, when the next will be due (None: not known), and whether this replica is to load what is due soon."""

    ids: Sequence[UUID]
    following: datetime | None
    load: bool


class Timers(Protocol):
    """When to look at which id. Every method may raise Unavailable."""

    async def claim(self, now: datetime, *, until: datetime, limit: int, loaded_ms: int) -> Claimed:
        """Takes up to `limit` ids whose time has come and puts them off until then.

        One caller in every `loaded_ms`, over all replicas, is told to load.
        """
        ...

    async def settle(self, looks: Looks, *, until: datetime | None) -> None:
        """Says when to look next at what was looked at; None for never. What was told meanwhile holds, if it is sooner.

        Args:
            looks: moments by id.
            until: to which a claim has put them off; None if no claim did.
        """
        ...

    async def load(self, looks: Sequence[tuple[UUID, datetime]]) -> None:
        """Says when to look at these, where it is sooner than what is known, or nothing is."""
        ...


class DueRows(Protocol):
    """The index of what is due. Every method may raise Unavailable."""

    async def upcoming(
        self, until: datetime, *, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[tuple[UUID, datetime]]:
        """Ids and when they are due, up to a moment, in that order, beginning after one of them."""
        ...


class DueLoop:
    """Looks at what is due, several at once.

    Args:
        work: looks at those of the ids that are due and that nobody else is at. Returns when to look next at each that it has
            dealt with, and None for those that are not there; what it leaves out is looked at again after the lease.
        lease_s: how long a claim lasts, in seconds: longer than `work` takes, or others do it again beside it.
        workers: how many calls of `work` are under way at the same time.
        batch: how many ids one gets at most.
    """

    def __init__(
        self,
        name: str,
        timers: Timers,
        rows: DueRows,
        work: Callable[[Sequence[UUID]], Awaitable[Looks]],
        clock: Clock,
        *,
        lease_s: float,
        workers: int = 2,
        batch: int = 250,
    ) -> None:
        self._log = log.bind(loop=name)
        self._timers = timers
        self._rows = rows
        self._work = work
        self._clock = clock
        self._lease = timedelta(seconds=lease_s)
        self._workers = workers
        self._batch = batch
        self._woken = asyncio.Event()
        self._timers_away = False
        # A dict for its order.
        self._urgent: dict[UUID, None] = {}
        # When the timers have their turn; None while nothing has gone before them.
        self._turn: datetime | None = None

    def wake(self, ids: Iterable[UUID] = ()) -> None:
        """Looks at once at these ids, which are due, and then at whatever the timers say."""
        self._urgent.update(dict.fromkeys(ids))
        # Each look waits for an event that was there before it looked, so that no wake-up falls between look and wait.
        self._woken.set()
        self._woken = asyncio.Event()

    async def tell(self, looks: Looks) -> None:
        """Tells the timers when rows that this replica has just written are to be looked at."""
        now = self._now()
        # A timer that is not needed any more only costs a look.
        soon = [(each, moment) for each, moment in looks.items() if moment is not None and moment <= now + HORIZON]
        if not soon:
            return
        try:
            await self._timers.load(soon)
        except Unavailable as error:
            # They are loaded from the rows when Redis is back.
            self._note_timers(error)
        self.wake()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._forever())

    async def _forever(self) -> None:
        while True:
            woken = self._woken
            try:
                pause_s = await self.step()
            except Unavailable as error:
                self._log.warning("cannot look at what is due", error=error.message)
                pause_s = LONGEST_WAIT_S
            except Exception as error:  # noqa: BLE001 - logged as a defect
                # One row that this cannot deal with must not keep all the others waiting; its lease puts it off.
                self._log.exception("defect", error=repr(error))
                pause_s = LONGEST_WAIT_S
            if pause_s > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), pause_s)

    async def step(self) -> float:
        """One look, and the work that it finds. Returns for how many seconds there is no other.

        Raises:
            Unavailable: the database is out of reach; what was under way stays due.
        """
        now = self._now()
        if self._urgent and (self._turn is None or now < self._turn):
            self._turn = self._turn or now + WOKEN_FOR
            ids = list(self._urgent)[: self._batch]
            for each in ids:
                del self._urgent[each]
            await self._do(ids, until=None)
            return 0.0
        self._turn = None
        until = now + self._lease
        claimed = await self._claim(until)
        if claimed.ids:
            await self._do(claimed.ids, until=until)
            return 0.0
        if self._urgent:
            return 0.0
        if claimed.following is None:
            return LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, max(0.0, (claimed.following - self._now()).total_seconds()))

    async def _do(self, ids: Sequence[UUID], *, until: datetime | None) -> None:
        """Works, to the end: what a process has in hand when it is told to end would wait for its claim to run out."""
        doing = asyncio.create_task(self._work_and_tell(ids, until))
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            while not doing.done():
                # Whoever ends the process cancels again and again, and gives up in the end.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait((doing,))
            if not doing.cancelled() and (error := doing.exception()) is not None:
                self._log.warning("the last work was not finished", error=repr(error))
            raise

    async def _work_and_tell(self, ids: Sequence[UUID], until: datetime | None) -> None:
        looks = await self._work(ids)
        if not looks:
            return
        # Later than the horizon: the timer goes, and is loaded when its time comes near.
        horizon = self._now() + HORIZON
        near = {each: None if moment is None or moment > horizon else moment for each, moment in looks.items()}
        try:
            await self._timers.settle(near, until=until)
        except Unavailable as error:
            self._note_timers(error)

    async def _claim(self, until: datetime) -> Claimed:
        now = until - self._lease
        try:
            claimed = await self._timers.claim(now, until=until, limit=self._batch, loaded_ms=LOAD_EVERY_MS)
            self._note_timers(None)
            if claimed.load:
                await self._load(now)
                # What has just been loaded may be due.
                return Claimed(claimed.ids, now, load=False)
        except Unavailable as error:
            self._note_timers(error)
            return Claimed(
                [each for each, _ in await self._rows.upcoming(now, after=None, limit=self._batch)], None, load=False
            )
        return claimed

    def _note_timers(self, error: Unavailable | None) -> None:
        """Tells once that Redis is away, and once that it is back; not at each look."""
        if error is not None and not self._timers_away:
            self._log.warning("the timers are out of reach; the rows are looked at", error=error.message)
        elif error is None and self._timers_away:
            self._log.info("the timers are back")
        self._timers_away = error is not None

    async def _load(self, now: datetime) -> None:
        after = None
        while True:
            rows = await self._rows.upcoming(now + HORIZON, after=after, limit=LOAD_PAGE)
            if rows:
                await self._timers.load(rows)
            if len(rows) < LOAD_PAGE:
                return
            after = rows[-1][1], rows[-1][0]

    def _now(self) -> datetime:
        return datetime_of(self._clock.now_ns())
