"""HTTP/1.1 to the byte: what a client library would never send, read no faster than a test wants."""

import asyncio
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

Headers = Iterable[tuple[str, str]]
SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def request(verb: str, path: str, headers: Headers = (), body: bytes | None = None) -> bytes:
    """A request as it is sent; with its length, if it has a body."""
    lines = [f"{verb} {path} HTTP/1.1", "Host: colonies.test", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class Connection:
    """One connection; `async with await Connection.to(port)`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    @classmethod
    async def to(cls, port: int, *, receive_buffer: int = 0) -> Self:
        """`receive_buffer`: bytes that the kernel takes for a reader that does not read."""
        plain = socket.socket()
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=plain, limit=receive_buffer or 2**16)
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()

    def abort(self) -> None:
        """Goes away without a word."""
        self.writer.transport.abort()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> int:
        """Reads an answer's head; its status."""
        async with asyncio.timeout(SECONDS):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        pairs = (line.partition(":") for line in lines[1:] if line)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return self.status

    async def piece(self) -> bytes:
        """The next chunk of an answer in chunks; empty at its end."""
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def reply(self) -> Reply:
        """Reads a whole answer."""
        async with asyncio.timeout(SECONDS):
            await self.head()
            if "chunked" not in self.headers.get("transfer-encoding", ""):
                length = int(self.headers.get("content-length", 0))
                return Reply(self.status, self.headers, await self.reader.readexactly(length))
            body = b""
            while piece := await self.piece():
                body += piece
            return Reply(self.status, self.headers, body)


class Lines:
    """The lines of a stream, read as they come."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # Empty lines so far.
        self.quiet = 0
        self.rest = b""

    async def line(self) -> bytes | None:
        """The next line, empty ones too; None at the end."""
        async with asyncio.timeout(SECONDS):
            while b"\n" not in self.rest:
                piece = await self.connection.piece()
                if not piece:
                    assert self.rest == b"", "the stream ended in the middle of a line"
                    return None
                self.rest += piece
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    async def next(self) -> Any:
        """The next document; None at the end."""
        while (line := await self.line()) == b"":
            self.quiet += 1
        return None if line is None else json.loads(line)


async def ask(port: int, data: bytes) -> Reply:
    """A request on a connection of its own."""
    async with await Connection.to(port) as connection:
        connection.send(data)
        return await connection.reply()
