"""Every stream of every service ends when whoever opened it is thrown out: each method by each kind of caller that may open it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import from_rpc_error
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.channel_pb2 import FollowChannelRequest
from colonies.signing import SigningChannel
from servicekit.caller import NO_COLONY
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY, USER, Cluster
from tests.harness.keys import key_of
from tests.rpc.methods import Method, all_methods
from tests.rpc.rotations import rotate
from tests.rpc.scheduler_colony import Acme, spec
from tests.rpc.test_policy import words_for

pytestmark = pytest.mark.asyncio

# They are cut within a second; a machine that is busy gets some more, and the time that it took is printed.
WAIT_S = 5.0
# They end by themselves, however long their caller stays.
FINITE = {"/colonies.scheduler.v1.SchedulerService/ExportAudit"}
STREAMS = [method for method in all_methods() if method.descriptor.server_streaming and method.path not in FINITE]

Event = Callable[[Cluster], Awaitable[object]]


@dataclass(frozen=True)
class Opened:
    """A stream that was let in."""

    name: str
    # With what it ends, and when.
    end: "asyncio.Task[tuple[grpc.StatusCode, str, float]]"


async def read_out(call: Any) -> tuple[grpc.StatusCode, str, float]:
    """Reads a stream to its end: with what it ends, and when."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), from_rpc_error(error).reason, time.monotonic()
    return grpc.StatusCode.OK, "", time.monotonic()


def request_for(method: Method, process_id: str) -> Any:
    """A request whose stream does not end by itself."""
    return {
        "WatchMembers": auth_pb.WatchMembersRequest(),
        "WatchExecutors": registry_pb.WatchExecutorsRequest(),
        "WatchAssignments": pb.WatchAssignmentsRequest(colony_name=COLONY, max_in_flight=1),
        "FollowLogs": pb.FollowLogsRequest(colony_name=COLONY, process_id=process_id),
        "WatchProcesses": pb.WatchProcessesRequest(colony_name=COLONY, colony=pb.ColonyFilter()),
        "FollowChannel": FollowChannelRequest(colony_name=COLONY, process_id=process_id, channel="c"),
    }[method.descriptor.name]


async def opened(cluster: Cluster, word: str, key: PrivateKey, process_id: str) -> list[Opened]:
    """Every stream that the policy opens to a kind of caller, each let in and watched over."""
    streams = []
    for method in STREAMS:
        if word not in words_for(method):
            continue
        channel = SigningChannel(cluster.channel(method.service), cluster.signer(key))
        request = request_for(method, process_id)
        kind: Any = channel.unary_stream(
            method.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=lambda data: data,
        )
        members = cluster.replicas[method.service][0].process.members
        assert members is not None
        place = (NO_COLONY if word == "service" else COLONY, key.identity)
        before = len(members._watchers.get(place, ()))
        streams.append(Opened(f"{method.path} by {word}", asyncio.create_task(read_out(kind(request)))))

        async def watched(members: Any = members, place: Any = place, more: int = before + 1) -> bool:
            return len(members._watchers.get(place, ())) == more

        await eventually(watched)
    return streams


async def cut(cluster: Cluster, streams: Sequence[Opened], event: Event) -> None:
    """Makes the event, and waits until all streams have ended as they should; prints how long that took."""
    ends = asyncio.gather(*(stream.end for stream in streams))
    await event(cluster)
    begin = time.monotonic()
    async with asyncio.timeout(WAIT_S):
        ended = await ends
    for stream, (code, reason, at) in zip(streams, ended, strict=True):
        assert code is grpc.StatusCode.PERMISSION_DENIED, stream.name
        assert reason in {"NOT_A_MEMBER", "ROLE_NOT_ALLOWED"}, stream.name
        print(f"{stream.name}: cut {(at - begin) * 1000:.0f} ms after the event was acknowledged")


async def remove_user(cluster: Cluster) -> None:
    request = auth_pb.RemoveUserRequest(colony_name=COLONY, name=USER)
    await cluster.stub(AuthServiceStub, cluster.keys.owner).RemoveUser(request)


async def reject_executor(cluster: Cluster) -> None:
    request = registry_pb.RejectExecutorRequest(colony_name=COLONY, identity=cluster.keys.executor.identity)
    await cluster.stub(RegistryServiceStub, cluster.keys.owner).RejectExecutor(request)


async def remove_executor(cluster: Cluster) -> None:
    request = registry_pb.RemoveExecutorRequest(colony_name=COLONY, identity=cluster.keys.executor.identity)
    await cluster.stub(RegistryServiceStub, cluster.keys.owner).RemoveExecutor(request)


async def remove_colony(cluster: Cluster) -> None:
    request = auth_pb.RemoveColonyRequest(name=COLONY)
    await cluster.stub(AuthServiceStub, cluster.keys.server_owner).RemoveColony(request)


async def rotate_user(cluster: Cluster) -> None:
    await rotate(cluster, cluster.keys.user, key_of("new"))


async def rotate_executor(cluster: Cluster) -> None:
    await rotate(cluster, cluster.keys.executor, key_of("new"))


async def rotate_service(cluster: Cluster) -> None:
    await rotate(cluster, cluster.keys.service("cron"), key_of("new"), colony="")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (remove_user, ["user"]),
        (reject_executor, ["executor"]),
        (remove_executor, ["executor"]),
        (remove_colony, ["colony_owner", "user", "executor"]),
        (rotate_user, ["user"]),
        (rotate_executor, ["executor"]),
        (rotate_service, ["service"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_all_streams_of_whoever_is_thrown_out_end(cluster: Cluster, event: Event, words: list[str]) -> None:
    keys = {
        "colony_owner": cluster.keys.owner,
        "user": cluster.keys.user,
        "executor": cluster.keys.executor,
        "service": cluster.keys.service("cron"),
    }
    acme = Acme(cluster)
    (process_id,) = await acme.submit(spec(channels=["c"]))
    await acme.one()
    streams = [stream for word in words for stream in await opened(cluster, word, keys[word], process_id)]
    assert {stream.name for stream in streams} == {
        f"{method.path} by {word}" for method in STREAMS for word in words if word in words_for(method)
    }
    try:
        await cut(cluster, streams, event)
    finally:
        for stream in streams:
            stream.end.cancel()


async def test_streams_are_opened_to_no_other_kinds_of_callers() -> None:
    """So that a new kind, or a new stream, does not go untested."""
    assert {word for method in STREAMS for word in words_for(method)} == {"colony_owner", "user", "executor", "service"}


async def test_who_has_just_become_a_member_is_not_refused_for_having_asked_before(cluster: Cluster) -> None:
    """However soon after the answer: that somebody was a stranger is not remembered."""
    request = registry_pb.ListExecutorsRequest(colony_name=COLONY)
    for number in range(20):
        key = key_of(f"newcomer {number}")
        registry = cluster.stub(RegistryServiceStub, key)
        with pytest.raises(grpc.aio.AioRpcError):
            await registry.ListExecutors(request)
        await cluster.add_user(COLONY, cluster.keys.owner, f"newcomer-{number}", key)
        await registry.ListExecutors(request)
