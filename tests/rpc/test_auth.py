"""Auth over gRPC: colonies, users, proofs, pages, bad input."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies import __version__
from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from tests.harness.calls import first, hears, refusal
from tests.harness.cluster import CLUSTER, COLONY, Cluster
from tests.harness.keys import key_of

pytestmark = pytest.mark.asyncio

DAY_MS = 24 * 3600 * 1000


@pytest_asyncio.fixture
async def alone(new_cluster: Callable[..., Awaitable[Cluster]]) -> Cluster:
    """Auth alone."""
    return await new_cluster(services=("auth",))


def user_request(cluster: Cluster, name: str, **changes: Any) -> pb.AddUserRequest:
    """A good request to add a user whose key has the same name."""
    proof = cluster.proof(key_of(name), colony=COLONY, role="user", name=name)
    return pb.AddUserRequest(**{"colony_name": COLONY, "name": name, "user": proof, **changes})


async def test_server_info(alone: Cluster) -> None:
    info = await alone.stub(AuthServiceStub, alone.keys.stranger).GetServerInfo(pb.GetServerInfoRequest())
    assert (info.version, info.cluster) == (__version__, CLUSTER)


async def test_adding_a_colony_twice_changes_nothing_and_another_owner_is_refused(alone: Cluster) -> None:
    auth = alone.stub(AuthServiceStub, alone.keys.server_owner)
    owner = alone.stub(AuthServiceStub, alone.keys.owner)
    before = await owner.GetColony(pb.GetColonyRequest(colony_name=COLONY))
    await alone.add_colony(COLONY, alone.keys.owner)
    assert await owner.GetColony(pb.GetColonyRequest(colony_name=COLONY)) == before
    assert before.colony.owner == alone.keys.owner.identity

    proof = alone.proof(key_of("usurper"), colony=COLONY, role="colony_owner", name=COLONY)
    error = await refusal(auth.AddColony(pb.AddColonyRequest(name=COLONY, owner=proof)))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")


async def test_a_removed_colony_is_gone_for_all_and_its_name_is_never_given_out_again(alone: Cluster) -> None:
    auth = alone.stub(AuthServiceStub, alone.keys.server_owner)
    await auth.RemoveColony(pb.RemoveColonyRequest(name=COLONY))
    error = await refusal(auth.RemoveColony(pb.RemoveColonyRequest(name=COLONY)))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "COLONY_NOT_FOUND")
    assert not (await auth.ListColonies(pb.ListColoniesRequest())).colonies
    error = await refusal(alone.add_colony(COLONY, alone.keys.owner))
    assert error.code is grpc.StatusCode.ALREADY_EXISTS

    resolved = await alone.stub(AuthServiceStub, alone.keys.service("cron")).ResolveMember(
        pb.ResolveMemberRequest(colony=COLONY, identity=alone.keys.owner.identity)
    )
    assert resolved == pb.ResolveMemberResponse()


async def test_users_come_and_go(alone: Cluster) -> None:
    auth = alone.stub(AuthServiceStub, alone.keys.owner)
    added = await auth.AddUser(user_request(alone, "bob"))
    assert (added.user.name, added.user.identity) == ("bob", key_of("bob").identity)
    assert await auth.AddUser(user_request(alone, "bob")) == pb.AddUserResponse(user=added.user)
    got = await alone.stub(AuthServiceStub, key_of("bob")).GetUser(pb.GetUserRequest(colony_name=COLONY, name="bob"))
    assert got.user == added.user
    await auth.RemoveUser(pb.RemoveUserRequest(colony_name=COLONY, name="bob"))
    for call in (
        auth.GetUser(pb.GetUserRequest(colony_name=COLONY, name="bob")),
        auth.RemoveUser(pb.RemoveUserRequest(colony_name=COLONY, name="bob")),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")


async def test_one_place_in_a_colony_for_an_identity_and_one_identity_for_a_name(alone: Cluster) -> None:
    auth = alone.stub(AuthServiceStub, alone.keys.owner)
    registry = alone.stub(AuthServiceStub, alone.keys.service("registry"))
    proof = alone.proof(key_of("impostor"), colony=COLONY, role="user", name="alice")
    error = await refusal(auth.AddUser(pb.AddUserRequest(colony_name=COLONY, name="alice", user=proof)))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    for key, name in ((alone.keys.owner, "boss"), (alone.keys.user, "alice-2")):
        proof = alone.proof(key, colony=COLONY, role="user", name=name)
        error = await refusal(auth.AddUser(pb.AddUserRequest(colony_name=COLONY, name=name, user=proof)))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDENTITY_TAKEN")
        request = pb.PutExecutorRequest(colony=COLONY, identity=key.identity, name=name)
        error = await refusal(registry.PutExecutor(request))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDENTITY_TAKEN")


async def test_executors_as_the_registry_puts_and_drops_them(alone: Cluster) -> None:
    registry = alone.stub(AuthServiceStub, alone.keys.service("registry"))
    first_one, second_one = key_of("e1").identity, key_of("e2").identity

    async def resolved(identity: str) -> tuple[int, str, bool]:
        response = await registry.ResolveMember(pb.ResolveMemberRequest(colony=COLONY, identity=identity))
        return response.role, response.name, response.colony_exists

    for name in ("e1", "e1", "renamed"):
        await registry.PutExecutor(pb.PutExecutorRequest(colony=COLONY, identity=first_one, name=name))
        assert await resolved(first_one) == (pb.MEMBER_ROLE_EXECUTOR, name, True)
    # A user may have the name of an executor, another executor may not; nor may a third be renamed to it.
    await registry.PutExecutor(pb.PutExecutorRequest(colony=COLONY, identity=second_one, name="alice"))
    for identity in (second_one, key_of("e3").identity):
        request = pb.PutExecutorRequest(colony=COLONY, identity=identity, name="renamed")
        error = await refusal(registry.PutExecutor(request))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    for _ in range(2):
        await registry.DropExecutor(pb.DropExecutorRequest(colony=COLONY, identity=first_one))
        assert await resolved(first_one) == (pb.MEMBER_ROLE_UNSPECIFIED, "", True)
    # What the registry drops is executors: never a user.
    await registry.DropExecutor(pb.DropExecutorRequest(colony=COLONY, identity=alone.keys.user.identity))
    assert await resolved(alone.keys.user.identity) == (pb.MEMBER_ROLE_USER, "alice", True)
    assert await resolved(alone.keys.owner.identity) == (pb.MEMBER_ROLE_COLONY_OWNER, "owner", True)

    request = pb.PutExecutorRequest(colony="nowhere", identity=first_one, name="e1")
    error = await refusal(registry.PutExecutor(request))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "COLONY_NOT_FOUND")


async def test_lists_come_in_pages_without_gap_or_repeat(alone: Cluster) -> None:
    auth = alone.stub(AuthServiceStub, alone.keys.owner)
    # Byte order: capitals, digits and dashes stand where ASCII has them, whatever the server's locale.
    names = ["Zoe", "alice", "b-1", "b.1", "b1", "b10", "b_1", "c"]
    for name in set(names) - {"alice"}:
        await auth.AddUser(user_request(alone, name))
    seen: list[str] = []
    cursor = ""
    while True:
        page = await auth.ListUsers(pb.ListUsersRequest(colony_name=COLONY, page_size=3, cursor=cursor))
        assert len(page.users) <= 3
        seen += [user.name for user in page.users]
        cursor = page.next_cursor
        if not cursor:
            break
    assert seen == sorted(names)
    assert not (await auth.ListUsers(pb.ListUsersRequest(colony_name=COLONY, page_size=8))).next_cursor

    for index in range(4):
        await alone.add_colony(f"colony-{index}", key_of(f"owner {index}"))
    server = alone.stub(AuthServiceStub, alone.keys.server_owner)
    page = await server.ListColonies(pb.ListColoniesRequest(page_size=2))
    rest = await server.ListColonies(pb.ListColoniesRequest(cursor=page.next_cursor))
    assert [colony.name for colony in [*page.colonies, *rest.colonies]] == [
        COLONY, "colony-0", "colony-1", "colony-2", "colony-3",
    ]  # fmt: skip


@pytest.mark.parametrize("cursor", ["x", "!", "W10", "WzFd", "WyJhIiwiYiJd", "WyJcdTAwMDAiXQ", "WyJcdWQ4MDAiXQ", "A" * 5000])
async def test_a_cursor_that_is_none_names_its_field(alone: Cluster, cursor: str) -> None:
    auth = alone.stub(AuthServiceStub, alone.keys.owner)
    error = await refusal(auth.ListUsers(pb.ListUsersRequest(colony_name=COLONY, cursor=cursor)))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == ["cursor"]


@pytest.mark.parametrize("name", ["", "-x", "a\x00b", "ö", "a b", "a/b", "a\n", "x" * 129, "\u2028"])
async def test_names_out_of_bounds_are_named(alone: Cluster, name: str) -> None:
    owner = alone.stub(AuthServiceStub, alone.keys.owner)
    server = alone.stub(AuthServiceStub, alone.keys.server_owner)
    # Of another name: not every one of these could be signed, and what is out of bounds is refused before its proof is read.
    proof = alone.proof(key_of("x"), colony=COLONY, role="user", name="x")
    calls = {
        "name": [
            owner.AddUser(pb.AddUserRequest(colony_name=COLONY, name=name, user=proof)),
            owner.GetUser(pb.GetUserRequest(colony_name=COLONY, name=name)),
            owner.RemoveUser(pb.RemoveUserRequest(colony_name=COLONY, name=name)),
            server.AddColony(pb.AddColonyRequest(name=name, owner=proof)),
            server.RemoveColony(pb.RemoveColonyRequest(name=name)),
        ],
        # Of the colony too, and before anybody looks for it.
        "colony_name": [owner.GetColony(pb.GetColonyRequest(colony_name=name))],
    }
    for field, made in calls.items():
        for call in made:
            error = await refusal(call)
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert [violation.field for violation in error.violations] == [field]


async def test_page_sizes_out_of_bounds(alone: Cluster) -> None:
    auth = alone.stub(AuthServiceStub, alone.keys.owner)
    for size in (-1, 1_001):
        error = await refusal(auth.ListUsers(pb.ListUsersRequest(colony_name=COLONY, page_size=size)))
        assert [violation.field for violation in error.violations] == ["page_size"]
    assert (await auth.ListUsers(pb.ListUsersRequest(colony_name=COLONY, page_size=1_000))).users


async def test_a_proof_is_good_for_one_key_colony_role_and_name(alone: Cluster) -> None:
    auth = alone.stub(AuthServiceStub, alone.keys.owner)
    key = key_of("bob")
    good = alone.proof(key, colony=COLONY, role="user", name="bob")
    bad = [
        ("user.signature", alone.proof(key, colony="umbrella", role="user", name="bob")),
        ("user.signature", alone.proof(key, colony=COLONY, role="colony_owner", name="bob")),
        ("user.signature", alone.proof(key, colony=COLONY, role="user", name="rob")),
        ("user.signature", pb.JoinProof(public_key=key_of("x").public_key, time_ms=good.time_ms, signature=good.signature)),
        ("user.signature", pb.JoinProof(public_key=key.public_key, time_ms=good.time_ms, signature=b"\0" * 64)),
        ("user.signature", pb.JoinProof(public_key=b"\xff" * 32, time_ms=good.time_ms, signature=good.signature)),
        ("user.signature", pb.JoinProof(public_key=key.public_key, time_ms=good.time_ms, signature=b"short")),
        ("user.public_key", pb.JoinProof(public_key=b"short", time_ms=good.time_ms, signature=good.signature)),
        ("user.time_ms", pb.JoinProof(public_key=key.public_key, time_ms=good.time_ms - DAY_MS - 1000, signature=b"\0" * 64)),
        ("user.time_ms", pb.JoinProof(public_key=key.public_key, time_ms=2**63 - 1, signature=good.signature)),
        ("user.time_ms", pb.JoinProof(public_key=key.public_key, time_ms=-(2**63), signature=good.signature)),
    ]
    for field, proof in bad:
        error = await refusal(auth.AddUser(user_request(alone, "bob", user=proof)))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, field
        assert [violation.field for violation in error.violations] == [field]
    error = await refusal(auth.AddUser(pb.AddUserRequest(colony_name=COLONY, name="bob")))
    assert [violation.field for violation in error.violations] == ["user.public_key", "user.signature"]
    assert [user.name for user in (await auth.ListUsers(pb.ListUsersRequest(colony_name=COLONY))).users] == ["alice"]


async def test_followers_hear_synced_then_tombstones_then_changes(alone: Cluster) -> None:
    server = alone.stub(AuthServiceStub, alone.keys.server_owner)
    await alone.add_colony("gone", key_of("gone"))
    await server.RemoveColony(pb.RemoveColonyRequest(name="gone"))
    stream = alone.stub(AuthServiceStub, alone.keys.service("registry")).WatchMembers(pb.WatchMembersRequest())
    responses = aiter(stream)
    assert await anext(responses) == pb.WatchMembersResponse(synced=True)
    tombstone = pb.WatchMembersResponse(colony="gone", colony_removed=True)
    before = {key_of("gone").identity, alone.keys.owner.identity, alone.keys.user.identity}
    await hears(responses, tombstone, earlier=lambda told: told.identity in before)

    await alone.add_user(COLONY, alone.keys.owner, "bob", key_of("bob"))
    owner = alone.stub(AuthServiceStub, alone.keys.owner)
    await owner.RemoveUser(pb.RemoveUserRequest(colony_name=COLONY, name="bob"))
    await alone.add_colony("late", key_of("late"))
    await server.RemoveColony(pb.RemoveColonyRequest(name=COLONY))
    bob = pb.WatchMembersResponse(colony=COLONY, identity=key_of("bob").identity)
    await hears(
        responses,
        bob,
        bob,
        pb.WatchMembersResponse(colony="late", identity=key_of("late").identity),
        pb.WatchMembersResponse(colony=COLONY, colony_removed=True),
        earlier=lambda told: told.colony == "gone" or told.identity in before,
    )
    stream.cancel()


async def test_a_refused_change_is_not_told(alone: Cluster) -> None:
    stream = alone.stub(AuthServiceStub, alone.keys.service("registry")).WatchMembers(pb.WatchMembersRequest())
    responses = aiter(stream)
    assert (await anext(responses)).synced
    await alone.add_user(COLONY, alone.keys.owner, "marker", key_of("marker"))
    marker = pb.WatchMembersResponse(colony=COLONY, identity=key_of("marker").identity)
    await hears(responses, marker, earlier=lambda _told: True)
    await alone.add_user(COLONY, alone.keys.owner, "alice", alone.keys.user)
    await refusal(alone.add_user(COLONY, alone.keys.owner, "alice", key_of("bob")))
    await alone.add_user(COLONY, alone.keys.owner, "carol", key_of("carol"))
    carol = pb.WatchMembersResponse(colony=COLONY, identity=key_of("carol").identity)
    assert await anext(responses) == carol
    stream.cancel()


async def test_a_draining_replica_hands_its_streams_over(alone: Cluster) -> None:
    second = await alone.start("auth")
    stream = alone.stub(AuthServiceStub, alone.keys.service("cron"), replica=1).WatchMembers(pb.WatchMembersRequest())
    responses = aiter(stream)
    assert (await anext(responses)).synced
    await alone.stop_replica(second)
    error = await refusal(anext(responses))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    survivor = alone.stub(AuthServiceStub, alone.keys.service("cron")).WatchMembers(pb.WatchMembersRequest())
    assert (await first(survivor)).synced
