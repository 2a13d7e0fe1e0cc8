"""Structured logs: one JSON object a line on standard output, with the request id of the call in hand."""

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import IO, Any, Protocol, TextIO, cast

import structlog
from structlog.typing import Processor

from servicekit.metrics import LOG_LINES_LOST

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Call(Protocol):
    """A call, as a line of the log names it."""

    @property
    def request_id(self) -> str:
        """What to find its lines by."""
        ...

    @property
    def method(self) -> str:
        """Its full method name."""
        ...


class Patient:
    """A stream for lines that may be lost: a full disk must not end what only wanted to tell of it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes, or counts as lost."""
        try:
            return self._stream.write(text)
        except OSError:
            LOG_LINES_LOST.inc()
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or counts as lost; what could be kept is written with a later line."""
        try:
            self._stream.flush()
        except OSError:
            LOG_LINES_LOST.inc()


# Asked only when a line is written: most calls write none.
call_in_hand: ContextVar[Call] = ContextVar("call_in_hand")


def with_call(_logger: Any, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Names the call in hand, if there is one."""
    call = call_in_hand.get(None)
    if call is not None:
        line.setdefault("request_id", call.request_id)
        line.setdefault("method", call.method)
    return line


def configure(service: str, level: str) -> None:
    """Sets up logging for this process, for structlog and for libraries that use the standard library's."""
    output = cast(TextIO, Patient(sys.stdout))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        with_call,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(LEVELS[level], logging.WARNING), force=True)
