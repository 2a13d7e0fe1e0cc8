"""Whether the queue is whole, and its rebuilding when it is not (I3)."""

import asyncio
from typing import Any, Final
from uuid import uuid4

from redis.asyncio import Redis

from servicekit.redis import Script, translated
from services.scheduler.queue import keys

SCRIPTS: Final = "services.scheduler.queue.scripts"
# A rebuild by a replica that died is taken up by another one after this long; each page renews it.
REBUILD_LOCK_MS = 10_000
# If no replica looked after the queue for this long, leases that ran out meanwhile get a grace.
TICKED_MS = 5_000
# Of the keys and members. A queue that an earlier version built is rebuilt.
LAYOUT = 2
SCANNED = 1_000


class Epoch:
    """The run of the Redis server that the queue was built in, and who looks after the queue."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._forget_attempts = Script(redis, SCRIPTS, "forget_attempts.lua")
        self._rebuild = Script(redis, SCRIPTS, "rebuild.lua")

    async def was_looked_after(self) -> bool:
        """Whether some replica looked after the queue a moment ago.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            return bool(await self._redis.exists(keys.TICKED))

    async def looked_after(self) -> None:
        """Somebody looks after the queue.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            await self._redis.set(keys.TICKED, "", px=TICKED_MS)

    async def is_current(self) -> bool:
        """Whether the queue was built in this very run of the Redis server, and as it is built now.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            run, epoch = await asyncio.gather(self._run(), self._redis.get(keys.EPOCH))
        return bool(epoch == run)

    async def begin_rebuild(self) -> str | None:
        """A token to go on with a rebuild, or None: another replica is at it. Attempts, with what they use, are forgotten, to
        be read anew.

        Raises:
            Unavailable: Redis does not answer.
        """
        token = uuid4().hex
        with translated():
            if not await self._redis.set(keys.REBUILDING, token, nx=True, px=REBUILD_LOCK_MS):
                return None
            for colony in await self._redis.smembers(keys.TIMED):
                await self._forget_attempts([keys.timers(str(colony))], [])
                await self.go_on_rebuilding(token)
            await self._forget_loads(token)
        return token

    async def _forget_loads(self, token: str) -> None:
        """Deletes what attempts use, and what earlier layouts left."""
        batch: list[str] = []
        async for key in self._redis.scan_iter(match=keys.OF_COLONIES, count=SCANNED):
            head, _, kind = str(key).partition("}:")
            if kind.startswith("held:"):
                # With its sums in one step, for claims go on meanwhile: one without the other would never come right.
                batch += (key, f"{head}}}:load:{kind.removeprefix('held:')}")
            elif (kind.startswith("lane:") and kind.count("|") < keys.LANE_BARS) or kind.startswith("lanes:"):
                batch.append(key)
            if len(batch) >= SCANNED:
                await self._redis.unlink(*batch)
                await self.go_on_rebuilding(token)
                batch.clear()
        if batch:
            await self._redis.unlink(*batch)

    async def go_on_rebuilding(self, token: str) -> bool:
        """Whether a rebuild is still this replica's; if not, Redis was lost again or another one took over.

        Raises:
            Unavailable: Redis does not answer.
        """
        return bool(await self._rebuild([keys.REBUILDING, keys.EPOCH], [token, REBUILD_LOCK_MS, ""]))

    async def finish_rebuild(self, token: str) -> bool:
        """Declares the queue rebuilt in this run of the server, if nothing was lost since the rebuild began.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            run = await self._run()
        return bool(await self._rebuild([keys.REBUILDING, keys.EPOCH], [token, REBUILD_LOCK_MS, run]))

    async def _run(self) -> str:
        info: dict[str, Any] = await self._redis.info("server")
        return f"{info['run_id']}/{LAYOUT}"

    async def invalidate(self) -> None:
        """The queue is not what the rows say, and is to be built anew.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            await self._redis.delete(keys.EPOCH)
