"""Calls that a server wants signed with a prefix: they are made again by themselves, however their caller waits for them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies import AsyncClient, Client, Context, Executor, Function, PrivateKey
from colonies.errors import ResourceExhaustedError, UnauthenticatedError, from_rpc_error
from colonies.nonces import MAX_REPEATS
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.signing import Signer, SigningChannel
from tests.harness.calls import eventually

from .fake_server import CLUSTER, COLONY, FakeServer, refusal

PREFIX, OTHER_PREFIX = "ab" * 8, "cd" * 8
OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
REASON = "NONCE_PREFIX_REQUIRED"
ASSIGN = pb.AssignProcessesRequest(colony_name=COLONY, max_processes=1)
WATCH = pb.WatchAssignmentsRequest(colony_name=COLONY, max_in_flight=1)


class Caller:
    """A stub whose calls are signed."""

    def __init__(self, server: FakeServer, key: PrivateKey) -> None:
        self.server = server
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        self.signer = Signer(key, CLUSTER)
        self.stub: Any = SchedulerServiceStub(SigningChannel(self.channel, self.signer))

    def ask_for(self, method: str, prefix: str = PREFIX, times: int = 1) -> None:
        """The next calls of this method are refused."""
        self.server.refuse(method, UNAUTHENTICATED, REASON, times, nonce_prefix=prefix)

    async def polls(self, count: int) -> None:
        """Waits until so many calls wait at the server."""

        async def so_many() -> bool:
            return self.server.polls == count

        await eventually(so_many)

    def prefixes(self) -> int:
        """How many calls had the prefix."""
        return sum(nonce.startswith(PREFIX) for nonce in self.server.signatures.nonces)


@pytest_asyncio.fixture
async def caller(server: FakeServer, key: PrivateKey) -> AsyncIterator[Caller]:
    made = Caller(server, key)
    yield made
    await made.channel.close()


@pytest.mark.asyncio
async def test_a_call_is_signed_anew_and_all_later_ones_have_the_prefix_at_once(caller: Caller) -> None:
    caller.ask_for("AssignProcesses")
    for calls in (2, 3, 4):
        await caller.stub.AssignProcesses(ASSIGN)
        assert (caller.server.calls["AssignProcesses"], caller.prefixes()) == (calls, calls - 1)
    # The other half is random: no nonce came twice.
    assert len(caller.server.signatures.nonces) == 4
    caller.ask_for("AssignProcesses", OTHER_PREFIX)
    await caller.stub.AssignProcesses(ASSIGN)
    assert caller.signer.nonce_prefix == OTHER_PREFIX


@pytest.mark.asyncio
async def test_whoever_asks_the_call_hears_of_the_one_that_counts(caller: Caller) -> None:
    for ask in ("code", "details", "trailing_metadata", "initial_metadata", "wait_for_connection"):
        before = caller.server.calls["AssignProcesses"]
        caller.ask_for("AssignProcesses")
        call = caller.stub.AssignProcesses(ASSIGN, metadata=iter((("x-request-id", "mine"),)))
        await getattr(call, ask)()
        assert caller.server.calls["AssignProcesses"] == before + 2, ask
        assert (await call.code(), await call.details()) == (OK, "")
        # Once more changes nothing.
        assert await call == await call == pb.AssignProcessesResponse()
        assert call.done()
        assert caller.server.calls["AssignProcesses"] == before + 2, ask


@pytest.mark.asyncio
async def test_several_who_wait_for_one_call_wait_for_one_repeat(caller: Caller) -> None:
    caller.ask_for("AssignProcesses")
    call = caller.stub.AssignProcesses(ASSIGN)
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call.add_done_callback(told.set_result)

    async def answer() -> Any:
        return await call

    answers = await asyncio.gather(answer(), answer(), call.code(), call.trailing_metadata(), told)
    assert answers[2] is OK
    assert answers[4] is call
    assert caller.server.calls["AssignProcesses"] == 2


@pytest.mark.asyncio
async def test_other_refusals_and_those_that_never_end_come_through(caller: Caller) -> None:
    for method in ("AssignProcesses", "WatchAssignments"):
        for reason, prefix, times, made in (
            ("SIGNATURE_REPLAYED", PREFIX, 1, 1),
            (REASON, "", 1, 1),
            (REASON, "ab", 1, 1),
            (REASON, PREFIX.upper(), 1, 1),
            (REASON, PREFIX, MAX_REPEATS + 1, MAX_REPEATS + 1),
        ):
            before = caller.server.calls[method]
            caller.server.refuse(method, UNAUTHENTICATED, reason, times, nonce_prefix=prefix)
            call = getattr(caller.stub, method)(ASSIGN if method == "AssignProcesses" else WATCH)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (call if method == "AssignProcesses" else call.read())
            assert from_rpc_error(caught.value).reason == reason
            assert await call.code() is UNAUTHENTICATED
            assert caller.server.calls[method] == before + made


@pytest.mark.asyncio
async def test_both_tries_share_one_deadline(caller: Caller) -> None:
    async def slowly(context: Any) -> None:
        await asyncio.sleep(0.3)
        await refusal(UNAUTHENTICATED, REASON, nonce_prefix=PREFIX)(context)

    caller.server.refuse_by("AssignProcesses", slowly)
    call = caller.stub.AssignProcesses(pb.AssignProcessesRequest(colony_name=COLONY, wait_ms=30_000), timeout=2.0)
    begin = asyncio.get_running_loop().time()
    waiting = asyncio.ensure_future(call.code())
    await caller.polls(1)
    left = call.time_remaining()
    assert left is not None
    assert left < 2.0 - (asyncio.get_running_loop().time() - begin) + 0.1
    assert await waiting is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await caller.stub.AssignProcesses(ASSIGN, timeout=None) == pb.AssignProcessesResponse()


@pytest.mark.asyncio
async def test_what_is_cancelled_is_not_made_again(caller: Caller) -> None:
    caller.ask_for("AssignProcesses")
    call = caller.stub.AssignProcesses(pb.AssignProcessesRequest(colony_name=COLONY, wait_ms=30_000))
    waiting = asyncio.ensure_future(call.code())
    await caller.polls(1)
    assert not call.done()
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await waiting is grpc.StatusCode.CANCELLED
    assert call.cancelled()
    await caller.polls(0)
    assert caller.server.calls["AssignProcesses"] == 2


@pytest.mark.asyncio
async def test_who_stops_waiting_ends_the_call(caller: Caller) -> None:
    caller.ask_for("AssignProcesses")
    call = caller.stub.AssignProcesses(pb.AssignProcessesRequest(colony_name=COLONY, wait_ms=30_000))

    async def answer() -> None:
        await call

    waiting = asyncio.create_task(answer())
    await caller.polls(1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert call.cancelled()
    await caller.polls(0)


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["read", "iterate", "next"])
async def test_a_stream_is_opened_again_however_it_is_read(caller: Caller, how: str) -> None:
    caller.ask_for("WatchAssignments")
    await caller.server.give("f")
    call = caller.stub.WatchAssignments(WATCH)
    came: list[Any] = []
    if how == "read":
        while not came:
            came += (await call.read()).assignments
    elif how == "iterate":
        async for response in call:
            came += response.assignments
            if came:
                break
    else:
        responses = aiter(call)
        assert aiter(call) is responses
        while not came:
            came += (await anext(responses)).assignments
    assert [one.spec.func_name for one in came] == ["f"]
    assert (caller.server.calls["WatchAssignments"], caller.prefixes()) == (2, 1)
    assert not call.done()
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await caller.polls(0)


@pytest.mark.asyncio
async def test_clients_and_executors_know_nothing_of_it(server: FakeServer, address: Any, key: PrivateKey) -> None:
    methods = ("SubmitProcesses", "GetProcess", "WatchProcesses", "RegisterExecutor", "AnnounceFunctions", "WatchAssignments")
    for method in (*methods, "CloseProcesses"):
        server.refuse(method, UNAUTHENTICATED, REASON, nonce_prefix=PREFIX)
    executor = Executor("e1", key=key, **address)

    @executor.function
    def double(x: int) -> int:
        return 2 * x

    running = asyncio.create_task(executor.arun())
    process_id = await server.give("double", inputs=(21,))
    await server.until(server.is_closed(process_id))
    executor.stop()
    await running
    assert server.closed(process_id).success.outputs[0].data == b"42"

    def blocking() -> str:
        with Client("127.0.0.1", server.port, COLONY, key, CLUSTER) as client:
            return str(client.get_process(process_id).process_id)

    assert await asyncio.to_thread(blocking) == process_id


@pytest.mark.asyncio
async def test_a_client_slows_down_when_it_is_asked_to(server: FakeServer, key: PrivateKey) -> None:
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    process_id = await server.give("f")
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER) as client:
        clock = asyncio.get_running_loop()
        server.refuse("GetProcess", exhausted, "RATE_LIMITED", times=2, retry_ms=150)
        begin = clock.time()
        await client.get_process(process_id)
        assert server.calls["GetProcess"] == 3
        assert clock.time() - begin >= 0.3
        server.refuse("WatchProcesses", exhausted, "TOO_MANY_STREAMS", times=2, retry_ms=150)
        begin = clock.time()
        first = asyncio.ensure_future(anext(client.watch(process_id=process_id)))
        await server.until(lambda: server.calls["WatchProcesses"] == 3)
        assert clock.time() - begin >= 0.3
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER, retry_for=0.1) as hasty:
        server.refuse("GetProcess", exhausted, "RATE_LIMITED", retry_ms=1_000)
        with pytest.raises(ResourceExhaustedError) as caught:
            await hasty.get_process(process_id)
        assert caught.value.retry_delay == 1.0
        # Many in one batch are not sent one by one for it: that would be more calls.
        server.refuse("SubmitProcesses", exhausted, "RATE_LIMITED", retry_ms=1_000)
        results = await asyncio.gather(*(hasty.submit(Function("f")) for _ in range(10)), return_exceptions=True)
        assert {type(result) for result in results} == {ResourceExhaustedError}
        assert server.calls["SubmitProcesses"] == 1


@pytest.mark.asyncio
async def test_an_executor_slows_down_and_loses_nothing(server: FakeServer, address: Any, key: PrivateKey) -> None:
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    for method in ("RegisterExecutor", "AnnounceFunctions", "AddLogs", "CloseProcesses"):
        server.refuse(method, exhausted, "RATE_LIMITED", retry_ms=50)
    server.refuse("WatchAssignments", exhausted, "TOO_MANY_STREAMS", retry_ms=50)
    executor = Executor("e1", key=key, **address)

    @executor.function
    def say(context: Context) -> str:
        context.log("said")
        return "done"

    running = asyncio.create_task(executor.arun())
    process_id = await server.give("say")
    await server.until(server.is_closed(process_id))
    executor.stop()
    await running
    assert server.closed(process_id).HasField("success")
    assert server.log_lines == ["said"]
    assert (server.calls["CloseProcesses"], server.calls["WatchAssignments"]) == (2, 2)


@pytest.mark.asyncio
async def test_a_wrong_clock_is_told(server: FakeServer, key: PrivateKey) -> None:
    server.refuse("GetProcess", UNAUTHENTICATED, "SIGNATURE_STALE")
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER) as client:
        with pytest.raises(UnauthenticatedError):
            await client.get_process("p1")
    assert server.calls["GetProcess"] == 1
