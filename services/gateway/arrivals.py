"""Bodies that are still to come: whose senders may be slow, and may be many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Counter, Gauge

from services.gateway.room import Room

# What of a body is no more than this has room whatever others hold.
SMALL = 64 * 1024


def counted(size: int) -> int:
    """What a body of this size takes of the room for bodies."""
    return max(0, size - SMALL)


class Arrivals:
    """So many at one time. Who comes when there are as many takes the place of the one that has been coming for longest.

    A body that means well is there within milliseconds. So those who open requests and send nothing hold up one another.
    """

    def __init__(self, most: int, bodies: Room, coming: Gauge, given_up: Counter) -> None:
        """`bodies` is the room for their bytes."""
        self.bodies = bodies
        self._most = most
        self._gauge = coming
        self._given_up = given_up
        # The oldest first.
        self._coming: dict[asyncio.Timeout, None] = {}

    @asynccontextmanager
    async def one(self, seconds: float) -> AsyncIterator[None]:
        """One that may come as long as the block runs.

        Raises:
            TimeoutError: it took too long, or others came.
        """
        if len(self._coming) >= self._most:
            self._give_up(next(iter(self._coming)))
        async with asyncio.timeout(seconds) as mine:
            self._coming[mine] = None
            self._gauge.set(len(self._coming))
            try:
                yield
            finally:
                self._coming.pop(mine, None)
                self._gauge.set(len(self._coming))

    def _give_up(self, oldest: asyncio.Timeout) -> None:
        del self._coming[oldest]
        self._given_up.inc()
        oldest.reschedule(asyncio.get_running_loop().time())
