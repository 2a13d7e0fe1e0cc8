"""Deletes what removed colonies have left behind."""

import asyncio
from collections.abc import Collection
from typing import Protocol

import structlog

from servicekit.failures import Unavailable

log = structlog.get_logger()

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0


class Purgeable(Protocol):
    """Something that colonies leave behind."""

    async def purge(self, colonies: Collection[str]) -> int:
        """Deletes everything of these colonies; returns how many things that were. May raise Unavailable."""
        ...


class Purge:
    """Colonies to delete. What is not done when the process ends is told to the next one again by auth."""

    def __init__(self, *left: Purgeable) -> None:
        self._left = left
        self._colonies: set[str] = set()
        self._told = asyncio.Event()

    def colony_removed(self, colony: str) -> None:
        """Notes a colony; returns at once."""
        self._colonies.add(colony)
        self._told.set()

    async def run(self) -> None:
        """Deletes what has been noted, until cancelled."""
        while True:
            await self._told.wait()
            self._told.clear()
            await self._purge()

    async def _purge(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._colonies:
            batch = sorted(self._colonies)
            try:
                purged = sum([await left.purge(batch) for left in self._left])
            except Unavailable as error:
                log.warning("cannot purge yet", colonies=len(batch), error=error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                continue
            self._colonies.difference_update(batch)
            if purged:
                log.info("purged", colonies=len(batch), purged=purged)
