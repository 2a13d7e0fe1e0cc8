"""Changes of a service's records, told to whoever follows: Postgres NOTIFY inside the transaction that makes them.

A follower first gets SYNCED: from then on it misses nothing. When the connection to Postgres breaks, every follower's iterator
ends with Unavailable, for changes may be missed then; it follows anew and forgets what it kept.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

import psycopg
import structlog
from psycopg import sql

from servicekit.failures import Unavailable

log = structlog.get_logger()

RECONNECT_S = 0.5
MAX_BACKLOG = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """Something about this identity in this colony is not what it was; or the whole colony is gone."""

    colony: str
    identity: str
    colony_removed: bool = False

    def payload(self) -> str:
        """As it travels through NOTIFY."""
        return json.dumps([self.colony, self.identity, self.colony_removed])

    @classmethod
    def parse(cls, payload: str) -> "Change":
        """The change in a NOTIFY payload."""
        return cls(*json.loads(payload))


class Sync(Enum):
    """The follower is up to date from here on."""

    SYNCED = "synced"


SYNCED: Final = Sync.SYNCED
Event: TypeAlias = Change | Sync


class ChangeFeed:
    """Listens on one Postgres channel for this process, and hands each change to every follower."""

    def __init__(self, url: str, channel: str) -> None:
        self._url = url
        self._channel = channel
        self._followers: set[asyncio.Queue[Change | None]] = set()
        self._listening = asyncio.Event()

    async def run(self) -> None:
        """Listens until cancelled; connects again when the connection breaks."""
        while True:
            try:
                await self._listen()
            except psycopg.OperationalError as error:
                log.warning("change feed interrupted", channel=self._channel, error=str(error).strip())
            finally:
                self._listening.clear()
                for queue in self._followers:
                    queue.put_nowait(None)
                self._followers.clear()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        # A listener only waits: without keepalives it would never learn that its peer is gone.
        connection = await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=5,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            application_name="colonies-changes",
        )
        async with connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
            self._listening.set()
            async for notice in connection.notifies():
                change = Change.parse(notice.payload)
                for queue in list(self._followers):
                    if queue.qsize() >= MAX_BACKLOG:
                        # A follower this slow is cut off rather than let grow: it follows anew.
                        self._followers.discard(queue)
                        queue.put_nowait(None)
                    else:
                        queue.put_nowait(change)

    async def follow(self) -> AsyncIterator[Event]:
        """SYNCED, then every change.

        Raises:
            Unavailable: the feed broke; follow anew.
        """
        await self._listening.wait()
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._followers.add(queue)
        try:
            yield SYNCED
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._followers.discard(queue)
        msg = "the change feed was interrupted"
        raise Unavailable(msg, reason="FEED_INTERRUPTED")
