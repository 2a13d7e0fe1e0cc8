"""An executor at work: join the colony, pull, run, keep the leases, close, drain."""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from colonies.errors import InvalidArgumentError, PermissionDeniedError, RpcError
from colonies.executor.children import Children
from colonies.executor.closer import Closer
from colonies.executor.connection import PatientClient
from colonies.executor.context import Context
from colonies.executor.held import Hand, Held
from colonies.executor.leases import Leases
from colonies.executor.membership import Membership
from colonies.executor.offers import Offer
from colonies.executor.outbox import Outbox
from colonies.executor.outcome import Outcome, failure, run, unknown_function
from colonies.executor.pull import How, Pull
from colonies.executor.runners import Runners
from colonies.executor.state import States
from colonies.executor.threads import DaemonThreads
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

# After the drain's time is over: for telling the server what was not finished.
LAST_CLOSE_SECONDS = 10.0

log = logging.getLogger("colonies.executor")

Result = TypeVar("Result")


class Worker:
    """One run of an executor."""

    def __init__(
        self,
        *,
        client: PatientClient,
        membership: Membership,
        offers: Mapping[str, Offer],
        concurrency: int,
        drain_timeout: float,
        how: How,
        states: States,
    ) -> None:
        """Belongs to the event loop that is running."""
        self.client = client
        self.membership = membership
        self.offers = offers
        self.concurrency = concurrency
        self.drain_timeout = drain_timeout
        self._states = states
        # Held by whoever gives the executor another key.
        self.rotating = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._hand = Hand()
        self._threads = DaemonThreads("colonies-function")
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        # In hand, and not begun.
        self._waiting: deque[Held] = deque()
        self._runners = Runners(offers, self._ended)
        self._closer = Closer(client, self._hand.release)
        self._leases = Leases(client, self._hand, self._drop)
        self._pull = Pull(client, how, concurrency, self._free, self._take, states)

    def stop(self) -> None:
        """Drains: nothing more is pulled, and what is in hand is finished."""
        self._stopping.set()

    def key_changed(self) -> None:
        """The client signs with another key: the stream that the old one opened will be cut, so it is opened anew."""
        self._pull.reopen()

    async def run(self) -> None:
        """Works until `stop` is called and the drain is over.

        Raises:
            FailedPreconditionError: the colony's owner has rejected this executor.
            RpcError: the server refuses what this executor says of itself.
        """
        background = [asyncio.create_task(self._closer.run()), asyncio.create_task(self._leases.keep())]
        work = asyncio.create_task(self._work_and_drain())
        try:
            # The background tasks never end by themselves: when one does, it is by an error, which must not go unseen.
            done, _ = await asyncio.wait([work, *background], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for held in self._hand:
                self._hand.drop(held)
            rest = [work, *background, *self._tasks]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await self._runners.stop()

    async def _work_and_drain(self) -> None:
        if await self._unless_stopping(self._join()):
            await self._work()
        await self._drain()

    async def _join(self) -> bool:
        await self.membership.join()
        return True

    async def _unless_stopping(self, coroutine: Coroutine[Any, Any, Result]) -> Result | None:
        """The coroutine's result; None if a stop came first."""
        task = asyncio.create_task(coroutine)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _work(self) -> None:
        pull = self._pull
        while not self._stopping.is_set():
            try:
                await self._unless_stopping(pull.run())
            except InvalidArgumentError:
                raise
            except PermissionDeniedError as error:
                log.warning("no work for this executor: %s", error)
                await self._unless_stopping(asyncio.sleep(pull.backoff.next_seconds()))
                await self._unless_stopping(self._join())
            except RpcError as error:
                wait = pull.backoff.next_seconds(error.retry_delay)
                log.warning("cannot ask for work, trying again in %.1f s: %s", wait, error)
                await self._unless_stopping(asyncio.sleep(wait))

    def _free(self) -> int:
        return self.concurrency - self._busy

    def _take(self, assignments: Iterable[scheduler.Assignment]) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for assignment in assignments:
            key = (assignment.process_id, assignment.attempt)
            if key in self._hand:
                continue  # sent again by a stream that was opened again
            held = Held(assignment, key, now)
            self._hand.take(held)
            if assignment.HasField("exec_deadline"):
                # Counted from here, for the clocks of the two machines may differ by more than the limit is long.
                limit = assignment.spec.max_exec_time_ms / 1000
                held.timer = loop.call_later(limit, self._drop, held, "its max_exec_time is over")
            self._waiting.append(held)
        self._start_waiting()

    def _start_waiting(self) -> None:
        # The server does not count functions that were dropped and still run in threads: what it sends beyond waits here.
        while self._waiting and self._busy < self.concurrency:
            held = self._waiting.popleft()
            if not held.dropped and not held.finished:
                self._start(held)

    def _start(self, held: Held) -> None:
        self._busy += 1
        name = held.assignment.spec.func_name
        offer = self.offers.get(name)
        if offer is None:
            asyncio.get_running_loop().call_soon(self._ended, held, unknown_function(name, self.offers))
            return
        if offer.context_parameter is not None:
            held.outbox = Outbox(self.client, held.ref)
            children = Children(self.client, asyncio.get_running_loop(), *held.key)
            held.context = Context.of(held.assignment, held.outbox.put, held.outbox.channels.open, children)
        if offer.is_async:
            self._runners.start(held)
            return
        self._threads.run(partial(run, offer, held.assignment, held.context), partial(self._ended, held))

    def _ended(self, held: Held, outcome: Outcome | None) -> None:
        """A function is over; without an outcome if it was cancelled."""
        # A dropped function that still runs in a thread keeps its place: the author said how many may run at once.
        self._busy -= 1
        self._pull.slot_freed.set()
        if self._waiting:
            self._start_waiting()
        if outcome is None or held.dropped or held.finished:
            return
        held.finished = True
        _tell(held, outcome)
        if held.outbox is None or held.outbox.is_empty:
            self._closer.put(held, outcome)
            return
        task = asyncio.create_task(self._close_after_reports(held, held.outbox, outcome))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_after_reports(self, held: Held, outbox: Outbox, outcome: Outcome) -> None:
        await outbox.flush()
        self._closer.put(held, outcome)

    def _drop(self, held: Held, why: str) -> None:
        log.warning("dropping %s: %s", held, why)
        if held.context is not None:
            held.context.cancelled_because = why
        self._hand.drop(held)

    async def _drain(self) -> None:
        self._states.enter("draining")
        if len(self._hand):
            log.info("draining: %d processes in hand, up to %g s", len(self._hand), self.drain_timeout)
        if await self._emptied(self.drain_timeout):
            return
        for held in self._hand:
            self._give_back(held)
        if not await self._emptied(LAST_CLOSE_SECONDS):
            log.error("leaving with %d results that the server has not taken", len(self._hand))

    def _give_back(self, held: Held) -> None:
        """Ends a running attempt so that another executor can try; a result that only waits to be sent still is."""
        if held.finished:
            return
        held.finished = True
        held.cancel()
        log.warning("giving back %s: this executor is shutting down", held)
        self._closer.put(held, failure("its executor was shut down before it was finished", retryable=True))

    async def _emptied(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._hand.none_held.wait()
        except TimeoutError:
            return False
        return True


def _tell(held: Held, outcome: Outcome) -> None:
    if isinstance(outcome, scheduler.Close.Success):
        if log.isEnabledFor(logging.INFO):
            log.info("%s: successful after %.3f s", held, asyncio.get_running_loop().time() - held.taken_at)
    else:
        seconds = asyncio.get_running_loop().time() - held.taken_at
        log.warning("%s: failed after %.3f s: %s", held, seconds, outcome.errors[0])
