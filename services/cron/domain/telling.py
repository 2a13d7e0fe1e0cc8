"""Telling a loop what was committed, so that the call that committed it waits for neither Redis nor the loop."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from servicekit.clock import Clock, datetime_of
from services.cron.domain.due import DueLoop


class Telling:
    """What one loop is to be told. What is lost when the process ends is found in the rows."""

    def __init__(self, loop: DueLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._later: dict[UUID, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def __call__(self, looks: Mapping[UUID, datetime]) -> None:
        """Wakes the loop for what is due, and has the timers know the rest; returns at once."""
        now = datetime_of(self._clock.now_ns())
        due = [each for each, moment in looks.items() if moment <= now]
        if due:
            self._loop.wake(due)
        self._later.update((each, moment) for each, moment in looks.items() if moment > now)
        if self._later and self._task is None:
            self._task = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._later:
                looks, self._later = self._later, {}
                await self._loop.tell(looks)
        finally:
            # In the same step as the last look, so that nothing is left untold.
            self._task = None
