"""A service whose background loop fails does not go on half-alive: it says so and ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from services.scheduler.domain.patrol import Patrol
from tests.harness.cluster import Cluster

from .scheduler_colony import SERVICES

pytestmark = pytest.mark.asyncio

WITHIN_S = 8.0


class BrokenError(Exception):
    """What nobody foresaw."""


@pytest.mark.parametrize("ends_how", ["raises", "returns"])
async def test_a_loop_that_ends_ends_its_process_with_an_error(
    new_cluster: Callable[..., Awaitable[Cluster]], monkeypatch: pytest.MonkeyPatch, ends_how: str
) -> None:
    breaks = asyncio.Event()

    async def patrol(_patrol: Patrol) -> None:
        await breaks.wait()
        if ends_how == "raises":
            raise BrokenError

    monkeypatch.setattr(Patrol, "run", patrol)
    cluster = await new_cluster(services=SERVICES)
    (replica,) = cluster.replicas["scheduler"]
    channel = cluster.channel("scheduler")
    health: Any = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == serving
    with capture_logs() as logs:
        breaks.set()
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(BrokenError if ends_how == "raises" else RuntimeError) as caught:
                await replica._task
    if ends_how == "returns":
        assert str(caught.value) == "the background task patrol ended"
    (reported,) = [line for line in logs if line["log_level"] == "error"]
    assert (reported["event"], reported["loop"]) == ("a background loop failed: the process ends", "patrol")
    assert reported["exc_info"] is caught.value
    cluster.replicas["scheduler"].remove(replica)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
