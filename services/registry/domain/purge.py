"""What was kept of a colony goes with it."""

import asyncio

import structlog

from servicekit.failures import Unavailable
from services.registry.domain.ports import ColonyStore

log = structlog.get_logger()

RETRY_S = 2.0


class Purge:
    """Deletes what is kept of removed colonies. Auth tells of every removed colony anew after each break, so none is missed."""

    def __init__(self, store: ColonyStore) -> None:
        self._store = store
        self._waiting: set[str] = set()
        self._work = asyncio.Event()

    def add(self, colony: str) -> None:
        """Notes a colony that is gone."""
        self._waiting.add(colony)
        self._work.set()

    async def run(self) -> None:
        """Deletes until cancelled; tries again while the database is out of reach."""
        while True:
            await self._work.wait()
            self._work.clear()
            names = frozenset(self._waiting)
            try:
                await self._store.remove_colonies(names)
            except Unavailable as error:
                log.warning("purge put off", colonies=len(names), error=error.message)
                await asyncio.sleep(RETRY_S)
                self._work.set()
            else:
                self._waiting -= names
