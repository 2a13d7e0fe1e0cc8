"""A stage for each test."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio

from tests.harness.cluster import Cluster
from tests.rpc.scheduler_colony import SERVICES

from .stage import Stage, stage


@pytest_asyncio.fixture
async def bare(new_cluster: Callable[..., Awaitable[Cluster]]) -> AsyncIterator[Stage]:
    """Without a gateway: the test opens those that it needs."""
    async with stage(lambda: new_cluster(services=SERVICES)) as made:
        yield made


@pytest_asyncio.fixture
async def here(bare: Stage) -> Stage:
    """With one gateway as it is by default, but for a stream's quiet."""
    await bare.open(quiet_seconds=0.2)
    return bare
