"""What a removed colony held is deleted, by whichever replica hears of it; doing it twice does no harm."""

import asyncio

import structlog

from servicekit.failures import Unavailable
from services.scheduler.domain.ports import Queue, Tables

log = structlog.get_logger()

PAUSE_S = 1.0


class Purging:
    """Deletes, one colony after the other."""

    def __init__(self, tables: Tables, queue: Queue) -> None:
        self._tables = tables
        self._queue = queue
        self._removed: asyncio.Queue[str] = asyncio.Queue()

    def note(self, colony: str) -> None:
        """A colony was removed."""
        self._removed.put_nowait(colony)

    async def run(self) -> None:
        """Deletes until cancelled."""
        while True:
            colony = await self._removed.get()
            try:
                await self._tables.purge(colony)
                await self._queue.forget(colony)
            except Unavailable as error:
                log.warning("a removed colony is still to be deleted", colony=colony, error=error.message)
                self._removed.put_nowait(colony)
                await asyncio.sleep(PAUSE_S)
