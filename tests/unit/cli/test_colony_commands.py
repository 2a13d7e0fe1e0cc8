"""Colonies, users, executors, functions and locations against a server of canned answers."""

import base64
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from colonies import signing
from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.cli.proofs import from_text
from colonies.keys import PrivateKey, identity_of
from colonies.registry.v1 import registry_service_pb2 as registry

from .answers import (
    AUTH,
    REGISTRY,
)
from .conftest import FakeServer, Refusal, Shell


def _executor(name: str, identity: str, state: int) -> registry.Executor:
    return registry.Executor(
        name=name,
        identity=identity,
        executor_types=["edge"],
        state=registry.ExecutorState.ValueType(state),
    )


def _answers_executors(server: FakeServer, *executors: registry.Executor) -> None:
    def listed(request: registry.ListExecutorsRequest) -> registry.ListExecutorsResponse:
        wanted = [each for each in executors if not request.states or each.state in request.states]
        return registry.ListExecutorsResponse(executors=wanted)

    def approved(request: registry.ApproveExecutorRequest) -> registry.ApproveExecutorResponse:
        known = {each.identity: each.name for each in executors}
        if request.identity not in known:
            raise Refusal(grpc.StatusCode.NOT_FOUND, "no such identity is registered")
        executor = _executor(known[request.identity], request.identity, registry.EXECUTOR_STATE_APPROVED)
        return registry.ApproveExecutorResponse(executor=executor)

    server.on(REGISTRY + "ListExecutors", registry.ListExecutorsRequest, listed)
    server.on(REGISTRY + "ApproveExecutor", registry.ApproveExecutorRequest, approved)


ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


def test_approve_by_name_needs_exactly_one_pending_executor(shell: Shell, server: FakeServer) -> None:
    pending, there = registry.EXECUTOR_STATE_PENDING, registry.EXECUTOR_STATE_APPROVED
    _answers_executors(server, _executor("e", ONE, pending), _executor("e", TWO, there), _executor("f", THREE, pending))
    one = shell("executor", "approve", "e")
    assert one.exit_code == 0, one.output
    assert ONE in one.stdout
    assert shell.json("executor", "approve", TWO)["state"] == "EXECUTOR_STATE_APPROVED"
    missing = shell("executor", "approve", "g")
    assert missing.exit_code == 3
    assert "no PENDING executor is called 'g'" in missing.stderr


def test_approve_by_an_ambiguous_name_lists_them_and_approves_nobody(shell: Shell, server: FakeServer) -> None:
    pending = registry.EXECUTOR_STATE_PENDING
    _answers_executors(server, _executor("e", ONE, pending), _executor("e", TWO, pending))
    result = shell("executor", "approve", "e")
    assert result.exit_code == 6
    assert ONE in result.stderr
    assert TWO in result.stderr
    assert not any(isinstance(request, registry.ApproveExecutorRequest) for request in server.requests)


def test_owner_commands_sign_with_the_owners_key(shell: Shell, server: FakeServer, tmp_path: Path) -> None:
    owner = tmp_path / "owner.key"
    offline_identity = shell.json("keygen", str(owner))["identity"]
    host = ("--host", "127.0.0.1", "--port", str(server.port), "--cluster", "test", "--colony", "dev")
    member = str(tmp_path / "user.key")
    added = shell("profile", "add", "p", *host, "--key-file", member, "--owner-key-file", str(owner))
    assert added.exit_code == 0, added.output
    seen: list[str] = []
    original = server.service

    def noting(details: Any) -> Any:
        key = dict(details.invocation_metadata)[signing.KEY_HEADER]
        seen.append(identity_of(bytes.fromhex(key)))
        return original(details)

    server.service = noting  # type: ignore[method-assign,assignment]
    _answers_executors(server, _executor("e", ONE, registry.EXECUTOR_STATE_PENDING))
    assert shell("executor", "approve", ONE, COLONIES_KEY_FILE="").exit_code == 0
    assert shell("executor", "list", COLONIES_KEY_FILE="").exit_code == 0
    assert seen == [offline_identity, shell.key.identity]


def _verified(proof: auth.JoinProof, role: str, colony: str, name: str) -> bool:
    text = signing.join_text(audience="test", colony=colony, role=role, name=name, time_ms=proof.time_ms)
    Ed25519PublicKey.from_public_bytes(proof.public_key).verify(proof.signature, text)
    return True


def _answers_members(server: FakeServer) -> None:
    server.on(
        AUTH + "AddUser",
        auth.AddUserRequest,
        lambda request: auth.AddUserResponse(user=auth.User(name=request.name, identity=identity_of(request.user.public_key))),
    )
    server.on(
        AUTH + "AddColony",
        auth.AddColonyRequest,
        lambda request: auth.AddColonyResponse(
            colony=auth.Colony(name=request.name, owner=identity_of(request.owner.public_key))
        ),
    )


def test_user_add_makes_a_key_and_proves_it(shell: Shell, server: FakeServer, tmp_path: Path) -> None:
    _answers_members(server)
    path = tmp_path / "ann.key"
    user = shell.json("user", "add", "ann", "--user-key", str(path))
    assert user["identity"] == PrivateKey.load(path).identity
    assert _verified(server.requests[-1].user, "user", "dev", "ann")
    again = shell.json("user", "add", "ann", "--user-key", str(path))
    assert again["identity"] == user["identity"]


def test_a_proof_travels_without_its_key(shell: Shell, server: FakeServer) -> None:
    _answers_members(server)
    proof = shell("user", "proof", "ann").stdout.strip()
    assert _verified(from_text(proof), "user", "dev", "ann")
    assert shell.json("user", "add", "ann", "--proof", proof)["identity"] == shell.key.identity
    owner = shell.json("user", "proof", "acme", "--role", "colony_owner")["proof"]
    assert shell.json("colony", "add", "acme", "--owner-proof", owner)["owner"] == shell.key.identity
    assert _verified(server.requests[-1].owner, "colony_owner", "acme", "acme")
    assert shell("user", "proof", "ann", "--role", "king").exit_code == 2
    unsignable = shell("user", "proof", "ann\nuser")
    assert unsignable.exit_code == 2
    assert "line feed" in unsignable.stderr


@pytest.mark.parametrize("text", ["x", "bm9wZQ", "W10", base64.urlsafe_b64encode(b'{"public_key": 1}').decode()])
def test_a_text_that_is_no_proof(shell: Shell, server: FakeServer, text: str) -> None:
    result = shell("user", "add", "ann", "--proof", text)
    assert result.exit_code == 2
    assert "this is no join proof" in result.stderr
    assert server.requests == []


def test_locations_and_functions(shell: Shell, server: FakeServer) -> None:
    entry = registry.ListFunctionsResponse.Entry(
        function=registry.Function(name="square", arguments=[registry.Argument(name="x", type="integer", required=True)]),
        executor_name="e1",
        executor_types=["cloud"],
    )
    server.on(
        REGISTRY + "ListFunctions",
        registry.ListFunctionsRequest,
        lambda _: registry.ListFunctionsResponse(entries=[entry]),
    )
    server.on(REGISTRY + "PutLocation", registry.PutLocationRequest, lambda _: registry.PutLocationResponse())
    assert "square(x: integer)" in shell("function", "list").stdout
    assert shell.json("function", "list")[0]["executor_name"] == "e1"
    placed = shell.json("location", "add", "lab", "--longitude", "22.1", "--latitude", "65.6")
    assert placed == {"name": "lab", "description": "", "longitude": 22.1, "latitude": 65.6}
    assert server.requests[-1].location.longitude == 22.1
