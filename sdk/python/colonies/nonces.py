"""Calls that are signed once more when a service asks for a nonce with a prefix (protos/vectors/README.md, "Nonces").

Whoever makes a call need not know: these stand for it, and for the one that is made in its place.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc

from colonies.errors import from_rpc_error

PREFIX_REQUIRED = "NONCE_PREFIX_REQUIRED"
# The other half of a nonce is random.
PREFIX = re.compile(r"[0-9a-f]{16}")
# A service that loses its memory again and again is a fault that should be seen.
MAX_REPEATS = 3

# Signs and sends the call, with the prefix of the refusal or as it comes, within so many seconds.
Send = Callable[[str | None, float | None], Any]


def prefix_asked(error: grpc.aio.AioRpcError) -> str | None:
    """The prefix that a refused call asks for."""
    if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
        return None
    refused = from_rpc_error(error)
    prefix = refused.metadata.get("nonce_prefix", "")
    return prefix if refused.reason == PREFIX_REQUIRED and PREFIX.fullmatch(prefix) else None


class _RepeatedCall:
    """What unary calls and streams have in common: gRPC's own call, and another one once that was refused.

    The one that is made in its place is made when somebody waits for the call in any way; it has what is left of the time.
    """

    def __init__(self, send: Send, timeout: float | None) -> None:
        self._send = send
        self._left = MAX_REPEATS
        self._call = send(None, timeout)

    def _repeated(self, call: Any, error: grpc.aio.AioRpcError) -> bool:
        """Whether another call stands for the one that ended with this error."""
        if call is not self._call:
            return True
        prefix = prefix_asked(error)
        if prefix is None or not self._left:
            return False
        self._left -= 1
        self._call = self._send(prefix, call.time_remaining())
        return True

    async def _over(self) -> Any:
        """The call whose end is the end."""
        while True:
            call = self._call
            code = await call.code()
            if code is not grpc.StatusCode.UNAUTHENTICATED:
                return call
            error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), await call.trailing_metadata())
            if not self._repeated(call, error):
                return call

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await (await self._over()).code()
        return code

    async def details(self) -> str:
        details: str = await (await self._over()).details()
        return details

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        metadata: grpc.aio.Metadata = await (await self._over()).trailing_metadata()
        return metadata

    async def initial_metadata(self) -> grpc.aio.Metadata:
        metadata: grpc.aio.Metadata = await self._call.initial_metadata()
        return metadata

    async def wait_for_connection(self) -> None:
        while True:
            call = self._call
            try:
                await call.wait_for_connection()
            except grpc.aio.AioRpcError as error:
                if not self._repeated(call, error):
                    raise
            else:
                return

    def cancel(self) -> bool:
        self._left = 0
        cancelled: bool = self._call.cancel()
        return cancelled

    def cancelled(self) -> bool:
        cancelled: bool = self._call.cancelled()
        return cancelled

    def done(self) -> bool:
        done: bool = self._call.done()
        return done

    def time_remaining(self) -> float | None:
        left: float | None = self._call.time_remaining()
        return left

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._waiting = asyncio.ensure_future(self._over())
        self._waiting.add_done_callback(lambda _: callback(self))


class UnaryCall(_RepeatedCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A unary call."""

    async def _response(self) -> Any:
        while True:
            call = self._call
            try:
                return await call
            except grpc.aio.AioRpcError as error:
                if not self._repeated(call, error):
                    raise

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    async def initial_metadata(self) -> grpc.aio.Metadata:
        await self._over()
        return await super().initial_metadata()


class StreamCall(_RepeatedCall, grpc.aio.UnaryStreamCall[Any, Any]):
    """A server stream. It is refused before its first response or not at all, so that nothing comes twice."""

    _responses: AsyncIterator[Any] | None = None

    async def read(self) -> Any:
        while True:
            call = self._call
            try:
                return await call.read()
            except grpc.aio.AioRpcError as error:
                if not self._repeated(call, error):
                    raise

    async def _read_all(self) -> AsyncIterator[Any]:
        while True:
            call = self._call
            try:
                async for response in call:
                    yield response
            except grpc.aio.AioRpcError as error:
                if not self._repeated(call, error):
                    raise
            else:
                return

    def __aiter__(self) -> AsyncIterator[Any]:
        # As gRPC's own: one iterator, whoever asks.
        self._responses = self._responses or self._read_all()
        return self._responses
