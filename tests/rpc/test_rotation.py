"""Another key for the same member: what it may do, until when the old one is good, and what is kept of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import RpcError, from_rpc_error
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from servicekit.clock import ManualClock
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, USER, Cluster
from tests.harness.keys import key_of
from tests.rpc.rotations import ledger, links, proof, rotate, verified

pytestmark = pytest.mark.asyncio

NEW, NEWER = key_of("new"), key_of("newer")
KEEP_MS = 60_000


@pytest_asyncio.fixture
async def pair(new_cluster: Callable[..., Awaitable[Cluster]]) -> Cluster:
    """Auth and registry, on a clock that stands still."""
    return await new_cluster(services=("auth", "registry"), clock=ManualClock())


def advance(cluster: Cluster, *, ms: int) -> None:
    """Moves the cluster's time forward."""
    assert isinstance(cluster.clock, ManualClock)
    cluster.clock.advance(seconds=ms / 1000)


async def answers_to(cluster: Cluster, key: PrivateKey) -> set[bool]:
    """Whether auth, and whether the registry, lets this key read in the colony. Each hears of a change in its own time."""
    auth, registry = cluster.stub(AuthServiceStub, key), cluster.stub(RegistryServiceStub, key)
    answers = []
    for method, request in (
        (auth.ListUsers, pb.ListUsersRequest(colony_name=COLONY)),
        (registry.ListExecutors, registry_pb.ListExecutorsRequest(colony_name=COLONY)),
    ):
        try:
            await method(request)
        except grpc.aio.AioRpcError as error:
            assert from_rpc_error(error).reason == "NOT_A_MEMBER"
            answers.append(False)
        else:
            answers.append(True)
    return set(answers)


async def may(cluster: Cluster, key: PrivateKey) -> bool:
    """Whether auth and the registry let this key read in the colony. They must agree, within a moment."""
    answers: set[bool] = set()

    async def agreed() -> bool:
        nonlocal answers
        answers = await answers_to(cluster, key)
        return len(answers) == 1

    await eventually(agreed)
    return answers == {True}


def member(cluster: Cluster, who: str) -> tuple[PrivateKey, int, str]:
    """A member's key, role and name."""
    return {
        "user": (cluster.keys.user, pb.MEMBER_ROLE_USER, USER),
        "colony owner": (cluster.keys.owner, pb.MEMBER_ROLE_COLONY_OWNER, "owner"),
        "executor": (cluster.keys.executor, pb.MEMBER_ROLE_EXECUTOR, "worker-1"),
    }[who]


@pytest.mark.parametrize("who", ["user", "colony owner", "executor"])
async def test_the_new_key_is_the_same_member_and_the_old_one_good_for_a_while(pair: Cluster, who: str) -> None:
    old, role, name = member(pair, who)
    assert await may(pair, old)
    assert not await may(pair, NEW)
    made = await rotate(pair, old, NEW, keep_old_ms=KEEP_MS)
    assert (made.role, made.name, made.identity, made.key_identity) == (role, name, old.identity, NEW.identity)
    assert made.old_key_valid_until.ToMilliseconds() == pair.clock_ms() + KEEP_MS
    assert await may(pair, NEW)
    assert await may(pair, old)
    advance(pair, ms=KEEP_MS - 1)
    assert await may(pair, old)
    advance(pair, ms=1)
    assert not await may(pair, old)
    assert await may(pair, NEW)
    # What it is known by has not changed.
    caller = pair.stub(AuthServiceStub, NEW)
    if who == "user":
        user = (await caller.GetUser(pb.GetUserRequest(colony_name=COLONY, name=USER))).user
        assert user.identity == old.identity
    assert (await caller.GetColony(pb.GetColonyRequest(colony_name=COLONY))).colony.owner == pair.keys.owner.identity


async def test_repeating_a_rotation_changes_nothing(pair: Cluster) -> None:
    old = pair.keys.user
    made = await rotate(pair, old, NEW, keep_old_ms=KEEP_MS)
    events = await ledger(pair, pair.keys.owner)
    advance(pair, ms=1_000)
    assert await rotate(pair, old, NEW, keep_old_ms=3_600_000) == made
    assert await rotate(pair, old, NEW, keep_old_ms=0, signer=NEW) == made
    advance(pair, ms=KEEP_MS)
    assert await rotate(pair, old, NEW, signer=NEW) == made
    assert (await refusal(rotate(pair, old, NEW))).reason == "NOT_A_MEMBER"
    assert await ledger(pair, pair.keys.owner) == events


async def test_a_leaked_key_is_nothing_from_the_commit_on_and_older_ones_with_it(pair: Cluster) -> None:
    user = pair.keys.user
    await rotate(pair, user, NEW, keep_old_ms=3_600_000)
    assert await may(pair, user)
    await rotate(pair, NEW, NEWER, keep_old_ms=0)
    assert await may(pair, NEWER)
    for key in (user, NEW):

        async def refused(key: PrivateKey = key) -> bool:
            return await answers_to(pair, key) == {False}

        await eventually(refused, seconds=1)


async def test_only_the_current_key_rotates(pair: Cluster) -> None:
    user = pair.keys.user
    await rotate(pair, user, NEW, keep_old_ms=KEEP_MS)
    error = await refusal(rotate(pair, user, NEWER))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_RETIRED")
    assert not await may(pair, NEWER)


async def test_who_rotates_again_and_again_is_told_when_to_come_again(pair: Cluster) -> None:
    keys = [pair.keys.user, *(key_of(f"new {number}") for number in range(11))]
    for number in range(10):
        await rotate(pair, keys[number], keys[number + 1], keep_old_ms=3_600_000)
        await rotate(pair, keys[number], keys[number + 1], keep_old_ms=3_600_000)
        advance(pair, ms=1_000)
    error = await refusal(rotate(pair, keys[10], keys[11]))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ROTATED_TOO_OFTEN")
    assert error.retry_delay == 3_590
    assert [await may(pair, key) for key in keys[8:]] == [False, True, True, False]
    assert len([event for event in await ledger(pair, pair.keys.owner) if event.name == USER]) == 11
    advance(pair, ms=3_590_000)
    await rotate(pair, keys[10], keys[11])


async def test_two_rotations_at_once_are_one_rotation(pair: Cluster) -> None:
    keys = [key_of(f"racer {number}") for number in range(8)]
    outcomes = await asyncio.gather(
        *(rotate(pair, pair.keys.user, key, keep_old_ms=KEEP_MS) for key in keys), return_exceptions=True
    )
    made = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    reasons = {from_rpc_error(error).reason for error in outcomes if isinstance(error, grpc.aio.AioRpcError)}
    assert len(made) == 1
    assert reasons == {"KEY_RETIRED"}
    assert [key.identity for key in keys if await may(pair, key)] == [made[0].key_identity]


async def test_no_key_and_no_identity_is_ever_somebody_elses(pair: Cluster) -> None:
    owner, user, executor = pair.keys.owner, pair.keys.user, pair.keys.executor
    await rotate(pair, user, NEW, keep_old_ms=KEEP_MS)
    for taken in (user, owner, executor):
        assert (await refusal(rotate(pair, NEW, taken))).reason == "IDENTITY_TAKEN"
    for taken in (user, NEW):
        assert (await refusal(rotate(pair, executor, taken))).reason == "IDENTITY_TAKEN"
        assert (await refusal(pair.add_user(COLONY, owner, "bob", taken))).reason == "IDENTITY_TAKEN"
    await rotate(pair, executor, NEWER, keep_old_ms=KEEP_MS)
    assert (await refusal(pair.add_user(COLONY, owner, "bob", NEWER))).reason == "IDENTITY_TAKEN"
    # Not after the member has gone either, but for the member itself.
    await pair.stub(AuthServiceStub, owner).RemoveUser(pb.RemoveUserRequest(colony_name=COLONY, name=USER))
    assert (await refusal(pair.add_user(COLONY, owner, USER, user))).reason == "IDENTITY_TAKEN"
    assert (await refusal(rotate(pair, executor, NEW, signer=NEWER))).reason == "INVALID_FIELD"
    assert (await refusal(rotate(pair, NEWER, NEW))).reason == "IDENTITY_TAKEN"
    await pair.add_user(COLONY, owner, "alice-again", NEW)
    request = pb.GetUserRequest(colony_name=COLONY, name="alice-again")
    again = (await pair.stub(AuthServiceStub, owner).GetUser(request)).user
    assert again.identity == user.identity
    assert await may(pair, NEW)


async def test_what_is_no_proof_is_refused_and_changes_nothing(pair: Cluster) -> None:
    user = pair.keys.user
    now = pair.clock_ms()
    good = proof(pair, user, NEW)
    wrong: dict[str, list[tuple[pb.JoinProof, int]]] = {
        "new_key.signature": [
            (proof(pair, pair.keys.owner, NEW), 0),
            (proof(pair, user, NEW, colony="other"), 0),
            (proof(pair, user, NEW, audience="other"), 0),
            (pb.JoinProof(public_key=NEWER.public_key, time_ms=good.time_ms, signature=good.signature), 0),
            (pb.JoinProof(public_key=good.public_key, time_ms=now - 1, signature=good.signature), 0),
            (pair.proof(NEW, colony=COLONY, role="user", name=USER), 0),
            (pb.JoinProof(public_key=good.public_key, time_ms=now, signature=b""), 0),
        ],
        "new_key.time_ms": [
            (proof(pair, user, NEW, time_ms=now - 24 * 3600 * 1000 - 1), 0),
            (proof(pair, user, NEW, time_ms=now + 60_001), 0),
        ],
        "new_key.public_key": [(proof(pair, user, user), 0), (pb.JoinProof(time_ms=now, signature=good.signature), 0)],
        "keep_old_ms": [(good, -1), (good, 3_600_001)],
    }
    stub = pair.stub(AuthServiceStub, user)
    for field, attempts in wrong.items():
        for new_key, keep in attempts:
            request = pb.RotateKeyRequest(colony_name=COLONY, new_key=new_key, keep_old_ms=keep)
            error: Any = await refusal(stub.RotateKey(request))
            assert field in {violation.field for violation in error.violations}, (field, error)
    assert await may(pair, user)
    assert not await may(pair, NEW)


async def test_strangers_rotate_nothing(pair: Cluster) -> None:
    stranger = pair.keys.stranger
    for colony in (COLONY, "nowhere", ""):
        error = await refusal(rotate(pair, stranger, NEW, colony=colony))
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_MEMBER")


async def test_an_executor_is_the_same_one_when_it_registers_again(pair: Cluster) -> None:
    old, owner = pair.keys.executor, pair.keys.owner
    await rotate(pair, old, NEW, keep_old_ms=KEEP_MS)
    for key in (old, NEW):
        registered = await pair.register(COLONY, "worker-1", key)
        assert (registered.identity, registered.state) == (old.identity, registry_pb.EXECUTOR_STATE_APPROVED)
    advance(pair, ms=KEEP_MS)
    # Whoever has the retired key can neither enter with it nor take the approval away, nor learn that there is such a colony.
    answers = [await pair.register(colony, "somebody-else", old) for colony in (COLONY, "nowhere")]
    assert answers[0] == answers[1]
    assert (answers[0].identity, answers[0].state) == (old.identity, registry_pb.EXECUTOR_STATE_PENDING)
    listed = await pair.stub(RegistryServiceStub, owner).ListExecutors(registry_pb.ListExecutorsRequest(colony_name=COLONY))
    assert [executor.name for executor in listed.executors] == ["worker-1", "worker-2"]
    assert await may(pair, NEW)
    # Thrown out, it stays what it was, and comes back as that.
    registry = pair.stub(RegistryServiceStub, owner)
    await registry.RejectExecutor(registry_pb.RejectExecutorRequest(colony_name=COLONY, identity=old.identity))

    async def out() -> bool:
        return await answers_to(pair, NEW) == {False}

    await eventually(out, seconds=1)
    assert (await refusal(pair.register(COLONY, "worker-1", NEW))).reason == "EXECUTOR_REJECTED"
    await pair.approve(COLONY, owner, old.identity)
    assert await may(pair, NEW)
    assert not await may(pair, old)


async def test_the_ledger_shows_who_came_and_went_and_proves_it(pair: Cluster) -> None:
    owner, user, executor = pair.keys.owner, pair.keys.user, pair.keys.executor
    await rotate(pair, user, NEW, keep_old_ms=KEEP_MS)
    await rotate(pair, NEW, NEWER)
    await rotate(pair, owner, key_of("new owner"))
    owner = key_of("new owner")
    registry = pair.stub(RegistryServiceStub, owner)
    await registry.RemoveExecutor(registry_pb.RemoveExecutorRequest(colony_name=COLONY, identity=executor.identity))
    await pair.stub(AuthServiceStub, owner).RemoveUser(pb.RemoveUserRequest(colony_name=COLONY, name=USER))
    events = await ledger(pair, owner)
    verified(events)
    assert links(events) == [
        (user.identity, NEW.identity),
        (NEW.identity, NEWER.identity),
        (pair.keys.owner.identity, owner.identity),
    ]
    told = [(pb.MembershipEventKind.Name(event.kind)[22:], event.name, event.identity) for event in events]
    assert told == [
        ("COLONY_ADDED", "owner", pair.keys.owner.identity),
        ("USER_ADDED", USER, user.identity),
        ("EXECUTOR_APPROVED", "worker-1", executor.identity),
        ("EXECUTOR_APPROVED", "worker-2", pair.keys.executor_2.identity),
        ("KEY_ROTATED", USER, user.identity),
        ("KEY_ROTATED", USER, user.identity),
        ("KEY_ROTATED", "owner", pair.keys.owner.identity),
        ("EXECUTOR_REMOVED", "worker-1", executor.identity),
        ("USER_REMOVED", USER, user.identity),
    ]
    methods = [[call.method.rpartition("/")[2] for call in event.calls] for event in events]
    assert methods[0] == ["AddColony"]
    assert methods[2] == ["ApproveExecutor", "RegisterExecutor"]
    assert methods[-2:] == [["RemoveExecutor"], ["RemoveUser"]]
    await pair.stub(AuthServiceStub, pair.keys.server_owner).RemoveColony(pb.RemoveColonyRequest(name=COLONY))
    afterwards = await ledger(pair, pair.keys.service("scheduler"))
    verified(afterwards)
    assert afterwards[:-1] == events
    assert afterwards[-1].kind == pb.MEMBERSHIP_EVENT_KIND_COLONY_REMOVED


async def test_a_call_that_is_passed_on_must_bear_its_signature(pair: Cluster) -> None:
    events = await ledger(pair, pair.keys.owner)
    (added,) = events[0].calls
    call, registration = events[2].calls
    registry = pair.stub(AuthServiceStub, pair.keys.service("registry"))

    async def put(*calls: Any) -> RpcError | None:
        request = pb.PutExecutorRequest(colony=COLONY, identity=NEW.identity, name="w", calls=calls)
        try:
            await registry.PutExecutor(request)
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        return None

    forged = type(call).FromString(call.SerializeToString())
    forged.body = registry_pb.ApproveExecutorRequest(colony_name=COLONY, identity=NEW.identity).SerializeToString()
    elsewhere = type(call).FromString(call.SerializeToString())
    elsewhere.body = registry_pb.ApproveExecutorRequest(colony_name="other", identity=NEW.identity).SerializeToString()
    no_message = type(call).FromString(registration.SerializeToString())
    no_message.body = b"\xff"
    large = type(call)(body=b"\x00" * (2 * 1024 * 1024 + 1))
    for calls, fields in (
        ([call, forged], ["calls[1].signature"]),
        ([added], ["calls[0].method"]),
        ([call, type(call)()], ["calls[1].method"]),
        ([elsewhere], ["calls[0].body", "calls[0].signature"]),
        ([no_message], ["calls[0].body", "calls[0].signature"]),
        ([large], ["calls[0]"]),
        ([call] * 5, ["calls"]),
    ):
        error: Any = await put(*calls)
        assert [violation.field for violation in error.violations] == fields
    assert not await may(pair, NEW)
    # Signed well, but in another colony.
    await pair.add_colony("other", pair.keys.owner)
    await pair.add_executor("other", pair.keys.owner, "worker-1", pair.keys.executor)
    for other in (await ledger(pair, pair.keys.owner, colony="other"))[1].calls:
        error = await put(other)
        assert [violation.field for violation in error.violations] == ["calls[0].body"]
    assert await put(call, registration) is None
    assert await may(pair, NEW)


async def test_calls_in_json_are_kept_and_passed_on_as_they_were_sent(new_cluster: Callable[..., Awaitable[Cluster]]) -> None:
    cluster = await new_cluster(services=("auth", "registry"), in_json=True)
    await rotate(cluster, cluster.keys.user, NEW)
    registry = cluster.stub(RegistryServiceStub, cluster.keys.owner)
    identity = cluster.keys.executor.identity
    await registry.RejectExecutor(registry_pb.RejectExecutorRequest(colony_name=COLONY, identity=identity))
    request = registry_pb.RemoveExecutorRequest(colony_name=COLONY, identity=cluster.keys.executor_2.identity)
    await registry.RemoveExecutor(request)
    events = await ledger(cluster, cluster.keys.owner)
    verified(events)
    methods = [sorted(call.method.rpartition("/")[2] for call in event.calls) for event in events]
    assert methods == [
        ["AddColony+json"],
        ["AddUser+json"],
        ["ApproveExecutor+json", "RegisterExecutor+json"],
        ["ApproveExecutor+json", "RegisterExecutor+json"],
        ["RotateKey+json"],
        ["RejectExecutor+json"],
        ["RemoveExecutor+json"],
    ]
    assert all(call.body.startswith(b"{") for event in events for call in event.calls)


async def test_calls_in_json_that_a_service_passes_on_must_bear_their_signatures(
    new_cluster: Callable[..., Awaitable[Cluster]],
) -> None:
    cluster = await new_cluster(services=("auth", "registry"), in_json=True)
    call = (await ledger(cluster, cluster.keys.owner))[2].calls[0]
    cluster.in_json = False
    auth = cluster.stub(AuthServiceStub, cluster.keys.service("registry"))

    def altered(**changes: Any) -> Any:
        other = type(call).FromString(call.SerializeToString())
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    as_protobuf = registry_pb.ApproveExecutorRequest(colony_name=COLONY, identity=NEW.identity).SerializeToString()
    for changed, fields in (
        (altered(body=call.body + b" "), ["calls[0].signature"]),
        (altered(body=call.body.replace(b"{", b'{"colony_name":"acme",', 1)), ["calls[0].body", "calls[0].signature"]),
        (altered(body=as_protobuf), ["calls[0].body", "calls[0].signature"]),
        (altered(method=call.method.removesuffix("+json")), ["calls[0].body", "calls[0].signature"]),
        (altered(method=call.method + "+json"), ["calls[0].method"]),
    ):
        request = pb.PutExecutorRequest(colony=COLONY, identity=NEW.identity, name="w", calls=[changed])
        error = await refusal(auth.PutExecutor(request))
        assert [violation.field for violation in error.violations] == fields
    assert not await may(cluster, NEW)


async def test_a_stream_ends_with_the_key_that_opened_it(new_cluster: Callable[..., Awaitable[Cluster]]) -> None:
    clock = ManualClock()
    cluster = await new_cluster(services=("auth",), clock=clock)
    old = cluster.keys.service("registry")
    stream = cluster.stub(AuthServiceStub, old).WatchMembers(pb.WatchMembersRequest())
    assert (await stream.read()).synced
    await rotate(cluster, old, NEW, colony="", keep_old_ms=KEEP_MS)
    another = cluster.stub(AuthServiceStub, NEW).WatchMembers(pb.WatchMembersRequest())
    assert (await another.read()).synced
    clock.advance(seconds=KEEP_MS / 1000)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(3):
            while await stream.read() is not grpc.aio.EOF:
                pass
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await cluster.add_user(COLONY, cluster.keys.owner, "bob", key_of("bob"))
    async with asyncio.timeout(3):
        while (await another.read()).identity != key_of("bob").identity:
            pass
