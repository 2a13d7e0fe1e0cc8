"""What comes after a commit: the queue and the followers are told. The commit stands whatever becomes of the telling."""

from collections.abc import Awaitable

import structlog

from servicekit.failures import Unavailable
from services.scheduler.domain.ports import Intention, Queue
from services.scheduler.domain.records import Changes, Live

log = structlog.get_logger()


class Aftermath:
    """Tells the queue. If it can't be told, the intention that was left in it before the transaction does so later, or a
    rebuild when it comes back (upkeep.py): so this never fails a call whose work is done.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def changed(self, colony: str, changes: Changes, intended: Intention) -> None:
        """Tells what a transaction changed."""
        await self._told(self._queue.apply(colony, changes, intended), "changes")

    async def assigned(self, colony: str, lives: list[Live], intended: Intention) -> None:
        """Tells that attempts began."""
        await self._told(self._queue.lease(colony, lives, intended), "leases")

    @staticmethod
    async def _told(telling: Awaitable[None], what: str) -> None:
        try:
            await telling
        except Unavailable as error:
            log.warning("committed, but the queue is still to be told", what=what, error=error.message)
