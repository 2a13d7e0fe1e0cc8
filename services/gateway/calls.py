"""A request over HTTP becomes a call, and its messages the answer: one JSON document, or a line for each."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import grpc
import structlog
from prometheus_client import Gauge
from starlette.types import Receive, Scope, Send

from servicekit import tasks
from services.gateway import metrics
from services.gateway.arrivals import Arrivals, counted
from services.gateway.ending import Ending
from services.gateway.exchange import PIECE, Exchange, Gone
from services.gateway.problems import Problem, defect, draining, invalid, of_call
from services.gateway.requests import JSON, LINES, Asked, read, request_id_of
from services.gateway.room import Room
from services.gateway.settings import Settings
from services.gateway.upstream import Upstream

log = structlog.get_logger()

# A stream's head waits so long for its first message: a call that is refused is then refused with a status of its own.
FIRST_SECONDS = 1.0
# The end of a unary call comes with its one message. Where neither an end nor another message comes, it was a stream.
END_SECONDS = 5.0
QUIET = b"\n"


class Calls:
    """The application below /api."""

    def __init__(self, settings: Settings, upstream: Upstream, ending: Ending) -> None:
        self._settings = settings
        self._upstream = upstream
        self._ending = ending
        self._requests = _room("requests", settings.max_requests, metrics.IN_HAND.labels("requests"))
        self._streams = _room("streams", settings.max_streams, metrics.IN_HAND.labels("streams"))
        bodies = _room("bytes", settings.max_held_bytes, metrics.HELD_BYTES)
        self._arrivals = Arrivals(
            settings.max_arriving, bodies, metrics.IN_HAND.labels("arriving"), metrics.FULL.labels("arriving")
        )
        # Not that of bodies: who reads slowly holds up nobody who asks.
        self._answers = _room("answers", settings.max_held_bytes, metrics.HELD_ANSWERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope["headers"])
        exchange = Exchange(scope, receive, send, request_id=request_id, write_seconds=self._settings.write_seconds)
        with _told(request_id) as told:
            try:
                asked = read(scope, request_id)
                told.update(method=asked.method, kind="stream" if asked.lines else "request")
                await self._make(asked, exchange)
            except Gone:
                told["code"] = "CANCELLED"
                metrics.GONE.inc()
            except Problem as problem:
                told.update(code=problem.code, reason=problem.reason, **({"detail": problem.detail} if problem.detail else {}))
                await _tell(exchange, problem)
            except Exception:
                log.exception("defect", request_id=request_id)
                told["code"] = "INTERNAL"
                await _tell(exchange, defect(request_id))

    async def _make(self, asked: Asked, exchange: Exchange) -> None:
        body = await exchange.body(
            length=asked.length,
            at_most=self._settings.max_body_bytes,
            seconds=self._settings.body_seconds,
            arrivals=self._arrivals,
        )
        room = self._streams if asked.lines else self._requests
        timeout = asked.timeout if asked.timeout or asked.lines else self._settings.call_seconds
        try:
            with room.some(1), self._ending.waiting(stream=bool(asked.lines)) as over:
                if asked.lines and self._ending.begun:
                    raise draining()
                with self._upstream.call(asked.method, bytes(body), asked.metadata, timeout) as call:
                    conversation = _Conversation(exchange, call, over, self._answers)
                    async with conversation:
                        if asked.lines:
                            await conversation.stream(asked.lines, self._settings.quiet_seconds)
                        else:
                            await conversation.single()
        finally:
            self._arrivals.bodies.give_back(counted(len(body)))


class _Conversation:
    """A call under way, its client, and the end of this replica: whichever speaks first."""

    def __init__(self, exchange: Exchange, call: Any, over: "asyncio.Future[None]", answers: Room) -> None:
        self._exchange = exchange
        self._call = call
        self._over = over
        self._answers = answers
        self._gone = asyncio.ensure_future(exchange.gone())
        self._reading: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, *_: object) -> None:
        await tasks.end(self._gone, self._reading)

    async def single(self) -> None:
        """The answer is the one message."""
        await self._come(None)
        message = self._message()
        alone = message is not grpc.aio.EOF and await self._come(END_SECONDS) and self._message() is grpc.aio.EOF
        if not alone:
            raise invalid(406, "accept", f"this method streams: ask for {LINES[0]}", "STREAMS")
        with self._holding(message):
            await self._exchange.answer(200, message, {"content-type": JSON})

    async def stream(self, kind: str, quiet_seconds: float) -> None:
        """The answer is a line for each message."""
        exchange, quiet = self._exchange, FIRST_SECONDS
        while True:
            spoken = await self._come(quiet)
            message = self._message() if spoken else b""
            if not exchange.begun:
                await exchange.begin(200, {"content-type": kind})
                quiet = quiet_seconds
                if not spoken:
                    continue
            if message is grpc.aio.EOF:
                await exchange.end()
                return
            if spoken:
                metrics.LINES.inc()
            with self._holding(message):
                await exchange.write(message + QUIET)

    def _holding(self, message: bytes) -> AbstractContextManager[None]:
        """Room for an answer for as long as its reader takes. What is small always has some."""
        return self._answers.some(len(message)) if len(message) > PIECE else nullcontext()

    async def _come(self, seconds: float | None) -> bool:
        """Waits for the next message, or the end; whether one of them has come.

        Raises:
            Gone: the client went away first.
            Problem: this replica ends.
        """
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        await asyncio.wait((self._reading, self._gone, self._over), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            raise Gone
        if self._over.done() and not self._reading.done():
            raise draining()
        return self._reading.done()

    def _message(self) -> Any:
        """The message that has come, or EOF.

        Raises:
            Problem: the call failed.
        """
        reading, self._reading = self._reading, None
        assert reading is not None
        try:
            return reading.result()
        except grpc.aio.AioRpcError as error:
            raise of_call(error) from error


async def _tell(exchange: Exchange, problem: Problem) -> None:
    """The answer to a call that failed: in place of one, or as the last line of a stream."""
    with suppress(Gone):
        if not exchange.begun:
            await exchange.refuse(problem)
        else:
            await exchange.write(problem.line())
            await exchange.end()


def _room(kind: str, limit: int, taken: Gauge) -> Room:
    return Room(kind, limit, taken, metrics.FULL.labels(kind))


@contextmanager
def _told(request_id: str) -> Iterator[dict[str, str]]:
    """A request's line in the log, and its metrics."""
    told = {"code": "OK", "kind": "none", "method": "", "reason": ""}
    begin = time.perf_counter()
    try:
        yield told
    except asyncio.CancelledError:
        told["code"] = "CANCELLED"
        raise
    finally:
        seconds = time.perf_counter() - begin
        metrics.ANSWERED.labels(told["kind"], told["code"]).inc()
        if told["kind"] == "request":
            metrics.SECONDS.observe(seconds)
        write = log.debug if told["code"] in {"OK", "CANCELLED"} else log.info
        write("request", request_id=request_id, seconds=round(seconds, 6), **told)
