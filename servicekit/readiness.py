"""Whether a process can do its work: not for as long as Postgres has not answered it for some seconds.

Redis does not count: submits go on without it. Nor does a Postgres that is slow: while it answers anything, it is in reach.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog

from servicekit.failures import Unavailable
from servicekit.metrics import READY

log = structlog.get_logger()

LOOK_S = 1.0
# Longer than a restart of Postgres takes that nobody has to hear of.
OUT_OF_REACH_S = 5.0


class Answering(Protocol):
    """A server that is asked now and then."""

    answers: int

    async def ping(self) -> None:
        """Asks for nothing.

        Raises:
            Unavailable: it does not answer.
        """
        ...


class Readiness:
    """Watches the servers without which nothing works."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`monotonic` gives seconds: an outage is measured by a clock that nobody sets."""
        self._monotonic = monotonic
        self._watched: list[_Watched] = []
        self.ready = True

    def watch(self, server: Answering) -> None:
        """From now on readiness depends on this server too, which has just answered."""
        self._watched.append(_Watched(server, self._monotonic()))

    def look(self) -> bool:
        """Looks once; returns whether readiness is another than before."""
        now = self._monotonic()
        silent = max((watched.silent_s(now) for watched in self._watched), default=0.0)
        ready = silent < OUT_OF_REACH_S
        READY.set(ready)
        if ready == self.ready:
            return False
        self.ready = ready
        if ready:
            log.warning("ready again: the database answers")
        else:
            log.warning("not ready: the database is out of reach", seconds=round(silent, 1))
        return True

    async def changes(self) -> AsyncIterator[bool]:
        """Looks every second, for ever; yields whether it is ready whenever that changes."""
        try:
            while True:
                if self.look():
                    yield self.ready
                await asyncio.sleep(LOOK_S)
        finally:
            for watched in self._watched:
                await watched.end()


class _Watched:
    """One server, and how long it has been silent. It is only asked when nobody else has an answer from it."""

    def __init__(self, server: Answering, now: float) -> None:
        self._server = server
        self._answers = server.answers
        self._looked = now
        self._silent = 0.0
        self._asking: asyncio.Task[None] | None = None

    def silent_s(self, now: float) -> float:
        """Seconds since it answered last, as far as is known."""
        # If this process itself stood still, nobody was asked meanwhile.
        since = min(now - self._looked, 2 * LOOK_S)
        self._looked = now
        if self._server.answers != self._answers:
            self._answers = self._server.answers
            self._silent = 0.0
            return 0.0
        self._silent += since
        if self._asking is None or self._asking.done():
            # Not awaited: a server that hangs would hold up the news that it does.
            self._asking = asyncio.create_task(self._ask())
        return self._silent

    async def _ask(self) -> None:
        try:
            await self._server.ping()
        except Unavailable as error:
            log.debug("the database does not answer", error=error.message)

    async def end(self) -> None:
        """Asks no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
