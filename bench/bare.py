"""The bare limit of a call: a gRPC server that does nothing, in its own process, and callers of it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

from bench.loads import Load, Timed, Window

METHOD = "/bench.Bare/Nothing"
# A connection for each caller: gRPC would share one between channels with equal options.
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


async def _nothing(_request: bytes, _context: Any) -> bytes:
    return b""


@dataclass
class BareServer(Load[None, int]):
    """The server. Its one job answers with its port."""

    _server: grpc.aio.Server | None = field(default=None, init=False)
    _port: int = field(default=0, init=False)

    async def open(self) -> None:
        self._server = grpc.aio.server()
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_nothing)
        service = grpc.method_handlers_generic_handler("bench.Bare", {"Nothing": handler})
        self._server.add_generic_rpc_handlers((service,))
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def run(self, job: None) -> int:  # noqa: ARG002 - there is but one thing to ask
        return self._port

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop(None)


@dataclass
class BareCalls(Load[Timed, tuple[Window, list[float]]]):
    """So many callers, each making one call after another; the answer has every call's milliseconds."""

    port: int
    callers: int
    _channels: list[grpc.aio.Channel] = field(default_factory=list, init=False)

    async def open(self) -> None:
        for _ in range(self.callers):
            self._channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=[OWN_CONNECTION]))

    async def run(self, job: Timed) -> tuple[Window, list[float]]:
        until = await job.until_begin()
        took: list[float] = []
        await asyncio.gather(*(self._call(channel, until, took) for channel in self._channels))
        return Window(job.begin_at, time.monotonic(), len(took)), took

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    @staticmethod
    async def _call(channel: grpc.aio.Channel, until: float, took: list[float]) -> None:
        nothing: Any = channel.unary_unary(METHOD)
        begin = time.monotonic()
        while begin < until:
            await nothing(b"")
            end = time.monotonic()
            took.append((end - begin) * 1000)
            begin = end
