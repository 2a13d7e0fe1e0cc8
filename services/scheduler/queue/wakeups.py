"""Wake-ups: long polls that wait for work, and streams that follow a process, in this replica.

Redis publishes that a lane grew, or that something has news. A published message can be lost, so waiting also looks again now
and then; and after the subscription broke, everyone looks once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from servicekit.redis import OUTAGES
from services.scheduler.domain.records import ExecutorProfile, Place
from services.scheduler.queue.keys import CHANGED_CHANNEL, READY_CHANNEL, lane

log = structlog.get_logger()

PAUSE_S = 0.2


class Waiter:
    """One long poll. `event` is set when there may be work for its executor."""

    __slots__ = ("event", "executor", "lane", "owed")

    def __init__(self, executor: ExecutorProfile) -> None:
        self.executor = executor
        self.event = asyncio.Event()
        # The lane it was woken for, until it looks.
        self.lane: str | None = None
        # The lane it was woken for and now looks after: if it takes other work, somebody else must look.
        self.owed: str | None = None

    def may_serve(self, name: str) -> bool:
        """Whether the lane of this name ("type|executors|location") can hold work for this executor."""
        executor_type, names, location = name.split("|")
        return (
            executor_type in self.executor.executor_types
            and (not names or self.executor.name in names.split(","))
            and location in {"", self.executor.location}
        )

    def look(self) -> None:
        """Before looking into the queue: what wakes it from here on is news."""
        self.event.clear()
        self.owed, self.lane = self.lane, None

    def got(self, places: Sequence[Place]) -> None:
        """After looking: what there was. If it was nothing, or came from the lane it was woken for, nothing is owed."""
        if not places or self.owed in {lane(place) for place in places}:
            self.owed = None


class Wakeups:
    """Who waits in this replica, and the subscription that wakes them."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        # In order of arrival, by colony.
        self._waiters: dict[str, dict[Waiter, None]] = defaultdict(dict)
        self._followers: dict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def waiting(self, colony: str, executor: ExecutorProfile) -> Iterator[Waiter]:
        """A long poll waits. A wake-up that it does not use is passed on to the next."""
        waiter = Waiter(executor)
        self._waiters[colony][waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[colony][waiter]
            if not self._waiters[colony]:
                del self._waiters[colony]
            for unused in {waiter.lane, waiter.owed}:
                if unused is not None:
                    self.wake(colony, unused, 1)

    @contextmanager
    def following(self, one: str) -> Iterator[asyncio.Event]:
        """A stream follows a process or a workflow (by id)."""
        event = asyncio.Event()
        self._followers[one].add(event)
        try:
            yield event
        finally:
            self._followers[one].discard(event)
            if not self._followers[one]:
                del self._followers[one]

    def wake(self, colony: str, name: str, count: int) -> None:
        """Wakes as many of those who may serve the lane as there is work, the longest waiting first."""
        for waiter in list(self._waiters.get(colony, ())):
            if count <= 0:
                return
            if waiter.lane is None and waiter.may_serve(name):
                waiter.lane = name
                waiter.event.set()
                count -= 1

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.event.set()
        for events in self._followers.values():
            for event in events:
                event.set()

    async def run(self) -> None:
        """Listens until cancelled; subscribes again when the connection breaks."""
        while True:
            pubsub: PubSub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.psubscribe(f"{READY_CHANNEL}*", f"{CHANGED_CHANNEL}*")
                self._wake_all()
                while True:
                    message = await pubsub.get_message(timeout=30)
                    if message is not None:
                        self._dispatch(message["channel"], message["data"])
            except OUTAGES as error:
                log.warning("wake-ups interrupted", error=str(error))
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(PAUSE_S)

    def _dispatch(self, channel: str, data: str) -> None:
        if channel.startswith(READY_CHANNEL):
            name, _, count = data.rpartition("\n")
            self.wake(channel.removeprefix(READY_CHANNEL), name, int(count))
            return
        for one in data.split("\n"):
            for event in self._followers.get(one, ()):
                event.set()
