"""Replicas' generators on a real Postgres and a real Redis, and time that stands still."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from servicekit import redis
from servicekit.clock import ManualClock
from servicekit.postgres import Database
from tests.generators.replica import (
    GeneratorReplica,
    RefusingScheduler,
    check_rows,
)


@pytest.fixture
def clock() -> ManualClock:
    """Stands still until the test moves it."""
    return ManualClock()


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, "cron", connections=16)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def refusing() -> RefusingScheduler:
    return RefusingScheduler()


@pytest_asyncio.fixture
async def new(
    database: Database, redis_url: str, refusing: RefusingScheduler, clock: ManualClock
) -> AsyncIterator[Callable[..., GeneratorReplica]]:
    """Starts replicas, which share everything but their connections to Redis."""
    clients: list[redis.Client] = []

    def start(**options: Any) -> GeneratorReplica:
        clients.append(redis.connect(redis_url))
        return GeneratorReplica(database, clients[-1], refusing, clock, **options)

    yield start
    await check_rows(database)
    for client in clients:
        await client.aclose()


@pytest.fixture
def replica(new: Callable[..., GeneratorReplica]) -> GeneratorReplica:
    return new()
