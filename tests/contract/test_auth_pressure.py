"""Auth's tables under members that mean harm, and under replicas of an older version."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from servicekit.postgres import Database, migrations_of
from services.auth.domain.model import Call, Evidence, Membership, NotRotated, Resolved, Role, Rotated, Rotation, TooOften
from services.auth.store.ledger import QUERIES
from services.auth.store.store import LEDGER_PAGE_BYTES, PostgresStore

pytestmark = pytest.mark.asyncio

NOW = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Auth's schema, over few connections."""
    opened = Database(database_url, "auth", connections=3)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def store(database: Database) -> PostgresStore:
    """A store with the colony "acme" and its user "alice"."""
    made = PostgresStore(database)
    await made.add_colony("acme", "owner-id", Evidence(NOW))
    await made.put_member(user("a", "alice"), Evidence(NOW))
    return made


def user(identity: str, name: str) -> Membership:
    """A user of the colony."""
    return Membership("acme", identity, Role.USER, name, NOW)


async def rotated(store: PostgresStore, old: str, new: str, at: datetime, keep: timedelta = HOUR) -> Any:
    """Puts one key in the place of another."""
    return await store.rotate(Rotation("acme", old, new, at + keep), Evidence(at))


async def told(connection: psycopg.AsyncConnection[Any]) -> list[str]:
    """The keys that followers have been told of."""
    payloads = [notify.payload async for notify in connection.notifies(timeout=0.5)]
    return [json.loads(payload)[1] for payload in payloads]


async def test_a_member_never_has_more_than_two_keys_and_goes_with_few_words(store: PostgresStore, database_url: str) -> None:
    keys = ["a", *(f"k{number}" for number in range(10))]
    for number, (old, new) in enumerate(itertools.pairwise(keys)):
        at = NOW + timedelta(minutes=2 * number)
        assert isinstance(await rotated(store, old, new, at), Rotated)
        ends = {key: (await store.resolve("acme", key)).valid_until for key in keys[: number + 2]}
        assert [key for key, end in ends.items() if end is None or end > at] == [old, new]
        assert ends[old] == at + HOUR
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as follower:
        await follower.execute("LISTEN auth_changes")
        await store.drop_member("acme", "a", Role.USER, Evidence(at + timedelta(minutes=2)))
        assert sorted(await told(follower)) == sorted({"a", *keys[-2:]})


async def test_ten_rotations_in_an_hour_and_repeats_are_none(store: PostgresStore) -> None:
    keys = ["a", *(f"k{number}" for number in range(12))]
    for number in range(10):
        at = NOW + timedelta(minutes=number)
        made = await rotated(store, keys[number], keys[number + 1], at)
        assert isinstance(made, Rotated)
        assert await rotated(store, keys[number], keys[number + 1], at) == made
    late = NOW + timedelta(minutes=59)
    assert await rotated(store, "k9", "k10", late) == TooOften(NOW + HOUR)
    assert await rotated(store, "k8", "k9", late) == made
    assert (await store.resolve("acme", "k10")).identity == ""
    assert await rotated(store, "k9", "owner-id", late) is NotRotated.KEY_TAKEN
    # Another member is not held up by it, and an hour after the first there is room for one.
    assert isinstance(await rotated(store, "owner-id", "o", late), Rotated)
    assert isinstance(await rotated(store, "k9", "k10", NOW + HOUR), Rotated)
    assert await rotated(store, "k10", "k11", NOW + HOUR) == TooOften(NOW + timedelta(minutes=1) + HOUR)


async def test_who_goes_is_told_of_by_the_keys_that_a_slow_clock_still_takes_for_good(
    store: PostgresStore, database_url: str
) -> None:
    await rotated(store, "a", "b", NOW, timedelta(seconds=1))
    await rotated(store, "b", "c", NOW, timedelta(seconds=90))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as follower:
        await follower.execute("LISTEN auth_changes")
        await store.drop_member("acme", "a", Role.USER, Evidence(NOW + timedelta(seconds=149)))
        assert sorted(await told(follower)) == ["a", "b", "c"]
        await store.put_member(user("a", "alice"), Evidence(NOW + timedelta(seconds=151)))
        assert sorted(await told(follower)) == ["a", "c"]


async def test_a_colony_that_is_held_takes_one_connection_and_all_others_go_on(store: PostgresStore, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as other_replica:
        await other_replica.execute(QUERIES["hold_colony"], {"colony": "acme"})
        waiting = [asyncio.create_task(store.put_member(user(f"id {n}", f"name {n}"), Evidence(NOW))) for n in range(20)]
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as looker, asyncio.timeout(2):
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            while (await (await looker.execute(query)).fetchone()) == (0,):
                await asyncio.sleep(0.005)
            await asyncio.gather(*(store.resolve("acme", "a") for _ in range(20)))
            assert (await store.add_colony("umbrella", "owner-id", Evidence(NOW))).name == "umbrella"
            assert (await (await looker.execute(query)).fetchone()) == (1,)
        assert not any(task.done() for task in waiting)
    assert all(await asyncio.gather(*waiting))
    assert len(store._turns) == 0


async def test_where_a_page_of_the_ledger_ends_is_known_without_reading_the_calls(
    store: PostgresStore, database: Database
) -> None:
    for number in range(40):
        evidence = Evidence(NOW, (Call(os.urandom(80_000), ""), Call(os.urandom(20_000), "")))
        await store.put_member(user(f"id {number}", f"name {number}"), evidence)
    parameters = {"colony": "acme", "after": 0, "limit": 1_000, "at_most": LEDGER_PAGE_BYTES}
    explained = await database.tuples(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {QUERIES['events']}", parameters)
    plan = explained[0][0][0]["Plan"]
    assert plan["Actual Rows"] == 42
    # The calls alone are on more than 400 pages.
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100
    sizes = await database.tuples("SELECT DISTINCT size FROM membership_event ORDER BY size")
    assert sizes == [(0,), (100_000,)]


async def entered_by_the_old_version(connection: psycopg.AsyncConnection[Any]) -> None:
    """A colony and a user, as a replica from before the keys enters them."""
    await connection.execute("INSERT INTO colony (name, owner, created_at) VALUES ('old', 'o', %s)", [NOW])
    await connection.execute(
        "INSERT INTO member (colony, identity, role, name, created_at) VALUES ('old', 'u', 'user', 'alice', %s)", [NOW]
    )


async def test_whom_a_replica_of_the_older_version_enters_is_a_member_like_all(store: PostgresStore, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, options="-c search_path=auth") as connection:
        await entered_by_the_old_version(connection)
    assert (await store.resolve("old", "u")) == Resolved(colony_exists=True, role=Role.USER, name="alice", identity="u")
    assert (await store.resolve("old", "o")).role is Role.COLONY_OWNER
    assert await store.drop_member("old", "u", Role.USER, Evidence(NOW))
    assert await store.remove_colony("old", Evidence(NOW))
    events = await store.events("old", after=0, limit=10)
    assert [(event.kind.value, event.key) for event in events] == [("USER_REMOVED", "u"), ("COLONY_REMOVED", "o")]


async def test_a_member_without_a_key_can_be_removed(store: PostgresStore, database: Database) -> None:
    await database.statement("DELETE FROM member_key")
    assert await store.drop_member("acme", "a", Role.USER, Evidence(NOW))
    assert await store.remove_colony("acme", Evidence(NOW))


async def test_who_enters_while_the_keys_come_is_not_missed(empty_database_url: str) -> None:
    """An entry that is under way when the migration begins has a key when both are done."""
    (_, first), (_, second) = migrations_of("services.auth.store.migrations")[:2]
    path = "-c search_path=auth"
    async with (
        await psycopg.AsyncConnection.connect(empty_database_url, options=path) as old,
        await psycopg.AsyncConnection.connect(empty_database_url, options=path) as new,
        await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as looker,
    ):
        await old.execute("CREATE SCHEMA auth")
        await old.execute(first)
        await old.commit()
        await entered_by_the_old_version(old)
        migrating = asyncio.create_task(new.execute(second))
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with asyncio.timeout(5):
            while (await (await looker.execute(query)).fetchone()) == (0,):
                await asyncio.sleep(0.005)
        await old.commit()
        await migrating
        await new.commit()
        keys = await (await new.execute("SELECT key FROM member_key ORDER BY key")).fetchall()
    assert keys == [("o",), ("u",)]
