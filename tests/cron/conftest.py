"""Stores of the cron service on a real Postgres, and time that stands still."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from servicekit.clock import ManualClock
from servicekit.postgres import Database
from services.cron.store.store import PostgresCronStore


@pytest_asyncio.fixture
async def store(database_url: str) -> AsyncIterator[PostgresCronStore]:
    """One replica's store."""
    async for database in _opened(database_url):
        yield PostgresCronStore(database)


@pytest_asyncio.fixture
async def other_store(database_url: str) -> AsyncIterator[PostgresCronStore]:
    """Another replica's store, on the same database."""
    async for database in _opened(database_url):
        yield PostgresCronStore(database)


async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, "cron", connections=8)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def clock() -> ManualClock:
    """Stands still until the test moves it."""
    return ManualClock()
