"""The queue in Redis: what is ready, what is leased, what is due. Everything here can be rebuilt from the tables."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from redis.asyncio import Redis

from servicekit.clock import Clock, unix_ms
from servicekit.redis import Script, translated
from services.scheduler.domain.ports import Intention, Timer, TimerKind
from services.scheduler.domain.priority import process_of
from services.scheduler.domain.records import AttemptRef, Changes, ExecutorProfile, Live, Over, Place
from services.scheduler.domain.states import State
from services.scheduler.queue import keys

SCRIPTS = "services.scheduler.queue.scripts"
# How long a step may take from its first touch of Redis to its last, before somebody looks whether it got lost half-way.
SETTLE_MS = 3_000
# A step that was found half-way is looked at again after this long: its transaction may have been open still.
SETTLE_AGAIN_MS = 15_000
# A rebuild by a replica that died is taken up by another one after this long; each page renews it.
REBUILD_LOCK_MS = 3_000
# If no replica looked after the queue for this long, leases that ran out meanwhile get a grace.
TICKED_MS = 5_000

Sketch = dict[str, list[Any]]


class Queue:
    """Lanes, timers and the epoch."""

    def __init__(self, redis: "Redis", clock: Clock, *, lease_ms: int) -> None:
        self._redis = redis
        self._clock = clock
        self.lease_ms = lease_ms
        self._claim = Script(redis, SCRIPTS, "claim.lua")
        self._settle = Script(redis, SCRIPTS, "settle.lua")
        self._extend = Script(redis, SCRIPTS, "extend.lua")
        self._due = Script(redis, SCRIPTS, "due.lua")
        self._grace = Script(redis, SCRIPTS, "grace.lua")
        self._forget_attempts = Script(redis, SCRIPTS, "forget_attempts.lua")
        self._rebuild = Script(redis, SCRIPTS, "rebuild.lua")

        # Colonies that are known to be in the set of those with timers; each look at the set corrects it (colonies).
        self._timed: set[str] = set()

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000

    async def intend_submit(self, colony: str, actor: str, request_id: str) -> Intention:
        """Before a submit: should the queue not be told of its commit, this says where to look.

        Raises:
            Unavailable: Redis does not answer.
        """
        return await self._intend(colony, [keys.submit_timer(actor, request_id, self._now_ms())])

    async def intend(self, colony: str, process_ids: Sequence[UUID]) -> Intention:
        """Before a transaction that changes these processes, as for a submit.

        Raises:
            Unavailable: Redis does not answer.
        """
        since = self._now_ms()
        return await self._intend(colony, [keys.settle_timer(process_id, since) for process_id in process_ids])

    async def intend_workflow(self, colony: str, workflow_id: UUID) -> Intention:
        """Before a transaction that changes a whole workflow, as for a submit.

        Raises:
            Unavailable: Redis does not answer.
        """
        return await self._intend(colony, [keys.workflow_timer(workflow_id, self._now_ms())])

    async def _intend(self, colony: str, timers: Intention) -> Intention:
        at = self._now_ms() + SETTLE_MS
        await self._run(colony, {"arm": [[timer, at] for timer in timers]})
        return timers

    async def apply(self, colony: str, changes: Changes, intended: Intention) -> None:
        """After a commit: what it changed, and the end of the intention.

        Raises:
            Unavailable: Redis does not answer.
        """
        sketch: Sketch = defaultdict(list)
        sketch["disarm"] += intended
        for live in changes.released:
            sketch["disarm"] += _attempt_timers(live.id, live.attempt, live.executor_id)
        for place in changes.withdrawn:
            _withdraw(sketch, place)
        _enqueue(sketch, changes.ready)
        sketch["news"] += map(str, changes.touched)
        await self._run(colony, sketch)

    async def claim(self, colony: str, executor: ExecutorProfile, at_most: int) -> tuple[list[UUID], Intention]:
        """Takes the most urgent processes that an executor may run out of their lanes.

        Raises:
            Unavailable: Redis does not answer.
        """
        now = self._now_ms()
        members: list[str] = await self._claim(
            [keys.timers(colony), *keys.executor_indexes(colony, executor)],
            [keys.prefix(colony), executor.location, at_most, now + SETTLE_MS, now],
        )
        ids = [UUID(process_of(member)) for member in members]
        return ids, [keys.settle_timer(process_id, now) for process_id in ids]

    async def lease(self, colony: str, lives: Sequence[Live], intended: Intention) -> None:
        """After attempts were recorded: they are on offer, their time limits begin, and the claim's own timers end.

        Raises:
            Unavailable: Redis does not answer.
        """
        sketch: Sketch = defaultdict(list)
        sketch["disarm"] += intended
        for live in lives:
            _disarm_wait(sketch, live.id, live.wait_deadline)
            self._offer(sketch, live)
            sketch["news"] += [str(one) for one in (live.id, live.workflow_id) if one is not None]
        await self._run(colony, sketch)

    def _offer(self, sketch: Sketch, live: Live) -> None:
        until = self._now_ms() + self.lease_ms
        offer = keys.offer_timer(live.id, live.attempt, live.executor_id)
        sketch["offer"].append([offer, keys.lease_timer(live.id, live.attempt, live.executor_id), until])
        if (deadline := live.exec_deadline) is not None:
            sketch["keep"].append([keys.exec_timer(live.id, live.attempt), _timer_ms(deadline)])

    async def extend(self, colony: str, refs: Sequence[AttemptRef], executor_id: str) -> list[AttemptRef]:
        """Extends leases; returns the attempts that have none.

        Raises:
            Unavailable: Redis does not answer.
        """
        timers = [
            timer(ref.process_id, ref.number, executor_id) for ref in refs for timer in (keys.lease_timer, keys.offer_timer)
        ]
        missing = await self._extend([keys.timers(colony)], [self._now_ms() + self.lease_ms, *timers])
        return [refs[position - 1] for position in missing]

    async def accord(self, colony: str, lives: Sequence[Live], over: Sequence[Over] = ()) -> None:
        """Makes the queue say what these rows say. Leases that are there keep their time; attempts that have none are on offer;
        those that are over lose theirs, so that the next heartbeat tells their executors.

        Raises:
            Unavailable: Redis does not answer.
        """
        sketch: Sketch = defaultdict(list)
        for attempt in over:
            sketch["disarm"] += _attempt_timers(attempt.process_id, attempt.number, attempt.executor_id)
        _enqueue(sketch, [live.place for live in lives if live.is_ready])
        for live in lives:
            if live.state is State.RUNNING:
                self._offer(sketch, live)
        # What was learnt of the colonies with timers may have been lost with the server: here it is told again, always.
        self._timed.discard(colony)
        await self._run(colony, sketch)

    async def renew(self, colony: str, lives: Sequence[Live]) -> None:
        """Gives these attempts, which their executor holds, new leases.

        Raises:
            Unavailable: Redis does not answer.
        """
        until = self._now_ms() + self.lease_ms
        leases = [[keys.lease_timer(live.id, live.attempt, live.executor_id), until] for live in lives]
        await self._run(colony, {"arm": leases})

    async def colonies(self) -> list[str]:
        """The colonies that have, or once had, timers.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            names = {str(name) for name in await self._redis.smembers(keys.TIMED)}
        # With the server, or with another replica that forgot a removed colony, the set may have lost some.
        self._timed &= names
        return sorted(names)

    async def due(self, colony: str, at_most: int) -> list[Timer]:
        """Timers that are due, for this replica to take care of. Until they are `done`, they come again.

        Raises:
            Unavailable: Redis does not answer.
        """
        now = self._now_ms()
        timers = await self._due([keys.timers(colony)], [now, now + SETTLE_MS, at_most])
        return [_parsed(timer) for timer in timers]

    async def done(self, colony: str, timers: Sequence[Timer], later: Sequence[Timer]) -> None:
        """Takes away timers that were taken care of; `later` are to be looked at again, but not soon.

        None of them can have been set anew meanwhile: their names hold the attempt, the deadline or the time they are for.

        Raises:
            Unavailable: Redis does not answer.
        """
        at = self._now_ms() + SETTLE_AGAIN_MS
        sketch: Sketch = {"disarm": [timer.member for timer in timers], "arm": [[timer.member, at] for timer in later]}
        await self._run(colony, sketch)

    async def was_looked_after(self) -> bool:
        """Whether some replica looked after the queue a moment ago.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            return bool(await self._redis.exists(keys.TICKED))

    async def looked_after(self) -> None:
        """Somebody looks after the queue.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            await self._redis.set(keys.TICKED, "", px=TICKED_MS)

    async def grace(self, colony: str) -> int:
        """No lease ends before a whole lease from now; returns how many were extended.

        Raises:
            Unavailable: Redis does not answer.
        """
        return int(await self._grace([keys.timers(colony)], [self._now_ms() + self.lease_ms]))

    async def is_current(self) -> bool:
        """Whether the queue was built in this very run of the Redis server.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            run, epoch = await asyncio.gather(self._run_id(), self._redis.get(keys.EPOCH))
        return bool(epoch == run)

    async def begin_rebuild(self) -> str | None:
        """A token to go on with a rebuild, or None: another replica is at it. Attempts are forgotten, to be read anew.

        Raises:
            Unavailable: Redis does not answer.
        """
        token = uuid4().hex
        with translated():
            if not await self._redis.set(keys.REBUILDING, token, nx=True, px=REBUILD_LOCK_MS):
                return None
        for colony in await self.colonies():
            await self._forget_attempts([keys.timers(colony)], [])
        return token

    async def go_on_rebuilding(self, token: str) -> bool:
        """Whether a rebuild is still this replica's; if not, Redis was lost again or another one took over.

        Raises:
            Unavailable: Redis does not answer.
        """
        return bool(await self._rebuild([keys.REBUILDING, keys.EPOCH], [token, REBUILD_LOCK_MS, ""]))

    async def finish_rebuild(self, token: str) -> bool:
        """Declares the queue rebuilt in this run of the server, if nothing was lost since the rebuild began.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            run = await self._run_id()
        return bool(await self._rebuild([keys.REBUILDING, keys.EPOCH], [token, REBUILD_LOCK_MS, run]))

    async def announce(self, colony: str, touched: Sequence[UUID]) -> None:
        """Tells followers in all replicas that these processes and workflows have news.

        Raises:
            Unavailable: Redis does not answer.
        """
        if touched:
            with translated():
                await self._redis.publish(keys.CHANGED_CHANNEL + colony, "\n".join(str(one) for one in touched))

    async def forget(self, colony: str) -> None:
        """Deletes all keys of a removed colony.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            async for key in self._redis.scan_iter(match=_escaped(keys.prefix(colony)) + "*", count=1_000):
                await self._redis.delete(key)
            await self._redis.srem(keys.TIMED, colony)
        self._timed.discard(colony)

    async def _run_id(self) -> str:
        info: dict[str, Any] = await self._redis.info("server")
        return str(info["run_id"])

    async def _run(self, colony: str, sketch: Sketch) -> None:
        arguments = [keys.prefix(colony), colony, json.dumps({part: items for part, items in sketch.items() if items})]
        with translated():
            if colony not in self._timed:
                await self._redis.sadd(keys.TIMED, colony)
                self._timed.add(colony)
            await self._settle([keys.timers(colony)], arguments)


def _parsed(member: str) -> Timer:
    kind, *parts = member.split("|")
    match kind:
        case TimerKind.SETTLE:
            return Timer(member, TimerKind.SETTLE, process_id=UUID(parts[0]), since_ms=int(parts[1]))
        case TimerKind.SUBMIT:
            # A request id may hold the separator.
            request_id = "|".join(parts[1:-1])
            return Timer(member, TimerKind.SUBMIT, actor=parts[0], request_id=request_id, since_ms=int(parts[-1]))
        case TimerKind.WORKFLOW:
            return Timer(member, TimerKind.WORKFLOW, workflow_id=UUID(parts[0]), since_ms=int(parts[1]))
        case TimerKind.WAIT:
            return Timer(member, TimerKind.WAIT, process_id=UUID(parts[0]))
        case _:
            return Timer(member, TimerKind(kind), process_id=UUID(parts[0]), attempt=int(parts[1]))


def _escaped(pattern: str) -> str:
    return "".join(f"\\{character}" if character in "*?[]\\" else character for character in pattern)


def _timer_ms(moment: datetime) -> int:
    """A deadline for a timer: rounded up, so that a timer never fires before its deadline."""
    return unix_ms(moment) + 1


def _withdraw(sketch: Sketch, place: Place) -> None:
    sketch["withdraw"].append([keys.lane(place), keys.indexes(place), keys.member(place)[1]])
    _disarm_wait(sketch, place.id, place.wait_deadline)


def _disarm_wait(sketch: Sketch, process_id: UUID, deadline: datetime | None) -> None:
    if deadline is not None:
        sketch["disarm"].append(keys.wait_timer(process_id, unix_ms(deadline)))


def _attempt_timers(process_id: UUID, number: int, executor_id: str) -> list[str]:
    return [
        keys.lease_timer(process_id, number, executor_id),
        keys.offer_timer(process_id, number, executor_id),
        keys.exec_timer(process_id, number),
    ]


def _enqueue(sketch: Sketch, places: Sequence[Place]) -> None:
    lanes: dict[str, tuple[list[str], list[str]]] = {}
    for place in places:
        score, member = keys.member(place)
        _, ranked = lanes.setdefault(keys.lane(place), (keys.indexes(place), []))
        # As text: JSON numbers would lose digits on their way through Lua.
        ranked += [str(score), member]
        if place.wait_deadline is not None:
            timer = keys.wait_timer(place.id, unix_ms(place.wait_deadline))
            sketch["arm"].append([timer, _timer_ms(place.wait_deadline)])
    sketch["ready"] += [[lane, indexes, ranked] for lane, (indexes, ranked) in lanes.items()]
