"""How things stand at a provider, by the words that the expectations have for it: what its own callers did before."""

from collections.abc import Awaitable, Callable

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import controls_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.scheduler.v1.spec_pb2 import Value
from tests.contract.services.matching import Names, key_named
from tests.harness.cluster import COLONY, Cluster
from tests.rpc.rotations import rotate

State = Callable[[Cluster, Names], Awaitable[None]]

STATES: dict[tuple[str, str], State] = {}
CAPABILITIES = registry_pb.Capabilities(cpu="4000m", memory="8Gi", processes=2, labels={"os": "linux"})
LEAVES = 5
LEAF_BYTES = 4_000_000


def _state(provider: str, words: str) -> Callable[[State], State]:
    def named(state: State) -> State:
        STATES[provider, words] = state
        return state

    return named


async def _auth(cluster: Cluster) -> None:
    """The colony "acme" with its owner, the user alice, and the executor worker-1."""
    await cluster.populate()
    request = auth_pb.PutExecutorRequest(colony=COLONY, identity=cluster.keys.executor.identity, name="worker-1")
    await cluster.stub(AuthServiceStub, cluster.keys.service("registry")).PutExecutor(request)


async def _registry(cluster: Cluster) -> None:
    """The executor worker-1 of acme, approved, at a location."""
    owner = cluster.stub(RegistryServiceStub, cluster.keys.owner)
    location = registry_pb.Location(name="lulea", longitude=22.1, latitude=65.6)
    await owner.PutLocation(registry_pb.PutLocationRequest(colony_name=COLONY, location=location))
    offer = {"location_name": "lulea", "capabilities": CAPABILITIES}
    await cluster.add_executor(COLONY, cluster.keys.owner, "worker-1", cluster.keys.executor, **offer)


async def _nothing(_cluster: Cluster) -> None:
    """Nothing was done before."""


# How each provider begins.
BASE: dict[str, Callable[[Cluster], Awaitable[None]]] = {
    "auth": _auth,
    "registry": _registry,
    "scheduler": _nothing,
    "cron": _nothing,
}


@_state("auth", "bob is a user")
async def _bob(cluster: Cluster, _names: Names) -> None:
    await cluster.add_user(COLONY, cluster.keys.owner, "bob", key_named("bob"))


@_state("auth", "bob is removed")
async def _bob_removed(cluster: Cluster, _names: Names) -> None:
    request = auth_pb.RemoveUserRequest(colony_name=COLONY, name="bob")
    await cluster.stub(AuthServiceStub, cluster.keys.owner).RemoveUser(request)


@_state("auth", "there is a colony doomed")
async def _doomed(cluster: Cluster, _names: Names) -> None:
    await cluster.add_colony("doomed", key_named("owner of doomed"))


@_state("auth", "the colony doomed is removed")
async def _doomed_removed(cluster: Cluster, _names: Names) -> None:
    request = auth_pb.RemoveColonyRequest(name="doomed")
    await cluster.stub(AuthServiceStub, cluster.keys.server_owner).RemoveColony(request)


@_state("auth", "carol, a user, has another key, and her old one is still good")
async def _carol_rotates(cluster: Cluster, _names: Names) -> None:
    old, new = key_named("carol"), key_named("carol's second key")
    await cluster.add_user(COLONY, cluster.keys.owner, "carol", old)
    await rotate(cluster, old, new, keep_old_ms=600_000)


@_state("registry", "worker-1 has one more label")
async def _one_more_label(cluster: Cluster, _names: Names) -> None:
    capabilities = registry_pb.Capabilities()
    capabilities.MergeFrom(CAPABILITIES)
    capabilities.labels["zone"] = "b"
    request = registry_pb.UpdateExecutorRequest(colony_name=COLONY, capabilities=capabilities)
    await cluster.stub(RegistryServiceStub, cluster.keys.executor).UpdateExecutor(request)


async def _controls(cluster: Cluster, max_waiting: int) -> None:
    request = controls_pb2.UpdateControlsRequest(colony_name=COLONY, max_waiting=max_waiting)
    await cluster.stub(SchedulerServiceStub, cluster.keys.owner).UpdateControls(request)


@_state("scheduler", "acme may have one waiting process")
async def _full(cluster: Cluster, _names: Names) -> None:
    await _controls(cluster, 1)


@_state("scheduler", "acme may have many waiting processes")
async def _roomy(cluster: Cluster, _names: Names) -> None:
    await _controls(cluster, 1_000_000)


@_state("scheduler", "the workflow's five processes put out 20 MB")
async def _large_outputs(cluster: Cluster, _names: Names) -> None:
    stub = cluster.stub(SchedulerServiceStub, cluster.keys.executor)
    for _ in range(LEAVES):
        request = scheduler_pb.AssignProcessesRequest(colony_name=COLONY, max_processes=1, wait_ms=5_000)
        (assigned,) = (await stub.AssignProcesses(request)).assignments
        ref = scheduler_pb.AttemptRef(process_id=assigned.process_id, attempt=assigned.attempt)
        close = scheduler_pb.Close(attempt=ref)
        close.success.outputs.append(Value(media_type="application/octet-stream", data=bytes(LEAF_BYTES)))
        await stub.CloseProcesses(scheduler_pb.CloseProcessesRequest(colony_name=COLONY, closes=[close]))
