"""Other keys for the server owner and for services: known everywhere at once, and back to the settings when these say so."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import from_rpc_error
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from deploy.local.ports import free_port
from servicekit.clock import ManualClock
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of
from tests.rpc.rotations import ledger, links, rotate, verified

pytestmark = pytest.mark.asyncio

NEW, NEWER = key_of("new"), key_of("newer")
KEEP_MS = 60_000


@pytest_asyncio.fixture
async def pair(new_cluster: Callable[..., Awaitable[Cluster]]) -> AsyncIterator[Cluster]:
    """Auth and registry, on a clock that stands still; auth comes back where it was."""
    # One of its own: while it is away, anybody's connection may get a port of the kernel's choice.
    settings = {"auth": {"listen": f"127.0.0.1:{free_port()}"}}
    yield await new_cluster(services=("auth", "registry"), clock=ManualClock(), settings=settings)


def advance(cluster: Cluster, *, ms: int) -> None:
    """Moves the cluster's time forward."""
    assert isinstance(cluster.clock, ManualClock)
    cluster.clock.advance(seconds=ms / 1000)


async def lists_colonies(cluster: Cluster, key: PrivateKey) -> bool:
    """Whether auth takes this for the server owner's key."""
    return await _granted(cluster.stub(AuthServiceStub, key).ListColonies(pb.ListColoniesRequest()))


async def asks_registry(cluster: Cluster, key: PrivateKey) -> bool:
    """Whether the registry takes this for a service's key."""
    request = registry_pb.ResolveExecutorRequest(colony=COLONY, identity=cluster.keys.executor.identity)
    return await _granted(cluster.stub(RegistryServiceStub, key).ResolveExecutor(request))


async def _granted(call: Any) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert from_rpc_error(error).reason == "ROLE_NOT_ALLOWED"
        return False
    return True


async def test_the_server_owners_new_key(pair: Cluster) -> None:
    old = pair.keys.server_owner
    assert await lists_colonies(pair, old)
    made = await rotate(pair, old, NEW, colony="", keep_old_ms=KEEP_MS)
    assert (made.role, made.name, made.identity) == (pb.MEMBER_ROLE_SERVER_OWNER, "server owner", old.identity)
    assert await rotate(pair, old, NEW, colony="", keep_old_ms=KEEP_MS, signer=NEW) == made
    assert await lists_colonies(pair, NEW)
    assert await lists_colonies(pair, old)
    advance(pair, ms=KEEP_MS)
    assert not await lists_colonies(pair, old)
    assert await lists_colonies(pair, NEW)
    await rotate(pair, NEW, NEWER, colony="")
    assert await lists_colonies(pair, NEWER)
    events = await ledger(pair, NEWER, colony="")
    verified(events, colony="")
    assert links(events, colony="") == [(old.identity, NEW.identity), (NEW.identity, NEWER.identity)]
    assert (await refusal(ledger(pair, NEWER))).reason == "LEDGER_OF_A_COLONY"


@pytest.mark.parametrize("service", ["auth", "registry", "scheduler", "cron"])
async def test_a_services_new_key(pair: Cluster, service: str) -> None:
    old = pair.keys.service(service)
    assert await asks_registry(pair, old)
    # The registry itself signs on with its old key here, and has to ask auth whose the new one is.
    made = await rotate(pair, old, NEW, colony="", keep_old_ms=KEEP_MS if service == "registry" else 0)
    assert (made.role, made.name, made.identity) == (pb.MEMBER_ROLE_SERVICE, service, old.identity)
    assert await asks_registry(pair, NEW)

    async def refused() -> bool:
        return not await asks_registry(pair, old)

    if service != "registry":
        seconds = await eventually(refused, seconds=3)
        print(f"the old key of {service} was refused by the registry after {seconds * 1000:.0f} ms")


async def test_keys_of_others_are_not_taken(pair: Cluster) -> None:
    cron, scheduler = pair.keys.service("cron"), pair.keys.service("scheduler")
    for taken in (scheduler, pair.keys.server_owner):
        assert (await refusal(rotate(pair, cron, taken, colony=""))).reason == "IDENTITY_TAKEN"
    await rotate(pair, cron, NEW, colony="")
    assert (await refusal(rotate(pair, scheduler, NEW, colony=""))).reason == "IDENTITY_TAKEN"
    assert (await refusal(rotate(pair, NEW, cron, colony=""))).reason == "IDENTITY_TAKEN"
    # A colony is another place, with keys of its own.
    assert (await refusal(rotate(pair, NEW, NEWER, colony=COLONY))).reason == "NOT_A_MEMBER"


async def test_settings_name_any_key_of_the_chain_or_reset_it(pair: Cluster) -> None:
    first = pair.keys.server_owner
    await rotate(pair, first, NEW, colony="")
    await rotate(pair, NEW, NEWER, colony="")
    reset = key_of("reset")

    async def restarted(owner: PrivateKey) -> None:
        (replica,) = pair.replicas["auth"]
        await pair.stop_replica(replica)
        await pair.start("auth", server_owner=owner.identity)

    for owner, good in ((first, NEWER), (NEW, NEWER), (NEWER, NEWER), (reset, reset)):
        await restarted(owner)
        assert [key for key in (first, NEW, NEWER, reset) if await lists_colonies(pair, key)] == [good]
    # The reset one begins a chain of its own; the old one still counts for nothing.
    await rotate(pair, reset, key_of("after"), colony="")
    assert not await lists_colonies(pair, NEWER)
    assert await lists_colonies(pair, key_of("after"))
    assert (await refusal(rotate(pair, key_of("after"), NEWER, colony=""))).reason == "IDENTITY_TAKEN"


async def test_a_running_service_takes_the_new_key_from_its_file(pair: Cluster, tmp_path: Path) -> None:
    (registry,) = pair.replicas["registry"]
    path = tmp_path / "registry.key"
    old = pair.keys.service("registry")

    async def asks_auth() -> None:
        # The registry asks auth in each registration, with its own key.
        await pair.register(COLONY, "newcomer", key_of("newcomer"))

    await asks_auth()
    scratch = tmp_path / "scratch"
    NEW.save(scratch)
    scratch.chmod(0o644)
    scratch.replace(path)
    registry.process.key_file.look()
    assert registry.process.key_file.key.identity == old.identity
    await asks_auth()
    await rotate(pair, old, NEW, colony="", keep_old_ms=KEEP_MS)
    path.chmod(0o600)

    async def taken() -> bool:
        return registry.process.key_file.key.identity == NEW.identity

    await eventually(taken, seconds=5)
    advance(pair, ms=KEEP_MS)
    await asks_auth()
    # The members' changes still come: the stream that the old key opened was cut, and another one opened.
    await pair.add_user(COLONY, pair.keys.owner, "bob", key_of("bob"))
    reader = pair.stub(RegistryServiceStub, key_of("bob"))
    await reader.ListExecutors(registry_pb.ListExecutorsRequest(colony_name=COLONY))
    await pair.stub(AuthServiceStub, pair.keys.owner).RemoveUser(pb.RemoveUserRequest(colony_name=COLONY, name="bob"))

    async def out() -> bool:
        try:
            await reader.ListExecutors(registry_pb.ListExecutorsRequest(colony_name=COLONY))
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason == "NOT_A_MEMBER"
        return False

    await eventually(out, seconds=5)


async def test_with_auth_away_what_is_known_serves_for_half_a_minute_and_then_nothing_does(pair: Cluster) -> None:
    known = [pair.keys.user, pair.keys.executor, pair.keys.owner]
    service = pair.keys.service("scheduler")
    registry = {key: pair.stub(RegistryServiceStub, key) for key in (*known, pair.keys.stranger)}
    request = registry_pb.ListExecutorsRequest(colony_name=COLONY)
    for key in known:
        await registry[key].ListExecutors(request)
    assert await asks_registry(pair, service)
    (auth,) = pair.replicas["auth"]
    (replica,) = pair.replicas["registry"]
    await pair.stop_replica(auth)

    async def lost() -> bool:
        assert replica.process.members is not None
        return not replica.process.members.is_live

    await eventually(lost, seconds=5)
    advance(pair, ms=29_999)
    for key in known:
        await registry[key].ListExecutors(request)
    assert await asks_registry(pair, service)
    assert (await refusal(registry[pair.keys.stranger].ListExecutors(request))).code is grpc.StatusCode.UNAVAILABLE
    advance(pair, ms=2)
    for key in known:
        assert (await refusal(registry[key].ListExecutors(request))).code is grpc.StatusCode.UNAVAILABLE
    resolve = registry_pb.ResolveExecutorRequest(colony=COLONY, identity=pair.keys.executor.identity)
    error = await refusal(pair.stub(RegistryServiceStub, service).ResolveExecutor(resolve))
    assert error.code is grpc.StatusCode.UNAVAILABLE
