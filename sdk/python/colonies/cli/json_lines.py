"""Values on the standard input, a line of JSON each, as soon as they are there."""

import sys
from collections.abc import Iterator
from typing import Protocol, cast

from colonies.cli.arguments import json_value
from colonies.cli.failure import usage
from colonies.scheduler.v1.spec_pb2 import Value

_READ_BYTES = 1 << 20
# More than any argument of a generator may have.
_MAX_LINE_BYTES = 1 << 20


class Stream(Protocol):
    """What bytes are read from: one look gives what is there, and nothing only at the end."""

    def read1(self, size: int = ..., /) -> bytes: ...


def values_of(stream: Stream | None = None) -> Iterator[list[Value]]:
    """The values of the lines, as many together as one look at the stream gives; blank lines are passed over.

    Raises:
        CliError: a line is not JSON, or too long.
    """
    source = cast("Stream", sys.stdin.buffer) if stream is None else stream
    number = 0
    rest = b""
    while data := source.read1(_READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        values = [json_value(line, _where(index)) for index, line in enumerate(lines, number + 1) if line.strip()]
        number += len(lines)
        if len(rest) > _MAX_LINE_BYTES:
            msg = f"{_where(number + 1)}: longer than {_MAX_LINE_BYTES} bytes"
            raise usage(msg)
        if values:
            yield values
    if rest.strip():
        yield [json_value(rest, _where(number + 1))]


def _where(number: int) -> str:
    return f"standard input, line {number}"
