"""Messages of the protos as JSON: as the cases write them, as drivers take them, as the kit compares them."""

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

# What cases call is looked up in the pool by name, so it must have been imported.
from colonies.auth.v1 import auth_service_pb2 as _auth
from colonies.cron.v1 import cron_service_pb2 as _cron
from colonies.cron.v1 import generator_service_pb2 as _generator
from colonies.registry.v1 import registry_service_pb2 as _registry
from colonies.scheduler.v1 import scheduler_service_pb2 as _scheduler
from colonies.scheduler.v1.spec_pb2 import FunctionSpec, Value
from tests.conformance.kit.matching import compact

IMPORTED = (_auth, _cron, _generator, _registry, _scheduler)

# Fields of a spec as cases write them short; all others have their own names.
_SHORT = frozenset({"call", "args", "kwargs", "name", "after", "type"})


class NotJsonMappingError(AssertionError):
    """A driver's message is not in the proto3 JSON mapping."""


def _types(method: str) -> tuple[type[Message], type[Message]]:
    service, _, name = method.removeprefix("/").rpartition("/")
    described = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    return message_factory.GetMessageClass(described.input_type), message_factory.GetMessageClass(described.output_type)


def request_message(method: str, request: dict[str, Any]) -> Message:
    """A request as a message; fields that it does not have are a mistake of the case."""
    message = _types(method)[0]()
    json_format.ParseDict(request, message)
    return message


def for_driver(method: str, request: dict[str, Any]) -> dict[str, Any]:
    """A request in the one spelling that all drivers are given."""
    return json_format.MessageToDict(request_message(method, request))


def normal(message: Message) -> dict[str, Any]:
    """A message as cases are written: with the names of the protos, without what is not set."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def from_driver(method: str, response: Any) -> dict[str, Any]:
    """A driver's message as cases are written, whichever of the spellings of the JSON mapping it chose.

    Raises:
        NotJsonMappingError: it is none of them.
    """
    message = _types(method)[1]()
    try:
        json_format.ParseDict(response, message)
    except json_format.ParseError as error:
        msg = f"the response is not in the proto3 JSON mapping: {error}"
        raise NotJsonMappingError(msg) from error
    return normal(message)


def value_of(json_value: Any) -> Value:
    """A JSON value as a Value; {"bytes": "hex"} as bytes, {"media_type": ..., "bytes": ...} as what it says."""
    if isinstance(json_value, dict) and "bytes" in json_value:
        media_type = json_value.get("media_type", "application/octet-stream")
        return Value(media_type=media_type, data=bytes.fromhex(json_value["bytes"]))
    return Value(data=compact(json_value).encode())


def json_of(value: Value) -> Any:
    """The other way round."""
    if value.media_type in {"", "application/json"}:
        return json.loads(value.data)
    return {"media_type": value.media_type, "bytes": value.data.hex()}


def spec_of(short: dict[str, Any], default_type: str) -> FunctionSpec:
    """A spec, of {"call": "echo", "args": [...], "kwargs": {...}, "name": ..., "after": [...], "type": ...} and further fields."""
    further = {name: value for name, value in short.items() if name not in _SHORT}
    spec = FunctionSpec()
    json_format.ParseDict(further, spec)
    spec.func_name = short["call"]
    spec.node_name = short.get("name", "")
    spec.args.extend(value_of(each) for each in short.get("args", ()))
    for key, each in short.get("kwargs", {}).items():
        spec.kwargs[key].CopyFrom(value_of(each))
    spec.conditions.executor_type = short.get("type", default_type)
    for parent in short.get("after", ()):
        json_format.ParseDict(parent if isinstance(parent, dict) else {"node_name": parent}, spec.conditions.dependencies.add())
    return spec


def outputs_of(values: Iterable[Value]) -> list[Any]:
    """Outputs as JSON values."""
    return [json_of(each) for each in values]
