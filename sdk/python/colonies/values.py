"""User data on its way to and from the wire.

The services carry a `Value` unopened. Here Python values become JSON, and `bytes` become themselves.
"""

import json
from collections.abc import Iterable
from typing import Any

from colonies.errors import ValueEncodingError
from colonies.scheduler.v1.spec_pb2 import Value

OCTET_STREAM = "application/octet-stream"
JSON_TYPES = ("", "application/json")


def _no_json(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


# NaN and infinities are not JSON: a reader in another language would choke on them.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_no_json)


def encode(value: Any) -> Value:
    """A Python value as a `Value`: bytes as they are, everything else as JSON.

    Raises:
        ValueEncodingError: JSON cannot carry the value, or it is nested too deeply, or refers to itself.
    """
    if value is None:  # what most functions return
        return Value(data=b"null")
    if isinstance(value, bytes | bytearray | memoryview):
        return Value(media_type=OCTET_STREAM, data=bytes(value))
    if isinstance(value, Value):
        return value
    try:
        # Whole numbers are everywhere, and need none of the encoder's machinery.
        text = repr(value) if type(value) is int else _ENCODER.encode(value)
        return Value(data=text.encode())
    except RecursionError as error:
        msg = "cannot encode a value that is nested this deeply"
        raise ValueEncodingError(msg) from error
    except (TypeError, ValueError) as error:
        msg = f"cannot encode {type(value).__name__}: {error}"
        raise ValueEncodingError(msg) from error


def decode(value: Value) -> Any:
    """The Python value in a `Value`. Media types other than JSON and octet-stream come back as the `Value` itself.

    Raises:
        ValueEncodingError: the bytes are not JSON, or nested too deeply.
    """
    media_type = value.media_type
    if media_type == OCTET_STREAM:
        return value.data
    if media_type not in JSON_TYPES:
        return value
    data = value.data
    try:
        text = data.decode()
        decoded, end = _DECODER.raw_decode(text)
        # Blanks at an end, or an encoding other than UTF-8, are legal, rare, and for the whole parser to understand.
        if end == len(text):
            return decoded
    except (ValueError, RecursionError):
        pass  # the whole parser says what is wrong
    try:
        return json.loads(data, parse_constant=_no_json)
    except RecursionError as error:
        msg = f"cannot decode {len(data)} bytes of JSON: nested too deeply"
        raise ValueEncodingError(msg) from error
    except ValueError as error:
        msg = f"cannot decode {len(data)} bytes of JSON: {error}"
        raise ValueEncodingError(msg) from error


def decode_all(values: Iterable[Value]) -> list[Any]:
    """Each value decoded, in order."""
    return [decode(value) for value in values]
