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
from services.scheduler.domain.finishing import refs_of
from services.scheduler.domain.ports import Decide, Queue, Tables, Timer, TimerKind
from services.scheduler.domain.records import Ending, Live

log = structlog.get_logger()

TICK_S = 0.2
OUTAGE_PAUSE_S = 0.5
MAX_DUE = 500
REBUILD_PAGE = 1_000
# No transaction that was under way when a settle timer was set is still open after this long: servicekit.postgres ends
# statements after 20 s and idle transactions after 30 s.
STEP_AT_MOST_MS = 60_000

DecideAttempt: TypeAlias = Callable[[Live, int], Ending | None]


class Upkeep:
    """The loop that keeps the queue and the tables in accord."""

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
            # Until the queue is whole again, no deadline fires: leases that ran out while Redis was away get a grace.
            await self._rebuild()
            return False
        busy = False
        for colony in await self._queue.colonies():
            due = await self._queue.due(colony, MAX_DUE)
            if due.timers:
                done = await self._handle(colony, due.timers)
                await self._queue.done(colony, done, due.put_off_ms)
                busy = busy or len(due.timers) == MAX_DUE
        return busy

    async def _rebuild(self) -> None:
        epoch = await self._queue.begin_rebuild()
        if epoch is None:
            return
        log.warning("rebuilding the queue", epoch=epoch)
        after = total = 0
        while page := await self._tables.open_page(after, REBUILD_PAGE):
            by_colony: dict[str, list[Live]] = defaultdict(list)
            for live in page:
                by_colony[live.colony].append(live)
            for colony, lives in by_colony.items():
                await self._queue.accord(colony, lives)
            after = page[-1].sequence
            total += len(page)
        await self._queue.finish_rebuild(epoch)
        log.warning("queue rebuilt", processes=total, epoch=epoch)

    async def _handle(self, colony: str, timers: Sequence[Timer]) -> list[Timer]:
        """Takes care of timers; returns those that are done with."""
        by_kind: dict[TimerKind, list[Timer]] = defaultdict(list)
        for timer in timers:
            by_kind[timer.kind].append(timer)
        done: list[Timer] = []
        now = datetime_of(self._clock.now_ns())
        deciders: dict[TimerKind, Decide] = {
            TimerKind.LEASE: _by_attempt(by_kind[TimerKind.LEASE], endings.lose),
            TimerKind.EXEC: _by_attempt(by_kind[TimerKind.EXEC], lambda row, number: endings.time_out(row, number, now)),
            TimerKind.WAIT: lambda row, _prior: endings.wait_out(row, now),
        }
        for kind, decide in deciders.items():
            if mine := by_kind[kind]:
                await self._end(colony, mine, decide)
                done += mine
        for timer in by_kind[TimerKind.SETTLE]:
            assert timer.process_id is not None
            await self._settle(colony, [timer.process_id])
        for timer in by_kind[TimerKind.SUBMIT]:
            await self._settle(colony, list(await self._tables.request(colony, timer.actor, timer.request_id)))
        oldest_ms = self._clock.now_ns() // 1_000_000 - STEP_AT_MOST_MS
        done += [
            timer for kind in (TimerKind.SETTLE, TimerKind.SUBMIT) for timer in by_kind[kind] if timer.since_ms < oldest_ms
        ]
        return done

    async def _end(self, colony: str, timers: Sequence[Timer], decide: Decide) -> None:
        ids = list({timer.process_id for timer in timers if timer.process_id is not None})
        intended = await self._queue.intend(colony, ids)
        changes, _ = await self._tables.end(colony, refs_of(ids), decide, datetime_of(self._clock.now_ns()))
        for live in changes.released:
            log.info("attempt over", colony=colony, process_id=str(live.id), attempt=live.attempt, executor=live.executor_name)
        await self._aftermath.changed(colony, changes, intended)

    async def _settle(self, colony: str, ids: Sequence[UUID]) -> None:
        """A step may have been lost half-way: the queue is told again what the rows say, children included."""
        if not ids:
            return
        lives = await self._tables.lives(colony, ids, with_children=True)
        await self._queue.accord(colony, lives)
        touched = {one for live in lives for one in (live.id, live.workflow_id) if one is not None}
        await self._queue.announce(colony, list(touched))


def _by_attempt(timers: Sequence[Timer], decide: DecideAttempt) -> Decide:
    numbers = {timer.process_id: timer.attempt for timer in timers}

    def decide_row(row: Live, _prior: Prior | None) -> Ending | None:
        return decide(row, numbers[row.id])

    return decide_row

