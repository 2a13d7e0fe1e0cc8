"""The call pipeline over a small server: nonces that cannot be claimed, and how a call is told of."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio
import structlog

from colonies.errors import from_rpc_error
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import (
    SchedulerServiceServicer,
    SchedulerServiceStub,
    add_SchedulerServiceServicer_to_server,
)
from colonies.signing import Signer, SigningChannel
from servicekit import logs, metrics, pipeline
from servicekit.caller import Caller, Member, Role
from servicekit.changes import Change, Event
from servicekit.clock import NS_PER_MS, ManualClock, SystemClock
from servicekit.directory import Directory
from servicekit.drain import Drain
from servicekit.failures import NotFound, Unauthenticated, Unavailable
from servicekit.limits import Bucket, Limits
from servicekit.pipeline import CallPipeline, Gate, Handlers
from servicekit.policy import Policy
from servicekit.signature import Signed
from tests.harness.calls import eventually
from tests.harness.json_channel import JsonChannel

pytestmark = pytest.mark.asyncio

KEY = PrivateKey(b"\x07" * 32)
SERVICE = "/colonies.scheduler.v1.SchedulerService"
SUBMIT = pb.SubmitProcessesRequest(colony_name="acme", request_id="r")
GET = pb.GetProcessRequest(colony_name="acme")
CLOSE = pb.CloseProcessesRequest(colony_name="acme")
CANCEL = pb.CancelProcessRequest(colony_name="acme")
log = structlog.get_logger()


class Everyone:
    """A directory's source in which everyone uses every colony, until they are all removed."""

    removed = False

    async def fetch(self, colony: str, identity: str) -> Member | None:
        return None if self.removed else Member(identity, Role.USER, "user")

    async def changes(self) -> AsyncIterator[Event]:
        await asyncio.Event().wait()
        yield  # type: ignore[misc]


class Nonces:
    """Claims in memory, until the place where they are kept is away or silent."""

    def __init__(self) -> None:
        self.away = False
        self.silent = False
        # What happens while a claim is under way.
        self.meanwhile: Callable[[], None] = lambda: None
        self._claimed: set[tuple[str, str]] = set()

    async def claim(self, call: Signed, buckets: Sequence[Bucket]) -> None:
        if self.silent:
            await asyncio.Event().wait()
        if self.away:
            raise Unavailable("away", reason="QUEUE_UNAVAILABLE")
        self.meanwhile()
        if (call.key, call.nonce) in self._claimed:
            raise Unauthenticated("again", reason="SIGNATURE_REPLAYED")
        self._claimed.add((call.key, call.nonce))


class Servicer(SchedulerServiceServicer):
    """Answers, and writes two lines to the log."""

    async def SubmitProcesses(self, request: Any, context: Any) -> Any:
        assert Caller.current().identity == KEY.identity
        return pb.SubmitProcessesResponse()

    async def WatchProcesses(self, request: Any, context: Any) -> Any:
        yield pb.WatchProcessesResponse()
        await asyncio.Event().wait()

    async def GetProcess(self, request: Any, context: Any) -> Any:
        log.info("first")
        await asyncio.sleep(0)
        log.info("second")
        if request.process_id == "none":
            raise NotFound("no such process", reason="PROCESS_NOT_FOUND")
        if request.process_id == "defect":
            raise ZeroDivisionError("its text is ours alone")
        return pb.GetProcessResponse()


class World:
    """A server, and a stub that signs."""

    def __init__(self) -> None:
        self.nonces = Nonces()
        self.clock = ManualClock()
        self.everyone = Everyone()
        self.members = Directory(self.everyone, SystemClock())
        gate = Gate(
            audience="test",
            clock=self.clock,
            nonces=self.nonces,
            members=self.members,
            principals=frozenset(),
            policy=Policy.load(),
            limits=Limits(),
        )
        self.server = grpc.aio.server(interceptors=[CallPipeline(gate, Drain())])
        add_SchedulerServiceServicer_to_server(Servicer(), Handlers(self.server))  # type: ignore[abstract, arg-type]
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.signer = Signer(KEY, "test", lambda: self.clock.now_ns() // NS_PER_MS)
        self.stub = SchedulerServiceStub(SigningChannel(self.channel, self.signer))


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """A server that answers."""
    made = World()
    await made.server.start()
    yield made
    await made.channel.close()
    await made.server.stop(0)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """The log's lines, with what every line is given."""
    written: list[Any] = []

    def keep(_logger: Any, _name: str, line: Any) -> Any:
        written.append(dict(line))
        raise structlog.DropEvent

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, logs.with_call, keep])
    yield written
    structlog.configure(processors=before)


async def reason_of(call: Any) -> str:
    """Why a call failed; empty if it did not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason
    return ""


def count(metric: Any, **labels: str) -> float:
    """A counter's value."""
    return float(metric.labels(**labels)._value.get())


async def test_without_nonces_only_what_is_safe_to_repeat_goes_on(world: World) -> None:
    before = count(metrics.UNCLAIMED, method=f"{SERVICE}/SubmitProcesses")
    assert await reason_of(world.stub.SubmitProcesses(SUBMIT)) == ""
    world.nonces.away = True
    assert await reason_of(world.stub.SubmitProcesses(SUBMIT)) == ""
    assert await reason_of(world.stub.GetProcess(GET)) == "QUEUE_UNAVAILABLE"
    assert await reason_of(world.stub.CancelProcess(CANCEL)) == "QUEUE_UNAVAILABLE"
    # Who may not call hears so without a claim.
    assert await reason_of(world.stub.CloseProcesses(CLOSE)) == "ROLE_NOT_ALLOWED"
    assert count(metrics.UNCLAIMED, method=f"{SERVICE}/SubmitProcesses") == before + 1
    unsigned = SchedulerServiceStub(world.channel)
    assert await reason_of(unsigned.SubmitProcesses(SUBMIT)) == "SIGNATURE_MISSING"


async def test_calls_in_json_are_as_safe_to_repeat_as_others(world: World) -> None:
    channel: Any = JsonChannel(SigningChannel(world.channel, world.signer))
    in_json: Any = SchedulerServiceStub(channel)
    before = count(metrics.UNCLAIMED, method=f"{SERVICE}/SubmitProcesses+json")
    world.nonces.away = True
    assert await reason_of(in_json.SubmitProcesses(SUBMIT)) == ""
    assert await reason_of(in_json.GetProcess(GET)) == "QUEUE_UNAVAILABLE"
    assert await reason_of(in_json.CancelProcess(CANCEL)) == "QUEUE_UNAVAILABLE"
    assert await reason_of(in_json.CloseProcesses(CLOSE)) == "ROLE_NOT_ALLOWED"
    assert count(metrics.UNCLAIMED, method=f"{SERVICE}/SubmitProcesses+json") == before + 1


async def test_a_silent_store_of_nonces_does_not_hold_up_what_is_safe_to_repeat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "REPLAY_SAFE_WAIT_S", 0.05)
    world.nonces.silent = True
    async with asyncio.timeout(10):
        assert await reason_of(world.stub.SubmitProcesses(SUBMIT)) == ""


async def test_a_replay_that_is_known_is_refused_of_every_method(world: World) -> None:
    for method, request in (("SubmitProcesses", SUBMIT), ("GetProcess", GET)):
        body = request.SerializeToString()
        headers = grpc.aio.Metadata(*world.signer.headers(f"{SERVICE}/{method}", body))
        call: Any = world.channel.unary_unary(f"{SERVICE}/{method}")
        assert await reason_of(call(body, metadata=headers)) == ""
        assert await reason_of(call(body, metadata=headers)) == "SIGNATURE_REPLAYED"


async def test_a_claim_that_takes_until_the_signature_is_stale_is_too_late(world: World) -> None:
    """By then the claim of an earlier copy may have been forgotten."""
    world.nonces.meanwhile = lambda: world.clock.advance(seconds=60)
    assert await reason_of(world.stub.SubmitProcesses(SUBMIT)) == ""
    world.nonces.meanwhile = lambda: world.clock.advance(seconds=60.001)
    for call in (world.stub.SubmitProcesses(SUBMIT), world.stub.GetProcess(GET)):
        assert await reason_of(call) == "SIGNATURE_STALE"


async def test_who_is_removed_while_its_nonce_is_claimed_gets_no_stream(world: World) -> None:
    request = pb.WatchProcessesRequest(colony_name="acme")
    stream = world.stub.WatchProcesses(request)
    assert await stream.read() == pb.WatchProcessesResponse()
    stream.cancel()

    def remove() -> None:
        world.everyone.removed = True
        world.members._apply(Change("acme", KEY.identity))

    world.nonces.meanwhile = remove
    assert await reason_of(world.stub.WatchProcesses(request, timeout=10).read()) == "NOT_A_MEMBER"


async def test_every_line_of_a_call_names_it(world: World, lines: list[Any]) -> None:
    await asyncio.gather(*(world.stub.GetProcess(GET, metadata=(("x-request-id", f"mine-{n}"),)) for n in range(5)))
    assert {line["method"] for line in lines if line["event"] == "first"} == {f"{SERVICE}/GetProcess"}
    for event in ("first", "second"):
        assert sorted(line["request_id"] for line in lines if line["event"] == event) == [f"mine-{n}" for n in range(5)]
    lines.clear()
    await world.stub.GetProcess(GET, metadata=(("x-request-id", "not fit for a log"),))
    first, second = (line["request_id"] for line in lines if line["event"] in {"first", "second"})
    assert first == second
    assert len(first) == 32


async def test_failures_and_defects_are_told_with_their_reason(world: World, lines: list[Any]) -> None:
    handled = {"method": f"{SERVICE}/GetProcess", "code": "NOT_FOUND"}
    before = count(metrics.HANDLED, **handled)
    assert (
        await reason_of(world.stub.GetProcess(pb.GetProcessRequest(colony_name="acme", process_id="none")))
        == "PROCESS_NOT_FOUND"
    )

    async def is_counted() -> bool:
        return count(metrics.HANDLED, **handled) == before + 1

    # The caller has its answer a moment before the call is over.
    await eventually(is_counted)
    (line,) = (line for line in lines if line["event"] == "call" and line.get("code") == "NOT_FOUND")
    assert line["reason"] == "PROCESS_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.stub.GetProcess(pb.GetProcessRequest(colony_name="acme", process_id="defect"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    (defect,) = (line for line in lines if line["event"] == "defect")
    assert defect["request_id"] in str(caught.value.details())
    assert "its text" not in str(caught.value.details())


async def test_an_unknown_method_is_unimplemented(world: World) -> None:
    call: Any = world.channel.unary_unary(f"{SERVICE}/NoSuch")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_entry_that_comes_twice_over_the_wire_is_malformed(world: World) -> None:
    body = GET.SerializeToString()
    call: Any = world.channel.unary_unary(f"{SERVICE}/GetProcess")
    for name in ("colonies-public-key", "colonies-time", "colonies-nonce", "colonies-signature"):
        headers = world.signer.headers(f"{SERVICE}/GetProcess", body)
        twice = grpc.aio.Metadata(*headers, (name, dict(headers)[name]))
        assert await reason_of(call(body, metadata=twice)) == "SIGNATURE_MALFORMED"
        binary = grpc.aio.Metadata(*headers, (f"{name}-bin", b"\x00"), (f"{name}-bin", b"\x01"))
        assert await reason_of(call(body, metadata=binary)) == "SIGNATURE_MALFORMED"
        others = grpc.aio.Metadata(*headers, ("other", "1"), ("other", "2"), ("other-bin", b"1"), ("other-bin", b"2"))
        assert await reason_of(call(body, metadata=others)) == ""
