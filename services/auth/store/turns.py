"""Whose turn it is to change a colony, in this process: decided before a connection is taken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servicekit.failures import Unavailable

# As long as one waits for a connection.
LONGEST_WAIT_S = 5.0


class Turns:
    """A queue for each colony that is being changed; none for the others."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def of(self, colony: str) -> AsyncIterator[None]:
        """One at a time for each colony, in the order of asking.

        Raises:
            Unavailable: too many others are before this one.
        """
        lock = self._locks.setdefault(colony, asyncio.Lock())
        self._users[colony] = self._users.get(colony, 0) + 1
        try:
            try:
                async with asyncio.timeout(LONGEST_WAIT_S):
                    await lock.acquire()
            except TimeoutError as error:
                msg = "others are changing this colony's memberships"
                raise Unavailable(msg, reason="DATABASE_BUSY") from error
            try:
                yield
            finally:
                lock.release()
        finally:
            self._users[colony] -= 1
            if not self._users[colony]:
                del self._users[colony], self._locks[colony]
