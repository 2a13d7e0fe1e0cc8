"""How one call is told of: its request id, its line in the log, its metrics, and how its caller hears of a failure."""

import asyncio
import os
import re
import time
from typing import Any, Self, TypeAlias

import grpc
import structlog

from servicekit import logs, metrics
from servicekit.failures import Failure
from servicekit.signature import headers_of
from servicekit.status import CODES, abort

log = structlog.get_logger()

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_OK = grpc.StatusCode.OK


class Meters:
    """A method's metrics, looked up once."""

    def __init__(self, method: str, *, verbose: bool) -> None:
        self.method = method
        self.verbose = verbose
        self.in_flight = metrics.IN_FLIGHT.labels(method)
        self.seconds = metrics.SECONDS.labels(method)
        self.succeeded = metrics.HANDLED.labels(method, _OK.name)


class Observation:
    """One call's request id, log line and metrics."""

    __slots__ = ("_begin", "_code", "_meters", "_reason", "_request_id", "headers")

    def __init__(self, meters: Meters, context: Context) -> None:
        self.headers = headers_of(context.invocation_metadata() or ())
        self._meters = meters
        self._request_id = ""
        self._code = _OK
        self._reason = ""
        self._begin = 0.0

    @property
    def request_id(self) -> str:
        """The caller's own, or one that is made when first asked for."""
        if not self._request_id:
            given = self.headers.get(REQUEST_ID_HEADER, "")
            self._request_id = given if _REQUEST_ID.match(given) else os.urandom(16).hex()
        return self._request_id

    @property
    def method(self) -> str:
        """Full method name."""
        return self._meters.method

    def __enter__(self) -> Self:
        # Each call runs in a context of its own: what is set here ends with it.
        logs.call_in_hand.set(self)
        self._begin = time.perf_counter()
        self._meters.in_flight.inc()
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._code = grpc.StatusCode.CANCELLED
        meters = self._meters
        meters.in_flight.dec()
        seconds = time.perf_counter() - self._begin
        meters.seconds.observe(seconds)
        if self._code is _OK:
            meters.succeeded.inc()
            if meters.verbose:
                log.debug("call", code="OK", seconds=round(seconds, 6))
            return
        code = self._code.name
        metrics.HANDLED.labels(meters.method, code).inc()
        write = log.debug if self._code is grpc.StatusCode.CANCELLED else log.info
        write("call", code=code, reason=self._reason, seconds=round(seconds, 6))

    async def end(self, context: Context, failure: Failure) -> None:
        """Ends the call with a failure."""
        self._code, self._reason = CODES[type(failure)], failure.reason
        await abort(context, failure)

    async def crash(self, context: Context, error: Exception) -> None:
        """Ends the call after a defect of ours: the log has the trace, the caller the id to find it by."""
        if isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
            # Generated code says so of a method that is in the contract and not in this server.
            self._code, self._reason = grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server does not have this method")
        self._code, self._reason = grpc.StatusCode.INTERNAL, type(error).__name__
        log.error("defect", exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error; the log has it under request id {self.request_id}")
