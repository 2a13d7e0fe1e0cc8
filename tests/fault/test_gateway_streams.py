"""Many quiet streams through the front door, as browsers open them: every wake-up arrives, once, in order and soon.

    COLONIES_TEST_STREAMS (500)          streams of each kind: gRPC-Web, which the front door takes, and JSON lines, by one gateway
    COLONIES_TEST_STREAM_SECONDS (20)    how long each kind is watched; every stream is woken once in ten seconds

Prints what a stream costs in memory, and how long a wake-up takes: from before its message is appended to its arrival.
"""

import asyncio
import json
import os
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psutil
import pytest

from colonies.client import AsyncClient
from colonies.scheduler.v1 import channel_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.signing import Signer
from tests.acceptance.world import World, until, world
from tests.gateway.http import Connection, Lines, ask, request

pytestmark = [pytest.mark.fault, pytest.mark.asyncio, pytest.mark.timeout(3600)]

STREAMS = int(os.environ.get("COLONIES_TEST_STREAMS", "500"))
SECONDS = float(os.environ.get("COLONIES_TEST_STREAM_SECONDS", "20"))
EVERY_SECONDS = 10.0
FOLLOW = "/colonies.scheduler.v1.SchedulerService/FollowChannel"
INFO = "/colonies.auth.v1.AuthService/GetServerInfo"
CHANNEL = "wake"
AT_ONCE = 32
LATE_SECONDS = 20.0
PARTS = ("gateway", "scheduler", "envoy")
KIB = 1024


class Stream:
    """One stream, and the moments at which its messages arrived, by number."""

    def __init__(self, process_id: str) -> None:
        self.process_id = process_id
        self.arrived: list[float] = []
        self.sent: list[float] = []
        self.reading: asyncio.Task[None] | None = None

    def take(self, numbers: list[int]) -> None:
        """Messages have come: they must be the next ones."""
        now = time.monotonic()
        for number in numbers:
            assert number == len(self.arrived), f"{number} came after {len(self.arrived)} messages"
            self.arrived.append(now)


Reader = Callable[[Connection, Stream], Any]


async def read_lines(connection: Connection, stream: Stream) -> None:
    """As JSON lines."""
    lines = Lines(connection)
    while True:
        line = await lines_line(lines)
        if line:
            document = json.loads(line)
            assert "error" not in document, document
            stream.take([int(b64decode(message["value"]["data"])) for message in document["messages"]])


async def lines_line(lines: Lines) -> bytes:
    """A line, however long it takes."""
    while b"\n" not in lines.rest:
        piece = await lines.connection.piece()
        assert piece, "the stream ended"
        lines.rest += piece
    line, _, lines.rest = lines.rest.partition(b"\n")
    return line


async def read_frames(connection: Connection, stream: Stream) -> None:
    """As gRPC-Web frames a message: a byte of flags, four of its length."""
    rest = b""
    while True:
        piece = await connection.piece()
        assert piece, "the stream ended"
        rest += piece
        while len(rest) >= 5 and len(rest) >= 5 + (length := int.from_bytes(rest[1:5], "big")):
            flags, message, rest = rest[0], rest[5 : 5 + length], rest[5 + length :]
            assert flags == 0, message
            response = channel_pb2.FollowChannelResponse.FromString(message)
            stream.take([int(one.value.data) for one in response.messages])


def lines_request(signer: Signer, process_id: str) -> bytes:
    body = json.dumps({"colonyName": "dev", "processId": process_id, "channel": CHANNEL}).encode()
    headers = [("content-type", "application/json"), ("accept", "application/jsonl")]
    return request("POST", f"/api{FOLLOW}", [*headers, *signer.headers(f"{FOLLOW}+json", body)], body)


def frames_request(signer: Signer, process_id: str) -> bytes:
    asked = channel_pb2.FollowChannelRequest(colony_name="dev", process_id=process_id, channel=CHANNEL)
    message = asked.SerializeToString()
    headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1"), *signer.headers(FOLLOW, message)]
    return request("POST", FOLLOW, headers, b"\0" + len(message).to_bytes(4, "big") + message)


@asynccontextmanager
async def opened(
    port: int, signer: Signer, ids: list[str], asking: Callable[[Signer, str], bytes], reading: Reader
) -> AsyncIterator[list[Stream]]:
    """Open streams, each read by a task of its own."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await Connection.to(port)) for _ in ids]
        for connection, process_id in zip(connections, ids, strict=True):
            connection.send(asking(signer, process_id))
        # The head of a stream over gRPC comes with its first message, or its first sign of life.
        assert set(await asyncio.gather(*(connection.head() for connection in connections))) == {200}
        streams = [Stream(process_id) for process_id in ids]
        for connection, stream in zip(connections, streams, strict=True):
            stream.reading = asyncio.create_task(reading(connection, stream))
            stack.callback(stream.reading.cancel)
        yield streams


async def wake(client: AsyncClient, stream: Stream) -> None:
    """Appends the next message."""
    number = len(stream.sent)
    stream.sent.append(time.monotonic())
    message = channel_pb2.NewMessage(kind=channel_pb2.MESSAGE_KIND_DATA, value=spec_pb2.Value(data=str(number).encode()))
    await client.scheduler.AppendMessages(
        channel_pb2.AppendMessagesRequest(
            colony_name="dev", process_id=stream.process_id, channel=CHANNEL, first_number=number + 1, messages=[message]
        )
    )


async def wake_all(client: AsyncClient, streams: list[Stream], seconds: float) -> None:
    """Wakes each once in ten seconds, one after the other, and waits until all have heard of it."""
    slots = asyncio.Semaphore(AT_ONCE)
    begin = time.monotonic()

    async def one(stream: Stream) -> None:
        async with slots:
            await wake(client, stream)

    tasks = []
    for turn in range(max(1, round(seconds / EVERY_SECONDS))):
        for index, stream in enumerate(streams):
            at = begin + EVERY_SECONDS * (turn + index / len(streams))
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            tasks.append(asyncio.create_task(one(stream)))
    await asyncio.gather(*tasks)

    async def heard() -> bool:
        for stream in streams:
            assert stream.reading is not None
            if stream.reading.done():
                stream.reading.result()
        return all(len(stream.arrived) == len(stream.sent) for stream in streams)

    await until(heard, "every stream has heard of every message", seconds=LATE_SECONDS)


async def submitted(client: AsyncClient, count: int) -> list[str]:
    """Processes with a channel, which nobody runs."""
    spec = spec_pb2.FunctionSpec(func_name="f", channels=[CHANNEL], conditions=spec_pb2.Conditions(executor_type="nobody"))
    ids: list[str] = []
    while len(ids) < count:
        specs = [spec] * min(100, count - len(ids))
        wanted = pb.SubmitProcessesRequest(colony_name="dev", request_id=os.urandom(8).hex(), specs=specs)
        ids += (await client.scheduler.SubmitProcesses(wanted)).process_ids
    return ids


async def signer_of(here: World) -> Signer:
    """Alice's, with the prefix that a server which has just started asks for."""
    profile = here.profile
    signer = Signer(here.key("user"), profile.cluster)
    headers = [("content-type", "application/json"), *signer.headers(f"{INFO}+json", b"{}")]
    reply = await ask(here.port, request("POST", f"/api{INFO}", headers, b"{}"))
    if reply.status != 200:
        signer.nonce_prefix = reply.document["metadata"]["nonce_prefix"]
    return signer


def memory(here: World) -> dict[str, int]:
    return {part: psutil.Process(here.pid_of(part)).memory_info().rss for part in PARTS}


@pytest.mark.parametrize("kind", ["gRPC-Web", "JSON lines"])
async def test_quiet_streams_hear_of_everything(kind: str) -> None:
    with world() as here:
        signer = await signer_of(here)
        async with here.client() as client:
            ids = await submitted(client, STREAMS + 1)
            asking, reading = (frames_request, read_frames) if kind == "gRPC-Web" else (lines_request, read_lines)
            # One first, so that what a process makes for its first stream is not counted as the streams'.
            async with opened(here.port, signer, ids[:1], asking, reading) as streams:
                await wake_all(client, streams, 0)
            before = memory(here)
            async with opened(here.port, signer, ids[1:], asking, reading) as streams:
                await wake_all(client, streams, SECONDS)
                after = memory(here)
    taken = sorted(came - sent for one in streams for came, sent in zip(one.arrived, one.sent, strict=True))
    costs = ", ".join(f"{part} {(after[part] - before[part]) / len(streams) / KIB:.0f} KiB" for part in PARTS)
    p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    print(
        f"\n{kind}: {len(streams)} streams for {SECONDS:.0f} s, {len(taken)} wake-ups, none lost; "
        f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, longest {taken[-1] * 1000:.1f} ms; memory per stream: {costs}"
    )
