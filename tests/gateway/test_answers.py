"""Large answers: a reader that is slow gets all of it, and those who read nothing have a bound together."""

import asyncio
import time

import pytest

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import Value
from services.gateway import metrics
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY
from tests.rpc.scheduler_colony import ref_of, spec

from .http import Connection
from .stage import SCHEDULER, Stage

pytestmark = pytest.mark.asyncio

GET = f"{SCHEDULER}/GetProcess"
KIB = 1024
MIB = 1024 * KIB
# What a connection on this machine takes by itself is some 4 MiB.
MESSAGE = 3 * MIB + 900 * KIB


async def large_process(stage: Stage) -> str:
    """A process with large arguments and a large output: some 10 MiB in JSON."""
    data = Value(media_type="text/plain", data=b"a" * MESSAGE)
    (process_id,) = await stage.acme.submit(spec(args=[data]))
    assignment = await stage.acme.one()
    close = pb.Close(attempt=ref_of(assignment), success=pb.Close.Success(outputs=[data]))
    await stage.acme.worker.CloseProcesses(pb.CloseProcessesRequest(colony_name=COLONY, closes=[close]))
    return process_id


async def ask_for(stage: Stage, connection: Connection, process_id: str) -> int:
    connection.send(stage.http(stage.wire(GET, {"colonyName": COLONY, "processId": process_id})))
    return await connection.head()


async def test_a_slow_reader_of_a_large_answer_gets_all_of_it(bare: Stage) -> None:
    gateway = await bare.open(write_seconds=1.0)
    process_id = await large_process(bare)
    async with await Connection.to(gateway.port, receive_buffer=4 * KIB) as connection:
        assert await ask_for(bare, connection, process_id) == 200
        length, begin = int(connection.headers["content-length"]), time.monotonic()
        assert length > 10 * MIB
        while length:
            piece = await connection.reader.read(min(length, 64 * KIB))
            assert piece, f"cut off with {length} bytes to come"
            length -= len(piece)
            await asyncio.sleep(0.002)  # what makes it slow
        assert time.monotonic() - begin > 2.0, "too quick to show anything"


async def test_all_large_answers_together_have_a_bound(bare: Stage) -> None:
    gateway = await bare.open(max_held_bytes=16 * MIB)
    process_id = await large_process(bare)
    async with (
        await Connection.to(gateway.port, receive_buffer=4 * KIB) as first,
        await Connection.to(gateway.port) as second,
    ):
        assert await ask_for(bare, first, process_id) == 200
        assert metrics.HELD_ANSWERS._value.get() == int(first.headers["content-length"])
        second.send(bare.http(bare.wire(GET, {"colonyName": COLONY, "processId": process_id})))
        refused = await second.reply()
        assert (refused.status, refused.document["reason"]) == (503, "GATEWAY_FULL")
        # Small ones are given all the same.
        await bare.submit()
    await eventually(nothing_held)
    async with await Connection.to(gateway.port) as third:
        assert await ask_for(bare, third, process_id) == 200


async def nothing_held() -> bool:
    return bool(metrics.HELD_ANSWERS._value.get() == 0)
