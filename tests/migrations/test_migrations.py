"""Migrations of every service that has some."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from servicekit.postgres import migrate, migrations_of
from tests.harness.servers import schemas

pytestmark = pytest.mark.asyncio

TABLES = {
    "auth": {"colony", "member", "member_key", "membership_event", "migration"},
    "registry": {"executor", "function", "location", "migration"},
}


def package_of(schema: str) -> str:
    """Where a service's migrations are."""
    return f"services.{schema}.store.migrations"


async def tables(url: str, schema: str) -> set[str]:
    """The tables of a schema."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        rows = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema])
        return {name for (name,) in await rows.fetchall()}


async def shape(url: str, schema: str) -> list[tuple[str, ...]]:
    """Columns, indexes and constraints of a schema."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        columns = await connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns"
            " WHERE table_schema = %s ORDER BY 1, 2",
            [schema],
        )
        found = await columns.fetchall()
        indexes = await connection.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1", [schema])
        found += await indexes.fetchall()
        return found


@pytest.mark.parametrize("schema", schemas())
async def test_applied_again_they_change_nothing(empty_database_url: str, schema: str) -> None:
    total = len(migrations_of(package_of(schema)))
    assert total > 0
    assert await migrate(empty_database_url, schema, package_of(schema)) == total
    before = await shape(empty_database_url, schema)
    assert await migrate(empty_database_url, schema, package_of(schema)) == 0
    assert await shape(empty_database_url, schema) == before
    assert await tables(empty_database_url, schema) == TABLES.get(schema, await tables(empty_database_url, schema))


@pytest.mark.parametrize("schema", schemas())
async def test_replicas_that_start_together_apply_each_once(empty_database_url: str, schema: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url, schema, package_of(schema)) for _ in range(6)))
    assert sorted(applied) == [0] * 5 + [len(migrations_of(package_of(schema)))]


@pytest.mark.parametrize("schema", schemas())
async def test_numbers_have_no_gap_and_no_repeat(schema: str) -> None:
    numbers = [number for number, _ in migrations_of(package_of(schema))]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], str]:
    """Writes a package of migrations that can be changed between two runs."""
    # A name of its own: Python keeps modules by name.
    folder = tmp_path / f"made_up_{uuid.uuid4().hex}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write(files: dict[str, str]) -> str:
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder.name

    return write


async def test_a_migration_that_was_changed_is_refused(
    empty_database_url: str, package: Callable[[dict[str, str]], str]
) -> None:
    name = package({"0001_initial.sql": "CREATE TABLE a (x integer);"})
    assert await migrate(empty_database_url, "made_up", name) == 1
    package({"0001_initial.sql": "CREATE TABLE a (x bigint);", "0002_more.sql": "CREATE TABLE b (x integer);"})
    with pytest.raises(RuntimeError, match="migration 1 of made_up was changed"):
        await migrate(empty_database_url, "made_up", name)
    assert await tables(empty_database_url, "made_up") == {"a", "migration"}


async def test_a_migration_that_fails_leaves_nothing_of_its_run(
    empty_database_url: str, package: Callable[[dict[str, str]], str]
) -> None:
    name = package({"0001_initial.sql": "CREATE TABLE a (x integer);", "0002_bad.sql": "CREATE TABLE b (x nonsense);"})
    with pytest.raises(psycopg.errors.UndefinedObject):
        await migrate(empty_database_url, "made_up", name)
    assert await tables(empty_database_url, "made_up") == set()
    package({"0002_bad.sql": "CREATE TABLE b (x integer);"})
    assert await migrate(empty_database_url, "made_up", name) == 2
    assert await tables(empty_database_url, "made_up") == {"a", "b", "migration"}


async def test_services_cannot_see_each_others_tables_by_accident(empty_database_url: str) -> None:
    """Each service's search path is its own schema alone; a name that two of them use is two tables."""
    for schema in schemas():
        await migrate(empty_database_url, schema, package_of(schema))
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as connection:
        await connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier("auth")))
        with pytest.raises(psycopg.errors.UndefinedTable):
            await connection.execute("SELECT FROM executor")
