"""One request and its answer, with the client at the other end: who may be slow, may stop reading, and may go away."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send

from services.gateway import metrics
from services.gateway.arrivals import Arrivals, counted
from services.gateway.problems import Problem, invalid

# Where `serving.Connection` leaves what cuts the connection off.
ABORT = "colonies.abort"
# Of what is written, so much has to get through within `write_seconds`; and no more than that lies with the connection.
PIECE = 256 * 1024
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Gone(Exception):
    """There is nobody to answer any more."""


class Exchange:
    """What is received and sent. `begun` once the answer's head is out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, request_id: str, write_seconds: float) -> None:
        self.begun = False
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._write_seconds = write_seconds
        self._abort: Callable[[], None] = scope[ABORT]

    async def body(self, *, length: int | None, at_most: int, seconds: float, arrivals: Arrivals) -> bytearray:
        """The request's body. What is `counted` of it is the caller's to give back to `arrivals.bodies`.

        Raises:
            Problem: it is too large, takes too long, or there is no room for it.
            Gone: its sender is.
        """
        if length is not None and length > at_most:
            raise _too_large(at_most)
        body, held = bytearray(), arrivals.bodies
        try:
            async with arrivals.one(seconds):
                more = True
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    piece, more = message.get("body", b""), message.get("more_body", False)
                    if len(body) + len(piece) > at_most:
                        raise _too_large(at_most)
                    held.take(counted(len(body) + len(piece)) - counted(len(body)))
                    body += piece
        except TimeoutError:
            held.give_back(counted(len(body)))
            text = f"did not come within {seconds:g} s, or sooner where very many come at once"
            raise invalid(408, "body", text, "BODY_TOO_SLOW") from None
        except BaseException:
            held.give_back(counted(len(body)))
            raise
        return body

    async def gone(self) -> None:
        """Returns when the client has gone away, or has the whole answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """The whole answer. Errors as for `write`."""
        await self.begin(status, {**headers, "content-length": str(len(body))})
        await self.write(body)
        await self.end()

    async def refuse(self, problem: Problem) -> None:
        """The answer to a call that failed. Errors as for `write`."""
        await self.answer(problem.status, problem.body(), {"content-type": "application/json", **problem.http_headers()})

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The answer's head. Errors as for `write`."""
        self.begun = True
        every = {**HEADERS, "x-request-id": self._request_id, **headers}
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in every.items()]
        await self._sent({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes) -> None:
        """A part of the answer.

        Raises:
            Gone: what was written before did not get through for too long. The connection is cut off.
        """
        for begin in range(0, len(data), PIECE):
            await self._sent({"type": "http.response.body", "body": data[begin : begin + PIECE], "more_body": True})

    async def end(self) -> None:
        """The answer's end: out when all but the last of what was written has got through. Errors as for `write`."""
        await self._sent({"type": "http.response.body", "body": b"", "more_body": False})

    def cut(self) -> None:
        """Ends the connection in the middle of an answer, so that it is not taken for whole."""
        with suppress(RuntimeError):
            self._abort()

    async def _sent(self, message: Any) -> None:
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._send(message)
        except TimeoutError:
            metrics.CUT_OFF.inc()
            self.cut()
            raise Gone from None


def _too_large(at_most: int) -> Problem:
    return invalid(413, "body", f"must not be larger than {at_most} bytes", "BODY_TOO_LARGE")
