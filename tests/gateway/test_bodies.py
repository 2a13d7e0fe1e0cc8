"""Bodies: as large as is taken, as slow as is borne, and as many as there is room for; the bytes are passed on untouched."""

import json
from contextlib import AsyncExitStack
from functools import partial

import pytest

from services.gateway import metrics
from services.gateway.arrivals import SMALL, counted
from tests.attacks.wire import signed
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY

from .http import Connection, ask, request
from .stage import API, JSON, SCHEDULER, Stage

pytestmark = pytest.mark.asyncio

SUBMIT = f"{SCHEDULER}/SubmitProcesses"
INFO = "/colonies.auth.v1.AuthService/GetServerInfo"
MIB = 1024 * 1024


def submission(size: int) -> bytes:
    """A submit whose document has so many bytes."""
    spec = {"funcName": "f", "conditions": {"executorType": "cli"}, "args": [{"mediaType": "text/plain", "data": ""}]}
    document = {"colonyName": COLONY, "requestId": "large", "specs": [spec]}
    spare = size - len(json.dumps(document))
    document["specs"][0]["args"][0]["data"] = "A" * (spare - spare % 4)  # type: ignore[index]
    text = json.dumps(document)
    return text.encode() + b" " * (size - len(text))


async def test_what_the_service_takes_gets_there_whole(here: Stage) -> None:
    """Whether bytes pass untouched the signature tells: it is over every one of them."""
    for body in (
        b'\n {"colonyName" : "acme"\t,\r\n "processId":"\\u0031\\/\xc3\xa9\xf0\x9f\x90\x9d"}\r\n\n',
        b'{"b":1,"a":2,"colonyName":"acme","processId":""}',
        b"",
        b"{}",
        b"\xff\xfe\x00not JSON",
    ):
        reply = await here.call(f"{SCHEDULER}/GetProcess", body)
        assert (reply.status, reply.document["code"]) == (400, "INVALID_ARGUMENT") or body == b"{}" or not body, reply
        assert reply.document["reason"] != "SIGNATURE_INVALID"
    largest = await here.call(SUBMIT, submission(4 * MIB - 1024))
    assert "SIGNATURE" not in largest.body.decode()
    assert largest.status in {200, 400}, largest


async def test_what_is_too_large_is_not_read(here: Stage) -> None:
    wire = signed(here.cluster, here.cluster.keys.user, f"{SUBMIT}+json", submission(5 * MIB))
    reply = await ask(here.port, here.http(wire))
    assert (reply.status, reply.document["reason"]) == (413, "BODY_TOO_LARGE")
    assert reply.document["fields"][0]["field"] == "body"
    # Without a length, it is found out on the way.
    async with await Connection.to(here.port) as connection:
        connection.send(request("POST", API + SUBMIT, [JSON, ("transfer-encoding", "chunked"), *wire.headers]))
        piece = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
        for _ in range(5):
            connection.send(piece)
        assert await connection.head() == 413
    assert metrics.HELD_BYTES._value.get() == 0
    assert (await here.call(INFO)).status == 200


async def test_a_body_that_does_not_come_is_given_up(bare: Stage) -> None:
    await bare.open(body_seconds=0.3)
    async with await Connection.to(bare.port) as connection:
        connection.send(request("POST", API + SUBMIT, [JSON, ("content-length", "100")]) + b"{")
        reply = await connection.reply()
        assert (reply.status, reply.document["reason"]) == (408, "BODY_TOO_SLOW")
    await eventually(nothing_held)


async def test_requests_that_never_come_hold_up_one_another_and_nobody_else(bare: Stage) -> None:
    gateway = await bare.open(max_arriving=3, max_requests=1, max_streams=1, body_seconds=20)
    begun = request("POST", API + SUBMIT, [JSON, ("content-length", "100")]) + b"{"
    connections = [await Connection.to(gateway.port) for _ in range(5)]
    async with AsyncExitStack() as stack:
        for count, connection in enumerate(connections, 1):
            await stack.enter_async_context(connection)
            connection.send(begun)
            await eventually(partial(arriving, min(count, 3)))
        for connection in connections[:2]:
            reply = await connection.reply()
            assert (reply.status, reply.document["reason"]) == (408, "BODY_TOO_SLOW")
        for _ in range(3):
            assert (await bare.call(INFO)).status == 200
    await eventually(partial(arriving, 0))


async def arriving(count: int) -> bool:
    return bool(metrics.IN_HAND.labels("arriving")._value.get() == count)


async def nothing_held() -> bool:
    return bool(metrics.HELD_BYTES._value.get() == 0)


async def test_all_bodies_together_have_a_bound(bare: Stage) -> None:
    gateway = await bare.open(max_held_bytes=2 * MIB, body_seconds=20)
    begun = request("POST", API + SUBMIT, [JSON, ("content-length", str(MIB))]) + b" " * (MIB - 1)
    first, second = await Connection.to(gateway.port), await Connection.to(gateway.port)
    async with first, second:
        first.send(begun)
        second.send(begun)

        async def held() -> bool:
            return bool(metrics.HELD_BYTES._value.get() == 2 * counted(MIB - 1))

        await eventually(held)
        refused = await bare.call(SUBMIT, submission(512 * 1024))
        assert (refused.status, refused.document["reason"]) == (503, "GATEWAY_FULL")
        # Those who send little are served all the same: no client that sends slowly holds up another.
        assert (await bare.call(SUBMIT, submission(SMALL))).status == 200
    await eventually(nothing_held)
    assert (await bare.call(INFO)).status == 200
