"""The queue in Redis: what is ready, what is leased, what is due. Everything here can be rebuilt from the tables."""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from redis.asyncio import Redis

from servicekit.clock import Clock
from servicekit.redis import Script, commands_of, translated
from services.scheduler.domain.matching import Offer
from services.scheduler.domain.ports import Held, Timer, TimerKind
from services.scheduler.domain.records import AttemptRef, Changes, Claimed, ExecutorProfile, Live, Over, Place
from services.scheduler.domain.states import State
from services.scheduler.queue import keys
from services.scheduler.queue.epoch import Epoch
from services.scheduler.queue.replicas import Replicas
from services.scheduler.queue.steps import Steps
from services.scheduler.queue.wakeups import Wakeups

SCRIPTS: Final = "services.scheduler.queue.scripts"
# How long a claim may take to be recorded before somebody looks what became of it.
CLAIM_MS = 3_000
# A timer that was handed out comes again after this long, unless it is done.
AGAIN_MS = 3_000
KINDS: Final = frozenset(TimerKind)
# Of an executor that offers nothing in particular.
NO_OFFER = Offer().text
# What claim.lua notes beside the sums.
SHORT_OF_ROOM = "w"


class Queue(Epoch, Replicas):
    """Lanes, timers, loads, the epoch and the replicas."""

    def __init__(self, redis: "Redis", clock: Clock, wakeups: Wakeups, *, lease_ms: int) -> None:
        Epoch.__init__(self, redis)
        Replicas.__init__(self, redis, clock)
        self._commands = commands_of(redis)
        self._wakeups = wakeups
        self.lease_ms = lease_ms
        self._claim = Script(redis, SCRIPTS, "claim.lua")
        self._settle = Script(redis, SCRIPTS, "settle.lua")
        self._extend = Script(redis, SCRIPTS, "extend.lua")
        self._due = Script(redis, SCRIPTS, "due.lua")
        self._grace = Script(redis, SCRIPTS, "grace.lua")
        # Colonies that are known to be in the set of those with timers; each look at the set corrects it (colonies).
        self._timed: set[str] = set()
        # Of these, what the last look did not find.
        self._missed: set[str] = set()

    async def apply(self, colony: str, changes: Changes) -> None:
        """After a commit: what it changed. Doing it again, or late, does no harm.

        Raises:
            Unavailable: Redis does not answer.
        """
        steps = Steps(self._now_ms())
        for over in changes.released:
            self._release(steps, colony, over)
        for place in changes.withdrawn:
            steps.withdraw(place)
        steps.enqueue(changes.ready)
        steps.news += map(str, changes.touched)
        # Nobody follows what has only just been submitted, but for those who follow everything.
        steps.has_changed = bool(changes.ready)
        await self._run_steps(colony, steps)
        for executor_id in {over.executor_id for over in changes.released}:
            self._wakeups.freed(colony, executor_id)

    def _release(self, steps: Steps, colony: str, over: Over) -> None:
        announce = not self._wakeups.is_here(colony, over.executor_id)
        steps.release(over.process_id, over.number, over.executor_id, announce=announce)

    async def claim(
        self, colony: str, executor: ExecutorProfile, at_most: int, in_flight: int = 0
    ) -> tuple[list[Claimed], bool]:
        """Takes the most urgent processes that an executor may run and has room for out of their lanes, and puts them on
        offer to it for CLAIM_MS. Its open attempts do not come to more than `in_flight` (0: no bound); returns also whether it
        has so many now. Nothing while paused.

        Raises:
            Unavailable: Redis does not answer.
        """
        until = self._now_ms() + CLAIM_MS
        offer = executor.offer or NO_OFFER
        self._note_timed(colony)
        full, *members = await self._claim(
            _claim_keys(colony, executor), [keys.prefix(colony), executor.identity, offer, at_most, in_flight, until]
        )
        return [keys.claimed(member) for member in members], bool(full)

    async def confirm(self, colony: str, executor_id: str, assigned: Sequence[Live], undone: Sequence[Claimed]) -> list[UUID]:
        """After a claim was recorded: the attempts are on offer for a whole lease and their time limits begin; those that were
        not recorded are nobody's. Heartbeats and closes of these attempts may have come first. Returns the processes whose
        attempts have neither offer nor lease any more: they are over, or their offers ran out before.

        Raises:
            Unavailable: Redis does not answer.
        """
        steps = Steps(self._now_ms())
        until = self._now_ms() + self.lease_ms
        for live in assigned:
            steps.disarm_wait(live.id, live.wait_deadline)
            steps.confirm(live, until)
            steps.news += [str(one) for one in (live.id, live.workflow_id) if one is not None]
        for claimed in undone:
            self._release(steps, colony, Over(claimed.id, claimed.attempt, executor_id))
        unknown = await self._run_steps(colony, steps)
        if undone:
            self._wakeups.freed(colony, executor_id)
        return [UUID(attempt.partition("|")[0]) for attempt in unknown]

    async def extend(self, colony: str, refs: Sequence[AttemptRef], executor_id: str) -> list[AttemptRef]:
        """Extends leases; returns the attempts that have none.

        Raises:
            Unavailable: Redis does not answer.
        """
        attempts = [keys.attempt_of(ref.process_id, ref.number, executor_id) for ref in refs]
        missing = await self._extend([keys.timers(colony)], [self._now_ms() + self.lease_ms, *attempts])
        return [refs[position - 1] for position in missing]

    async def accord(self, colony: str, lives: Sequence[Live], over: Sequence[Over] = ()) -> None:
        """Makes the queue say what these rows say. Leases that are there keep their time; attempts that have none are on offer;
        those that are over lose theirs, so that the next heartbeat tells their executors. A lane may keep what its row says is
        not ready: whoever claims it learns that from the row.

        Raises:
            Unavailable: Redis does not answer.
        """
        steps = Steps(self._now_ms())
        until = self._now_ms() + self.lease_ms
        for attempt in over:
            self._release(steps, colony, attempt)
        steps.enqueue([live.place for live in lives if live.is_ready])
        for live in lives:
            if live.state is State.RUNNING:
                steps.offer(live, until)
        # What was learnt of the colonies with timers may have been lost with the server: here it is told again, always.
        self._timed.discard(colony)
        await self._run_steps(colony, steps)
        for executor_id in {attempt.executor_id for attempt in over}:
            self._wakeups.freed(colony, executor_id)

    async def renew(self, colony: str, lives: Sequence[Live]) -> None:
        """Gives these attempts, which their executor holds, new leases.

        Raises:
            Unavailable: Redis does not answer.
        """
        steps = Steps(self._now_ms())
        for live in lives:
            steps.lease(live, self._now_ms() + self.lease_ms)
        await self._run_steps(colony, steps)

    async def colonies(self) -> list[str]:
        """The colonies that have, or once had, timers.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            names = {str(name) for name in await self._redis.smembers(keys.TIMED)}
            # With the server, or with another replica that forgot a removed colony, the set may have lost some. Those may have
            # got timers since, told by this replica, which knew nothing of the loss: in the very moment of this look even.
            missing = self._timed - names
            self._timed &= names
            for colony in (missing | self._missed) - names:
                if await self._redis.exists(keys.timers(colony)):
                    await self._redis.sadd(keys.TIMED, colony)
                    names.add(colony)
            self._missed = missing
        return sorted(names)

    async def due(self, colony: str, at_most: int) -> list[Timer]:
        """Timers that are due, for this replica to take care of. Until they are `done`, they come again.

        Raises:
            Unavailable: Redis does not answer.
        """
        now = self._now_ms()
        # Half a millisecond, which no other timer has: `done` tells by it whether a timer was set anew meanwhile.
        again = now + AGAIN_MS + 0.5
        timers = await self._due([keys.timers(colony)], [now, str(again), at_most])
        return [_parsed(timer, again) for timer in timers if timer.partition("|")[0] in KINDS]

    async def done(self, colony: str, timers: Sequence[Timer], lives: Sequence[Live] = ()) -> None:
        """Takes away timers that were taken care of, unless they were set anew meanwhile: an offer, when its claim was recorded
        late. Attempts whose leases or offers are among them are over, and let go. In the same step those of `lives` that are
        ready go into their lanes.

        Raises:
            Unavailable: Redis does not answer.
        """
        steps = Steps(self._now_ms())
        executors = set()
        for timer in timers:
            executor_id = timer.member.rpartition("|")[2] if timer.kind in {TimerKind.LEASE, TimerKind.OFFER} else ""
            if executor_id:
                executors.add(executor_id)
            steps.finish(timer, executor_id, announce=not self._wakeups.is_here(colony, executor_id))
        steps.enqueue([live.place for live in lives if live.is_ready])
        await self._run_steps(colony, steps)
        for executor_id in executors:
            self._wakeups.freed(colony, executor_id)

    async def grace(self, colony: str) -> int:
        """No lease ends before a whole lease from now; returns how many were extended.

        Raises:
            Unavailable: Redis does not answer.
        """
        return int(await self._grace([keys.timers(colony)], [self._now_ms() + self.lease_ms]))

    async def announce(self, colony: str, touched: Sequence[UUID]) -> None:
        """Tells followers in all replicas that these processes and workflows have news.

        Raises:
            Unavailable: Redis does not answer.
        """
        if touched:
            steps = Steps(self._now_ms())
            steps.news += map(str, touched)
            await self._run_steps(colony, steps)

    async def set_paused(self, colony: str, *, paused: bool) -> None:
        """While a colony is paused nothing of it is given out; afterwards everyone who waits in it looks once. Setting what is
        set does nothing.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            if paused:
                await self._redis.set(keys.paused(colony), "1")
                return
            if not await self._redis.delete(keys.paused(colony)):
                return
            await self._redis.publish(keys.READY_CHANNEL + colony, f"{self._wakeups.replica}\n{keys.ANY}\n")
        self._wakeups.wake_colony(colony)

    async def is_paused(self, colony: str) -> bool:
        """Whether nothing of a colony is given out.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            return bool(await self._redis.exists(keys.paused(colony)))

    async def position(self, colony: str, place: Place) -> tuple[int, int]:
        """How many come before a process in its lane (-1: it is not there), and how long the lane is.

        Raises:
            Unavailable: Redis does not answer.
        """
        key = keys.lane_key(colony, keys.lane(place))
        with translated():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.zrank(key, keys.member(place)[1])
                pipeline.zcard(key)
                rank, length = await pipeline.execute()
        return (-1 if rank is None else int(rank)), int(length)

    async def loads(self, colony: str, identities: Sequence[str]) -> dict[str, tuple[dict[str, int], int]]:
        """What executors' open attempts use, by fields as in claim.lua, and how many there are.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for identity in identities:
                    pipeline.hgetall(keys.load(colony, identity))
                    pipeline.hlen(keys.held(colony, identity))
                found = iter(await pipeline.execute())
        loads: dict[str, tuple[dict[str, int], int]] = {}
        for identity, fields, count in zip(identities, found, found, strict=True):
            load = {str(field): int(value) for field, value in fields.items() if field != SHORT_OF_ROOM}
            loads[identity] = (load, int(count))
        return loads

    async def held_page(self, colony: str, cursor: int, count: int) -> tuple[int, list[Held]]:
        """Attempts that have a lease or an offer, from about `count` timers, and where to go on: begin at 0, end at 0. Every
        attempt that has one all the while is named, maybe twice.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            following, entries = await self._redis.zscan(keys.timers(colony), cursor, count=count)
        found = []
        for member, _ in entries:
            kind, process_id, *rest = str(member).split("|")
            if kind in {TimerKind.LEASE, TimerKind.OFFER}:
                found.append(Held(UUID(process_id), int(rest[0]), rest[1], kind == TimerKind.LEASE))
        return int(following), found

    async def forget(self, colony: str) -> None:
        """Deletes all keys of a removed colony.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            async for key in self._redis.scan_iter(match=_escaped(keys.prefix(colony)) + "*", count=1_000):
                await self._redis.unlink(key)
            await self._redis.srem(keys.TIMED, colony)
        self._timed.discard(colony)

    def _note_timed(self, colony: str) -> None:
        """Posts that a colony has timers, before the script that sets them. Nobody waits for it, so that whoever asks the queue
        from here on is answered after the script; if it fails it is posted again with the next.
        """
        if colony in self._timed:
            return

        def noted(answer: "asyncio.Future[Any]") -> None:
            if not answer.cancelled() and answer.exception() is None:
                self._timed.add(colony)

        self._commands.post("SADD", keys.TIMED, colony).add_done_callback(noted)

    async def _run_steps(self, colony: str, steps: Steps) -> list[str]:
        lanes = steps.lanes()
        absorbed = self._wakeups.absorbable(colony, lanes)
        arguments = steps.arguments(absorbed)
        if not arguments:
            return []
        self._note_timed(colony)
        grown, unknown = await self._settle(
            [keys.timers(colony)], [keys.prefix(colony), colony, self._wakeups.replica, *arguments]
        )
        for (lane, _), new, taken in zip(lanes, grown, absorbed, strict=True):
            self._wakeups.wake(colony, lane, new, taken)
        if steps.has_news:
            self._wakeups.news(colony, steps.news)
        return list(unknown)


@lru_cache(maxsize=4_096)
def _claim_keys(colony: str, executor: ExecutorProfile) -> tuple[str, ...]:
    return (
        keys.timers(colony),
        keys.paused(colony),
        keys.held(colony, executor.identity),
        keys.load(colony, executor.identity),
        *keys.executor_indexes(colony, executor),
    )


def _parsed(member: str, again_ms: float) -> Timer:
    kind, process_id, *rest = member.split("|")
    attempt = int(rest[0]) if kind in {TimerKind.EXEC, TimerKind.LEASE, TimerKind.OFFER} else 0
    return Timer(member, TimerKind(kind), UUID(process_id), attempt, again_ms)


def _escaped(pattern: str) -> str:
    return "".join(f"\\{character}" if character in "*?[]\\" else character for character in pattern)
