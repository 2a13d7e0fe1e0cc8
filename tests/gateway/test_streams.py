"""Streams over HTTP: lines as they come, signs of life, an end that is said; and what becomes of clients that are slow or gone."""

import asyncio
from typing import Any

import pytest

from colonies.scheduler.v1 import channel_pb2
from colonies.scheduler.v1.spec_pb2 import Value
from servicekit import metrics as service_metrics
from services.gateway import metrics
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY

from .http import Connection, Lines
from .stage import LINES, SCHEDULER, Stage

pytestmark = pytest.mark.asyncio

WATCH = f"{SCHEDULER}/WatchProcesses"
FOLLOW = f"{SCHEDULER}/FollowChannel"
ASSIGN = f"{SCHEDULER}/AssignProcesses"
INFO = "/colonies.auth.v1.AuthService/GetServerInfo"
KIB = 1024


def open_calls(method: str) -> float:
    """Calls of a method that the service itself has in hand."""
    return float(service_metrics.IN_FLIGHT.labels(f"{method}+json")._value.get())


def in_hand(kind: str) -> float:
    return float(metrics.IN_HAND.labels(kind)._value.get())


async def open_is(method: str, count: int) -> bool:
    return open_calls(method) == count


async def none_open(method: str) -> bool:
    return await open_is(method, 0)


def channel_of(process_id: str, **more: Any) -> dict[str, Any]:
    return {"colonyName": COLONY, "processId": process_id, "channel": "chat", **more}


async def append(stage: Stage, process_id: str, first: int, *texts: bytes) -> None:
    """Messages of alice's on a channel."""
    kind = channel_pb2.MESSAGE_KIND_DATA
    messages = [channel_pb2.NewMessage(kind=kind, value=Value(data=text)) for text in texts]
    await stage.acme.user.AppendMessages(
        channel_pb2.AppendMessagesRequest(
            colony_name=COLONY, process_id=process_id, channel="chat", first_number=first, messages=messages
        )
    )


async def test_lines_come_as_they_are_made(here: Stage) -> None:
    process_id = await here.submit()
    async with here.stream(WATCH, {"colonyName": COLONY, "processId": process_id}) as lines:
        assert lines.connection.status == 200
        assert lines.connection.headers["content-type"] == "application/jsonl"
        (event,) = (await lines.next())["events"]
        assert event["transition"]["toState"] == "PROCESS_STATE_WAITING"
        reply = await here.call(f"{SCHEDULER}/CancelProcess", {"colonyName": COLONY, "processId": process_id})
        assert reply.status == 200
        (event,) = (await lines.next())["events"]
        assert (event["processId"], event["transition"]["toState"]) == (process_id, "PROCESS_STATE_CANCELLED")
    await eventually(lambda: none_open(WATCH))


async def test_a_quiet_stream_shows_that_it_lives(here: Stage) -> None:
    process_id = await here.submit()
    async with here.stream(FOLLOW, channel_of(process_id)) as lines:
        assert await lines.line() == b""
        assert await lines.line() == b""
        await append(here, process_id, 1, b"hello")
        assert (await lines.next())["messages"][0]["value"]["data"] == "aGVsbG8="


async def test_a_stream_that_is_refused_has_a_status_of_its_own(here: Stage) -> None:
    for document, status, code in (
        ({}, 400, "INVALID_ARGUMENT"),
        ({"colonyName": "umbrella", "processId": "123e4567-e89b-12d3-a456-426614174000"}, 403, "PERMISSION_DENIED"),
        (channel_of("123e4567-e89b-12d3-a456-426614174000"), 404, "NOT_FOUND"),
    ):
        reply = await here.call(FOLLOW, document, LINES)
        assert (reply.status, reply.document["code"]) == (status, code)
        assert reply.headers["content-type"] == "application/json"


async def test_a_stream_that_fails_says_so_in_its_last_line(here: Stage) -> None:
    process_id = await here.submit()
    async with here.stream(FOLLOW, channel_of(process_id)) as lines:
        assert await lines.line() == b""
        for replica in list(here.cluster.replicas["scheduler"]):
            await here.cluster.stop_replica(replica)
        error = (await lines.next())["error"]
        assert (error["code"], error["reason"]) == ("UNAVAILABLE", "DRAINING")
        assert error["retry_delay_ms"] > 0
        assert await lines.line() is None


async def test_a_gateway_that_ends_says_so_to_its_streams_and_finishes_what_it_has_in_hand(bare: Stage) -> None:
    first = await bare.open(quiet_seconds=0.2)
    process_id = await bare.submit()
    poll = {"colonyName": COLONY, "maxProcesses": 1, "waitMs": 20_000}
    async with bare.stream(FOLLOW, channel_of(process_id)) as lines, await Connection.to(bare.port) as connection:
        assert await lines.line() == b""
        taken = await bare.call(ASSIGN, poll, key=bare.cluster.keys.executor_2)
        assert len(taken.document["assignments"]) == 1
        connection.send(bare.http(bare.wire(ASSIGN, poll, key=bare.cluster.keys.executor)))
        await eventually(lambda: in_hand_is("requests", 1))
        second = await bare.open()
        first.told.set()
        error = (await lines.next())["error"]
        assert (error["code"], error["reason"]) == ("UNAVAILABLE", "DRAINING")
        assert await lines.line() is None
        # Work that comes while it ends still gets there.
        await bare.submit("r2")
        assert len((await connection.reply()).document["assignments"]) == 1
    assert second.port != first.port


async def in_hand_is(kind: str, count: int) -> bool:
    return in_hand(kind) == count


async def test_a_long_poll_that_outlasts_the_end_is_told(bare: Stage) -> None:
    gateway = await bare.open(drain_seconds=0.3)
    poll = {"colonyName": COLONY, "maxProcesses": 1, "waitMs": 20_000}
    async with await Connection.to(gateway.port) as connection:
        connection.send(bare.http(bare.wire(ASSIGN, poll, key=bare.cluster.keys.executor)))
        await eventually(lambda: in_hand_is("requests", 1))
        gateway.told.set()
        reply = await connection.reply()
    assert (reply.status, reply.document["reason"]) == (503, "DRAINING")
    await eventually(lambda: none_open(ASSIGN))


async def test_a_client_that_goes_away_ends_its_call_at_once(here: Stage) -> None:
    process_id = await here.submit()
    gone = metrics.GONE._value.get()
    for _ in range(3):
        async with here.stream(FOLLOW, channel_of(process_id)) as lines:
            await lines.line()
            await eventually(lambda: open_is(FOLLOW, 1))
        assert await eventually(lambda: none_open(FOLLOW)) < 2
    poll = {"colonyName": COLONY, "maxProcesses": 1, "waitMs": 20_000}
    async with await Connection.to(here.port) as connection:
        connection.send(here.http(here.wire(ASSIGN, poll, key=here.cluster.keys.executor)))
        await eventually(lambda: in_hand_is("requests", 0 + 1))
    assert await eventually(lambda: none_open(ASSIGN)) < 2
    await eventually(lambda: in_hand_is("streams", 0))
    assert metrics.GONE._value.get() >= gone + 3


async def test_a_reader_that_does_not_read_is_cut_off_and_holds_up_nobody(bare: Stage) -> None:
    gateway = await bare.open(write_seconds=1.0, quiet_seconds=0.2)
    process_id = await bare.submit()
    piece = b"x" * 256 * KIB
    for first in range(1, 41, 4):
        await append(bare, process_id, first, *[piece] * 4)
    cut = metrics.CUT_OFF._value.get()
    async with (
        bare.stream(FOLLOW, channel_of(process_id), port=gateway.port, receive_buffer=4 * KIB) as slow,
        bare.stream(FOLLOW, channel_of(process_id), port=gateway.port) as quick,
    ):
        assert slow.connection.status == 200

        async def was_cut() -> bool:
            # Meanwhile others are answered, and streams of others go on.
            assert (await bare.call(INFO)).status == 200
            return bool(metrics.CUT_OFF._value.get() == cut + 1)

        count = 0
        while count < 40:
            count += len((await quick.next())["messages"])
        await eventually(was_cut, seconds=10)
        assert await eventually(lambda: in_hand_is("streams", 1)) < 2
        await eventually(lambda: open_is(FOLLOW, 1))
        await append(bare, process_id, 41, b"after")
        assert (await quick.next())["messages"][0]["value"]["data"] == "YWZ0ZXI="
        # What it had been sent ends in the middle, so that nobody takes it for the whole.
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            while await slow.line() is not None:
                pass


async def test_a_slow_reader_behind_the_front_door_gets_all_of_it(bare: Stage) -> None:
    await bare.open(write_seconds=5.0)
    process_id = await bare.submit()
    for first in range(1, 33, 4):
        await append(bare, process_id, first, *[b"y" * 256 * KIB] * 4)
    async with bare.stream(FOLLOW, channel_of(process_id), receive_buffer=16 * KIB) as lines:
        count = 0
        while count < 32:
            messages = (await lines.next())["messages"]
            count += len(messages)
            await asyncio.sleep(0.02)  # what makes it slow
    await eventually(lambda: none_open(FOLLOW))


async def test_streams_and_requests_have_bounds(bare: Stage) -> None:
    await bare.open(max_streams=2, max_requests=1, quiet_seconds=0.2)
    process_id = await bare.submit()
    poll = {"colonyName": COLONY, "maxProcesses": 1, "waitMs": 20_000}
    async with bare.stream(FOLLOW, channel_of(process_id)) as one, bare.stream(FOLLOW, channel_of(process_id)) as two:
        assert [await lines.line() for lines in (one, two)] == [b"", b""]
        refused = await bare.call(FOLLOW, channel_of(process_id), LINES)
        assert (refused.status, refused.document["reason"], refused.headers["retry-after"]) == (503, "GATEWAY_FULL", "1")
        # Streams take no room from requests.
        assert (await bare.call(INFO)).status == 200
        async with await Connection.to(bare.port) as connection:
            connection.send(bare.http(bare.wire(ASSIGN, poll, key=bare.cluster.keys.executor_2)))
            await eventually(lambda: in_hand_is("requests", 1))
            refused = await bare.call(INFO)
            assert (refused.status, refused.document["reason"]) == (503, "GATEWAY_FULL")
        await eventually(lambda: in_hand_is("requests", 0))
        assert (await bare.call(INFO)).status == 200
    await eventually(lambda: in_hand_is("streams", 0))
    async with bare.stream(FOLLOW, channel_of(process_id)) as lines:
        assert lines.connection.status == 200


async def test_a_deadline_is_kept(here: Stage) -> None:
    poll = {"colonyName": COLONY, "maxProcesses": 1, "waitMs": 20_000}
    late = ("colonies-timeout-ms", "300")
    reply = await here.call(ASSIGN, poll, late, key=here.cluster.keys.executor)
    assert (reply.status, reply.document["code"]) == (504, "DEADLINE_EXCEEDED")
    process_id = await here.submit()
    async with await Connection.to(here.port) as connection:
        connection.send(here.http(here.wire(FOLLOW, channel_of(process_id)), LINES, ("colonies-timeout-ms", "1500")))
        assert await connection.head() == 200
        assert (await Lines(connection).next())["error"]["code"] == "DEADLINE_EXCEEDED"
    await eventually(lambda: none_open(ASSIGN))
    await eventually(lambda: none_open(FOLLOW))


async def test_six_hundred_streams_leave_room_for_calls(bare: Stage) -> None:
    """The front door takes no more than so many calls over one connection of the gateway's."""
    await bare.open(quiet_seconds=60)
    process_id = await bare.submit()
    connections = [await Connection.to(bare.port) for _ in range(600)]
    try:
        for connection in connections:
            connection.send(bare.http(bare.wire(FOLLOW, channel_of(process_id)), LINES))
        assert set(await asyncio.gather(*(connection.head() for connection in connections))) == {200}
        await eventually(lambda: open_is(FOLLOW, len(connections)), seconds=30)
        assert (await bare.call(INFO)).status == 200
    finally:
        for connection in connections:
            connection.abort()
    await eventually(lambda: none_open(FOLLOW), seconds=10)
