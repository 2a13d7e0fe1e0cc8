"""Every RPC of every service, with a small harmless request for each: what it names does not exist."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.json_format import Parse
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from colonies.json_calls import SUFFIX, body_of
from tests.harness.servers import ALL_SERVICES

NOWHERE = "nowhere"
NOBODY = "nobody"
NO_IDENTITY = "00" * 32
NO_UUID = "123e4567-e89b-12d3-a456-426614174000"

# How fields are filled, by their names. What is not listed stays unset.
FILLERS: dict[str, Any] = {
    "colony": NOWHERE,
    "name": NOBODY,
    "identity": NO_IDENTITY,
    "request_id": "request-1",
    "process_id": NO_UUID,
    "workflow_id": NO_UUID,
    "max_processes": 1,
    "channel": "nothing",
    "executor_types": ["cli"],
}


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC."""

    service: str
    descriptor: MethodDescriptor

    @property
    def path(self) -> str:
        """As gRPC spells it."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def in_colony(self) -> bool:
        """Whether the request names the caller's colony."""
        return "colony_name" in self.descriptor.input_type.fields_by_name

    def request(self, colony: str) -> Message:
        """A harmless request in this colony."""
        request: Any = GetMessageClass(self.descriptor.input_type)()
        for field in self.descriptor.input_type.fields:
            if field.name == "colony_name":
                request.colony_name = colony
            elif field.name in FILLERS and field.type != FieldDescriptor.TYPE_MESSAGE and not _taken(request, field):
                value = FILLERS[field.name]
                if isinstance(value, list):
                    getattr(request, field.name).extend(value)
                else:
                    setattr(request, field.name, value)
        return request  # type: ignore[no-any-return]

    def call(self, channel: Any, request: Message, *, in_json: bool = False) -> Any:
        """Makes the call: an awaitable, or a stream."""
        response_type = GetMessageClass(self.descriptor.output_type)
        kind = channel.unary_stream if self.descriptor.server_streaming else channel.unary_unary
        if in_json:
            made = kind(
                self.path + SUFFIX, request_serializer=body_of, response_deserializer=lambda body: Parse(body, response_type())
            )
        else:
            made = kind(
                self.path, request_serializer=type(request).SerializeToString, response_deserializer=response_type.FromString
            )
        return made(request, timeout=20)


def _taken(request: Any, field: FieldDescriptor) -> bool:
    """Whether the choice that this field belongs to has been made."""
    return field.containing_oneof is not None and request.WhichOneof(field.containing_oneof.name) is not None


def all_methods() -> Iterator[Method]:
    """Every RPC in the generated stubs."""
    for service in ALL_SERVICES:
        package = importlib.import_module(f"colonies.{service}.v1")
        for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
            if not found.name.endswith("_service_pb2"):
                continue
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for descriptor in module.DESCRIPTOR.services_by_name.values():
                for method in descriptor.methods:
                    yield Method(service, method)
