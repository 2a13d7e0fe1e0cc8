"""How often one identity and one colony may call, how many streams one may have, and how large a message may be."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies import AsyncClient
from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import RpcError, from_rpc_error
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from servicekit import metrics
from servicekit.envelope import LARGE_AT_MOST, MIB, SMALL_AT_MOST
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import CLUSTER, COLONY, Cluster
from tests.harness.keys import key_of

from .rotations import rotate
from .scheduler_colony import SERVICES, Acme, spec
from .scheduler_streams import WorkStream, watching_assignments

pytestmark = pytest.mark.asyncio

Start = Callable[..., Awaitable[Cluster]]
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
# A token takes a minute to come: none does while a test runs.
A_MINUTE = 1 / 60
BURST = 5
# Each replica of auth in the harness has these limits in place of the usual ones.
NO_LIMITS = {"identity_rate": 0, "colony_rate": 0}
USERS = auth_pb.ListUsersRequest(colony_name=COLONY)


async def limited(new_cluster: Start, **limits: object) -> Cluster:
    """Auth alone, with a second replica that has these limits; the first one filled it and has none."""
    cluster = await new_cluster(services=("auth",), settings={"auth": NO_LIMITS})
    await cluster.start("auth", **{**NO_LIMITS, **limits})
    return cluster


def auth(cluster: Cluster, key: PrivateKey) -> Any:
    """The replica that has limits."""
    return cluster.stub(AuthServiceStub, key, replica=1)


async def outcomes(calls: Sequence[Awaitable[Any]]) -> list[RpcError | None]:
    """What each of these calls, made at once, ended with."""
    ends = await asyncio.gather(*calls, return_exceptions=True)
    return [from_rpc_error(end) if isinstance(end, grpc.aio.AioRpcError) else None for end in ends]


async def users(cluster: Cluster, key: PrivateKey, times: int = 3 * BURST) -> list[RpcError | None]:
    stub = auth(cluster, key)
    # The first learns the prefix for all.
    (first,) = await outcomes([stub.ListUsers(USERS)])
    return [first, *await outcomes([stub.ListUsers(USERS) for _ in range(times - 1)])]


def limited_so_far(limit: str) -> float:
    """The counter of refusals."""
    return float(metrics.LIMITED.labels(limit)._value.get())


async def test_an_identity_may_make_a_burst_of_calls_and_is_told_when_to_come_again(new_cluster: Start) -> None:
    cluster = await limited(new_cluster, identity_rate=A_MINUTE, identity_burst=BURST)
    before = limited_so_far("identity")
    refusals = [error for error in await users(cluster, cluster.keys.user) if error is not None]
    assert len(refusals) == 2 * BURST
    for error in refusals:
        assert (error.code, error.reason, error.metadata["limit"]) == (EXHAUSTED, "RATE_LIMITED", "identity")
        assert error.metadata["burst"] == str(BURST)
        assert error.retry_delay is not None
        assert 50 < error.retry_delay <= 60
    assert limited_so_far("identity") == before + 2 * BURST
    # Nobody else has to wait for it, in whatever colony, and nobody else's calls count for it.
    assert [error for error in await users(cluster, cluster.keys.owner, BURST) if error] == []


async def test_tokens_come_back_one_by_one_and_who_waits_as_told_gets_one(new_cluster: Start) -> None:
    cluster = await limited(new_cluster, identity_rate=4, identity_burst=2)
    stub = auth(cluster, cluster.keys.user)
    ends = await users(cluster, cluster.keys.user, 10)
    assert ends[0] is ends[1] is None
    for _ in range(3):
        error = await refusal_of(stub)
        assert error.retry_delay is not None
        assert error.retry_delay <= 0.25
        await asyncio.sleep(error.retry_delay)
        await stub.ListUsers(USERS)


async def refusal_of(stub: Any) -> RpcError:
    """Calls until it is refused: how long that takes depends on this machine."""
    for _ in range(100):
        (end,) = await outcomes([stub.ListUsers(USERS)])
        if end is not None:
            return end
    pytest.fail("no limit")


async def test_a_client_of_the_sdk_is_only_slowed_down(new_cluster: Start) -> None:
    cluster = await limited(new_cluster, identity_rate=20, identity_burst=2)
    host, _, port = cluster.replicas["auth"][1].address.rpartition(":")
    async with AsyncClient(host, int(port), COLONY, cluster.keys.user, CLUSTER) as client:
        begin = asyncio.get_running_loop().time()
        for _ in range(12):
            await client.call(client.auth.ListUsers, USERS)
        assert asyncio.get_running_loop().time() - begin >= 0.45


async def test_a_colony_has_one_rate_for_all_its_members_and_none_for_others(new_cluster: Start) -> None:
    cluster = await limited(new_cluster, colony_rate=A_MINUTE, colony_burst=BURST)
    await cluster.add_colony("umbrella", key_of("owner of umbrella"))
    # Who is no member of it takes nothing of it: strangers, members of others, whoever is not let in by the policy.
    for key in (cluster.keys.stranger, key_of("owner of umbrella")):
        assert {error.reason for error in await users(cluster, key) if error} == {"NOT_A_MEMBER"}
    ends = await outcomes([auth(cluster, cluster.keys.user).AddUser(auth_pb.AddUserRequest(colony_name=COLONY))] * BURST)
    assert {error.reason for error in ends if error} == {"ROLE_NOT_ALLOWED"}
    ends = await users(cluster, cluster.keys.user, 3)
    ends += await users(cluster, cluster.keys.owner, 10)
    assert ends[:BURST] == [None] * BURST
    assert {(error.reason, error.metadata["limit"]) for error in ends[BURST:] if error} == {("RATE_LIMITED", "colony")}
    assert None not in ends[BURST:]
    request = auth_pb.ListUsersRequest(colony_name="umbrella")
    await auth(cluster, key_of("owner of umbrella")).ListUsers(request)


async def test_what_one_limit_refuses_takes_nothing_of_the_other(new_cluster: Start) -> None:
    cluster = await limited(
        new_cluster, identity_rate=A_MINUTE, identity_burst=BURST, colony_rate=A_MINUTE, colony_burst=2 * BURST
    )
    spent = await users(cluster, cluster.keys.user)
    assert {error.metadata["limit"] for error in spent if error} == {"identity"}
    # All that was refused has left the colony's other half to others.
    left = await users(cluster, cluster.keys.owner, BURST)
    assert left == [None] * BURST
    # And of the colony, nothing of an identity's: it has all of it for what is in no colony.
    await cluster.add_user(COLONY, cluster.keys.owner, "carol", key_of("carol"))
    over = await users(cluster, key_of("carol"))
    assert {error.metadata["limit"] for error in over if error} == {"colony"}
    info = auth_pb.GetServerInfoRequest()
    stub = auth(cluster, key_of("carol"))
    ends = await outcomes([stub.GetServerInfo(info) for _ in range(BURST + 1)])
    assert [error.metadata["limit"] for error in ends if error] == ["identity"]


async def test_a_signed_call_that_was_over_the_limit_is_never_good_again(new_cluster: Start) -> None:
    """Whoever captured it could else have it executed as soon as there is a token; its caller signs anew."""
    cluster = await limited(new_cluster, identity_rate=10, identity_burst=1)
    signer = cluster.signer(cluster.keys.user)
    method = "/colonies.auth.v1.AuthService/ListUsers"
    call: Any = cluster.channel("auth", replica=1).unary_unary(method, None, None)
    asked = await refusal(call(USERS.SerializeToString(), metadata=signer.headers(method, USERS.SerializeToString())))
    signer.nonce_prefix = asked.metadata["nonce_prefix"]
    calls = [signer.headers(method, USERS.SerializeToString()) for _ in range(10)]
    ends = await outcomes([call(USERS.SerializeToString(), metadata=headers) for headers in calls])
    over = [headers for headers, end in zip(calls, ends, strict=True) if end is not None and end.reason == "RATE_LIMITED"]
    assert over

    async def a_new_one_gets_in() -> bool:
        headers = signer.headers(method, USERS.SerializeToString())
        (end,) = await outcomes([call(USERS.SerializeToString(), metadata=headers)])
        assert end is None or end.reason == "RATE_LIMITED"
        return end is None

    await eventually(a_new_one_gets_in)
    for headers in over:
        replayed = await refusal(call(USERS.SerializeToString(), metadata=headers))
        assert replayed.reason == "SIGNATURE_REPLAYED"


async def test_a_retired_key_and_the_same_key_elsewhere_take_nothing_of_the_member(new_cluster: Start) -> None:
    """Both have the identity that the member is known by, for ever."""
    cluster = await limited(new_cluster, identity_rate=A_MINUTE, identity_burst=BURST)
    old, new = cluster.keys.user, key_of("the user's new key")
    await rotate(cluster, old, new)
    info = auth_pb.GetServerInfoRequest()
    ends = await outcomes([auth(cluster, old).GetServerInfo(info) for _ in range(3 * BURST)])
    assert [error.reason for error in ends if error].count("RATE_LIMITED") >= BURST
    await cluster.add_colony("umbrella", key_of("owner of umbrella"))
    await cluster.add_user("umbrella", key_of("owner of umbrella"), "same", old)
    there = auth_pb.ListUsersRequest(colony_name="umbrella")
    ends = await outcomes([auth(cluster, old).ListUsers(there) for _ in range(3 * BURST)])
    assert [error.reason for error in ends if error].count("RATE_LIMITED") >= BURST
    # All of the member's own are left.
    assert await users(cluster, new, BURST) == [None] * BURST


async def test_the_services_have_no_rate_of_their_own(new_cluster: Start) -> None:
    cluster = await limited(new_cluster, identity_rate=A_MINUTE, identity_burst=1)
    stub = auth(cluster, cluster.keys.service("registry"))
    request = auth_pb.ResolveMemberRequest(colony=COLONY, identity=cluster.keys.user.identity)
    assert await outcomes([stub.ResolveMember(request) for _ in range(20)]) == [None] * 20


@pytest_asyncio.fixture(params=[False, True], ids=["protobuf", "json"])
async def narrow(new_cluster: Start, request: pytest.FixtureRequest) -> Acme:
    """A scheduler that lets each identity have two streams."""
    settings = {"scheduler": {"streams_per_identity": 2}}
    return Acme(await new_cluster(services=SERVICES, settings=settings, in_json=request.param))


def follow(acme: Acme, key: PrivateKey) -> Any:
    """Another kind of stream."""
    return acme.by(key).WatchProcesses(pb.WatchProcessesRequest(colony_name=COLONY, colony=pb.ColonyFilter()))


async def no_more(acme: Acme, key: PrivateKey) -> RpcError:
    """That neither a stream nor a long poll may be opened."""
    stub = acme.by(key)
    poll = stub.AssignProcesses(pb.AssignProcessesRequest(colony_name=COLONY, max_processes=1, wait_ms=10_000))
    for call in (watching_assignments(stub, 1).read(), follow(acme, key).read(), poll):
        error = await refusal(call)
        assert (error.code, error.reason) == (EXHAUSTED, "TOO_MANY_STREAMS")
        assert error.metadata["most"] == "2"
        assert error.retry_delay
    return error


async def opened(acme: Acme, key: PrivateKey, count: int) -> list[Any]:
    """So many streams, soon: what was cut a moment ago may still be counted."""
    found: list[Any] = []

    async def all_open() -> bool:
        calls = [follow(acme, key) for _ in range(count)]
        refusals = [error for error in await outcomes([call.read() for call in calls]) if error is not None]
        assert {error.reason for error in refusals} <= {"TOO_MANY_STREAMS"}
        if refusals:
            for call in calls:
                call.cancel()
            return False
        found.extend(calls)
        return True

    await eventually(all_open)
    return found


async def opens(acme: Acme, key: PrivateKey) -> None:
    """That there is room for a stream, soon."""
    for call in await opened(acme, key, 1):
        call.cancel()


async def test_streams_of_one_identity_are_bounded_and_each_end_makes_room(narrow: Acme) -> None:
    worker = narrow.keys.executor
    for _ in range(3):
        streams = await opened(narrow, worker, 2)
        await no_more(narrow, worker)
        # Others have their own, and other calls go on.
        await opens(narrow, narrow.keys.executor_2)
        await narrow.worker.ListProcesses(pb.ListProcessesRequest(colony_name=COLONY))
        for stream in streams:
            stream.cancel()


async def test_streams_of_assignments_are_counted_too(narrow: Acme) -> None:
    async with WorkStream(narrow.worker, 1), WorkStream(narrow.worker, 1):
        await no_more(narrow, narrow.keys.executor)
    await opens(narrow, narrow.keys.executor)


async def test_long_polls_count_as_streams_and_make_room_when_they_are_answered(narrow: Acme) -> None:
    polls = [asyncio.ensure_future(narrow.assigning(wait_ms=30_000)) for _ in range(3)]
    (over,), waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
    assert (await refusal(over)).reason == "TOO_MANY_STREAMS"
    await no_more(narrow, narrow.keys.executor)
    await narrow.submit(spec())
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [len(one.result().assignments) for one in done] == [1]
    await opens(narrow, narrow.keys.executor)
    for one in pending:
        one.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    await opens(narrow, narrow.keys.executor)


async def test_streams_that_are_refused_or_cut_make_room(narrow: Acme) -> None:
    key = narrow.keys.user
    missing = pb.FollowLogsRequest(colony_name=COLONY, process_id="00000000-0000-0000-0000-000000000000")
    for _ in range(5):
        error = await refusal(narrow.user.FollowLogs(missing).read())
        assert error.code is grpc.StatusCode.NOT_FOUND
    first, second = follow(narrow, key), follow(narrow, key)
    await first.read()
    await second.read()
    error = await refusal(follow(narrow, key).read())
    assert error.reason == "TOO_MANY_STREAMS"
    # Removed, its streams are cut; entered again, it has room.
    owner = narrow.cluster.stub(AuthServiceStub, narrow.keys.owner)
    await owner.RemoveUser(auth_pb.RemoveUserRequest(colony_name=COLONY, name="alice"))
    for stream in (first, second):
        with pytest.raises(grpc.aio.AioRpcError):
            while await stream.read() is not grpc.aio.EOF:
                pass
    await narrow.cluster.add_user(COLONY, narrow.keys.owner, "alice-2", key)
    stub = narrow.cluster.stub(SchedulerServiceStub, key)

    async def known() -> bool:
        (end,) = await outcomes([stub.ListProcesses(pb.ListProcessesRequest(colony_name=COLONY))])
        return end is None

    await eventually(known)
    await opens(narrow, key)


async def test_messages_that_are_too_large_are_refused_by_name_and_by_grpc_beyond(new_cluster: Start) -> None:
    acme = Acme(await new_cluster(services=SERVICES))
    for method, most in (("GetProcess", SMALL_AT_MOST), ("SubmitProcesses", LARGE_AT_MOST)):
        path = f"/colonies.scheduler.v1.SchedulerService/{method}"
        signer = acme.cluster.signer(acme.keys.user)
        call: Any = acme.cluster.channel("scheduler").unary_unary(path, None, None)

        async def sent(size: int, call: Any = call, path: str = path, signer: Any = signer) -> RpcError:
            body = b"\x0a\x04acme" + b"\x92\x7d\x00" * (size // 3)
            return await refusal(call(body, metadata=signer.headers(path, body)))

        error = await sent(most + 3)
        assert (error.code, error.violations[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, "request")
        assert str(most) in error.violations[0].description
        # And that before the signature is looked at, over which all of it would be hashed: there is none here.
        error = await refusal(call(b"\x0a\x04acme" + b"\x92\x7d\x00" * (most // 3)))
        assert (error.code, error.violations[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, "request")
    # Far beyond, gRPC itself does not take it, and says so without a reason and without a delay: no client repeats it.
    error = await sent(LARGE_AT_MOST + 2 * MIB)
    assert (error.code, error.reason, error.retry_delay) == (EXHAUSTED, "", None)
    assert str(LARGE_AT_MOST + MIB) in str(error)
