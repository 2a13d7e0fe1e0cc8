"""Who is thrown out is out everywhere within a second, by push."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
import pytest_asyncio

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import from_rpc_error
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

pytestmark = [pytest.mark.asyncio, pytest.mark.alone]

# What the architecture promises.
REVOKED_WITHIN_S = 1.0


@pytest_asyncio.fixture
async def pair(new_cluster: Callable[..., Awaitable[Cluster]]) -> Cluster:
    """Auth and registry."""
    return await new_cluster(services=("auth", "registry"))


def reads(cluster: Cluster, key: PrivateKey) -> Callable[[], Awaitable[bool]]:
    """Whether this identity may read at the registry."""
    registry = cluster.stub(RegistryServiceStub, key)

    async def may() -> bool:
        try:
            await registry.ListExecutors(pb.ListExecutorsRequest(colony_name=COLONY))
        except grpc.aio.AioRpcError as error:
            if from_rpc_error(error).reason != "NOT_A_MEMBER":
                raise
            return False
        return True

    return may


def opposite(condition: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    """That the condition does not hold."""

    async def negated() -> bool:
        return not await condition()

    return negated


async def test_a_removed_user(pair: Cluster) -> None:
    may = reads(pair, pair.keys.user)
    assert await may()
    auth = pair.stub(AuthServiceStub, pair.keys.owner)
    await auth.RemoveUser(auth_pb.RemoveUserRequest(colony_name=COLONY, name="alice"))
    await eventually(opposite(may), seconds=REVOKED_WITHIN_S)


async def test_an_added_user_whose_absence_was_remembered(pair: Cluster) -> None:
    may = reads(pair, key_of("bob"))
    assert not await may()
    await pair.add_user(COLONY, pair.keys.owner, "bob", key_of("bob"))
    await eventually(may, seconds=REVOKED_WITHIN_S)


async def test_a_rejected_executor(pair: Cluster) -> None:
    may = reads(pair, pair.keys.executor)
    assert await may()
    registry = pair.stub(RegistryServiceStub, pair.keys.owner)
    await registry.RejectExecutor(pb.RejectExecutorRequest(colony_name=COLONY, identity=pair.keys.executor.identity))
    await eventually(opposite(may), seconds=REVOKED_WITHIN_S)


async def test_an_executor_that_says_something_else_of_itself(pair: Cluster) -> None:
    may = reads(pair, pair.keys.executor)
    assert await may()
    await pair.register(COLONY, "worker-1", pair.keys.executor, executor_types=["other"])
    await eventually(opposite(may), seconds=REVOKED_WITHIN_S)


async def test_everybody_in_a_removed_colony(pair: Cluster) -> None:
    everybody = [reads(pair, key) for key in (pair.keys.owner, pair.keys.user, pair.keys.executor)]
    for may in everybody:
        assert await may()
    auth = pair.stub(AuthServiceStub, pair.keys.server_owner)
    await auth.RemoveColony(auth_pb.RemoveColonyRequest(name=COLONY))
    await asyncio.gather(*(eventually(opposite(may), seconds=REVOKED_WITHIN_S) for may in everybody))


async def test_users_that_come_and_go_many_times_are_never_left_in_the_wrong_state(pair: Cluster) -> None:
    """Changes race with the fetches that they make stale: whatever the order, the last change wins."""
    may = reads(pair, key_of("bob"))
    auth = pair.stub(AuthServiceStub, pair.keys.owner)
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            await may()

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        for _ in range(20):
            await pair.add_user(COLONY, pair.keys.owner, "bob", key_of("bob"))
            await eventually(may, seconds=REVOKED_WITHIN_S)
            await auth.RemoveUser(auth_pb.RemoveUserRequest(colony_name=COLONY, name="bob"))
            await eventually(opposite(may), seconds=REVOKED_WITHIN_S)
    finally:
        stop.set()
        await asyncio.gather(*asking)
