"""Large requests and answers: everything arrives in pieces that a client takes, and a stranger's weight costs nothing."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec, Value
from colonies.signing import SigningChannel
from servicekit.envelope import RequestType
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster

from .scheduler_colony import SERVICES, Acme, spec

pytestmark = pytest.mark.asyncio

MIB = 1024 * 1024
SUBMIT = "/colonies.scheduler.v1.SchedulerService/SubmitProcesses"
FAILED = process_pb2.PROCESS_STATE_FAILED


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    # The shortest lease there is: what an answer leaves behind must not hold it for one.
    return Acme(await new_cluster(services=SERVICES, settings={"scheduler": {"lease_ms": 1_000}}))


async def test_twenty_times_4_mib_arrive_over_several_answers(acme: Acme) -> None:
    data = [bytes([n]) * (4 * MIB) for n in range(20)]
    ids: list[str] = []
    for start in range(0, 20, 5):
        ids += await acme.submit(*[spec(args=[Value(data=one)]) for one in data[start : start + 5]])
    found: dict[str, bytes] = {}
    answers = 0
    while len(found) < 20:
        response = await acme.assigning(at_most=100, wait_ms=10_000)
        assert response.assignments
        assert response.ByteSize() < 64 * MIB
        answers += 1
        for one in response.assignments:
            assert (one.attempt, one.process_id in found) == (1, False)
            found[one.process_id] = one.spec.args[0].data
            await acme.close(one)
    assert [found[one] for one in ids] == data
    assert answers >= 4


async def test_an_input_that_no_client_could_take_fails_its_process_by_name(acme: Acme) -> None:
    names = [f"p{n}" for n in range(9)]
    _, ids = await acme.submit_workflow(*map(spec, names), spec("sum", *names))
    for _ in names:
        running = await acme.one()
        success = pb.Close.Success(outputs=[Value(data=b"x" * (4 * MIB - 64))])
        close = pb.Close(attempt=pb.AttemptRef(process_id=running.process_id, attempt=running.attempt), success=success)
        await acme.worker.CloseProcesses(pb.CloseProcessesRequest(colony_name=COLONY, closes=[close]))
    found = await acme.get(ids[-1])
    assert found.state == FAILED
    assert "its input would have" in found.errors[0]
    assert (await acme.history(ids[-1])).transitions[-1].reason == "INPUT_TOO_LARGE"
    assert await acme.assign() == []


async def test_a_strangers_30_mib_of_empty_specs_are_refused_unparsed(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    """As messages they would take a hundred times their size on the wire."""
    parsed: list[int] = []
    parse = RequestType.parse

    def spied(self: RequestType, body: bytes) -> Message:
        parsed.append(len(body))
        return parse(self, body)

    monkeypatch.setattr(RequestType, "parse", spied)
    empty = pb.SubmitProcessesRequest(specs=[FunctionSpec()]).SerializeToString()
    head = pb.SubmitProcessesRequest(colony_name=COLONY, request_id="one").SerializeToString()
    body = head + empty * ((30 * MIB - len(head)) // len(empty))
    assert len(body) > 29 * MIB

    async def send(key: Any, content: bytes) -> Any:
        channel = SigningChannel(acme.cluster.channel("scheduler"), acme.cluster.signer(key))
        return await refusal(channel.unary_unary(SUBMIT)(content, timeout=30))

    error = await send(acme.keys.stranger, body)
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_MEMBER")
    assert [size for size in parsed if size > MIB] == []
    # A member's is parsed, and refused for what is in it: so the spy sees what there is to see.
    few = head + empty * 10_001
    error = await send(acme.keys.user, few)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(few) in parsed


async def test_requests_without_user_data_are_small(acme: Acme) -> None:
    request = pb.ListProcessesRequest(colony_name=COLONY, label="x" * (MIB + 1))
    error = await refusal(acme.user.ListProcesses(request))
    assert (error.code, [violation.field for violation in error.violations]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ["request"],
    )
    conditions = Conditions(executor_type="cli")
    (one,) = await acme.submit(FunctionSpec(func_name="f", conditions=conditions, args=[Value(data=b"x" * (2 * MIB))]))
    listed = (await acme.user.ListProcesses(pb.ListProcessesRequest(colony_name=COLONY))).processes
    assert [found.process_id for found in listed] == [one]
    assert not listed[0].spec.args
    assert listed[0].spec.conditions == conditions
