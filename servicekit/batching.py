"""Group commit: what concurrent calls want written goes out together.

There is no timer. The first item goes at once; what comes while it is being written gathers, and is the next batch. So an idle
service answers as fast as it can, and a busy one pays for a round trip and a commit once for many calls.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from servicekit.failures import Unavailable

log = structlog.get_logger()

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WEIGHT = 500


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    weight: int
    answer: "asyncio.Future[Result]"


class GroupCommit(Generic[Item, Result]):
    """Gathers items and runs them in batches, first come, first served.

    `run` takes the items of one batch in the order in which they came and returns one outcome for each, in that order; an
    outcome that is an exception is raised for that item alone. If `run` itself raises, nothing of the batch may have been done:
      * Unavailable is told to every item of the batch;
      * after anything else each item is run alone, so that one that cannot be written fails only itself.

    An item whose caller is cancelled is run all the same: it may be written already.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_weight: int = MAX_WEIGHT,
        workers: int = 1,
    ) -> None:
        """Begins nothing yet.

        Args:
            run: writes a batch; at most `workers` of them at a time.
            max_weight: a batch takes no more than this, unless its only item is heavier.
            workers: with more than one, batches may overtake each other.
        """
        self._run = run
        self._max_weight = max_weight
        self._workers = workers
        self._queue: deque[_Waiting[Item, Result]] = deque()
        # The loop itself holds tasks weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self.batches = 0
        """How many batches were run."""
        self.weight = 0
        """What all of them weighed together."""
        self._closed = False
        # A batch is nobody's call: it must not log or act as the caller that happened to begin it.
        self._context = copy_context()

    @property
    def gathered(self) -> int:
        """How many items wait for a batch."""
        return len(self._queue)

    async def do(self, item: Item, weight: int = 1) -> Result:
        """Runs an item in one of the next batches, and returns or raises its own outcome.

        Raises:
            Unavailable: its batch could not be written, or the group is closed.
        """
        if self._closed:
            msg = "this replica is shutting down"
            raise Unavailable(msg, reason="DRAINING", retry_delay_s=0.1)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(item, weight, answer))
        if self._busy < self._workers:
            self._busy += 1
            # Begins after the callbacks that are due already: what they bring is in the first batch too.
            task = asyncio.get_running_loop().create_task(self._work(), context=self._context.copy())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def close(self) -> None:
        """Takes nothing any more, and returns when everything taken has its answer."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._settle(self._next_batch())
        finally:
            # In the same step as the last look at the queue, so that no item is left without a worker.
            self._busy -= 1

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        batch = [self._queue.popleft()]
        weight = batch[0].weight
        while self._queue and weight + self._queue[0].weight <= self._max_weight:
            weight += self._queue[0].weight
            batch.append(self._queue.popleft())
        self.batches += 1
        self.weight += weight
        return batch

    async def _settle(self, batch: list[_Waiting[Item, Result]]) -> Unavailable | None:
        """Gives each item its outcome. Returns the outage, if it was one."""
        try:
            outcomes = await self._run([waiting.item for waiting in batch])
            if len(outcomes) != len(batch):
                msg = f"a batch of {len(batch)} had {len(outcomes)} outcomes"
                raise _Miscounted(msg)
        except (Unavailable, _Miscounted) as error:
            for waiting in batch:
                _refuse(waiting, error)
            return error if isinstance(error, Unavailable) else None
        except Exception as error:  # noqa: BLE001 - handed to whom it belongs to
            if len(batch) == 1:
                _refuse(batch[0], error)
            else:
                await self._settle_each(batch, error)
        else:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    _refuse(waiting, outcome)
                elif not waiting.answer.done():
                    waiting.answer.set_result(outcome)
        return None

    async def _settle_each(self, batch: list[_Waiting[Item, Result]], error: Exception) -> None:
        log.warning("a batch failed and its items run alone", items=len(batch), error=str(error))
        refused: Unavailable | None = None
        for waiting in batch:
            if refused is None:
                refused = await self._settle([waiting])
            else:
                # One outage is enough to wait for.
                _refuse(waiting, refused)


class _Miscounted(RuntimeError):
    """A defect of `run`. Its items may have been written, so none of them runs again."""


def _refuse(waiting: _Waiting[Item, Result], error: Exception) -> None:
    if waiting.answer.done():
        log.info("a step failed after its caller had gone", error=str(error))
        return
    if isinstance(error, Unavailable):
        # One for each: an exception that several tasks raise gathers the traces of all.
        own = Unavailable(error.message, reason=error.reason, metadata=error.metadata, retry_delay_s=error.retry_delay_s)
        own.__cause__ = error.__cause__
        error = own
    waiting.answer.set_exception(error)
