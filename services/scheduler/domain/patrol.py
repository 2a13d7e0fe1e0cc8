"""The patrol, and the recovery of replicas that fell silent: what was not told is found and told (I4)."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog

from servicekit.clock import NS_PER_MS, datetime_of
from servicekit.failures import Unavailable
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.ports import Held, Lost, Queue, Tables
from services.scheduler.domain.records import Live
from services.scheduler.domain.states import State
from services.scheduler.domain.upkeep import Upkeep
from services.scheduler.domain.watermark import Steps

log = structlog.get_logger()

PATROL_S = 2.0
BEAT_S = 1.0
PAGE = 1_000
# Before its watermark a lost replica had told everything; this much more is looked at all the same.
MARGIN_MS = 2_000


class Recovery:
    """Beats for this replica, and looks after those whose beats have stopped."""

    def __init__(self, tables: Tables, queue: Queue, aftermath: Aftermath, steps: Steps) -> None:
        self._tables = tables
        self._queue = queue
        self._aftermath = aftermath
        self._steps = steps
        self._lost: asyncio.Queue[Lost] = asyncio.Queue()
        self._noted: set[str] = set()
        self.looked_after = 0
        """How often what a lost replica left was looked through; for each of them twice."""

    async def beat(self) -> None:
        """Says that this replica lives, and hears of those that do not.

        Raises:
            Unavailable: Redis is out of reach.
        """
        for lost in await self._queue.beat(self._steps.replica, self._steps.watermark_ms()):
            # Once is enough, however often it is handed out: clocks that disagree hand it out at each beat.
            if lost.replica not in self._noted:
                self._noted.add(lost.replica)
                self._lost.put_nowait(lost)

    async def run_beats(self) -> None:
        """Beats until cancelled; then, if nothing is left to be told, says good-bye."""
        try:
            while True:
                try:
                    await self.beat()
                except Unavailable as error:
                    log.info("no beat", error=error.message)
                await asyncio.sleep(BEAT_S)
        finally:
            if self._steps.idle:
                try:
                    await self._queue.leave(self._steps.replica)
                except Unavailable as error:
                    log.info("left without a word", error=error.message)

    async def run(self) -> None:
        """Recovers lost replicas until cancelled."""
        while True:
            lost = await self._lost.get()
            try:
                await self.recover(lost)
            except Unavailable as error:
                # It is handed out again, to this replica or another.
                log.info("a lost replica is still to be looked after", replica=lost.replica, error=error.message)
            except Exception:
                log.exception("defect: a lost replica is still to be looked after", replica=lost.replica)
            finally:
                self._noted.discard(lost.replica)

    async def recover(self, lost: Lost) -> None:
        """Tells the queue what the rows say of all that changed since the watermark.

        Raises:
            Unavailable: Postgres or Redis is out of reach.
        """
        since = datetime_of((lost.watermark_ms - MARGIN_MS) * NS_PER_MS)
        processes = await self._settle_since(since)
        await self._queue.recovered(lost)
        self.looked_after += 1
        log.warning("looked after a lost replica", replica=lost.replica, passes=lost.passes + 1, processes=processes)

    async def _settle_since(self, since: datetime) -> int:
        after, count = UUID(int=0), 0
        while found := await self._tables.recent_page(since, after, PAGE):
            for colony, ids in found.items():
                await self._aftermath.settle(colony, ids)
                count += len(ids)
                after = max(after, *ids)
        return count


class Patrol:
    """Compares the queue with the rows, page after page, for ever and slowly: it is for what nobody thought of."""

    def __init__(self, tables: Tables, queue: Queue, upkeep: Upkeep) -> None:
        self._tables = tables
        self._queue = queue
        self._upkeep = upkeep
        self._after = 0
        self._cursors: dict[str, int] = {}

    async def run(self) -> None:
        """Patrols until cancelled."""
        while True:
            await asyncio.sleep(PATROL_S)
            try:
                await self.round()
            except Unavailable as error:
                log.info("the patrol waits", error=error.message)
            except Exception:
                log.exception("defect: the patrol goes on with its next round")

    async def round(self) -> None:
        """One page of open rows, and one of each colony's leases.

        Raises:
            Unavailable: Postgres or Redis is out of reach.
        """
        self._after = await self._upkeep.accord_page(self._after)
        colonies = await self._queue.colonies()
        for colony in colonies:
            cursor, held = await self._queue.held_page(colony, self._cursors.get(colony, 0), PAGE)
            self._cursors[colony] = cursor
            if held:
                await self._take_away(colony, held)
        self._cursors = {colony: cursor for colony, cursor in self._cursors.items() if colony in colonies and cursor}

    async def _take_away(self, colony: str, held: Sequence[Held]) -> None:
        """Leases of attempts that are over, which their executors could extend for ever; and of attempts that Postgres lost,
        which are told before they are on disk.
        """
        lives = {live.id: live for live in await self._tables.lives(colony, [one.process_id for one in held])}
        over = [one for one in held if _is_over(one, lives.get(one.process_id))]
        if over:
            # The rows are told too: another attempt may have the number of one that Postgres lost, and with it its time limit.
            rows = {one.process_id: lives[one.process_id] for one in over if one.process_id in lives}
            await self._upkeep.accord(colony, list(rows.values()), over)


def _is_over(held: Held, live: Live | None) -> bool:
    if live is None or live.is_final or live.attempt > held.number:
        return True
    if live.attempt == held.number:
        return live.state is State.WAITING or live.executor_id != held.executor_id
    # A claim that is about to be recorded has an offer. A lease was given to who had heard that it was.
    return held.confirmed
