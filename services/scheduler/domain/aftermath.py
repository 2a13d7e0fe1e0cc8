"""What comes after a commit: the queue and the followers are told. The commit stands whatever becomes of the telling."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import structlog

from servicekit.failures import Unavailable
from services.scheduler.domain import endings
from services.scheduler.domain.limits import Limits
from services.scheduler.domain.ports import Queue, Tables
from services.scheduler.domain.records import Changes, Live
from services.scheduler.domain.states import State
from services.scheduler.domain.statistics import Counting
from services.scheduler.domain.watermark import Steps

log = structlog.get_logger()

PAGE = 1_000
RETRY_S = 0.5
# Whoever submitted or closed waits no longer than this for the queue; it is told all the same.
TELL_S = 2.0
# Tellings under way before their callers wait for them.
MAX_TELLING = 64
# With more than this still to be told, the whole queue is built anew.
MAX_UNSETTLED = 200_000


class Aftermath:
    """Tells the queue, so that a call whose work is done never fails for it: what could not be told, and what may or may not
    have been committed, is told from the rows as soon as they and the queue are in reach.
    """

    def __init__(self, tables: Tables, queue: Queue, steps: Steps, counting: Counting, limits: Limits) -> None:
        self._tables = tables
        self._queue = queue
        self._steps = steps
        self._counting = counting
        self._limits = limits
        # By colony; with it goes the mark that keeps the watermark back.
        self._unsettled: dict[str, dict[UUID, None]] = {}
        # Workflows, of which as yet nobody has looked which processes they have.
        self._workflows: dict[UUID, str] = {}
        self._mark: object | None = None
        self._rebuild = False
        self._some = asyncio.Event()
        # The loop itself holds tasks weakly.
        self._telling: set[asyncio.Task[None]] = set()
        self.doubts = 0
        """How often a step left the queue to be told later."""

    @property
    def unsettled(self) -> int:
        """Processes and workflows of which the queue is still to be told."""
        return sum(map(len, list(self._unsettled.values()))) + len(self._workflows)

    async def tell(self, changes: Mapping[str, Changes], token: object) -> None:
        """Tells what a transaction changed, by colonies, and then ends its step, without keeping the caller: what this replica
        asks the queue from here on is answered after that. Where many are under way already the caller waits.
        """
        task = asyncio.create_task(self._tell(changes, token))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        while len(self._telling) > MAX_TELLING:
            await asyncio.wait(self._telling, return_when=asyncio.FIRST_COMPLETED)

    async def _tell(self, changes: Mapping[str, Changes], token: object) -> None:
        try:
            if len(changes) == 1:
                ((colony, only),) = changes.items()
                await self.changed(colony, only)
            else:
                await asyncio.gather(*(self.changed(*one) for one in changes.items()))
        finally:
            self._steps.end(token)

    async def changed(self, colony: str, changes: Changes) -> None:
        """Tells what a transaction changed, and returns when it is told, or noted to be told later."""
        self._counting.note(colony)
        try:
            async with asyncio.timeout(TELL_S):
                await self._queue.apply(colony, changes)
        except (Unavailable, TimeoutError) as error:
            log.warning("committed, but the queue is still to be told", error=str(error) or "no answer in time")
            self.doubt(colony, _concerned(changes))
        except Exception:
            # The commit stands whatever becomes of the telling.
            log.exception("defect: the queue could not be told")
            self.doubt(colony, _concerned(changes))

    def begun(self, colony: str, lives: Sequence[Live]) -> None:
        """Attempts began; the queue is told of them otherwise."""
        self._counting.note(colony)
        if began := [live.started_at for live in lives if live.started_at is not None]:
            self._limits.left(colony, len(began), min(began))

    def removed(self, colony: str) -> None:
        """Something was removed, which the queue had forgotten before."""
        self._counting.note(colony)

    def doubt(self, colony: str, process_ids: Iterable[UUID]) -> None:
        """Rows and queue may disagree on these processes, or on their children."""
        self.doubts += 1
        self._put_off(colony, process_ids)

    def _put_off(self, colony: str, process_ids: Iterable[UUID]) -> None:
        self._unsettled.setdefault(colony, {}).update(dict.fromkeys(process_ids))
        self._keep_watermark()
        if sum(map(len, self._unsettled.values())) > MAX_UNSETTLED:
            self._unsettled.clear()
            self._rebuild = True

    def doubt_workflow(self, colony: str, workflow_id: UUID) -> None:
        """As `doubt`, for all processes of a workflow."""
        self.doubts += 1
        self._workflows[workflow_id] = colony
        self._keep_watermark()

    def _keep_watermark(self) -> None:
        if self._mark is None:
            self._mark = self._steps.begin()
        # The step in doubt may have changed rows long ago, and is about to end.
        self._steps.predate(self._mark)
        self._some.set()

    async def run(self) -> None:
        """Settles what is in doubt until cancelled."""
        while True:
            await self._some.wait()
            try:
                await self._settle_all()
            except Unavailable as error:
                log.info("the queue is still to be told", error=error.message)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("defect: the queue is still to be told")
                await asyncio.sleep(RETRY_S)

    async def _settle_all(self) -> None:
        while self._rebuild or self._workflows or self._unsettled:
            if self._rebuild:
                # Before it is done: should it be asked for again meanwhile, it is done again.
                self._rebuild = False
                try:
                    await self._queue.invalidate()
                except BaseException:
                    self._rebuild = True
                    raise
            elif self._workflows:
                workflow_id, colony = next(iter(self._workflows.items()))
                self._put_off(colony, await self._tables.workflow_ids(workflow_id))
                self._workflows.pop(workflow_id, None)
            else:
                await self._settle_page()
        # In the same step as the last look: what comes from here on is news.
        if self._mark is not None:
            self._steps.end(self._mark)
            self._mark = None
        self._some.clear()

    async def _settle_page(self) -> None:
        colony, ids = next(iter(self._unsettled.items()))
        # To the end: a colony whose turn fails does not keep the others waiting.
        del self._unsettled[colony]
        page, rest = list(ids)[:PAGE], list(ids)[PAGE:]
        if rest:
            self._unsettled[colony] = dict.fromkeys(rest)
        try:
            await self.settle(colony, page)
        except BaseException:
            self._put_off(colony, page)
            raise

    async def settle(self, colony: str, process_ids: Sequence[UUID], *, relations: bool = True) -> None:
        """Tells the queue again what the rows say of processes, and, with `relations`, of their children and past attempts.

        Raises:
            Unavailable: Postgres or Redis is out of reach.
        """
        for start in range(0, len(process_ids), PAGE):
            page = process_ids[start : start + PAGE]
            lives = await self._tables.lives(colony, page, with_children=relations)
            await self._queue.accord(colony, lives, await self._tables.over(page) if relations else ())
            await self.take_back(colony, lives)
            touched = {one for live in lives for one in (live.id, live.workflow_id) if one is not None}
            await self._queue.announce(colony, list(touched))

    async def take_back(self, colony: str, lives: Sequence[Live]) -> None:
        """Attempts that ended between the look at their rows and the word to the queue: their ends were told before that word,
        so it may have put them on offer again, for their executors to extend for ever. What ends later tells the queue later.

        Raises:
            Unavailable: as `settle`.
        """
        running = [live for live in lives if live.state is State.RUNNING]
        if running:
            now = await self._tables.lives(colony, [live.id for live in running])
            if over := endings.over_since(running, now):
                await self._queue.accord(colony, [], over)


def _concerned(changes: Changes) -> set[UUID]:
    return {
        *(place.id for place in changes.ready),
        *(place.id for place in changes.withdrawn),
        *(attempt.process_id for attempt in changes.released),
    }
