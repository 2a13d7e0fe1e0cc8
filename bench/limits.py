"""What this machine could do at best: the parts that no call can do without, each bare, measured in the same run."""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

import psycopg
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bench import tables
from bench.bare import BareCalls, BareServer
from bench.effort import Effort
from bench.failure import BenchError
from bench.figures import (
    BYTES,
    CALLS_PER_S,
    COMMANDS_PER_S,
    CYCLES_PER_S,
    MB,
    MS,
    PERCENT,
    PROCESSES_PER_S,
    TRANSACTIONS_PER_S,
    Figure,
    Unit,
    figure,
    percentile,
)
from bench.installation import Installation
from bench.loads import Load, LoadProcess, Timed, Window, rate, running, timed
from bench.run import done_in
from bench.tables import TableCycles
from colonies.keys import PrivateKey

GRPC_CALLERS = (1, 8, 32)
COMMIT_ROWS = (1, 100, 1_000)
# About what a signed call's text has.
SIGNED_BYTES = 200
ROW_BYTES = 200
# Two connections, each in a process of its own; batches as concurrent calls make them.
TABLE_CONNECTIONS = 2
TABLE_BATCH = 100
# A percentile needs some.
MIN_SAMPLES = 5

Action: TypeAlias = Callable[[], None]
PlainConnection: TypeAlias = "psycopg.Connection[tuple[object, ...]]"

LIMIT_TEXTS = {
    "limit_grpc_1": "an empty gRPC call, one caller",
    "limit_grpc_1_p99": "the same, 99th percentile",
    "limit_grpc_8": "empty gRPC calls, 8 callers",
    "limit_grpc_32": "empty gRPC calls, 32 callers",
    "limit_commit_1": "a durable Postgres commit of one row",
    "limit_commit_1_p99": "the same, 99th percentile",
    "limit_commit_100": "a durable Postgres commit of 100 rows (unnest)",
    "limit_commit_1000": "a durable Postgres commit of 1 000 rows (unnest)",
    "limit_tables_cycle": "the scheduler's own statements in Postgres alone: 100 rows entered, assigned, closed; 2 connections",
    "limit_tables_submit": "the same, entered only",
    "limit_valkey": "a Valkey round trip (SET NX PX)",
    "limit_ed25519": "an Ed25519 signature made and checked",
    "limit_rss_0": "resident memory of a scheduler with nothing waiting",
    "limit_zset_entry": "a sorted set's entry with a member of 16 bytes in Valkey",
    "limit_transaction": "an empty Postgres transaction",
    "limit_zrange_100": "100 members of a sorted set by score from Valkey",
    "limit_cron_idle_0": "a cron service without crons",
    "limit_cron_commands_0": "its commands to Valkey",
    "limit_cron_statements_0": "its transactions in Postgres, most of them one statement",
}
# Measured by the case that is held against them.
OWN_LIMITS: Mapping[str, Unit] = {
    "limit_rss_0": MB,
    "limit_zset_entry": BYTES,
    "limit_transaction": MS,
    "limit_zrange_100": MS,
    "limit_cron_idle_0": PERCENT,
    "limit_cron_commands_0": COMMANDS_PER_S,
    "limit_cron_statements_0": TRANSACTIONS_PER_S,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """The measured limits by name."""

    figures: dict[str, Figure]

    def ms(self, name: str) -> float:
        """A limit in milliseconds."""
        return self.of(name, MS)

    def per_s(self, name: str) -> float:
        """A limit in calls per second."""
        return self.of(name, CALLS_PER_S)

    def of(self, name: str, unit: Unit) -> float:
        """A limit in its unit."""
        found = self.figures[name]
        assert found.unit is unit, name
        return found.value

    @property
    def signed_commit_ms(self) -> float:
        """What a durable, signed call takes at least: an empty call, its signature made and checked, one commit."""
        return self.ms("limit_grpc_1") + self.ms("limit_ed25519") + self.ms("limit_commit_1")


def measure_limits(stack: Installation, effort: Effort) -> Limits:
    """Measures all of them.

    Raises:
        BenchError: what was committed is not there.
    """
    figures: dict[str, Figure] = {}
    _grpc(effort, figures)
    _tables(stack, effort, figures)
    with (
        # One statement is one round trip and one commit: no transaction can be shorter.
        psycopg.connect(stack.postgres_url, prepare_threshold=0, autocommit=True) as connection,
        redis.Redis.from_url(stack.redis_url) as valkey,
    ):
        connection.execute("CREATE SCHEMA bench")
        connection.execute("CREATE TABLE bench.row (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea)")
        commits = {f"limit_commit_{rows}": _commit(connection, rows) for rows in COMMIT_ROWS}
        times = _in_turn({**commits, "limit_valkey": _claim(valkey), "limit_ed25519": _sign_and_check()}, effort)
        done = {rows: sum(len(took) for took in times[f"limit_commit_{rows}"]) for rows in COMMIT_ROWS}
        _check_rows(connection, sum(rows * count for rows, count in done.items()))
        connection.execute("DROP SCHEMA bench CASCADE")
    for name, repetitions in times.items():
        # The first was the warm-up.
        figures[name] = figure([median(took) for took in repetitions[1:]], MS)
        if f"{name}_p99" in LIMIT_TEXTS:
            figures[f"{name}_p99"] = figure([percentile(took, 99) for took in repetitions[1:]], MS)
    return Limits({name: figures[name] for name in LIMIT_TEXTS if name in figures})


def _grpc(effort: Effort, figures: dict[str, Figure]) -> None:
    servers: list[Load[None, int]] = [BareServer()]
    with running(servers) as (server,):
        port = server.run(None)
        for callers in GRPC_CALLERS:
            loads: list[Load[Timed, tuple[Window, list[float]]]] = [BareCalls(port, callers)]
            with running(loads) as (load,):
                repetitions = _repeat(load, effort)
            if callers == 1:
                figures["limit_grpc_1"] = figure([median(took) for _, took in repetitions], MS)
                figures["limit_grpc_1_p99"] = figure([percentile(took, 99) for _, took in repetitions], MS)
            else:
                figures[f"limit_grpc_{callers}"] = figure([rate([window]) for window, _ in repetitions], CALLS_PER_S)


def _tables(stack: Installation, effort: Effort, figures: dict[str, Figure]) -> None:
    url = stack.postgres_url
    asyncio.run(tables.create(url))
    # Whatever a repetition begins, it ends: short ones hold few batches, and few batches say little.
    seconds = 2 * effort.limit_seconds
    done: dict[bool, int] = {}
    for enter_only, name, unit in ((False, "limit_tables_cycle", CYCLES_PER_S), (True, "limit_tables_submit", PROCESSES_PER_S)):
        loads: list[Load[Timed, Window]] = [TableCycles(url, TABLE_BATCH, enter_only) for _ in range(TABLE_CONNECTIONS)]
        with running(loads) as processes:
            windows = [timed(processes, seconds) for _ in range(effort.repetitions + 1)]
        figures[name] = figure([rate(repetition) for repetition in windows[1:]], unit)
        done[enter_only] = done_in(windows)
    asyncio.run(tables.check(url, entered=sum(done.values()), closed=done[False]))
    asyncio.run(tables.drop(url))


def _repeat(load: LoadProcess[Timed, tuple[Window, list[float]]], effort: Effort) -> list[tuple[Window, list[float]]]:
    load.run(Timed.soon(effort.limit_seconds))
    return [load.run(Timed.soon(effort.limit_seconds)) for _ in range(effort.repetitions)]


def _commit(connection: PlainConnection, rows: int) -> Action:
    bodies = [bytes(ROW_BYTES)] * rows

    def commit() -> None:
        connection.execute("INSERT INTO bench.row (body) SELECT unnest(%b::bytea[])", [bodies])

    return commit


def _claim(valkey: redis.Redis) -> Action:
    counter = itertools.count()

    def claim() -> None:
        valkey.set(f"bench:nonce:{next(counter)}", "", nx=True, px=1_000)

    return claim


def _sign_and_check() -> Action:
    key = PrivateKey.generate()
    public = Ed25519PublicKey.from_public_bytes(key.public_key)
    text = bytes(SIGNED_BYTES)

    def sign_and_check() -> None:
        public.verify(key.sign(text), text)

    return sign_and_check


def _check_rows(connection: PlainConnection, expected: int) -> None:
    row = connection.execute("SELECT count(*) FROM bench.row").fetchone()
    if row != (expected,):
        msg = f"{expected} rows were committed for the limits, and {row} are there"
        raise BenchError(msg)


def _in_turn(actions: Mapping[str, Action], effort: Effort) -> dict[str, list[list[float]]]:
    """Milliseconds of each doing, by repetition: one caller, the actions in turn, so that noise hits them alike."""
    times: dict[str, list[list[float]]] = {name: [] for name in actions}
    for _ in range(effort.repetitions + 1):
        for name, action in actions.items():
            took: list[float] = []
            begin = time.monotonic()
            until = begin + effort.limit_seconds
            while begin < until or len(took) < MIN_SAMPLES:
                action()
                end = time.monotonic()
                took.append((end - begin) * 1000)
                begin = end
            times[name].append(took)
    return times
