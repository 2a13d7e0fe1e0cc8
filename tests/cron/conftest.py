"""Replicas of the cron service on a real Postgres and a real Redis, and time that stands still."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from servicekit import redis
from servicekit.clock import ManualClock
from servicekit.postgres import Database
from tests.cron.fakes import FakeScheduler
from tests.cron.replica import Replica


@pytest.fixture
def clock() -> ManualClock:
    """Stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
def scheduler() -> FakeScheduler:
    """Whatever was submitted."""
    return FakeScheduler()


@pytest_asyncio.fixture
async def new_replica(
    database_url: str, redis_url: str, scheduler: FakeScheduler, clock: ManualClock
) -> AsyncIterator[Callable[..., Replica]]:
    """Starts replicas, which share everything but their connections: `new_replica(batch=10)`."""
    database = Database(database_url, "cron", connections=16)
    await database.open()
    clients: list[redis.Client] = []

    def start(**options: int) -> Replica:
        clients.append(redis.connect(redis_url))
        return Replica(database, clients[-1], scheduler, clock, **options)

    yield start
    for client in clients:
        await client.aclose()
    await database.close()


@pytest.fixture
def replica(new_replica: Callable[..., Replica]) -> Replica:
    """One replica."""
    return new_replica()
