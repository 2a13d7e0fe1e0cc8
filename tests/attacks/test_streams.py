"""Streams: the call that opened one is good once, what comes is for its caller alone, and ends with its membership."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import from_rpc_error
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import channel_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster
from tests.rpc.scheduler_colony import SERVICES, Acme, ref_of, spec
from tests.rpc.scheduler_streams import WorkStream

from .places import ACME, CHANNEL, furnish
from .tables import contents
from .wire import Wire, signed

pytestmark = pytest.mark.asyncio

SCHEDULER = "/colonies.scheduler.v1.SchedulerService"
NAMED: dict[str, Any] = {"colony_name": COLONY}
REPLAYED = (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_REPLAYED")
NOT_A_MEMBER = (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_MEMBER")
# What the architecture promises, from the answer to whoever threw the member out.
CUT_WITHIN_S = 1.0


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    cluster = await new_cluster(services=SERVICES)
    await cluster.start("scheduler")
    return Acme(cluster)


def streams_of(place: Any) -> dict[str, Any]:
    """A request for each of the scheduler's streams, none of which ends by itself."""
    process = {**NAMED, "process_id": place.process_id}
    return {
        "WatchAssignments": pb.WatchAssignmentsRequest(**NAMED, max_in_flight=1),
        "FollowLogs": pb.FollowLogsRequest(**process),
        "WatchProcesses": pb.WatchProcessesRequest(**process),
        "FollowChannel": channel_pb2.FollowChannelRequest(**process, channel=CHANNEL),
    }


async def test_the_call_that_opened_a_stream_opens_no_second_one(acme: Acme, database_url: str) -> None:
    """Somebody on the way repeats it on a connection of his own, at either replica, while it is open and when it is not."""
    place = await furnish(acme.cluster, ACME)
    for name, request in streams_of(place).items():
        opening = signed(acme.cluster, acme.keys.executor, f"{SCHEDULER}/{name}", request)
        stream = opening.open(acme.cluster)
        await stream.read()
        before = contents(database_url)
        for replica in (0, 1):
            error = await refusal(opening.open(acme.cluster, replica=replica).read())
            assert (error.code, error.reason) == REPLAYED, name
        assert contents(database_url) == before
        # Its owner has it still.
        assert not stream.done()
        stream.cancel()
        error = await refusal(opening.open(acme.cluster, replica=1).read())
        assert (error.code, error.reason) == REPLAYED, name


async def test_another_who_sends_the_same_request_gets_what_is_his_own(acme: Acme) -> None:
    """The body of a stream's call names nobody: the one whose work it brings is the one who signed."""
    async with WorkStream(acme.worker, 5) as first, WorkStream(acme.worker_2, 5) as second:
        ids = set(await acme.submit(*[spec(conditions={"executor_names": ["worker-1"]}) for _ in range(3)]))
        assert {one.process_id for one in await first.brought(3)} == ids
        (mine,) = await acme.submit(spec(conditions={"executor_names": ["worker-2"]}))
        assert [one.process_id for one in await second.brought(1)] == [mine]
        error = await refusal(acme.closing(first.came[0], stub=acme.worker_2))
        assert error.reason == "ATTEMPT_SUPERSEDED"


async def test_a_key_put_in_another_ones_call_opens_nothing(acme: Acme) -> None:
    place = await furnish(acme.cluster, ACME)
    for name, request in streams_of(place).items():
        theirs = signed(acme.cluster, acme.keys.executor, f"{SCHEDULER}/{name}", request)
        mine = signed(acme.cluster, acme.keys.executor_2, f"{SCHEDULER}/{name}", request)
        for index in range(len(theirs.headers)):
            if theirs.headers[index] == mine.headers[index]:
                continue
            mixed = Wire(theirs.path, (*mine.headers[:index], theirs.headers[index], *mine.headers[index + 1 :]), theirs.body)
            error = await refusal(mixed.open(acme.cluster).read())
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_INVALID")


async def throw_out(acme: Acme, way: str) -> None:
    """Throws worker-1 out, or alice."""
    registry = acme.cluster.stub(RegistryServiceStub, acme.keys.owner)
    identity = {**NAMED, "identity": acme.keys.executor.identity}
    if way == "rejected":
        await registry.RejectExecutor(registry_pb.RejectExecutorRequest(**identity))
    elif way == "removed":
        await registry.RemoveExecutor(registry_pb.RemoveExecutorRequest(**identity))
    else:
        auth = acme.cluster.stub(AuthServiceStub, acme.keys.owner)
        await auth.RemoveUser(auth_pb.RemoveUserRequest(**NAMED, name="alice"))


async def end_of(stream: Any) -> tuple[grpc.StatusCode, str]:
    """Reads a stream until it is refused."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), from_rpc_error(error).reason
    return grpc.StatusCode.OK, ""


@pytest.mark.alone
@pytest.mark.parametrize("way", ["rejected", "removed", "removed user"])
async def test_every_open_stream_of_who_is_thrown_out_ends_within_a_second_at_every_replica(acme: Acme, way: str) -> None:
    place = await furnish(acme.cluster, ACME)
    key = acme.keys.user if way == "removed user" else acme.keys.executor
    streams = []
    for name, request in streams_of(place).items():
        for replica in (0, 1):
            if name != "WatchAssignments" or way != "removed user":
                stream = signed(acme.cluster, key, f"{SCHEDULER}/{name}", request).open(acme.cluster, replica=replica)
                await stream.read()
                streams.append(stream)
    ends = [asyncio.create_task(end_of(stream)) for stream in streams]
    await throw_out(acme, way)
    done, late = await asyncio.wait(ends, timeout=CUT_WITHIN_S)
    for task in late:
        task.cancel()
    assert not late
    assert {task.result() for task in done} == {NOT_A_MEMBER}


@pytest.mark.parametrize("way", ["rejected", "removed", "removed user"])
async def test_what_was_signed_before_and_comes_after_is_refused(acme: Acme, database_url: str, way: str) -> None:
    """The signatures are good and fresh, and were never used: it is the key that is nobody's any more."""
    await acme.submit(spec(), spec())
    running = await acme.one()
    if way == "removed user":
        request: Any = pb.SubmitProcessesRequest(**NAMED, request_id="late", specs=[spec()])
        key, method = acme.keys.user, "SubmitProcesses"
    else:
        request = pb.CloseProcessesRequest(**NAMED, closes=[pb.Close(attempt=ref_of(running), success=pb.Close.Success())])
        key, method = acme.keys.executor, "CloseProcesses"
    calls = [signed(acme.cluster, key, f"{SCHEDULER}/{method}", request) for _ in range(4)]
    follow = signed(
        acme.cluster, key, f"{SCHEDULER}/WatchProcesses", pb.WatchProcessesRequest(**NAMED, process_id=running.process_id)
    )
    watching = signed(
        acme.cluster, key, f"{SCHEDULER}/WatchProcesses", pb.WatchProcessesRequest(**NAMED, process_id=running.process_id)
    )
    stream = watching.open(acme.cluster, replica=1)
    other = signed(
        acme.cluster, key, f"{SCHEDULER}/WatchProcesses", pb.WatchProcessesRequest(**NAMED, process_id=running.process_id)
    )
    another = other.open(acme.cluster)
    await stream.read()
    await another.read()
    await throw_out(acme, way)
    # Both replicas have heard of it when these are cut.
    assert await end_of(stream) == await end_of(another) == NOT_A_MEMBER
    before = contents(database_url)
    for number, call in enumerate(calls):
        error = await refusal(call.send(acme.cluster, replica=number % 2))
        assert (error.code, error.reason) == NOT_A_MEMBER
    error = await refusal(follow.open(acme.cluster).read())
    assert (error.code, error.reason) == NOT_A_MEMBER
    assert contents(database_url) == before
