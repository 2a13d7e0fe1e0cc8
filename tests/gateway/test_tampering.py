"""Somebody on the way alters a call: between the client and the gateway, or between the gateway and the services.

The client sends the same signed call each time, and another byte of it arrives altered: each one of its body, of the four entries
that sign it, and of its path. None may have any effect, and none may cost the call itself: it is made at the end.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from deploy.local.ports import free_port
from services.gateway.requests import SIGNED_WITH
from tests.attacks.tables import contents
from tests.attacks.wire import Wire
from tests.harness.cluster import COLONY

from .http import Connection, Reply, ask
from .stage import SCHEDULER, Stage

pytestmark = pytest.mark.asyncio

SUBMIT = f"{SCHEDULER}/SubmitProcesses"
AT_ONCE = 16
# Parts of a call: each entry, and these.
BODY, PATH = "body", "path"
# With which bit a byte is altered: the outcome is one that HTTP carries.
BIT = 1


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ BIT]) + data[position + 1 :]


class ByteProxy:
    """Relays HTTP requests, and flips the byte at `position` of each, if there is one to flip."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._length = 0

    @asynccontextmanager
    async def listening(self, length: int) -> AsyncIterator[None]:
        """Relays requests of this length."""
        self._length = length
        server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        async with server:
            yield

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The position comes first, from the test: everything behind it is the client's request.
        position = int.from_bytes(await reader.readexactly(4), "big", signed=True)
        data = await reader.readexactly(self._length)
        altered = data if position < 0 else flipped(data, position)
        async with await Connection.to(self._target) as onward:
            onward.send(altered)
            reply = await onward.reply()
        head = f"HTTP/1.1 {reply.status} X\r\nContent-Length: {len(reply.body)}\r\n\r\n"
        writer.write(head.encode() + reply.body)
        await writer.drain()
        writer.close()

    async def ask(self, data: bytes, position: int) -> Reply:
        """Sends the request; the byte at the position arrives altered, or none if it is negative."""
        return await ask(self.port, position.to_bytes(4, "big", signed=True) + data)


class CallProxy(grpc.GenericRpcHandler):
    """Relays calls as they come out of the gateway, and alters the one part and byte that `target` names."""

    def __init__(self, onward: grpc.aio.Channel) -> None:
        self.target: tuple[str, int] | None = None
        self.seen: list[Wire] = []
        self._onward = onward

    def service(self, details: Any) -> Any:
        path: str = details.method

        async def relay(body: bytes, context: Any) -> AsyncIterator[bytes]:
            headers = tuple((name, value) for name, value in context.invocation_metadata() if name in SIGNED_WITH)
            call = Wire(path, headers, body)
            self.seen.append(call)
            altered = self._altered(call)
            invoke: Any = self._onward.unary_stream(altered.path)
            stream = invoke(altered.body, metadata=grpc.aio.Metadata(*altered.headers), timeout=20)
            try:
                while (message := await stream.read()) is not grpc.aio.EOF:
                    yield message
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))

        return grpc.unary_stream_rpc_method_handler(relay)

    def _altered(self, call: Wire) -> Wire:
        if self.target is None:
            return call
        part, position = self.target
        if part == BODY:
            return call.altered(body=flipped(call.body, position))
        if part == PATH:
            return call.altered(path=flipped(call.path.encode(), position).decode())
        return call.with_header(part, flipped(dict(call.headers)[part].encode(), position).decode())


def submission(here: Stage, request_id: str) -> Wire:
    spec = {"funcName": "f", "args": [{"mediaType": "text/plain", "data": "aGVsbG8="}], "conditions": {"executorType": "cli"}}
    return here.wire(SUBMIT, {"colonyName": COLONY, "requestId": request_id, "specs": [spec]})


def is_refused(reply: Reply) -> bool:
    """Not as a replay: that would be the call itself."""
    if reply.status < 400:
        return False
    try:
        reason = json.loads(reply.body)["reason"]
    except ValueError:
        return reply.status in {400, 404, 405}  # HTTP's own refusal
    return str(reason) != "SIGNATURE_REPLAYED" and (
        reply.status in {401, 404, 405} or (reply.status, reason) == (501, "NO_SUCH_METHOD")
    )


async def test_a_flip_of_any_byte_between_client_and_gateway(here: Stage, database_url: str) -> None:
    call = submission(here, "honest-1")
    data = here.http(call)
    wanted = [*range(len(data) - len(call.body), len(data))]
    wanted += range(data.index(b"/api"), data.index(b" HTTP/1.1"))
    for name, value in call.headers:
        begin = data.index(f"{name}: {value}".encode()) + len(name) + 2
        wanted += range(begin, begin + len(value))
    before = contents(database_url)
    proxy, slots = ByteProxy(here.port), asyncio.Semaphore(AT_ONCE)
    async with proxy.listening(len(data)):

        async def sent(position: int) -> Reply:
            async with slots:
                return await proxy.ask(data, position)

        replies = await asyncio.gather(*(sent(position) for position in wanted))
        let_in = [(position, reply) for position, reply in zip(wanted, replies, strict=True) if not is_refused(reply)]
        assert let_in == []
        assert contents(database_url) == before
        # So each was refused for its flip, and none has used up the call.
        assert (await proxy.ask(data, -1)).status == 200
    assert contents(database_url) != before
    assert len(wanted) == len(set(wanted)) > 400
    print(f"\n{len(wanted)} flips between client and gateway: all refused, nothing changed")


async def test_a_flip_of_any_byte_between_gateway_and_services(bare: Stage, database_url: str) -> None:
    channel = grpc.aio.insecure_channel(bare.front_door.address)
    proxy = CallProxy(channel)
    server = grpc.aio.server(handlers=[proxy])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        gateway = await bare.open(front_door_address=f"127.0.0.1:{port}")
        call = submission(bare, "honest-2")
        data = bare.http(call)
        parts = [(BODY, call.body), (PATH, call.path.encode()), *((name, value.encode()) for name, value in call.headers)]
        before, flips = contents(database_url), 0
        for part, value in parts:
            # A path without its first slash is none that HTTP/2 carries.
            for position in range(part == PATH, len(value)):
                proxy.target = (part, position)
                reply = await ask(gateway.port, data)
                assert is_refused(reply), (part, position, reply)
                flips += 1
        # What the gateway sends on is what was signed, to the byte: the path, the body and the four entries.
        assert {(one.path, one.body, frozenset(one.headers)) for one in proxy.seen} == {
            (call.path, call.body, frozenset(call.headers))
        }
        assert contents(database_url) == before
        proxy.target = None
        assert (await ask(gateway.port, data)).status == 200
        assert contents(database_url) != before
        print(f"\n{flips} flips between gateway and services: all refused, nothing changed")
        assert flips > 400
    finally:
        await server.stop(None)
        await channel.close()
