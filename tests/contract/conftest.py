"""What the contract suites run over: auth's and the registry's stores in memory and in Postgres, the scheduler's tables and queue."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from servicekit import postgres
from servicekit.postgres import Database
from services.auth.store.store import PostgresStore as AuthPostgresStore
from services.registry.store.store import PostgresStore as RegistryPostgresStore
from tests.harness.servers import Databases

from . import memory_auth, memory_registry
from .scheduler_line import Line, opened_line
from .scheduler_records import World, opened_world
from .scheduler_works import Works, opened_works

KINDS = ("memory", "postgres")


@asynccontextmanager
async def opened(databases: Databases, schema: str) -> AsyncIterator[Database]:
    """A service's schema in a database of this test's own."""
    with databases.fresh() as url:
        database = Database(url, schema, connections=5)
        await database.open()
        try:
            yield database
        finally:
            await database.close()


@pytest_asyncio.fixture(params=KINDS)
async def auth_store(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Any]:
    """A store of auth's: one suite, both kinds."""
    if request.param == "memory":
        yield memory_auth.MemoryStore()
        return
    async with opened(databases, "auth") as database:
        yield AuthPostgresStore(database)


@pytest_asyncio.fixture(params=KINDS)
async def registry_store(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Any]:
    """A store of the registry's: one suite, both kinds."""
    if request.param == "memory":
        yield memory_registry.MemoryStore()
        return
    async with opened(databases, "registry") as database:
        yield RegistryPostgresStore(database)


@pytest_asyncio.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """The scheduler's tables in a database of this test's own."""
    async with opened_world(database_url) as opened_one:
        yield opened_one


@pytest.fixture
def no_deadlocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is ended for a deadlock fails, and is not tried again."""
    monkeypatch.setattr(postgres, "DEADLOCK_TRIES", 1)


@pytest_asyncio.fixture
async def line(redis_url: str) -> AsyncIterator[Line]:
    """The scheduler's queue in an empty server."""
    async with opened_line(redis_url) as opened_one:
        yield opened_one


@pytest_asyncio.fixture
async def works(database_url: str, redis_url: str) -> AsyncIterator[Works]:
    """The scheduler's tables and queue, and the upkeep of both."""
    async with opened_works(database_url, redis_url) as opened_one:
        yield opened_one
