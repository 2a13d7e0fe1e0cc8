"""Upkeep: deadlines fire, half-told steps are finished, a lost queue is rebuilt (I3, I4). Every replica does it; none leads."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeAlias
from uuid import UUID

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import Unavailable
from services.scheduler.domain import endings
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.endings import Prior
from services.scheduler.domain.ports import NO_ATTEMPT, Decide, Queue, Tables, Timer, TimerKind
from services.scheduler.domain.records import AttemptRef, Ending, Live
from services.scheduler.domain.states import State

log = structlog.get_logger()

TICK_S = 0.2
PATROL_S = 2.0
OUTAGE_PAUSE_S = 0.5
MAX_DUE = 500
PAGE = 1_000
COLONIES_AT_ONCE = 4
# No transaction that was under way when a settle timer was set is still open after this long: servicekit.postgres ends
# statements after 20 s and idle transactions after 30 s.
STEP_AT_MOST_MS = 60_000

DecideAttempt: TypeAlias = Callable[[Live, int], Ending | None]
HINTS = (TimerKind.SETTLE, TimerKind.SUBMIT, TimerKind.WORKFLOW)


class Upkeep:
    """The loops that keep the queue and the tables in accord."""

    def __init__(self, tables: Tables, queue: Queue, aftermath: Aftermath, clock: Clock) -> None:
        self._tables = tables
        self._queue = queue
        self._aftermath = aftermath
        self._clock = clock

    async def run(self) -> None:
        """Looks after the queue until cancelled."""
        while True:
            try:
                busy = await self.tick()
                await asyncio.sleep(0 if busy else TICK_S)
            except Unavailable as error:
                log.warning("upkeep waits", error=error.message)
                await asyncio.sleep(OUTAGE_PAUSE_S)

    async def tick(self) -> bool:
        """One round; true if there was so much to do that another should follow at once.

        Raises:
            Unavailable: Postgres or Redis is out of reach.
        """
        if not await self._queue.is_current():
            await self._rebuild()
            return False
        await self._tables.ping()
        colonies = await self._queue.colonies()
        if not await self._queue.was_looked_after():
            # Nobody was there to look, and maybe nobody to take heartbeats: no lease ends before it could be extended.
            extended = sum([await self._queue.grace(colony) for colony in colonies])
            log.info("taking over the upkeep of the queue", leases_extended=extended)
        await self._queue.looked_after()
        limit = asyncio.Semaphore(COLONIES_AT_ONCE)
        # One colony's trouble is not another's: all are looked after before any failure counts.
        results = await asyncio.gather(*(self._look_after(colony, limit) for colony in colonies), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return any(results)

    async def _look_after(self, colony: str, limit: asyncio.Semaphore) -> bool:
        async with limit:
            timers = await self._queue.due(colony, MAX_DUE)
            if timers:
                done, later = await self._handle(colony, timers)
                await self._queue.done(colony, done, later)
            return len(timers) == MAX_DUE

    async def patrol(self) -> None:
        """Compares the queue with the rows, page after page, for ever: whatever went wrong, it comes right (I4)."""
        after = 0
        while True:
            await asyncio.sleep(PATROL_S)
            try:
                after = await self._accord_page(after)
            except Unavailable as error:
                log.info("the patrol waits", error=error.message)

    async def _accord_page(self, after: int) -> int:
        """Brings one page of open processes in accord; returns where the next one begins, 0 after the last."""
        page = await self._tables.open_page(after, PAGE)
        by_colony: dict[str, list[Live]] = defaultdict(list)
        for live in page:
            by_colony[live.colony].append(live)
        for colony, lives in by_colony.items():
            await self._queue.accord(colony, lives)
            await self._take_back(colony, lives)
        return page[-1].sequence if len(page) == PAGE else 0

    async def _take_back(self, colony: str, lives: Sequence[Live]) -> None:
        """Attempts that ended between the look at their rows and the word to the queue: their ends were told before that word,
        so it may have put them on offer again, for their executors to extend for ever. What ends later tells the queue later.
        """
        running = [live for live in lives if live.state is State.RUNNING]
        if running:
            now = await self._tables.lives(colony, [live.id for live in running])
            if over := endings.over_since(running, now):
                await self._queue.accord(colony, [], over)

    async def _rebuild(self) -> None:
        """Fills the queue from the rows. Until it is whole, no deadline fires: what ran out with Redis away gets a grace."""
        token = await self._queue.begin_rebuild()
        if token is None:
            return
        log.warning("rebuilding the queue")
        after = pages = 0
        while pages == 0 or after:
            after = await self._accord_page(after)
            pages += 1
            if not await self._queue.go_on_rebuilding(token):
                log.warning("the rebuild was overtaken", pages=pages)
                return
        if await self._queue.finish_rebuild(token):
            log.warning("queue rebuilt", pages=pages)

    async def _handle(self, colony: str, timers: Sequence[Timer]) -> tuple[list[Timer], list[Timer]]:
        """Takes care of timers; returns those that are done with, and those to be looked at again later."""
        by_kind: dict[TimerKind, list[Timer]] = defaultdict(list)
        for timer in timers:
            by_kind[timer.kind].append(timer)
        now = datetime_of(self._clock.now_ns())
        deciders: dict[TimerKind, Decide] = {
            TimerKind.OFFER: _by_attempt(by_kind[TimerKind.OFFER], endings.withdraw_offer),
            TimerKind.LEASE: _by_attempt(by_kind[TimerKind.LEASE], endings.lose),
            TimerKind.EXEC: _by_attempt(by_kind[TimerKind.EXEC], lambda row, number: endings.time_out(row, number, now)),
            TimerKind.WAIT: lambda row, _prior: endings.wait_out(row, now),
        }
        done: list[Timer] = []
        for kind, decide in deciders.items():
            if mine := by_kind[kind]:
                done += await self._end(colony, mine, decide)
        hints = [timer for kind in HINTS for timer in by_kind[kind]]
        await self._settle(colony, hints)
        oldest_ms = self._clock.now_ns() // 1_000_000 - STEP_AT_MOST_MS
        later = [timer for timer in hints if timer.since_ms >= oldest_ms]
        done += [timer for timer in hints if timer.since_ms < oldest_ms]
        return done, later

    async def _end(self, colony: str, timers: Sequence[Timer], decide: Decide) -> list[Timer]:
        """Ends what is due; returns the timers that are done with. Rows that somebody is at are left for the next time."""
        ids = list({timer.process_id for timer in timers if timer.process_id is not None})
        intended = await self._queue.intend(colony, ids)
        refs = [AttemptRef(process_id, NO_ATTEMPT) for process_id in ids]
        now = datetime_of(self._clock.now_ns())
        changes, states = await self._tables.end(colony, refs, decide, now, skip_locked=True)
        for live in changes.released:
            log.info("attempt over", colony=colony, process_id=str(live.id), attempt=live.attempt, executor=live.executor_name)
        await self._aftermath.changed(colony, changes, intended)
        unseen = [process_id for process_id in ids if process_id not in states]
        locked = {live.id for live in await self._tables.lives(colony, unseen)} if unseen else set()
        return [timer for timer in timers if timer.process_id not in locked]

    async def _settle(self, colony: str, hints: Sequence[Timer]) -> None:
        """Steps may have been lost half-way: the queue is told again what the rows say, of children and past attempts too."""
        ids: list[UUID] = [timer.process_id for timer in hints if timer.process_id is not None]
        for timer in hints:
            if timer.kind is TimerKind.SUBMIT:
                ids += await self._tables.request(colony, timer.actor, timer.request_id)
            elif timer.workflow_id is not None:
                ids += await self._tables.workflow_ids(timer.workflow_id)
        ids = list(dict.fromkeys(ids))
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            lives = await self._tables.lives(colony, page, with_children=True)
            await self._queue.accord(colony, lives, await self._tables.over(page))
            await self._take_back(colony, lives)
            touched = {one for live in lives for one in (live.id, live.workflow_id) if one is not None}
            await self._queue.announce(colony, list(touched))


def _by_attempt(timers: Sequence[Timer], decide: DecideAttempt) -> Decide:
    attempts = {(timer.process_id, timer.attempt) for timer in timers}

    def decide_row(row: Live, _prior: Prior | None) -> Ending | None:
        # Timers of several attempts of one process may be due at once; at most one of them is the live one.
        return decide(row, row.attempt) if (row.id, row.attempt) in attempts else None

    return decide_row
