"""What the gate needs of a request, read without parsing the rest.

A request can be large, and parsing costs many times its size; whoever may not call must not cost that. Of a request's fields
the gate knows two, and every proto gives them the same numbers: `colony_name` is 1, `on_behalf_of` is 4. All others are passed
over as bytes.
"""

import sys
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from servicekit.failures import InvalidArgument, Violation

_FIELDS = {"colony_name": 1, "on_behalf_of": 4}
KIB = 1024
MIB = 1024 * KIB
# Requests that carry user data may be large; all others are small, whoever sends them.
LARGE_AT_MOST = 32 * MIB
SMALL_AT_MOST = 1 * MIB
LARGE = frozenset(
    {
        "SubmitProcesses",
        "SubmitWorkflow",
        "SubmitWorkflows",
        "CloseProcesses",
        "SetOutput",
        "SetAttributes",
        "AddLogs",
        "AddChildren",
        "AppendMessages",
        "AddCron",
        "UpdateCron",
        "AddGenerator",
        "Pack",
        "AnnounceFunctions",
        # They pass on calls that others signed.
        "PutExecutor",
        "DropExecutor",
    }
)
# These are kept as they came, for as long as there is a ledger: so there is no room in them for anything but what they say. The
# bound of a registration is its largest legal one (tests/unit/registry/test_registration_size.py).
KEPT_AT_MOST = {
    "AddColony": 4 * KIB,
    "RemoveColony": 4 * KIB,
    "AddUser": 4 * KIB,
    "RemoveUser": 4 * KIB,
    "RotateKey": 4 * KIB,
    "RegisterExecutor": 208 * KIB,
    "ApproveExecutor": 4 * KIB,
    "RejectExecutor": 4 * KIB,
    "RemoveExecutor": 4 * KIB,
}


def _envelope_type() -> type[Any]:
    file = descriptor_pb2.FileDescriptorProto(name="envelope.proto", package="servicekit", syntax="proto3")
    message = file.message_type.add(name="Envelope")
    for name, number in _FIELDS.items():
        field = descriptor_pb2.FieldDescriptorProto
        message.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    # A pool of its own: this is no part of the contracts.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("servicekit.Envelope"))


_Envelope = _envelope_type()


@dataclass(frozen=True, slots=True)
class Envelope:
    """The tenant of a request (None: it has no such field), and for whom a service makes it, if `can_represent`."""

    colony: str | None = None
    on_behalf_of: str = ""
    can_represent: bool = False


class RequestType:
    """The request of one method: how to read its envelope, how to parse it, and how large it may be."""

    # Bodies of so many bytes are read in a thread, as they hold up other calls.
    aside_from = sys.maxsize

    def __init__(self, method: str) -> None:
        self.method = method
        """Its full name, as the policy has it."""
        service, _, name = method.strip("/").partition("/")
        descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].input_type
        self._message = message_factory.GetMessageClass(descriptor)
        self._has_colony = _has(descriptor, "colony_name")
        self._has_on_behalf_of = _has(descriptor, "on_behalf_of")
        self._is_kept = name in KEPT_AT_MOST
        self.at_most = KEPT_AT_MOST.get(name, LARGE_AT_MOST if name in LARGE else SMALL_AT_MOST)
        """How many bytes it may have."""

    def check_size(self, body: bytes) -> None:
        """Refuses what is too large, before anything is made of it.

        Raises:
            InvalidArgument: it is.
        """
        if len(body) > self.at_most:
            description = f"must be at most {self.at_most} bytes; it has {len(body)}"
            raise InvalidArgument([Violation("request", description)])

    def envelope(self, body: bytes) -> Envelope:
        """What the gate needs of the request.

        Raises:
            InvalidArgument: it is not a message of this type.
        """
        if not self._has_colony:
            return Envelope()
        try:
            found = _Envelope.FromString(body)
        except DecodeError as error:
            raise _not_a_message() from error
        return Envelope(found.colony_name, found.on_behalf_of if self._has_on_behalf_of else "", self._has_on_behalf_of)

    def parse(self, body: bytes) -> Message:
        """The whole request.

        Raises:
            InvalidArgument: not a message of this type; or one that is kept has fields that this version does not know.
        """
        try:
            message = self._message.FromString(body)
        except (DecodeError, RecursionError, ValueError) as error:
            raise _not_a_message() from error
        if self._is_kept:
            _refuse_unknown(message)
        return message


def _has(descriptor: Descriptor, field: str) -> bool:
    found = descriptor.fields_by_name.get(field)
    assert found is None or found.number == _FIELDS[field], f"{descriptor.full_name}.{field} must be {_FIELDS[field]}"
    return found is not None


def _refuse_unknown(message: Any) -> None:
    size = message.ByteSize()
    # Of the messages within it too.
    message.DiscardUnknownFields()
    if (unknown := size - message.ByteSize()) > 0:
        description = f"is kept as it is, and must have no fields that this version does not know; these have {unknown} bytes"
        raise InvalidArgument([Violation("request", description)])


def _not_a_message() -> InvalidArgument:
    return InvalidArgument([Violation("request", "is not a message of this method's type")])
