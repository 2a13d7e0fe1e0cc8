"""Messages as plain data, by the rules of proto3 JSON with the field names of the protos.

64-bit integers are strings, as those rules have it, so that no reader rounds a priority time; user values are decoded; every
field is there, set or not (messages that are not set are null).
"""

import base64
from collections.abc import Callable, Sequence
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from colonies import values
from colonies.cli.failure import CliError, one_line
from colonies.errors import ValueEncodingError
from colonies.scheduler.v1.spec_pb2 import Value

OnValue = Callable[[Value, str], Any]
"""What becomes of a user value; the text is its path in the document."""

_AS_TEXT = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
_VALUE = Value.DESCRIPTOR.full_name
_LONG = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})


def lenient(value: Value, path: str) -> Any:
    """A user value for lists: one that cannot be decoded becomes a remark, so that one bad value hides no other."""
    del path
    try:
        return _jsonable(value)
    except ValueEncodingError as error:
        return f"<undecodable: {one_line(str(error))}>"


def strict(value: Value, path: str) -> Any:
    """A user value that was asked for by itself.

    Raises:
        CliError: it cannot be decoded.
    """
    try:
        return _jsonable(value)
    except ValueEncodingError as error:
        msg = f"{path} is undecodable: {error} (colonies process output --raw N writes the bytes of an output as they are)"
        raise CliError(msg) from error


def _jsonable(value: Value) -> Any:
    decoded = values.decode(value)
    if isinstance(decoded, bytes | Value):
        return {"media_type": value.media_type, "base64": base64.b64encode(value.data).decode("ascii")}
    return decoded


def plain(message: Message, on_value: OnValue = lenient, path: str = "") -> dict[str, Any]:
    """The message as a dictionary that JSON can carry."""
    document: dict[str, Any] = {}
    # The two implementations of protobuf have descriptors of different classes.
    fields: Sequence[Any] = message.DESCRIPTOR.fields
    for field in fields:
        here = f"{path}.{field.name}" if path else field.name
        value = getattr(message, field.name)
        if _is_map(field):
            element = field.message_type.fields_by_name["value"]
            document[field.name] = {str(k): _single(element, value[k], on_value, f"{here}[{k}]") for k in sorted(value)}
        elif field.is_repeated:
            document[field.name] = [_single(field, item, on_value, f"{here}[{i}]") for i, item in enumerate(value)]
        elif field.has_presence and not message.HasField(field.name):
            document[field.name] = None
        else:
            document[field.name] = _single(field, value, on_value, here)
    return document


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _single(field: Any, value: Any, on_value: OnValue, path: str) -> Any:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name in _AS_TEXT:
            return value.ToJsonString()
        if name == _VALUE:
            return on_value(cast("Value", value), path)
        return plain(value, on_value, path)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode("ascii")
    return str(value) if field.cpp_type in _LONG else value
