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


def encode(value: Any) -> Value:
    """A Python value as a `Value`: bytes as they are, everything else as JSON.

    Raises:
        ValueEncodingError: JSON cannot carry the value, or it is nested too deeply, or refers to itself.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return Value(media_type=OCTET_STREAM, data=bytes(value))
    if isinstance(value, Value):
        return value
    try:
        # NaN and infinities are not JSON: a reader in another language would choke on them.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
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
    if value.media_type == OCTET_STREAM:
        return value.data
    if value.media_type not in JSON_TYPES:
        return value
    try:
        return json.loads(value.data)
    except RecursionError as error:
        msg = f"cannot decode {len(value.data)} bytes of JSON: nested too deeply"
        raise ValueEncodingError(msg) from error
    except ValueError as error:
        msg = f"cannot decode {len(value.data)} bytes of JSON: {error}"
        raise ValueEncodingError(msg) from error


def decode_all(values: Iterable[Value]) -> list[Any]:
    """Each value decoded, in order."""
    return [decode(value) for value in values]
