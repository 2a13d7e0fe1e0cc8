"""An executor at work: join the colony, pull, run, keep the leases, close, drain."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from colonies.client import AsyncClient
from colonies.client.calls import LONG_POLL_GRACE_SECONDS, Backoff
from colonies.errors import InvalidArgumentError, PermissionDeniedError, RpcError
from colonies.executor.closer import Closer
from colonies.executor.context import Context
from colonies.executor.held import Hand, Held
from colonies.executor.membership import Membership
from colonies.executor.offers import Offer
from colonies.executor.outbox import Outbox
from colonies.executor.outcome import Outcome, failure, outcome_of, unknown_function
from colonies.executor.threads import DaemonThreads
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

MAX_ASSIGN = 100
MAX_HEARTBEAT = 1_000
LONG_POLL_SECONDS = 30.0
# After the drain's time is over: for telling the server what was not finished.
LAST_CLOSE_SECONDS = 10.0

log = logging.getLogger("colonies.executor")

Result = TypeVar("Result")


@dataclass(slots=True)
class Worker:
    """One run of an executor."""

    client: AsyncClient
    membership: Membership
    offers: Mapping[str, Offer]
    concurrency: int
    drain_timeout: float
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _slot_freed: asyncio.Event = field(default_factory=asyncio.Event)
    _hand: Hand = field(default_factory=Hand)
    _threads: DaemonThreads = field(default_factory=lambda: DaemonThreads("colonies-function"))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closer: Closer = field(init=False)
    _busy: int = 0

    def __post_init__(self) -> None:
        self._closer = Closer(self.client, self._hand.release)

    def stop(self) -> None:
        """Drains: nothing more is pulled, and what is in hand is finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Works until `stop` is called and the drain is over.

        Raises:
            FailedPreconditionError: the colony's owner has rejected this executor.
            RpcError: the server refuses what this executor says of itself.
        """
        background = [asyncio.create_task(self._closer.run()), asyncio.create_task(self._keep_leases())]
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

    async def _work_and_drain(self) -> None:
        if await self._unless_stopping(self._join()):
            await self._pull()
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

    async def _pull(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            free = self.concurrency - self._busy
            if free <= 0:
                self._slot_freed.clear()
                await self._unless_stopping(self._slot_freed.wait())
                continue
            try:
                assigned = await self._unless_stopping(self._assign(min(free, MAX_ASSIGN)))
            except InvalidArgumentError:
                raise
            except PermissionDeniedError as error:
                log.warning("no work for this executor: %s", error)
                await self._unless_stopping(asyncio.sleep(backoff.next_seconds()))
                await self._unless_stopping(self._join())
            except RpcError as error:
                wait = backoff.next_seconds(error.retry_delay)
                log.warning("cannot ask for work, trying again in %.1f s: %s", wait, error)
                await self._unless_stopping(asyncio.sleep(wait))
            else:
                backoff.reset()
                for assignment in assigned.assignments if assigned is not None else ():
                    self._start(assignment)

    async def _assign(self, free: int) -> scheduler.AssignProcessesResponse:
        request = scheduler.AssignProcessesRequest(
            colony_name=self.client.colony, max_processes=free, wait_ms=int(LONG_POLL_SECONDS * 1000)
        )
        timeout = LONG_POLL_SECONDS + LONG_POLL_GRACE_SECONDS
        return await self.client.call(self.client.scheduler.AssignProcesses, request, timeout=timeout)

    def _start(self, assignment: scheduler.Assignment) -> None:
        ref = scheduler.AttemptRef(process_id=assignment.process_id, attempt=assignment.attempt)
        outbox = Outbox(self.client, ref)
        held = Held(assignment, Context.of(assignment, outbox.put), outbox)
        self._hand.take(held)
        self._busy += 1
        offer = self.offers.get(assignment.spec.func_name)
        task = asyncio.create_task(self._work(held, offer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if offer is not None and offer.is_async:
            held.task = task
        if assignment.HasField("exec_deadline"):
            # Counted from here, for the clocks of the two machines may differ by more than the limit is long.
            limit = assignment.spec.max_exec_time_ms / 1000
            held.timer = asyncio.get_running_loop().call_later(limit, self._drop, held, "its max_exec_time is over")

    async def _work(self, held: Held, offer: Offer | None) -> None:
        began = time.monotonic()
        try:
            outcome = await self._outcome(held, offer)
        finally:
            # A dropped function that still runs in a thread keeps its place: the author said how many may run at once.
            self._busy -= 1
            self._slot_freed.set()
        if held.dropped or held.finished:
            return
        held.finished = True
        _tell(held, outcome, time.monotonic() - began)
        await held.outbox.flush()
        self._closer.put(held, outcome)

    async def _outcome(self, held: Held, offer: Offer | None) -> Outcome:
        if offer is None:
            return unknown_function(held.assignment.spec.func_name, self.offers)
        return await outcome_of(offer, held.assignment, held.context, self._threads)

    def _drop(self, held: Held, why: str) -> None:
        log.warning("dropping %s: %s", held, why)
        self._hand.drop(held)

    async def _keep_leases(self) -> None:
        while True:
            await self._hand.any_held.wait()
            await asyncio.sleep(self._hand.beat_seconds)
            refs = [held.ref for held in self._hand]
            try:
                for start in range(0, len(refs), MAX_HEARTBEAT):
                    await self._heartbeat(refs[start : start + MAX_HEARTBEAT])
            except RpcError as error:
                log.warning("a heartbeat was refused: %s", error)

    async def _heartbeat(self, refs: list[scheduler.AttemptRef]) -> None:
        request = scheduler.HeartbeatRequest(colony_name=self.client.colony, attempts=refs)
        # A call that hangs must leave time for another one within the lease.
        timeout = max(1.0, self._hand.beat_seconds)
        response = await self.client.call(self.client.scheduler.Heartbeat, request, timeout=timeout)
        self._hand.set_lease(response.lease_ms)
        for drop in response.drops:
            held = self._hand.find(drop.attempt)
            if held is not None:
                cancelled = drop.reason == scheduler.DROP_REASON_CANCELLED
                self._drop(held, "it was cancelled" if cancelled else "its lease or its time is over")

    async def _drain(self) -> None:
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
        held.context.cancelled.set()
        if held.task is not None:
            held.task.cancel()
        log.warning("giving back %s: this executor is shutting down", held)
        self._closer.put(held, failure("its executor was shut down before it was finished", retryable=True))

    async def _emptied(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._hand.none_held.wait()
        except TimeoutError:
            return False
        return True


def _tell(held: Held, outcome: Outcome, seconds: float) -> None:
    if isinstance(outcome, scheduler.Close.Success):
        log.info("%s: successful after %.3f s", held, seconds)
    else:
        log.warning("%s: failed after %.3f s: %s", held, seconds, outcome.errors[0])
