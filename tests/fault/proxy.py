"""A TCP proxy on loopback whose connections can be cut: refused, reset, or silent (one way, or both) as behind a firewall that
drops packets."""

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import StrEnum

from deploy.local.ports import LOOPBACK, free_port

# SO_LINGER with no time: closing sends a reset and not an orderly end.
_RESET = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """What becomes of bytes and connections."""

    PASS = "pass"
    REFUSE = "refuse"
    """Nobody listens; connections that were open are closed."""
    HANG = "hang"
    """Connections open, and nothing comes through; what was held back goes on when the proxy passes again."""
    MUTE = "mute"
    """What is sent arrives, and no answer comes back; that is held back as by HANG."""
    RESET = "reset"
    """Connections are reset, new ones as soon as they are made."""


class _End(asyncio.Protocol):
    """One end of a connection through the proxy; what it receives goes out of the other end."""

    def __init__(self, proxy: "Proxy", other: "_End | None" = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.other = other
        self._proxy = proxy
        # The end of whoever came to the proxy; the other one is the target's.
        self._is_near = other is None
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._proxy.opened(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.closed(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        self._full = True
        self._flow_other()

    def resume_writing(self) -> None:
        self._full = False
        self._flow_other()

    def _flow_other(self) -> None:
        if self.other is not None:
            self.other.flow()

    def flow(self) -> None:
        """Reads, or does not, as the mode and the other end's buffer allow."""
        if self.transport is None or self.transport.is_closing():
            return
        passes = self._proxy.mode is Mode.PASS or (self._proxy.mode is Mode.MUTE and self._is_near)
        if self.other is not None and not self.other._full and passes:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def reset(self) -> None:
        """Ends the connection with a reset."""
        if self.transport is not None:
            connection: socket.socket = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()


class Proxy:
    """One way to one server. `target` is asked for each connection: a server may come back on another port."""

    def __init__(self, target: Callable[[], int]) -> None:
        self.port = free_port()
        self.mode = Mode.PASS
        self._target = target
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()
        self._joining: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), LOOPBACK, self.port)

    async def stop(self) -> None:
        """Ends all connections."""
        await self._unlisten()
        self._abort()
        for task in self._joining:
            task.cancel()
        await asyncio.gather(*self._joining, return_exceptions=True)

    async def turn(self, mode: Mode) -> None:
        """From now on, this."""
        self.mode = mode
        if mode is Mode.REFUSE:
            await self._unlisten()
        elif self._server is None:
            await self.start()
        if mode in {Mode.REFUSE, Mode.RESET}:
            self._abort()
        for end in self._ends:
            end.flow()

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _abort(self) -> None:
        for end in list(self._ends):
            end.reset()

    def opened(self, end: _End) -> None:
        """A connection was made, from outside or to the target."""
        self._ends.add(end)
        if end.other is not None:
            return
        assert end.transport is not None
        end.transport.pause_reading()
        if self.mode is Mode.RESET:
            end.reset()
            return
        task = asyncio.create_task(self._join(end))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def closed(self, end: _End) -> None:
        """A connection is over."""
        self._ends.discard(end)

    async def _join(self, end: _End) -> None:
        other = _End(self, end)
        try:
            await asyncio.get_running_loop().create_connection(lambda: other, LOOPBACK, self._target())
        except OSError:
            # As the client would see it without a proxy: there is no server.
            end.reset()
            return
        end.other = other
        assert end.transport is not None
        if end.transport.is_closing():
            other.reset()
            return
        for each in (end, other):
            each.flow()
