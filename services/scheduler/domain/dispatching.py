"""Dispatch: long polls, leases, heartbeats (I2, I5)."""

import asyncio
from collections.abc import Sequence

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.drain import Drain
from servicekit.failures import Failure, PermissionDenied
from services.scheduler.domain import endings
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.ports import Executors, Heard, Queue, Tables, Waiter, Wakeups
from services.scheduler.domain.records import Assigned, AttemptRef, ExecutorProfile
from services.scheduler.domain.states import State

log = structlog.get_logger()

# A wake-up is a published message and can be lost: look again this often anyway.
LOOK_AGAIN_S = 5.0


class Dispatching:
    """Hands out attempts and keeps them alive."""

    def __init__(
        self,
        *,
        tables: Tables,
        queue: Queue,
        aftermath: Aftermath,
        wakeups: Wakeups,
        executors: Executors,
        heard: Heard,
        drain: Drain,
        clock: Clock,
    ) -> None:
        self._tables = tables
        self._queue = queue
        self._aftermath = aftermath
        self._wakeups = wakeups
        self._executors = executors
        self._heard = heard
        self._drain = drain
        self._clock = clock
        self._giving_back: set[asyncio.Task[None]] = set()

    @property
    def lease_ms(self) -> int:
        """How long a lease lasts."""
        return self._queue.lease_ms

    async def assign(self, colony: str, identity: str, at_most: int, wait_s: float) -> list[Assigned]:
        """The most urgent processes that this executor may run, as new attempts; waits for the first if there is none.

        Raises:
            PermissionDenied: the identity is no approved executor (any more).
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        executor = await self._profile(colony, identity)
        with self._wakeups.waiting(colony, executor) as waiter:
            while True:
                # What changes from here on wakes us: nothing falls between looking and waiting.
                waiter.look()
                assigned = await self._claim_or_give_back(colony, executor, at_most)
                waiter.got([one.live.place for one in assigned])
                left = until - loop.time()
                if assigned or left <= 0 or self._drain.started.is_set():
                    return assigned
                await self._wait(waiter, min(left, LOOK_AGAIN_S))
                if await self._profile(colony, identity) != executor:
                    # What it may run has changed: it asks again, and waits for the right lanes.
                    return []

    async def _profile(self, colony: str, identity: str) -> ExecutorProfile:
        executor = await self._executors.get(colony, identity)
        if executor is None:
            msg = "not an approved executor of this colony"
            raise PermissionDenied(msg, reason="EXECUTOR_NOT_APPROVED")
        self._heard.note(colony, identity)
        return executor

    async def _wait(self, waiter: Waiter, seconds: float) -> None:
        woken = asyncio.ensure_future(waiter.event.wait())
        draining = asyncio.ensure_future(self._drain.started.wait())
        try:
            await asyncio.wait((woken, draining), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            draining.cancel()

    async def _claim_or_give_back(self, colony: str, executor: ExecutorProfile, at_most: int) -> list[Assigned]:
        """Claims to its end even if the caller goes away meanwhile; then what it got is given back at once."""
        claiming = asyncio.ensure_future(self._claim(colony, executor, at_most))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            task = asyncio.create_task(self._give_back(colony, executor, claiming))
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)
            raise

    async def _claim(self, colony: str, executor: ExecutorProfile, at_most: int) -> list[Assigned]:
        # Members of lanes can be out of date; the row decides. If all were, there may be more behind them.
        while True:
            claimed, intended = await self._queue.claim(colony, executor, at_most)
            if not claimed:
                return []
            now = datetime_of(self._clock.now_ns())
            assigned, left = await self._tables.assign(colony, executor, claimed, now)
            if left:
                # More than goes into one answer: back into their lanes.
                await self._queue.accord(colony, await self._tables.lives(colony, left))
            await self._aftermath.assigned(colony, [one.live for one in assigned], intended)
            if assigned:
                return assigned

    async def _give_back(self, colony: str, executor: ExecutorProfile, claiming: "asyncio.Future[list[Assigned]]") -> None:
        try:
            refs = [AttemptRef(one.live.id, one.live.attempt) for one in await claiming]
            if not refs:
                return
            numbers = {ref.process_id: ref.number for ref in refs}
            intended = await self._queue.intend(colony, list(numbers))
            changes, _ = await self._tables.end(
                colony,
                refs,
                lambda row, _prior: endings.give_back(row, numbers[row.id], executor.identity),
                datetime_of(self._clock.now_ns()),
            )
            await self._aftermath.changed(colony, changes, intended)
        except Failure as error:
            # The leases run out and do the same, only later.
            log.warning("could not give back what a vanished poll claimed", error=error.message)

    async def heartbeat(self, colony: str, identity: str, refs: Sequence[AttemptRef]) -> list[tuple[AttemptRef, State]]:
        """Extends leases. Returns the attempts that the executor must drop, with the states of their processes."""
        self._heard.note(colony, identity)
        if not refs:
            return []
        missing = await self._queue.extend(colony, refs, identity)
        if not missing:
            return []
        # Over, or the queue forgot it: the row tells.
        lives = {live.id: live for live in await self._tables.lives(colony, [ref.process_id for ref in missing])}
        drops: list[tuple[AttemptRef, State]] = []
        kept = []
        for ref in missing:
            live = lives.get(ref.process_id)
            if live is not None and endings.holds(live, ref.number, identity):
                kept.append(live)
            else:
                drops.append((ref, live.state if live is not None else State.NONE))
        if kept:
            await self._queue.renew(colony, kept)
            # What ended between the look and the renewal had told the queue before it: then the lease must not stay.
            over = endings.over_since(kept, await self._tables.lives(colony, [live.id for live in kept]))
            if over:
                await self._queue.accord(colony, [], over)
        return drops
