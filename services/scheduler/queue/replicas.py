"""Which replicas live, and what those that died may have left untold."""

from typing import Final

from redis.asyncio import Redis

from servicekit.clock import NS_PER_MS, Clock
from servicekit.redis import Script
from services.scheduler.domain.ports import Lost
from services.scheduler.queue import keys

SCRIPTS: Final = "services.scheduler.queue.scripts"
# A replica that was silent for this long counts as lost.
LOST_AFTER_MS = 3_000
# Whoever was handed a lost replica and did not say that it was recovered is taken for lost too after this long.
HANDED_AGAIN_MS = 10_000
# When a lost replica is looked through again: its transactions may have been open still.
SECOND_PASS_MS = 25_000


class Replicas:
    """Signs of life, with watermarks: what a replica began before its watermark was told to the queue."""

    def __init__(self, redis: "Redis", clock: Clock) -> None:
        self._clock = clock
        self._beat = Script(redis, SCRIPTS, "beat.lua")
        self._recovered = Script(redis, SCRIPTS, "recovered.lua")
        self._leave = Script(redis, SCRIPTS, "leave.lua")

    def _now_ms(self) -> int:
        return self._clock.now_ns() // NS_PER_MS

    async def beat(self, replica: str, watermark_ms: int) -> list[Lost]:
        """This replica lives; returns those that do not, each to one caller at a time.

        Raises:
            Unavailable: Redis does not answer.
        """
        now = self._now_ms()
        arguments: list[str | int] = [replica, watermark_ms, now, now + LOST_AFTER_MS, now + HANDED_AGAIN_MS]
        found: list[str] = await self._beat([keys.REPLICAS, keys.WATERMARKS], arguments)
        parts = iter(found)
        return [Lost(name, int(mark), int(passes)) for name, mark, passes in zip(parts, parts, parts, strict=True)]

    async def recovered(self, lost: Lost) -> None:
        """What a lost replica left was looked through: after the first time it is due once more, then it is forgotten.
        Nothing happens if it lives again.

        Raises:
            Unavailable: Redis does not answer.
        """
        at = self._now_ms() + SECOND_PASS_MS
        await self._recovered([keys.REPLICAS, keys.WATERMARKS], [lost.replica, lost.passes, at])

    async def leave(self, replica: str) -> None:
        """This replica ends, and left nothing untold.

        Raises:
            Unavailable: Redis does not answer.
        """
        await self._leave([keys.REPLICAS, keys.WATERMARKS], [replica])
