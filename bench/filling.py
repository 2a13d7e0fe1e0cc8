"""A million waiting processes: a few that are submitted, multiplied in the tables, and a queue that rebuilds itself of them.

To submit them all would take minutes. The copies are rows like those of their originals, ledger lines included. The queue
is emptied (as if Valkey had lost everything) and the scheduler fills it again; it counts as filled when Valkey has each of
them, one by one, in a lane.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import psycopg
import redis
from psycopg import sql

from bench import calls
from bench.assigns import Side
from bench.calls import signed_connection
from bench.failure import BenchError
from bench.installation import Colony, Installation
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from services.scheduler.queue import keys

SCHEMA = "scheduler"
# For the rebuild, a million processes deep.
REBUILT_S = 300.0
LOOK_S = 0.25
BARE_ENTRIES = 100_000
BARE_PAGE = 1_000


def submit(colony: Colony, targets: Sequence[Sequence[str]]) -> None:
    """Submits a process for each of these lists of executor names, in one call; an empty list names nobody."""
    asyncio.run(_submit(colony, targets))


def multiply(stack: Installation, colony: Colony, times: int) -> None:
    """Makes so many of each process that waits in a colony. The queue is not told.

    Raises:
        BenchError: the tables do not hold what they should.
    """
    name = colony.door.colony
    expected = {state: times * count for state, count in stack.processes(name).items()}
    with psycopg.connect(stack.postgres_url, options=f"-c search_path={SCHEMA}", autocommit=True) as connection:
        _copy(connection, name, times - 1)
        # So that no automatic vacuum does it while something is measured.
        for table in ("process", "ledger"):
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
    if (found := stack.processes(name)) != expected:
        msg = f"the tables should have {expected} for colony {name}, and have {found}"
        raise BenchError(msg)


def rebuild(stack: Installation, expected: Mapping[str, int]) -> None:
    """Empties Valkey, and returns when the queue holds so many ready processes of each colony again.

    Raises:
        BenchError: it does not within some minutes.
    """
    with _valkey(stack) as valkey:
        valkey.flushall()
        until = time.monotonic() + REBUILT_S
        while not (_is_built(valkey) and _held(valkey, expected) == expected):
            if time.monotonic() > until:
                msg = f"after {REBUILT_S:g} s the queue holds {_held(valkey, expected)}, and {dict(expected)} wait"
                raise BenchError(msg)
            time.sleep(LOOK_S)


def used_bytes(stack: Installation) -> int:
    """The memory that Valkey has in use (`used_memory`)."""
    with _valkey(stack) as valkey:
        return _used(valkey)


def bare_entry_bytes(stack: Installation, repetitions: int) -> list[float]:
    """What an entry of a sorted set takes in Valkey at least: with a member of 16 bytes, as many as a process id has.

    The sets stay until the next rebuild: Valkey frees what is deleted later, and what it has in use would be anybody's guess.
    """
    found = []
    with _valkey(stack) as valkey:
        for repetition in range(repetitions):
            before = _used(valkey)
            for first, last in pairwise(range(0, BARE_ENTRIES + 1, BARE_PAGE)):
                entries: dict[bytes | float | str, float] = {number.to_bytes(16): number for number in range(first, last)}
                valkey.zadd(f"bench:bare:{repetition}", entries)
            found.append((_used(valkey) - before) / BARE_ENTRIES)
    return found


async def _submit(colony: Colony, targets: Sequence[Sequence[str]]) -> None:
    specs = [Side(colony.door, colony.user.hex, names).spec() for names in targets]
    channel = signed_connection(colony.door, colony.user.hex)
    try:
        await calls.submit(SchedulerServiceStub(channel), colony.door, specs)
    finally:
        await channel.close()


def _copy(connection: "psycopg.Connection[tuple[object, ...]]", colony: str, times: int) -> None:
    """Adds so many copies of each process of a colony, with ids such as the scheduler makes, each a microsecond less urgent."""
    process = _columns(connection, "process", without=("id", "priority_time"))
    ledger = _columns(connection, "ledger", without=("process_id", "xid"))
    statement = sql.SQL(
        """
        WITH made AS (
          INSERT INTO process (id, priority_time, {process})
          SELECT uuidv7(), p.priority_time + 1000 * copy, {of_process}
          FROM process AS p
          CROSS JOIN generate_series(1, %(times)s) AS copy
          WHERE p.colony = %(colony)s
          RETURNING id
        ), original AS (
          SELECT l.*
          FROM ledger AS l
          JOIN process AS p ON p.id = l.process_id
          WHERE p.colony = %(colony)s
          LIMIT 1
        )
        INSERT INTO ledger (process_id, {ledger})
        SELECT m.id, {of_ledger}
        FROM made AS m
        CROSS JOIN original AS l
        """
    ).format(
        process=_listed(process),
        of_process=_listed(process, "p"),
        ledger=_listed(ledger),
        of_ledger=_listed(ledger, "l"),
    )
    connection.execute(statement, {"times": times, "colony": colony})


def _columns(connection: "psycopg.Connection[tuple[object, ...]]", table: str, *, without: Sequence[str]) -> list[str]:
    """The columns that a copy takes over: those that the database does not make itself."""
    query = """
        SELECT column_name
        FROM information_schema.columns
        WHERE table_schema = %s AND table_name = %s AND is_identity = 'NO' AND is_generated = 'NEVER'
        ORDER BY ordinal_position
    """
    return [str(name) for (name,) in connection.execute(query, [SCHEMA, table]) if name not in without]


def _listed(columns: Sequence[str], *table: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*table, column) for column in columns)


def _valkey(stack: Installation) -> redis.Redis:
    return redis.Redis.from_url(stack.redis_url, decode_responses=True)


def _is_built(valkey: redis.Redis) -> bool:
    return str(valkey.get(keys.EPOCH) or "").startswith(valkey.info("server")["run_id"])


def _held(valkey: redis.Redis, colonies: Iterable[str]) -> dict[str, int]:
    """How many members the lanes of each colony have."""
    return {
        colony: sum(valkey.zcard(key) for key in valkey.scan_iter(match=f"{keys.prefix(colony)}lane:*", count=10_000))
        for colony in colonies
    }


def _used(valkey: redis.Redis) -> int:
    return int(valkey.info("memory")["used_memory"])
