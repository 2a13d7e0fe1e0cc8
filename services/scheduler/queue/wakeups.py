"""Wake-ups: executors that wait for work, and streams that follow a process, in this replica.

Who waits here is woken directly by what this replica does. What its waiters cannot take is published for other replicas, and
what others publish is heard here. A published message can be lost, so waiting also looks again now and then; and whenever a
channel begins to be heard, everyone who waits on it looks once.

A wake is owed: as many executors are woken as there is work, and one that leaves, or that finds it has no room, passes its wake
on to the next that was not tried for it; when nobody is left here, to other replicas.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import structlog
from redis.asyncio import Redis

from servicekit.failures import Unavailable
from servicekit.redis import commands_of
from services.scheduler.domain.records import ExecutorProfile, Place
from services.scheduler.queue.keys import ANY, CHANGED_CHANNEL, NEWS_CHANNEL, READY_CHANNEL, lane
from services.scheduler.queue.serving import consumes, is_limited, serves
from services.scheduler.queue.subscriptions import Subscriptions

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Wake:
    """There is one more process in a lane."""

    lane: str
    # Heard from another replica, which told all: it ends here.
    is_foreign: bool = False
    tried: set["Waiter"] = field(default_factory=set)


class Waiter:
    """An executor's long poll or stream that is ready to take something. `event` is set when it should look."""

    __slots__ = ("_crowd", "_owed", "_wake", "event", "executor", "is_limited")

    def __init__(self, crowd: "Crowd", executor: ExecutorProfile, in_flight: int = 0) -> None:
        self._crowd = crowd
        self.executor = executor
        self.is_limited = in_flight > 0 or is_limited(executor)
        self.event = asyncio.Event()
        # What it is woken for, until it looks.
        self._wake: Wake | None = None
        # What it looks after, or looked after and left: somebody must.
        self._owed: list[Wake] = []

    def may_serve(self, name: str) -> bool:
        """Whether the lane of this name can hold work for its executor."""
        return serves(self.executor, name)

    def look(self) -> None:
        """Before looking into the queue: what wakes it from here on is news."""
        self.event.clear()
        if self._wake is not None:
            self._owed.append(self._wake)
            self._wake = None
        self._crowd.enter(self)

    def got(self, places: Sequence[Place]) -> None:
        """After looking: what there was. What it was woken for and did not take is still owed, unless others were faster."""
        if not self._owed:
            return
        if places:
            taken = {lane(place) for place in places}
            self._owed = [wake for wake in self._owed if wake.lane not in taken]
            return
        owed, self._owed = self._owed, []
        for wake in owed:
            if self.is_limited or consumes(wake.lane):
                self._crowd.pass_on(wake)

    def step_aside(self) -> None:
        """It can take nothing until one of its executor's attempts ends; others look after what it owes. `look` ends this."""
        self._crowd.leave(self)
        # The event stays: since it looked, an attempt may have ended.
        self._pass_on_all()

    def wake(self, wake: Wake) -> None:
        """There may be something for it."""
        wake.tried.add(self)
        self._wake = wake
        self.event.set()

    def gone(self) -> None:
        """It waits no more."""
        self._crowd.leave(self)
        self._pass_on_all()

    def _pass_on_all(self) -> None:
        wakes = [*self._owed, *([self._wake] if self._wake is not None else [])]
        self._owed, self._wake = [], None
        for wake in wakes:
            self._crowd.pass_on(wake)


class Crowd:
    """Who waits in one colony."""

    def __init__(self, colony: str, outbox: "Outbox") -> None:
        self.colony = colony
        self._outbox = outbox
        self.waiters: dict[str, dict[Waiter, None]] = defaultdict(dict)
        # By executor type, those that nobody has woken, the longest waiting first.
        self._idle: dict[str, dict[Waiter, None]] = defaultdict(dict)

    def enter(self, waiter: Waiter) -> None:
        """From now on it can be woken; who is in keeps its place."""
        for executor_type in waiter.executor.executor_types:
            self._idle[executor_type].setdefault(waiter)

    def leave(self, waiter: Waiter) -> None:
        """It is not to be woken for lanes."""
        for executor_type in waiter.executor.executor_types:
            idle = self._idle[executor_type]
            idle.pop(waiter, None)
            if not idle:
                del self._idle[executor_type]

    def _able(self, name: str) -> Iterator[Waiter]:
        executor_type = name.split("|", 1)[0]
        return (waiter for waiter in self._idle.get(executor_type, ()) if waiter.may_serve(name))

    def absorbable(self, lanes: Iterable[tuple[str, int]]) -> list[int]:
        """For lanes and how many processes each may get: how many of these somebody here would be woken for."""
        taken: set[Waiter] = set()
        found = []
        for name, count in lanes:
            before = len(taken)
            for waiter in self._able(name):
                if len(taken) - before == count:
                    break
                taken.add(waiter)
            found.append(len(taken) - before)
        return found

    def wake(self, name: str, count: int, *, is_foreign: bool = False) -> int:
        """Wakes as many of those who may serve the lane as there is work, the longest waiting first; returns how many."""
        woken = [waiter for waiter, _ in zip(self._able(name), range(count), strict=False)]
        for waiter in woken:
            self.leave(waiter)
            waiter.wake(Wake(name, is_foreign))
        return len(woken)

    def pass_on(self, wake: Wake) -> None:
        """Somebody else is to look after it."""
        for waiter in self._able(wake.lane):
            if waiter not in wake.tried:
                self.leave(waiter)
                waiter.wake(wake)
                return
        if not wake.is_foreign:
            self._outbox.post(self.colony, wake.lane, 1)

    def wake_all(self) -> None:
        """Everyone looks once."""
        for waiters in self.waiters.values():
            for waiter in waiters:
                waiter.event.set()

    def freed(self, executor_id: str) -> bool:
        """An executor may have room again; whether it waits here."""
        waiters = self.waiters.get(executor_id, ())
        for waiter in waiters:
            waiter.event.set()
        return bool(waiters)


class Outbox:
    """What is still to be published of lanes that have work for other replicas."""

    def __init__(self, redis: "Redis", replica: str) -> None:
        self._commands = commands_of(redis)
        self._replica = replica
        self._counts: dict[tuple[str, str], int] = defaultdict(int)
        self._filled = asyncio.Event()

    def post(self, colony: str, name: str, count: int) -> None:
        """Processes of a lane for which nobody is left here."""
        self._counts[colony, name] += count
        self._filled.set()

    async def run(self) -> None:
        """Publishes until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            counts, self._counts = self._counts, defaultdict(int)
            messages = [
                self._commands.execute("PUBLISH", READY_CHANNEL + colony, f"{self._replica}\n{name}\n{count}")
                for (colony, name), count in counts.items()
            ]
            try:
                await asyncio.gather(*messages)
            except Unavailable as error:
                # Who waits looks again by itself now and then, for this is not the only way to lose one.
                log.warning("wake-ups were not passed on", error=error.message, lanes=len(counts))


class Wakeups:
    """Who waits in this replica, and the subscription that wakes them."""

    def __init__(self, redis: "Redis") -> None:
        # Messages of its own are heard too, and passed over.
        self.replica = uuid4().hex
        self._crowds: dict[str, Crowd] = {}
        self._followers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._outbox = Outbox(redis, self.replica)
        self._subscriptions = Subscriptions(redis, heard=self._heard, live=self._began)

    @contextmanager
    def waiting(self, colony: str, executor: ExecutorProfile, in_flight: int = 0) -> Iterator[Waiter]:
        """A long poll or a stream waits. `in_flight` bounds the executor's open attempts, 0 does not."""
        crowd = self._crowds.setdefault(colony, Crowd(colony, self._outbox))
        waiter = Waiter(crowd, executor, in_flight)
        crowd.waiters[executor.identity][waiter] = None
        crowd.enter(waiter)
        self._subscriptions.acquire(READY_CHANNEL + colony)
        try:
            yield waiter
        finally:
            self._subscriptions.release(READY_CHANNEL + colony)
            del crowd.waiters[executor.identity][waiter]
            if not crowd.waiters[executor.identity]:
                del crowd.waiters[executor.identity]
            waiter.gone()
            if not crowd.waiters:
                self._crowds.pop(colony, None)

    @asynccontextmanager
    async def following(self, colony: str, one: str | None) -> AsyncIterator[asyncio.Event]:
        """A stream follows a process or a workflow (by id), or all of a colony. Nothing that is told of it after this returned
        is missed, unless Redis is out of reach.
        """
        channel = CHANGED_CHANNEL + colony if one is None else NEWS_CHANNEL + one
        event = asyncio.Event()
        self._followers[channel].add(event)
        self._subscriptions.acquire(channel)
        try:
            if not await self._subscriptions.subscribed(channel):
                log.warning("following without a subscription", channel=channel)
            yield event
        finally:
            self._subscriptions.release(channel)
            self._followers[channel].discard(event)
            if not self._followers[channel]:
                del self._followers[channel]

    def absorbable(self, colony: str, lanes: Sequence[tuple[str, int]]) -> list[int]:
        """For lanes and how many processes each may get: how many of these somebody here would be woken for."""
        crowd = self._crowds.get(colony)
        return crowd.absorbable(lanes) if crowd is not None else [0] * len(lanes)

    def wake(self, colony: str, name: str, count: int, absorbed: int) -> None:
        """A lane has grown by `count`; beyond `absorbed` it was published. Those who left since are made up for by others."""
        crowd = self._crowds.get(colony)
        woken = crowd.wake(name, count) if crowd is not None and count else 0
        if (short := min(count, absorbed) - woken) > 0:
            self._outbox.post(colony, name, short)

    def wake_colony(self, colony: str) -> None:
        """Everyone who waits in a colony looks once."""
        if (crowd := self._crowds.get(colony)) is not None:
            crowd.wake_all()

    def wake_everyone(self) -> None:
        """Everyone who waits in this replica looks once."""
        for crowd in self._crowds.values():
            crowd.wake_all()

    def is_here(self, colony: str, executor_id: str) -> bool:
        """Whether an executor waits in this replica."""
        crowd = self._crowds.get(colony)
        return crowd is not None and executor_id in crowd.waiters

    def freed(self, colony: str, executor_id: str) -> bool:
        """Attempts of an executor ended: it may have room again. Returns whether it waits here."""
        crowd = self._crowds.get(colony)
        return crowd is not None and crowd.freed(executor_id)

    def news(self, colony: str, ids: Iterable[str]) -> None:
        """Processes and workflows have news for those who follow them here."""
        if self._followers:
            for channel in (CHANGED_CHANNEL + colony, *(NEWS_CHANNEL + one for one in ids)):
                self._tell(channel)

    def _tell(self, channel: str) -> None:
        for event in self._followers.get(channel, ()):
            event.set()

    async def run(self) -> None:
        """Listens and publishes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._subscriptions.run())
            tasks.create_task(self._outbox.run())

    def _began(self, channel: str) -> None:
        if channel.startswith(READY_CHANNEL):
            self.wake_colony(channel.removeprefix(READY_CHANNEL))
        else:
            self._tell(channel)

    def _heard(self, channel: str, text: str) -> None:
        origin, _, message = text.partition("\n")
        if origin == self.replica:
            return
        if not channel.startswith(READY_CHANNEL):
            self._tell(channel)
            return
        crowd = self._crowds.get(channel.removeprefix(READY_CHANNEL))
        name, _, rest = message.partition("\n")
        if crowd is None:
            return
        if not name:
            crowd.freed(rest)
        elif name == ANY:
            crowd.wake_all()
        else:
            crowd.wake(name, int(rest), is_foreign=True)
