"""A service's dependencies, stood in for: they answer what its expectations of them promise, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from colonies.errors import DETAILS_KEY
from colonies.status.v1 import status_pb2
from servicekit.streams import SIGN_OF_LIFE_S
from tests.contract.services.expectations import Expectations, Step, method_of, path_of
from tests.contract.services.matching import MismatchError, Names

Context = grpc.aio.ServicerContext[Any, Any]


class StandIn(grpc.GenericRpcHandler):
    """All dependencies of one service, at one address."""

    def __init__(self, promises: Iterable[Expectations]) -> None:
        self._promises = [step for each in promises for step in each.own_steps()]
        self._methods = {path_of(step) for step in self._promises}
        # What the service asked for that nobody has promised.
        self.unpromised: list[str] = []
        self.asked: list[str] = []

    def service(self, handler_call_details: Any) -> Any:
        """gRPC's: who handles a call."""
        path = handler_call_details.method
        if path not in self._methods:
            self.unpromised.append(path)
            return None
        method = method_of(path)

        def deserialised(data: bytes) -> Message:
            return GetMessageClass(method.input_type).FromString(data)

        async def answer(request: Message, context: Context) -> bytes:
            return await self._answer(path, request, context)

        async def stream(request: Message, context: Context) -> AsyncIterator[bytes]:
            async for message in self._stream(path, request, context):
                yield message

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, deserialised)
        return grpc.unary_unary_rpc_method_handler(answer, deserialised)

    async def _promised(self, path: str, request: Message, context: Context) -> tuple[Step, Names]:
        """The first promise about this request."""
        asked = MessageToDict(request)
        self.asked.append(path)
        for step in self._promises:
            names = Names()
            if path_of(step) != path:
                continue
            try:
                names.match(step["request"], asked, "request", whole=True)
            except MismatchError:
                continue
            return step, names
        self.unpromised.append(f"{path} {asked}"[:500])
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "nobody has promised this")
        raise AssertionError

    async def _answer(self, path: str, request: Message, context: Context) -> bytes:
        step, names = await self._promised(path, request, context)
        if error := step.get("error"):
            info = status_pb2.ErrorInfo(reason=error.get("reason", ""), domain="colonies", metadata=error.get("metadata"))
            status = status_pb2.Status(code=grpc.StatusCode[error["code"]].value[0])
            status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString())
            await context.abort(grpc.StatusCode[error["code"]], "as promised", ((DETAILS_KEY, status.SerializeToString()),))
        return _message(path, names.filled(step["response"]))

    async def _stream(self, path: str, request: Message, context: Context) -> AsyncIterator[bytes]:
        step, names = await self._promised(path, request, context)
        yield _message(path, names.filled(step["begins"]))
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_S)
            yield b""


def _message(path: str, response: Any) -> bytes:
    return bytes(ParseDict(response, GetMessageClass(method_of(path).output_type)()).SerializeToString())


@asynccontextmanager
async def standing_in(promises: Iterable[Expectations]) -> AsyncIterator[tuple[StandIn, str]]:
    """A stand-in, and its host:port."""
    stand_in = StandIn(promises)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((stand_in,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield stand_in, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
