"""Statements and transactions over a pool of connections that commit by themselves."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.pq import TransactionStatus

from servicekit.arrays import Ints, Texts
from servicekit.failures import Unavailable
from servicekit.metrics import POSTGRES_OUTAGES
from servicekit.postgres import DEADLOCK_TRIES, Connection, Database

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    """A database with a table of two rows."""
    opened = Database(empty_database_url, "public", connections=4)
    await opened.open()
    await opened.statement("CREATE TABLE thing (id integer PRIMARY KEY, name text NOT NULL DEFAULT '')")
    await opened.statement("INSERT INTO thing SELECT i, t FROM unnest(%s, %s) AS g (i, t)", [Ints([1, 2]), Texts(["a", "b"])])
    yield opened
    await opened.close()


async def names(database: Database) -> list[Any]:
    """The names of all things."""
    return [name for (name,) in await database.tuples("SELECT name FROM thing ORDER BY id")]


async def test_rows_as_mappings_and_as_tuples(database: Database) -> None:
    query = "SELECT id, name FROM thing WHERE id > %(above)s ORDER BY id"
    assert await database.statement(query, {"above": 0}) == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert await database.tuples(query, {"above": 1}) == [(2, "b")]
    assert await database.tuples(query, {"above": 2}) == []
    assert await database.statement("UPDATE thing SET name = 'c' WHERE id = 1") == [], "no rows are none"


async def test_what_comes_in_the_binary_format(database: Database) -> None:
    row = await database.tuples(
        "SELECT 1::smallint, 2::bigint, 0.5::float8, true, 'x'::text, 'n'::name, '\\x00'::bytea, '{a,NULL}'::text[], NULL,"
        " '00000000-0000-0000-0000-000000000001'::uuid, '2026-01-01Z'::timestamptz, '1.50'::numeric, '{\"a\":1}'::jsonb,"
        " interval '1 s', '{0.5}'::float8[]"
    )
    values = row[0]
    assert values[:9] == (1, 2, 0.5, True, "x", "n", b"\0", ["a", None], None)
    assert values[9].int == 1
    assert values[10] == datetime(2026, 1, 1, tzinfo=UTC)
    assert (str(values[11]), values[12], values[13].total_seconds(), values[14]) == ("1.50", {"a": 1}, 1.0, [0.5])


async def test_a_statement_is_committed_when_it_returns_and_undone_when_it_fails(database: Database) -> None:
    await database.statement("UPDATE thing SET name = 'mine' WHERE id = 1")
    assert await names(database) == ["mine", "b"]
    with pytest.raises(psycopg.errors.DivisionByZero):
        await database.statement("UPDATE thing SET name = (1 / (id - 2))::text")
    assert await names(database) == ["mine", "b"]


async def test_only_a_statement_that_need_not_be_durable_is_acknowledged_early(database: Database) -> None:
    chosen = "SELECT setting, current_setting('search_path') FROM pg_settings WHERE name = 'synchronous_commit' AND source = 'client'"
    assert await database.tuples(chosen) == [], "what the server is set up with"
    assert await database.tuples(chosen, durable=False) == [("off", "public")]
    await database.statement("UPDATE thing SET name = 'early' WHERE id = 1", durable=False)
    assert await names(database) == ["early", "b"]


async def test_a_transaction_is_whole(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("UPDATE thing SET name = 'x' WHERE id = 1")
        assert connection.info.transaction_status is TransactionStatus.INTRANS
        assert await names(database) == ["a", "b"], "nobody else sees it yet"
        await connection.execute("UPDATE thing SET name = 'y' WHERE id = 2")
    assert await names(database) == ["x", "y"]

    async def work(connection: Connection) -> None:
        await connection.execute("DELETE FROM thing")
        raise KeyError

    with pytest.raises(KeyError):
        await database.run(work)
    assert await names(database) == ["x", "y"]
    async with database.transaction() as connection, connection.pipeline():
        for number in (1, 2):
            await connection.execute("UPDATE thing SET name = %s WHERE id = %s", (str(number), number))
    assert await names(database) == ["1", "2"]


async def test_the_victim_of_a_deadlock_runs_again(database: Database) -> None:
    """A transaction that holds row 2 and wants row 1, against a statement that holds row 1 and wants row 2."""
    await database.statement("CREATE SEQUENCE tries")
    await database.statement(
        "CREATE FUNCTION in_order(first integer, second integer) RETURNS void LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('tries'); UPDATE thing SET name = name || 's' WHERE id = first;"
        " UPDATE thing SET name = name || 's' WHERE id = second; END $$"
    )
    statements: list[asyncio.Task[Any]] = []

    async def work(connection: Connection) -> None:
        await connection.execute("SELECT nextval('tries')")
        await connection.execute("UPDATE thing SET name = name || 't' WHERE id = 2")
        if not statements:
            statements.append(asyncio.create_task(database.tuples("SELECT in_order(1, 2)")))
            await until_waiting(database)
        await connection.execute("UPDATE thing SET name = name || 't' WHERE id = 1")

    await database.run(work)
    await statements[0]
    # Which of the two Postgres chose is a matter of its timers, and how often a matter of who wakes first.
    assert [sorted(name) for name in await names(database)] == [["a", "s", "t"], ["b", "s", "t"]]
    ((tries,),) = await database.tuples("SELECT last_value FROM tries")
    assert tries > 2, "there was a deadlock"


async def until_waiting(database: Database) -> None:
    """Returns when some connection waits for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while await database.tuples(waiting) == [(0,)]:
            await asyncio.sleep(0.005)


async def test_an_eternal_victim_is_told_to_come_again(database: Database) -> None:
    await database.statement("CREATE SEQUENCE tries")
    await database.statement(
        "CREATE FUNCTION victim() RETURNS void LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'dead' USING ERRCODE = 'deadlock_detected'; END $$"
    )
    with pytest.raises(Unavailable) as caught:
        await database.statement("SELECT victim()")
    assert caught.value.reason == "DATABASE_BUSY"
    assert await database.tuples("SELECT last_value FROM tries") == [(DEADLOCK_TRIES,)]


async def test_a_lock_that_others_hold_is_no_outage(database: Database) -> None:
    outages = POSTGRES_OUTAGES._value.get()
    async with database.transaction() as connection:
        await connection.execute("UPDATE thing SET name = 'held' WHERE id = 1")
        with pytest.raises(Unavailable) as caught:
            async with database.transaction() as other:
                await other.execute("SET LOCAL lock_timeout = '10ms'")
                await other.execute("UPDATE thing SET name = 'other' WHERE id = 1")
    assert (caught.value.reason, caught.value.retry_delay_s) == ("DATABASE_BUSY", 0.5)
    assert POSTGRES_OUTAGES._value.get() == outages
    assert await names(database) == ["held", "b"]


async def test_a_broken_connection_is_an_outage_and_the_next_statement_has_another(database: Database) -> None:
    with pytest.raises(Unavailable) as caught:
        await database.statement("SELECT pg_terminate_backend(pg_backend_pid())")
    assert caught.value.reason == "DATABASE_UNAVAILABLE"
    assert await names(database) == ["a", "b"]
    with pytest.raises(Unavailable):
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await names(database) == ["a", "b"]


async def test_a_cancelled_statement_leaves_its_connection_whole(database: Database) -> None:
    statement = asyncio.create_task(database.statement("SELECT pg_sleep(30)"))
    async with asyncio.timeout(10):
        while await database.tuples("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == [(0,)]:
            await asyncio.sleep(0.005)
        statement.cancel()
        with pytest.raises(asyncio.CancelledError):
            await statement
        assert await asyncio.gather(*(names(database) for _ in range(8))) == [["a", "b"]] * 8
