"""One pub/sub connection of a replica, subscribed to what somebody here waits for and to nothing else."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError

from servicekit.redis import OUTAGES

log = structlog.get_logger()

# Holds the connection open while nobody waits for anything. Nothing is published on it.
IDLE_CHANNEL = "colonies:idle"
PAUSE_S = 0.2
# A channel that nobody needs any more is kept this long: the next long poll may need it at once.
LINGER_S = 5.0
# A connection that is silent for this long is asked whether it lives; silent for as long again, it is given up.
SILENCE_S = 10.0
# How long somebody waits for a subscription while Redis is out of reach, before going on without.
LIVE_WITHIN_S = 1.0


class Line(PubSub):
    """A connection that stays lost when it breaks. The client would open another, for reader and writer both at the same time,
    and two that read one socket are a defect.
    """

    async def _reconnect(self, *_: Any, **__: Any) -> None:
        msg = "the subscription's connection is lost"
        raise RedisConnectionError(msg)


class Subscriptions:
    """Channels with reference counts. `heard(channel, text)` is called for each message, `live(channel)` whenever a channel
    begins to be heard, or begins anew after the connection broke: what was published before went by.
    """

    def __init__(self, redis: "Redis", *, heard: Callable[[str, str], None], live: Callable[[str], None]) -> None:
        self._redis = redis
        self._heard = heard
        self._began = live
        self._counts: dict[str, int] = defaultdict(int)
        # Channels that nobody needs, and since when (the event loop's seconds).
        self._idle: dict[str, float] = {}
        # Subscribed on the present connection; set once the server has said so.
        self._live: dict[str, asyncio.Event] = {}
        self._missing = asyncio.Event()

    def acquire(self, channel: str) -> None:
        """Somebody needs a channel, from some moment soon."""
        self._counts[channel] += 1
        self._idle.pop(channel, None)
        if (event := self._live.get(channel)) is None or not event.is_set():
            self._missing.set()

    def release(self, channel: str) -> None:
        """Somebody does not need it any more."""
        self._counts[channel] -= 1
        if not self._counts[channel]:
            del self._counts[channel]
            self._idle[channel] = asyncio.get_running_loop().time()

    async def subscribed(self, channel: str) -> bool:
        """Waits until an acquired channel is heard; False if it is not within LIVE_WITHIN_S."""
        try:
            async with asyncio.timeout(LIVE_WITHIN_S):
                await self._live.setdefault(channel, asyncio.Event()).wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Listens until cancelled; connects again when the connection breaks."""
        while True:
            pubsub = Line(self._redis.connection_pool)
            try:
                await pubsub.subscribe(IDLE_CHANNEL)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._read(pubsub))
                    tasks.create_task(self._follow_needs(pubsub))
            except* OUTAGES as errors:
                log.warning("wake-ups interrupted", error=str(errors.exceptions[0]))
            finally:
                for event in self._live.values():
                    event.clear()
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(PAUSE_S)

    async def _follow_needs(self, pubsub: PubSub) -> None:
        asked: set[str] = set()
        loop = asyncio.get_running_loop()
        while True:
            self._missing.clear()
            if new := self._counts.keys() - asked:
                for channel in new:
                    self._live.setdefault(channel, asyncio.Event())
                asked |= new
                await pubsub.subscribe(*new)
            old = [channel for channel, since in self._idle.items() if since + LINGER_S <= loop.time()]
            for channel in old:
                del self._idle[channel]
                self._live.pop(channel, None)
            if gone := asked.intersection(old):
                asked -= gone
                await pubsub.unsubscribe(*gone)
            try:
                async with asyncio.timeout(LINGER_S):
                    await self._missing.wait()
            except TimeoutError:
                continue

    async def _read(self, pubsub: PubSub) -> None:
        asked = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                if asked:
                    msg = "the subscription's connection is silent"
                    raise RedisConnectionError(msg)
                await pubsub.ping()
                asked = True
                continue
            asked = False
            channel = message["channel"]
            if message["type"] == "message":
                self._heard(channel, message["data"])
            elif message["type"] == "subscribe" and (event := self._live.get(channel)) is not None:
                event.set()
                self._began(channel)
