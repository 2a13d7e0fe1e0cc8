"""The scheduler's queue on a real server, with the client and the clock under it, and what its tests put into it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from servicekit import redis as servicekit_redis
from servicekit.clock import ManualClock, datetime_of
from services.scheduler.domain.ids import new_id
from services.scheduler.domain.matching import Needs, Offer, meets
from services.scheduler.domain.records import AttemptRef, Changes, Claimed, ExecutorProfile, Live, Over, Place
from services.scheduler.domain.states import State
from services.scheduler.queue import keys
from services.scheduler.queue.queue import Queue
from services.scheduler.queue.wakeups import Wakeups

COLONY = "acme"
START_NS = 1_679_906_715_000_000_000
START = datetime_of(START_NS)
START_MS = START_NS // 1_000_000
LEASE_MS = 10_000


def executor(name: str = "worker-1", *types: str, identity: str = "", location: str = "", offer: str = "") -> ExecutorProfile:
    """An executor of type "cli", unless other types are given."""
    return ExecutorProfile(identity or name.encode().hex().ljust(64, "0"), name, types or ("cli",), location, offer)


WORKER = executor("worker-1")
WORKER_2 = executor("worker-2")


def offer(**parts: Any) -> str:
    """The text of an offer."""
    return json.dumps({"c": 0, "m": 0, "s": 0, "d": 0, "p": 0, "g": [], "l": {}, "a": [], "w": "", **parts})


def needs(**parts: Any) -> str:
    """The text of what a process needs."""
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def place(sequence: int, time_ns: int = START_NS, **fields: Any) -> Place:
    """A process as the queue sees it."""
    defaults = {
        "executor_type": "cli",
        "executor_names": (),
        "location": "",
        "needs": "",
        "attempt": 1,
        "wait_deadline": None,
        "not_before": None,
        "colony": COLONY,
    }
    return Place(id=new_id(START_NS), sequence=sequence, priority_time=time_ns, **{**defaults, **fields})


def running(sequence: int = 1, **fields: Any) -> Live:
    """A process with a live attempt of WORKER."""
    defaults: dict[str, Any] = {
        "id": new_id(START_NS),
        "colony": COLONY,
        "workflow_id": None,
        "node_name": "",
        "func_name": "f",
        "executor_type": "cli",
        "executor_names": (),
        "location": "",
        "needs": "",
        "priority_time": START_NS,
        "state": State.RUNNING,
        "pending_parents": 0,
        "attempt": 1,
        "retries": 0,
        "undelivered": 0,
        "max_retries": 0,
        "backoff": (),
        "backoff_until": None,
        "max_wait_ms": 0,
        "max_exec_ms": 0,
        "executor_id": WORKER.identity,
        "executor_name": WORKER.name,
        "initiator": "aa" * 32,
        "ready_at": START,
        "started_at": START,
    }
    return Live(sequence=sequence, **{**defaults, **fields})


def assigned(one: Place, claimed: Claimed, to: ExecutorProfile = WORKER, **fields: Any) -> Live:
    """The row of a process after what was claimed of it was recorded."""
    return running(
        one.sequence,
        id=one.id,
        colony=one.colony,
        executor_type=one.executor_type,
        executor_names=one.executor_names,
        location=one.location,
        needs=one.needs,
        priority_time=one.priority_time,
        attempt=claimed.attempt,
        executor_id=to.identity,
        executor_name=to.name,
        **fields,
    )


def waiting(live: Live) -> Live:
    """The row of a process whose attempt ended and which is ready for the next."""
    return replace(live, state=State.WAITING, executor_id="", executor_name="", started_at=None)


def over_of(live: Live) -> Over:
    """Its attempt, as what is over."""
    return Over(live.id, live.attempt, live.executor_id)


def ref_of(live: Live) -> AttemptRef:
    """Its attempt's name."""
    return AttemptRef(live.id, live.attempt)


def may_run(one: Place, by: ExecutorProfile) -> bool:
    """Whether an idle executor may run a process."""
    return (
        one.executor_type in by.executor_types
        and (not one.executor_names or by.name in one.executor_names)
        and one.location in {"", by.location}
        and meets(Offer.parse(by.offer), Needs.parse(one.needs))
    )


def in_order(places: Sequence[Place]) -> list[UUID]:
    """The ids of processes, the most urgent first."""
    return [one.id for one in sorted(places, key=lambda one: (one.priority_time, one.sequence))]


@dataclass(frozen=True, slots=True)
class Line:
    """A queue, and what is stored for the colony."""

    queue: Queue
    wakeups: Wakeups
    redis: "Redis"
    clock: ManualClock

    async def ready(self, *places: Place) -> None:
        """Puts processes into their lanes."""
        await self.queue.apply(COLONY, Changes(ready=list(places)))

    async def released(self, *lives: Live) -> None:
        """Their attempts ended."""
        await self.queue.apply(COLONY, Changes(released=[over_of(live) for live in lives]))

    async def timers(self) -> dict[str, int]:
        """What is due when, unix milliseconds."""
        found: Any = await self.redis.zrange(keys.timers(COLONY), 0, -1, withscores=True)
        return {member: int(score) for member, score in found}

    async def keys_of_colony(self) -> set[str]:
        """Every key of any colony."""
        return {key async for key in self.redis.scan_iter(match="colonies:{*")}

    async def everything(self) -> dict[str, Any]:
        """All that is stored for colonies."""
        found: dict[str, Any] = {}
        for key in await self.keys_of_colony():
            kind = await self.redis.type(key)
            if kind == "zset":
                found[key] = await self.redis.zrange(key, 0, -1, withscores=True)
            elif kind == "hash":
                found[key] = await self.redis.hgetall(key)
            else:
                found[key] = await self.redis.get(key)
        return found

    async def claimed(self, at_most: int = 100, by: ExecutorProfile = WORKER, in_flight: int = 0) -> list[Claimed]:
        """Takes the most urgent."""
        return (await self.queue.claim(COLONY, by, at_most, in_flight))[0]

    async def claim(self, at_most: int = 100, by: ExecutorProfile = WORKER, in_flight: int = 0) -> list[UUID]:
        """Takes the most urgent; their ids."""
        return [one.id for one in await self.claimed(at_most, by, in_flight)]

    async def load(self, by: ExecutorProfile = WORKER) -> tuple[dict[str, int], int]:
        """What an executor's open attempts use, and how many these are. Quantities of nothing are left out."""
        used, count = (await self.queue.loads(COLONY, [by.identity]))[by.identity]
        return {field: quantity for field, quantity in used.items() if quantity}, count


def line_over(client: "Redis", clock: ManualClock) -> Line:
    """Another replica's queue."""
    wakeups = Wakeups(client)
    return Line(Queue(client, clock, wakeups, lease_ms=LEASE_MS), wakeups, client, clock)


@asynccontextmanager
async def opened_line(redis_url: str) -> AsyncIterator[Line]:
    """A queue whose clock stands still until the test moves it."""
    client = servicekit_redis.connect(redis_url)
    try:
        yield line_over(client, ManualClock(START_NS))
    finally:
        await client.aclose()


@asynccontextmanager
async def listening(line: Line) -> AsyncIterator[None]:
    """Its replica hears what others publish."""
    task = asyncio.create_task(line.wakeups.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
