"""Everyone who might call: what the policy file's words mean for each."""

from collections.abc import Callable
from dataclasses import dataclass

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import Keys, key_of
from tests.harness.servers import ALL_SERVICES

OTHER_COLONY = "umbrella"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of caller; `words` are those of the policy file that let it in. Without a key it does not sign."""

    name: str
    key: Callable[[Keys], PrivateKey] | None
    words: frozenset[str]


def _kind(name: str, key: Callable[[Keys], PrivateKey] | None, *words: str) -> Kind:
    return Kind(name, key, frozenset(words))


def _named(name: str) -> Callable[[Keys], PrivateKey]:
    return lambda _keys: key_of(name)


def _service(name: str) -> Callable[[Keys], PrivateKey]:
    return lambda keys: keys.service(name)


KINDS = (
    _kind("unsigned", None),
    _kind("stranger", lambda keys: keys.stranger, "anyone"),
    _kind("user of another colony", _named("bob"), "anyone"),
    _kind("owner of another colony", _named("owner of umbrella"), "anyone"),
    _kind("pending executor", _named("pending"), "anyone"),
    _kind("rejected executor", _named("rejected"), "anyone"),
    _kind("removed executor", _named("removed executor"), "anyone"),
    _kind("removed user", _named("removed user"), "anyone"),
    _kind("user", lambda keys: keys.user, "anyone", "user", "initiator"),
    _kind("executor", lambda keys: keys.executor, "anyone", "executor", "initiator"),
    _kind("colony owner", lambda keys: keys.owner, "anyone", "colony_owner", "initiator"),
    _kind("server owner", lambda keys: keys.server_owner, "anyone", "server_owner"),
    *(_kind(f"service {name}", _service(name), "anyone", "service", f"service:{name}") for name in ALL_SERVICES),
)


async def settle(cluster: Cluster) -> None:
    """Brings every kind of caller about in a populated cluster with a registry."""
    owner = cluster.keys.owner
    other_owner = key_of("owner of umbrella")
    await cluster.add_colony(OTHER_COLONY, other_owner)
    await cluster.add_user(OTHER_COLONY, other_owner, "bob", key_of("bob"))

    await cluster.add_user(COLONY, owner, "removed", key_of("removed user"))
    request = auth_pb.RemoveUserRequest(colony_name=COLONY, name="removed")
    await cluster.stub(AuthServiceStub, owner).RemoveUser(request)

    registry = cluster.stub(RegistryServiceStub, owner)
    await cluster.register(COLONY, "pending", key_of("pending"))
    await cluster.add_executor(COLONY, owner, "rejected", key_of("rejected"))
    identity = key_of("rejected").identity
    await registry.RejectExecutor(registry_pb.RejectExecutorRequest(colony_name=COLONY, identity=identity))
    await cluster.add_executor(COLONY, owner, "removed", key_of("removed executor"))
    identity = key_of("removed executor").identity
    await registry.RemoveExecutor(registry_pb.RemoveExecutorRequest(colony_name=COLONY, identity=identity))
