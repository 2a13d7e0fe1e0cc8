"""Timers in Redis: one sorted set for each kind of thing, of ids by when to look at them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from redis.asyncio import Redis

from servicekit.clock import EPOCH, unix_ms
from servicekit.redis import Script, commands_of
from services.cron.domain.due import Claimed

# One hash tag: one slot of a Redis Cluster.
PREFIX: Final = "colonies:{cron}:"
# Ids in one command.
CHUNK = 1_000


class RedisTimers:
    """The Timers of one kind, such as "crons"; kinds share nothing."""

    def __init__(self, redis: "Redis", kind: str) -> None:
        self._commands = commands_of(redis)
        self._claim = Script(redis, "services.cron.queue.scripts", "claim.lua")
        self._settle = Script(redis, "services.cron.queue.scripts", "settle.lua")
        self._key = f"{PREFIX}timers:{kind}"
        self._loaded = f"{PREFIX}loaded:{kind}"

    async def claim(self, now: datetime, *, until: datetime, limit: int, loaded_ms: int) -> Claimed:
        keys = [self._key, self._loaded]
        load, next_ms, *ids = await self._claim(keys, [unix_ms(now), _score(until), limit, loaded_ms])
        following = None if float(next_ms) < 0 else EPOCH + timedelta(milliseconds=int(float(next_ms)))
        return Claimed([_id(each) for each in ids], following, bool(load))

    async def settle(self, looks: Mapping[UUID, datetime | None], *, until: datetime | None) -> None:
        claimed = -1 if until is None else _score(until)
        words: list[str | int] = []
        for each, moment in looks.items():
            words += [str(each), "" if moment is None else _score(moment)]
        await self._settle([self._key], [claimed, *words])

    async def load(self, looks: Sequence[tuple[UUID, datetime]]) -> None:
        for begin in range(0, len(looks), CHUNK):
            words: list[str | int] = []
            for each, moment in looks[begin : begin + CHUNK]:
                words += [_score(moment), str(each)]
            # LT: new ones, and those that are due sooner than was known; a claim that is under way only costs a look.
            await self._commands.execute("ZADD", self._key, "LT", *words)


def _score(moment: datetime) -> int:
    """Rounded up: who looks at this time finds the row due."""
    return -((EPOCH - moment) // timedelta(milliseconds=1))


def _id(text: str | bytes) -> UUID:
    return UUID(text if isinstance(text, str) else text.decode())
