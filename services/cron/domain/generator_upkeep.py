"""Removes what nobody needs any more of generators: in every replica, in pages, at leisure."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import Unavailable
from services.cron.domain.generator_ports import GeneratorSweeps

log = structlog.get_logger()

# How long a repeated pack gets the first answer.
PACKS_KEPT = timedelta(hours=24)
EVERY_S = 15.0
PAGE = 2_000


class GeneratorUpkeep:
    """The loop that sweeps.

    Args:
        keep_batches: how long a batch is shown after it was submitted.
        on_waiting: told now and then how many arguments are in no workflow yet.
    """

    def __init__(
        self, sweeps: GeneratorSweeps, clock: Clock, *, keep_batches: timedelta, on_waiting: Callable[[int], None]
    ) -> None:
        self._sweeps = sweeps
        self._clock = clock
        self._keep_batches = keep_batches
        self._on_waiting = on_waiting
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Sweeps at once."""
        self._woken.set()

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            self._woken.clear()
            try:
                await self.sweep()
            except Unavailable as error:
                log.warning("cannot sweep yet", error=error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), EVERY_S)

    async def sweep(self) -> None:
        """Removes all that is to go by now.

        Raises:
            Unavailable: the database is out of reach.
        """
        now = self._now()
        self._on_waiting(await self._sweeps.waiting())
        await _in_pages(lambda: self._sweeps.remove_dropped(PAGE), PAGE)
        await _in_pages(lambda: self._sweeps.remove_removed(now, PAGE), 1)
        await _in_pages(lambda: self._sweeps.forget_packs(now - PACKS_KEPT, PAGE), PAGE)
        await _in_pages(lambda: self._sweeps.forget_batches(now - self._keep_batches, PAGE), PAGE)

    async def purge(self, colonies: Collection[str]) -> int:
        """Removes all generators of colonies; returns how many. What belongs to them follows."""
        purged = await self._sweeps.purge(colonies, self._now())
        if purged:
            self.wake()
        return purged

    def _now(self) -> datetime:
        return datetime_of(self._clock.now_ns())


async def _in_pages(page: Callable[[], Awaitable[int]], until: int) -> None:
    """Removes pages until one has found less than this."""
    while await page() >= until:
        pass
