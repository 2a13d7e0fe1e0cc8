"""The Redis user that the operations page describes is enough for all services."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from colonies.scheduler.v1 import controls_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.cluster import COLONY, Cluster

from .scheduler_colony import SERVICES, Acme, spec

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).parents[2]
PASSWORD = "of the restricted user"
# Only odd moments call for some: what the scripts name is allowed, whether or not a test comes by it.
IN_SCRIPTS = re.compile(r"redis\.p?call\(\s*'([A-Z]+)'|(?:in_chunks|chunked)\([^']*'([A-Z]+)'")


def described() -> list[str]:
    """The user's rules, as the page has them."""
    (line,) = re.findall(r"^ +ACL SETUSER colonies (.*)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    return [f">{PASSWORD}" if rule == ">PASSWORD" else rule for rule in line.split()]


@pytest_asyncio.fixture
async def admin(redis_url: str) -> AsyncIterator[Redis]:
    """The server's own user."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        run: Any = redis.execute_command
        await run("ACL", "SETUSER", "colonies", "reset", *described())
        await run("ACL", "LOG", "RESET")
        yield redis
        await run("ACL", "DELUSER", "colonies")


async def test_the_described_user_is_enough(
    admin: Redis, new_cluster: Callable[..., Awaitable[Cluster]], redis_url: str
) -> None:
    place = urlsplit(redis_url)
    url = f"redis://colonies:{PASSWORD.replace(' ', '%20')}@{place.hostname}:{place.port}{place.path}"
    acme = Acme(await new_cluster(services=SERVICES, settings={name: {"redis_url": url} for name in SERVICES}))
    owner = acme.by(acme.keys.owner)
    (first,) = await acme.submit(spec())
    await acme.user.GetProcess(pb.GetProcessRequest(colony_name=COLONY, process_id=first))
    assert len((await acme.assigning(wait_ms=10_000)).assignments) == 1
    for paused in (True, False):
        await owner.UpdateControls(controls_pb2.UpdateControlsRequest(colony_name=COLONY, paused=paused))
    await acme.user.GetStatistics(controls_pb2.GetStatisticsRequest(colony_name=COLONY))
    await acme.submit(spec())
    assert len((await acme.assigning(wait_ms=10_000)).assignments) == 1
    assert "colonies" in {client["user"] for client in await admin.client_list()}
    # Nothing was tried in vain, behind what callers see.
    assert [entry["object"] for entry in await admin.acl_log()] == []


async def test_all_that_scripts_call_is_allowed() -> None:
    scripts = [path for folder in ("services", "servicekit") for path in (ROOT / folder).rglob("*.lua")]
    assert len(scripts) > 5
    called = {first or second for path in scripts for first, second in IN_SCRIPTS.findall(path.read_text())}
    assert called > {"GET", "ZADD", "HSET", "INFO"}
    assert {f"+{name.lower()}" for name in called} <= set(described())
