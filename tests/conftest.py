"""Servers for the whole session, a database and an empty Valkey for each test, clusters on demand."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis

from deploy.local.postgres import Postgres
from deploy.local.valkey import Valkey
from tests.harness.cluster import Cluster
from tests.harness.servers import Databases, running_postgres, running_valkey


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A running Postgres."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """A running Valkey."""
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres_server: Postgres) -> Iterator[Databases]:
    """Where databases come from."""
    made = Databases(postgres_server)
    yield made
    made.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A database of this test's own, with every service's schema."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A database of this test's own, with nothing in it."""
    with databases.fresh(migrated=False) as url:
        yield url


@pytest.fixture
def redis_url(valkey_server: Valkey) -> str:
    """An empty Valkey."""
    url = valkey_server.url()
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest_asyncio.fixture
async def new_cluster(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts clusters, which are stopped after the test: `cluster = await new_cluster(services=("auth",))`."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Cluster:
            return await stack.enter_async_context(Cluster(database_url, redis_url, tmp_path, **options))

        yield start


@pytest_asyncio.fixture
async def cluster(new_cluster: Callable[..., Any]) -> Cluster:
    """Every service that there is, with the colony "acme"."""
    started: Cluster = await new_cluster()
    return started
