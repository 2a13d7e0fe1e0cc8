"""Heartbeats: they confirm what has arrived, and keep the leases of what is in hand."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from colonies.client import AsyncClient
from colonies.errors import RpcError
from colonies.executor.held import Hand, Held
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

MAX_HEARTBEAT = 1_000
# Until a heartbeat confirms it, an attempt is an offer, and one that was lost on the way takes its whole lease to come back.
# What is over within this time needs no heartbeat: its close confirms it.
CONFIRM_SECONDS = 0.5

log = logging.getLogger("colonies.executor")


class Leases:
    """Keeps the leases of what is in hand."""

    def __init__(self, client: AsyncClient, hand: Hand, drop: Callable[[Held, str], None]) -> None:
        """`drop` is called, with the reason, for each attempt that the server wants dropped."""
        self._client = client
        self._hand = hand
        self._drop = drop
        self._last_beat = 0.0

    async def keep(self) -> None:
        """Sends heartbeats while there is something in hand; never returns."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._hand.any_held.is_set():
                await self._hand.any_held.wait()
                self._last_beat = loop.time()
            next_beat = self._last_beat + self._hand.beat_seconds
            await asyncio.sleep(min(CONFIRM_SECONDS, max(0.0, next_beat - loop.time())))
            due = self._due(loop.time())
            for start in range(0, len(due), MAX_HEARTBEAT):
                await self._beat(due[start : start + MAX_HEARTBEAT])

    def _due(self, now: float) -> list[Held]:
        """Everything in hand every third of a lease; in between what nobody has told the server about yet."""
        if now >= self._last_beat + self._hand.beat_seconds:
            self._last_beat = now
            return list(self._hand)
        old = now - CONFIRM_SECONDS
        return [held for held in self._hand if not held.confirmed and not held.finished and held.taken_at <= old]

    async def _beat(self, due: Sequence[Held]) -> None:
        request = scheduler.HeartbeatRequest(colony_name=self._client.colony, attempts=[held.ref for held in due])
        # A call that hangs must leave time for another one within the lease.
        timeout = max(1.0, self._hand.beat_seconds)
        try:
            response = await self._client.call(self._client.scheduler.Heartbeat, request, timeout=timeout)
        except RpcError as error:
            log.warning("a heartbeat was refused: %s", error)
            return
        for held in due:
            held.confirmed = True
        self._hand.set_lease(response.lease_ms)
        for drop in response.drops:
            found = self._hand.find(drop.attempt)
            # What has just been closed is named as well. The answer to a close says what became of a result that is on its way.
            if found is not None and not found.finished:
                cancelled = drop.reason == scheduler.DROP_REASON_CANCELLED
                self._drop(found, "it was cancelled" if cancelled else "its lease or its time is over")
