"""Upkeep: deadlines fire, a lost queue is rebuilt (I3, I4). Every replica does it; none leads."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias
from uuid import UUID

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import Unavailable
from services.scheduler.domain import endings
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.ports import NO_ATTEMPT, Decide, Queue, Tables, Timer, TimerKind
from services.scheduler.domain.records import AttemptRef, Ending, Live, Over
from services.scheduler.domain.states import State
from services.scheduler.domain.watermark import Steps

log = structlog.get_logger()

TICK_S = 0.2
OUTAGE_PAUSE_S = 0.5
MAX_DUE = 500
PAGE = 1_000
COLONIES_AT_ONCE = 4
# Less than what the mark of being looked after is good for.
PATIENCE_S = 2.0

DecideAttempt: TypeAlias = Callable[[Live, int], Ending | None]


class Upkeep:
    """The loop that fires deadlines, and rebuilds the queue when it is not the one that was built."""

    def __init__(
        self,
        tables: Tables,
        queue: Queue,
        aftermath: Aftermath,
        steps: Steps,
        clock: Clock,
        *,
        tell_pauses: Callable[[], Awaitable[None]],
    ) -> None:
        """`tell_pauses` is awaited before a queue is filled."""
        self._tables = tables
        self._queue = queue
        self._aftermath = aftermath
        self._steps = steps
        self._clock = clock
        self._tell_pauses = tell_pauses
        self._limit = asyncio.Semaphore(COLONIES_AT_ONCE)
        self._busy: set[str] = set()
        # The loop itself holds tasks weakly.
        self._late: set[asyncio.Task[bool]] = set()
        self.rebuilds = 0
        """How often this replica built the queue anew, to its end."""
        self.takeovers = 0
        """How often it found a queue that nobody had looked after for seconds."""
        self.fired: dict[TimerKind, int] = dict.fromkeys(TimerKind, 0)
        """What it ended because it was due: by kind, attempts, and for WAIT processes."""

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
            self.takeovers += 1
            log.info("taking over the upkeep of the queue", leases_extended=extended)
        await self._queue.looked_after()
        rounds = {asyncio.create_task(self._look_after(colony)) for colony in colonies if colony not in self._busy}
        if not rounds:
            return False
        # One colony's trouble is not another's: who is late goes on by itself, and the others have their next round.
        done, late = await asyncio.wait(rounds, timeout=PATIENCE_S)
        for task in late:
            self._late.add(task)
            task.add_done_callback(self._was_late)
        outages = [error for task in done if isinstance(error := task.exception(), Unavailable)]
        if outages:
            raise outages[0]
        return any(task.result() for task in done)

    def _was_late(self, task: "asyncio.Task[bool]") -> None:
        self._late.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("upkeep of a colony waits", error=str(error))

    async def _look_after(self, colony: str) -> bool:
        self._busy.add(colony)
        try:
            async with self._limit:
                timers = await self._queue.due(colony, MAX_DUE)
                if timers:
                    done, back = await self._handle(colony, timers)
                    lives = await self._tables.lives(colony, back) if back else []
                    await self._queue.done(colony, done, lives)
                    await self._aftermath.take_back(colony, lives)
                return len(timers) == MAX_DUE
        except Unavailable:
            raise
        except Exception:
            # One colony's poison must not end the upkeep of all others. The timers come again.
            log.exception("defect: deadlines of a colony are late", colony=colony)
            return False
        finally:
            self._busy.discard(colony)

    async def _rebuild(self) -> None:
        """Fills the queue from the rows. Until it is whole, no deadline fires: what ran out with Redis away gets a grace."""
        token = await self._queue.begin_rebuild()
        if token is None:
            return
        log.warning("rebuilding the queue")
        await self._tell_pauses()
        after = pages = 0
        while pages == 0 or after:
            after = await self.accord_page(after)
            pages += 1
            if not await self._queue.go_on_rebuilding(token):
                log.warning("the rebuild was overtaken", pages=pages)
                return
        if await self._queue.finish_rebuild(token):
            self.rebuilds += 1
            log.warning("queue rebuilt", pages=pages)

    async def accord_page(self, after: int) -> int:
        """Brings one page of open processes in accord; returns where the next one begins, 0 after the last.

        Raises:
            Unavailable: Postgres or Redis is out of reach.
        """
        page = await self._tables.open_page(after, PAGE)
        by_colony: dict[str, list[Live]] = defaultdict(list)
        for live in page:
            by_colony[live.colony].append(live)
        for colony, lives in by_colony.items():
            await self.accord(colony, lives)
        return page[-1].sequence if len(page) == PAGE else 0

    async def accord(self, colony: str, lives: Sequence[Live], over: Sequence[Over] = ()) -> None:
        """Makes the queue say what these rows say, and that these attempts are over.

        Raises:
            Unavailable: Postgres or Redis is out of reach.
        """
        await self._queue.accord(colony, lives, over)
        await self._aftermath.take_back(colony, lives)

    async def _handle(self, colony: str, timers: Sequence[Timer]) -> tuple[list[Timer], list[UUID]]:
        """Takes care of timers; returns those that are done with, and the processes that belong back in their lanes."""
        by_kind: dict[TimerKind, list[Timer]] = defaultdict(list)
        for timer in timers:
            by_kind[timer.kind].append(timer)
        now = datetime_of(self._clock.now_ns())
        deciders: dict[TimerKind, Decide] = {
            TimerKind.OFFER: _by_attempt(
                by_kind[TimerKind.OFFER], lambda row, number: endings.withdraw_offer(row, number, now)
            ),
            TimerKind.LEASE: _by_attempt(by_kind[TimerKind.LEASE], lambda row, number: endings.lose(row, number, now)),
            TimerKind.EXEC: _by_attempt(by_kind[TimerKind.EXEC], lambda row, number: endings.time_out(row, number, now)),
            TimerKind.WAIT: lambda row: endings.wait_out(row, now),
        }
        done: list[Timer] = []
        back: list[UUID] = []
        for kind, decide in deciders.items():
            if mine := by_kind[kind]:
                ended, waiting = await self._end(colony, mine, kind, decide)
                done += ended
                back += waiting
        if ready := by_kind[TimerKind.READY]:
            await self._aftermath.settle(colony, [timer.process_id for timer in ready], relations=False)
            done += ready
        return done, back

    async def _end(
        self, colony: str, timers: Sequence[Timer], kind: TimerKind, decide: Decide
    ) -> tuple[list[Timer], list[UUID]]:
        """Ends what is due; returns as `_handle`. Rows that somebody is at are left for the next time."""
        ids = list({timer.process_id for timer in timers})
        refs = [AttemptRef(process_id, NO_ATTEMPT) for process_id in ids]
        with self._steps.under_way():
            try:
                now = datetime_of(self._clock.now_ns())
                changes, states = await self._tables.end(colony, refs, decide, now, skip_locked=True)
            except Unavailable:
                self._aftermath.doubt(colony, ids)
                raise
            self.fired[kind] += len(changes.withdrawn if kind is TimerKind.WAIT else changes.released)
            for over in changes.released:
                log.info(
                    "attempt over",
                    timer=kind,
                    colony=colony,
                    process_id=str(over.process_id),
                    attempt=over.number,
                    executor=over.executor_id,
                )
            await self._aftermath.changed(colony, changes)
        unseen = [process_id for process_id in ids if process_id not in states]
        locked = {live.id for live in await self._tables.lives(colony, unseen)} if unseen else set()
        done = [timer for timer in timers if timer.process_id not in locked]
        # Claimed by a replica which died before it could write that down.
        return done, [timer.process_id for timer in done if states.get(timer.process_id) is State.WAITING]


def _by_attempt(timers: Sequence[Timer], decide: DecideAttempt) -> Decide:
    attempts = {(timer.process_id, timer.attempt) for timer in timers}

    def decide_row(row: Live) -> Ending | None:
        # Timers of several attempts of one process may be due at once; at most one of them is the live one.
        return decide(row, row.attempt) if (row.id, row.attempt) in attempts else None

    return decide_row
