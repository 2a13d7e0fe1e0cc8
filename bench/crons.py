"""Crons of which hardly any is due: what they cost while nothing happens, and how long it takes to claim those that are."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from bench import cron_rows
from bench.cron_rows import COLONY, DUE_COLONY, SCHEMA
from bench.failure import BenchError
from bench.loads import Load, running
from bench.lone_cron import Uses, lone_cron
from bench.run import Run, Samples
from servicekit import redis
from servicekit.clock import SystemClock, datetime_of
from servicekit.postgres import Database
from services.cron.domain.cron import Cron
from services.cron.domain.due import DueLoop, Looks
from services.cron.domain.ticking import Tick, tick
from services.cron.queue.timers import PREFIX, RedisTimers
from services.cron.store.fires import PostgresFireStore

# How many idle ones there are, and what that is called.
IDLE: dict[str, int] = {"1k": 1_000, "10k": 10_000, "100k": 100_000}
BATCH = 100
LEASE_S = 60.0
TIMERS = "bench"
# Of the stack's Valkey, whose first is the services': one for each case.
IDLE_DATABASE, CLAIM_DATABASE = 1, 2


def idle(run: Run) -> Samples:
    """A process of the cron service of its own, with its own tables and Valkey database: what it uses while nothing is due."""
    uses: dict[str, list[Uses]] = {}
    with _tables(run, "bench_idle") as url, lone_cron(run.stack, url, IDLE_DATABASE) as process:
        present = 0
        for name, count in {"0": 0, **IDLE}.items():
            asyncio.run(cron_rows.add(url, COLONY, count - present))
            present = count
            # A replica loads what is due soon every few seconds: each window is to have some of that.
            process.use(run.effort.idle_seconds)
            uses[name] = [process.use(run.effort.idle_seconds) for _ in range(run.effort.repetitions)]
    most = uses[next(reversed(IDLE))]
    return {
        **{f"cron_idle_{name}": [one.processor for one in uses[name]] for name in IDLE},
        "cron_idle_commands": [one.commands for one in most],
        "cron_idle_statements": [one.transactions for one in most],
        "limit_cron_idle_0": [one.processor for one in uses["0"]],
        "limit_cron_commands_0": [one.commands for one in uses["0"]],
        "limit_cron_statements_0": [one.transactions for one in uses["0"]],
    }


def claim(run: Run) -> Samples:
    """One look of the loop that takes 100 due crons in hand, among ever more that are not due."""
    samples: dict[str, list[float]] = {}
    bare: list[dict[str, float]] = []
    with _tables(run, "bench_claim") as url:
        asyncio.run(cron_rows.add(url, DUE_COLONY, BATCH))
        present = 0
        loads: list[Load[int, dict[str, float]]] = [Claims(url, _database(run.stack.redis_url, CLAIM_DATABASE))]
        with running(loads) as (claims,):
            for name, count in IDLE.items():
                asyncio.run(cron_rows.add(url, COLONY, count - present))
                present = count
                claims.run(run.effort.claims)
                repetitions = [claims.run(run.effort.claims) for _ in range(run.effort.repetitions)]
                samples[f"cron_claim_{name}"] = [one["claim"] for one in repetitions]
                bare += repetitions
    return {
        **samples,
        "limit_transaction": [one["transaction"] for one in bare],
        "limit_zrange_100": [one["zrange"] for one in bare],
    }


@dataclass
class Claims(Load[int, dict[str, float]]):
    """Makes a hundred crons due and claims them, so often; the answer is median milliseconds, of the bare parts too."""

    url: str
    redis_url: str
    _database: Database | None = field(default=None, init=False)
    _bare: AsyncConnection[Any] | None = field(default=None, init=False)
    _valkey: redis.Client | None = field(default=None, init=False)
    _ids: Sequence[UUID] = field(default=(), init=False)
    _claimed: int = field(default=0, init=False)

    async def open(self) -> None:
        self._database = Database(self.url, SCHEMA, connections=2)
        await self._database.open()
        self._bare = await AsyncConnection.connect(self.url, autocommit=True, options=f"-c search_path={SCHEMA}")
        self._valkey = redis.connect(self.redis_url)
        rows = await (await self._bare.execute("SELECT id FROM cron WHERE colony = %s", [DUE_COLONY])).fetchall()
        self._ids = [row[0] for row in rows]

    async def run(self, job: int) -> dict[str, float]:
        assert self._database is not None, "opened"
        assert self._valkey is not None, "opened"
        timers, clock = RedisTimers(self._valkey, TIMERS), SystemClock()
        store = PostgresFireStore(self._database)

        async def begin(ids: Sequence[UUID]) -> Looks:
            now = datetime_of(clock.now_ns())
            begun = await store.begin(ids, now=now, claim=UUID(int=1), until=now, decide=_decide)
            self._claimed += len(begun.crons)
            return begun.looks

        loop = DueLoop("bench", timers, store, begin, clock, lease_s=LEASE_S, batch=BATCH)
        # Loads what is due soon first, as it would every few seconds.
        await loop.step()
        took: dict[str, list[float]] = {"claim": [], "transaction": [], "zrange": []}
        for _ in range(job):
            self._claimed = 0
            await self._make_due(timers)
            took["claim"].append(await _ms(loop.step()))
            if self._claimed != BATCH:
                msg = f"{self._claimed} of {BATCH} due crons were claimed"
                raise BenchError(msg)
            took["transaction"].append(await _ms(self._empty_transaction()))
            key = f"{PREFIX}timers:{TIMERS}"
            took["zrange"].append(await _ms(self._valkey.zrangebyscore(key, "-inf", "inf", start=0, num=BATCH)))
        return {name: median(times) for name, times in took.items()}

    async def close(self) -> None:
        if self._valkey is not None:
            await self._valkey.flushdb()
            await self._valkey.aclose()
        if self._bare is not None:
            await self._bare.close()
        if self._database is not None:
            await self._database.close()

    async def _make_due(self, timers: RedisTimers) -> None:
        assert self._bare is not None, "opened"
        now = datetime.now(UTC).replace(microsecond=0)
        await cron_rows.make_due(self._bare, now)
        await timers.load([(each, now) for each in self._ids])

    async def _empty_transaction(self) -> None:
        assert self._bare is not None, "opened"
        async with self._bare.transaction():
            pass


def _decide(cron: Cron) -> Tick:
    return tick(cron, datetime.now(UTC))


async def _ms(doing: Any) -> float:
    begin = time.perf_counter()
    await doing
    return (time.perf_counter() - begin) * 1000


@contextmanager
def _tables(run: Run, name: str) -> Iterator[str]:
    """The cron service's tables once more, empty, in a database of their own."""
    url = asyncio.run(cron_rows.create(run.stack.postgres_url, name))
    try:
        yield url
    finally:
        asyncio.run(cron_rows.drop(run.stack.postgres_url, name))


def _database(redis_url: str, number: int) -> str:
    return f"{redis_url.rpartition('/')[0]}/{number}"
