"""A client that changes its own key, and is interrupted: it has one of the two keys, and can go on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies import AsyncClient
from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.errors import PermissionDeniedError, UnavailableError
from colonies.keys import PrivateKey
from tests.harness.calls import eventually
from tests.harness.cluster import CLUSTER, COLONY, Cluster
from tests.harness.keys import key_of

from .rotations import rotate

pytestmark = pytest.mark.asyncio

NEW = key_of("the client's new key")
USERS = pb.ListUsersRequest(colony_name=COLONY)
GONE = UnavailableError("gone", code=grpc.StatusCode.UNAVAILABLE)


class Interrupted(AsyncClient):
    """A client whose rotations are interrupted when one of its keys signs them, before or after auth has heard of it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, retry_for=0.0)
        self.error: BaseException | None = None
        self.at: PrivateKey | None = None
        self.heard = False

    async def call(self, method: Any, request: Any, **options: Any) -> Any:
        """As ever, but for that."""
        hit = isinstance(request, pb.RotateKeyRequest) and self.error is not None and self.key is self.at
        if not hit or self.heard:
            answer = await super().call(method, request, **options)
        if hit:
            assert self.error is not None
            raise self.error
        return answer


@pytest_asyncio.fixture
async def cluster(new_cluster: Callable[..., Awaitable[Cluster]]) -> Cluster:
    return await new_cluster(services=("auth",))


@pytest_asyncio.fixture
async def client(cluster: Cluster) -> AsyncIterator[Interrupted]:
    host, _, port = cluster.replicas["auth"][0].address.rpartition(":")
    async with Interrupted(host, int(port), COLONY, cluster.keys.user, CLUSTER) as opened:
        yield opened


async def goes_on(client: Interrupted) -> None:
    """That doing it again ends with the new key, and that it is good."""
    client.error = None
    assert (await client.rotate_key(NEW, keep_old_ms=0)).key_identity == NEW.identity
    assert client.key is NEW

    async def good() -> bool:
        # Auth hears of its own change a moment later.
        try:
            await client.call(client.auth.ListUsers, USERS)
        except PermissionDeniedError:
            return False
        return True

    await eventually(good)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), TimeoutError(), GONE], ids=lambda error: type(error).__name__)
async def test_interrupted_while_the_new_key_asks_it_has_the_old_one_and_can_go_on(
    cluster: Cluster, client: Interrupted, error: BaseException
) -> None:
    old = client.key
    # It was made, and nobody heard the answer; so the old key is refused and the new one asks.
    await rotate(cluster, old, NEW)

    async def refused() -> bool:
        # Auth hears of its own change a moment later.
        try:
            await client.call(client.auth.ListUsers, USERS)
        except PermissionDeniedError:
            return True
        return False

    await eventually(refused)
    client.error, client.at = error, NEW
    with pytest.raises(type(error)):
        await client.rotate_key(NEW, keep_old_ms=0)
    assert client.key is old
    await goes_on(client)


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("error", [asyncio.CancelledError(), GONE], ids=lambda error: type(error).__name__)
async def test_interrupted_while_the_old_key_asks_it_has_the_old_one_and_can_go_on(
    client: Interrupted, error: BaseException, heard: bool
) -> None:
    old = client.key
    client.error, client.at, client.heard = error, old, heard
    with pytest.raises(type(error)):
        await client.rotate_key(NEW, keep_old_ms=0)
    assert client.key is old
    await goes_on(client)


async def test_who_is_nobody_is_told_so_and_keeps_its_key(cluster: Cluster) -> None:
    host, _, port = cluster.replicas["auth"][0].address.rpartition(":")
    async with AsyncClient(host, int(port), COLONY, cluster.keys.stranger, CLUSTER) as client:
        with pytest.raises(PermissionDeniedError):
            await client.rotate_key(NEW)
        assert client.key is cluster.keys.stranger
