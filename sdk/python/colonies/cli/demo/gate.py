"""A gate that holds functions until it is opened, so that the middle of a run can be looked at without guessing at times.

A function that comes to the gate connects to a loopback port and waits for a byte. It comes when the gate is opened; when
whoever holds the gate dies, the connection breaks, and nobody waits for ever.
"""

import asyncio
import socket
from types import TracebackType
from typing import Self

VARIABLE = "COLONIES_DEMO_GATE"
HOLD_SECONDS = 60.0
_GO = b"!"


class Gate:
    """A gate; closed until `open`. Those who come later pass at once. Use it as an async context."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Where functions come to: "host:port"."""
        if self._server is None:
            msg = "the gate has no address before it is entered"
            raise RuntimeError(msg)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def open(self) -> None:
        """Lets everybody pass, now and later."""
        self._opened.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._hold, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.open()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _hold(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._opened.wait()
        writer.write(_GO)
        writer.close()


def pass_through(address: str, seconds: float = HOLD_SECONDS) -> None:
    """Waits at the gate at `address`; blocks its thread.

    Raises:
        TimeoutError: it was not opened in time.
        OSError: there is no gate.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.recv(len(_GO))
