"""Dispatch: long polls and streams of assignments, leases, heartbeats (I2, I5)."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import structlog

from servicekit.batching import GroupCommit
from servicekit.clock import Clock, datetime_of
from servicekit.drain import Drain
from servicekit.failures import Failure, PermissionDenied, Unavailable
from services.scheduler.domain import endings
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.kin import Kin
from services.scheduler.domain.ports import Executors, Heard, Queue, Tables, Waiter, Wakeups
from services.scheduler.domain.records import Assigned, AttemptRef, Begun, Changes, Claim, Claimed, ExecutorProfile
from services.scheduler.domain.states import State
from services.scheduler.domain.watermark import Steps

log = structlog.get_logger()

# A wake-up is a published message and can be lost: look again this often anyway.
LOOK_AGAIN_S = 5.0
# Attempts in one answer, and rows that are written together.
MAX_ASSIGN = 100
MAX_ROWS = 500
NO_LIMIT = 0
LATER = timedelta(milliseconds=100)


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
        kin: Kin,
        steps: Steps,
        drain: Drain,
        clock: Clock,
    ) -> None:
        self._tables = tables
        self._queue = queue
        self._aftermath = aftermath
        self._wakeups = wakeups
        self._executors = executors
        self._heard = heard
        self._kin = kin
        self._steps = steps
        self._drain = drain
        self._clock = clock
        self.group: GroupCommit[Claim, Begun] = GroupCommit(self._write, max_weight=MAX_ROWS)
        self.assigned = 0
        """How many attempts were given out."""
        self.undone = 0
        """How many claims came to nothing: the row said that the process was not ready, or somebody was at it."""
        # The loop itself holds tasks weakly.
        self._later: set[asyncio.Task[None]] = set()

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
                assigned, _ = await self._claim_or_give_back(colony, executor, at_most)
                waiter.got([one.live.place for one in assigned])
                left = until - loop.time()
                if assigned or left <= 0 or self._drain.started.is_set():
                    return assigned
                await self._wait(waiter, min(left, LOOK_AGAIN_S))
                if await self._profile(colony, identity) != executor:
                    # What it may run has changed: it asks again, and waits for the right lanes.
                    return []

    async def stream(self, colony: str, identity: str, max_in_flight: int) -> AsyncGenerator[list[Assigned]]:
        """Keeps an executor filled up to so many open attempts, for ever; an empty list is a sign of life.

        Raises:
            PermissionDenied: the identity is no approved executor (any more).
        """
        await self._profile(colony, identity)
        # At once, so that whoever opened it knows that it is open.
        yield []
        while not self._drain.started.is_set():
            executor = await self._profile(colony, identity)
            with self._wakeups.waiting(colony, executor, max_in_flight) as waiter:
                while not self._drain.started.is_set() and await self._profile(colony, identity) == executor:
                    waiter.look()
                    assigned, full = await self._claim_or_give_back(colony, executor, MAX_ASSIGN, max_in_flight)
                    waiter.got([one.live.place for one in assigned])
                    if full or assigned:
                        # Nothing can be taken until one of its attempts ends, or until these are written.
                        waiter.step_aside()
                    if assigned:
                        try:
                            yield assigned
                        except GeneratorExit:
                            # It was not written to its end, so the executor does not have it.
                            self._after(self._give_back(colony, executor, assigned))
                            raise
                        if not full:
                            continue
                    if not await self._wait(waiter, LOOK_AGAIN_S):
                        yield []

    async def _profile(self, colony: str, identity: str) -> ExecutorProfile:
        executor = await self._executors.get(colony, identity)
        if executor is None:
            msg = "not an approved executor of this colony"
            raise PermissionDenied(msg, reason="EXECUTOR_NOT_APPROVED")
        self._heard.note(colony, identity)
        return executor

    async def _wait(self, waiter: Waiter, seconds: float) -> bool:
        """Whether there may be something new."""
        # A drain that begins from here on wakes everyone.
        if waiter.event.is_set() or self._drain.started.is_set():
            return True
        try:
            async with asyncio.timeout(seconds):
                await waiter.event.wait()
        except TimeoutError:
            return False
        return True

    async def _claim_or_give_back(
        self, colony: str, executor: ExecutorProfile, at_most: int, in_flight: int = NO_LIMIT
    ) -> tuple[list[Assigned], bool]:
        """Claims to its end even if the caller goes away meanwhile; then what it got is given back at once."""
        claiming = asyncio.ensure_future(self._claim(colony, executor, at_most, in_flight))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            self._after(self._give_back_claimed(colony, executor, claiming))
            raise

    async def _claim(self, colony: str, executor: ExecutorProfile, at_most: int, in_flight: int) -> tuple[list[Assigned], bool]:
        """New attempts, and whether the executor has all that it may have."""
        # Members of lanes can be out of date; the row decides. If all were, there may be more behind them.
        while True:
            claimed, full = await self._queue.claim(colony, executor, at_most, in_flight)
            if not claimed:
                return [], full
            token = self._steps.begin()
            try:
                begun = await self.group.do(Claim(colony, executor, claimed), len(claimed))
            except BaseException:
                self._aftermath.doubt(colony, [one.id for one in claimed])
                self._steps.end(token)
                raise
            self.assigned += len(begun.assigned)
            self.undone += len(claimed) - len(begun.assigned)
            # Those who got work need not wait until the queue has heard that they did.
            self._after(self._confirm(colony, executor, claimed, begun, token))
            if begun.assigned:
                return begun.assigned, full and len(begun.assigned) == len(claimed)

    async def _write(self, claims: list[Claim]) -> Sequence[Begun]:
        return await self._tables.assign(claims, datetime_of(self._clock.now_ns()))

    async def _confirm(
        self, colony: str, executor: ExecutorProfile, claimed: Sequence[Claimed], begun: Begun, token: object
    ) -> None:
        try:
            lives = [one.live for one in begun.assigned]
            self._aftermath.begun(colony, lives)
            for live in lives:
                if live.workflow_id is not None:
                    self._kin.add(live.id)
            ids = {live.id for live in lives}
            undone = [one for one in claimed if one.id not in ids]
            if unknown := await self._queue.confirm(colony, executor.identity, lives, undone):
                # Over already, or the queue had given them up: their rows tell.
                await self._aftermath.settle(colony, unknown)
            if undone:
                await self._put_back(colony, undone, set(begun.left))
        except BaseException as error:
            self._aftermath.doubt(colony, [one.id for one in claimed])
            if not isinstance(error, Unavailable):
                raise
            log.warning("assigned, but the queue is still to be told", error=error.message)
        finally:
            self._steps.end(token)

    async def _put_back(self, colony: str, undone: Sequence[Claimed], left: set[UUID]) -> None:
        """Processes that were claimed and did not begin. Those that were too much for one answer are ready still; of others the
        row tells: what somebody is at, or what is ahead of this replica's clock, is looked at again a little later.
        """
        ready = [live.place for live in await self._tables.lives(colony, [one.id for one in undone]) if live.is_ready]
        later = datetime_of(self._clock.now_ns()) + LATER
        places = [place if place.id in left else replace(place, not_before=place.not_before or later) for place in ready]
        await self._queue.apply(colony, Changes(ready=places))

    def _after(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _give_back_claimed(
        self, colony: str, executor: ExecutorProfile, claiming: "asyncio.Future[tuple[list[Assigned], bool]]"
    ) -> None:
        with suppress(Failure):  # then nothing was assigned, or it is in doubt and seen to
            assigned, _ = await claiming
            await self._give_back(colony, executor, assigned)

    async def _give_back(self, colony: str, executor: ExecutorProfile, assigned: Sequence[Assigned]) -> None:
        """Ends attempts that never reached their executor."""
        if not assigned:
            return
        refs = [AttemptRef(one.live.id, one.live.attempt) for one in assigned]
        numbers = {ref.process_id: ref.number for ref in refs}
        with self._steps.under_way():
            try:
                changes, _ = await self._tables.end(
                    colony,
                    refs,
                    lambda row: endings.give_back(row, numbers[row.id], executor.identity),
                    datetime_of(self._clock.now_ns()),
                )
                await self._aftermath.changed(colony, changes)
            except Failure as error:
                # The offers run out and do the same, only later.
                log.warning("could not give back what a vanished caller claimed", error=error.message)
                self._aftermath.doubt(colony, list(numbers))

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
