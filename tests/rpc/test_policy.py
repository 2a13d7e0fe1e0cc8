"""Who may call what: every RPC by every kind of caller, against what the policy file says."""

import tomllib
from importlib import resources
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from colonies.errors import from_rpc_error
from colonies.signing import SigningChannel
from servicekit.policy import INITIATOR, Policy
from tests.harness.calls import first
from tests.harness.cluster import COLONY, Cluster
from tests.harness.servers import present_services
from tests.rpc.callers import KINDS, Kind, settle
from tests.rpc.methods import NOWHERE, Method, all_methods

METHODS = {method.path: method for method in all_methods()}
POLICY: dict[str, dict[str, list[str]]] = tomllib.loads(
    resources.files("servicekit").joinpath("policy.toml").read_text(encoding="utf-8")
)
REFUSED_BY_POLICY = {"NOT_A_MEMBER", "ROLE_NOT_ALLOWED", "NOT_IN_POLICY"}
# What an allowed call to something that does not exist may end with. INTERNAL, UNIMPLEMENTED and the like are defects.
HARMLESS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
}


def words_for(method: Method) -> frozenset[str]:
    """The policy file's words for an RPC, read without servicekit."""
    return frozenset(POLICY[method.descriptor.containing_service.full_name][method.descriptor.name])


def test_every_rpc_stands_in_the_policy_and_nothing_else_does() -> None:
    listed = {
        f"/{service}/{name}" for service, table in POLICY.items() if service not in {"public", "replay_safe"} for name in table
    }
    assert listed == set(METHODS)
    assert set(Policy.load().rules) == set(METHODS)


def test_every_word_of_the_policy_is_known_to_some_caller() -> None:
    known = {word for kind in KINDS for word in kind.words} | {INITIATOR}
    assert {word for method in METHODS.values() for word in words_for(method)} <= known


async def outcome(
    method: Method, cluster: Cluster, kind: Kind, request: Message, *, in_json: bool = False
) -> tuple[grpc.StatusCode, str, Any]:
    """Code, reason and the error itself, of a real call."""
    channel: Any = cluster.channel(method.service)
    if kind.key is not None:
        channel = SigningChannel(channel, cluster.signer(kind.key(cluster.keys)))
    try:
        call = method.call(channel, request, in_json=in_json)
        await (first(call) if method.descriptor.server_streaming else call)
    except grpc.aio.AioRpcError as error:
        return error.code(), from_rpc_error(error).reason, error
    return grpc.StatusCode.OK, "", None


def mismatch(method: Method, kind: Kind, code: grpc.StatusCode, reason: str) -> str | None:
    """What is wrong with this outcome, if anything."""
    if kind.key is None:
        good = code is grpc.StatusCode.UNAUTHENTICATED and reason == "SIGNATURE_MISSING"
    elif kind.words & words_for(method):
        good = code in HARMLESS and reason not in REFUSED_BY_POLICY
    else:
        good = code is grpc.StatusCode.PERMISSION_DENIED and reason in REFUSED_BY_POLICY
    return None if good else f"{method.path} by {kind.name}: {code.name} {reason}"


@pytest.mark.parametrize("in_json", [False, True], ids=["protobuf", "json"])
@pytest.mark.asyncio
async def test_every_rpc_lets_in_exactly_whom_the_policy_names(cluster: Cluster, in_json: bool) -> None:
    if "registry" not in cluster.replicas:
        pytest.skip("the callers come about through the registry")
    await settle(cluster)
    wrong = []
    made = 0
    for method in METHODS.values():
        if method.service not in present_services():
            continue
        for kind in KINDS:
            code, reason, _ = await outcome(method, cluster, kind, method.request(COLONY), in_json=in_json)
            made += 1
            wrong.append(mismatch(method, kind, code, reason))
    assert [text for text in wrong if text] == []
    assert made == len(KINDS) * sum(method.service in present_services() for method in METHODS.values())


@pytest.mark.asyncio
async def test_strangers_cannot_tell_whether_a_colony_exists(cluster: Cluster) -> None:
    for in_json in (False, True):
        await _strangers_cannot_tell(cluster, in_json=in_json)


async def _strangers_cannot_tell(cluster: Cluster, *, in_json: bool) -> None:
    stranger = next(kind for kind in KINDS if kind.name == "stranger")
    for method in METHODS.values():
        if method.service not in present_services() or not method.in_colony:
            continue
        answers = []
        for colony in (COLONY, NOWHERE):
            code, _, error = await outcome(method, cluster, stranger, method.request(colony), in_json=in_json)
            assert error is not None, method.path
            answers.append((code, error.details(), tuple(error.trailing_metadata())))
        assert answers[0] == answers[1], method.path
