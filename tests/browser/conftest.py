"""One stage for all tests of this folder: a browser and its services take some seconds to start."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis

from deploy.local.valkey import Valkey
from tests.browser.stage import Stage, missing, stage
from tests.harness.servers import Databases

pytest.importorskip("playwright", reason="no playwright: pip install playwright==1.65.2")
if why := missing():
    pytest.skip(why, allow_module_level=True)


@pytest_asyncio.fixture(scope="package", loop_scope="package", name="stage")
async def running_stage(
    databases: Databases, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The services, Envoy and Chromium."""
    redis_url = valkey_server.url()
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    directory: Path = tmp_path_factory.mktemp("browser")
    with databases.fresh() as database_url:
        async with stage(database_url, redis_url, directory) as made:
            yield made
