"""Requests of every method, filled from the names of what there is in a colony."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.rpc.methods import Method

# What a field of this name is filled with, unless a place says otherwise; "Message.field" goes before "field".
FILLERS: Mapping[str, Any] = {
    "request_id": "request-1",
    "executor_types": ["cli"],
    "executor_type": "cli",
    "func_name": "f",
    "labels": ["nightly"],
    "key": "key",
    "data": b"1",
    "kind": 1,
    "max_processes": 1,
    "max_in_flight": 1,
    "max_count": 5,
    # Nothing waits under it: a batch would be submitted at some time or other.
    "FlushGenerator:key": "nothing",
    "page_size": 5,
    "first_number": 1,
    "interval_ms": 3_600_000,
    "message": "line",
    "cpu": "1",
    "paused": False,
    "operator": 3,
    "validate_only": False,
    # Only the cron service chooses one.
    "WorkflowSubmission.workflow_id": "",
}
# Messages that are left out: they are wrong with what is filled in here, or say nothing of anybody.
LEFT_OUT = frozenset({"dependencies", "backoff", "gpu", "filesystem", "user", "owner"})


def filled(method: Method, values: Mapping[str, Any]) -> Message:
    """A request of a method. The first of a choice is chosen that `values` has; a list gets one item."""
    return _filled(method.descriptor.input_type, {**FILLERS, **values}, method.descriptor.name)


def _filled(descriptor: Descriptor, values: Mapping[str, Any], method: str) -> Message:
    message: Any = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.name in LEFT_OUT or _chosen(message, field):
            continue
        value = next(
            (values[key] for key in (f"{method}:{field.name}", f"{descriptor.name}.{field.name}", field.name) if key in values),
            None,
        )
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            _fill_message(message, field, values, method)
        elif value is not None:
            _fill_scalar(message, field, value)
    return message  # type: ignore[no-any-return]


def _chosen(message: Any, field: FieldDescriptor) -> bool:
    choice = field.containing_oneof
    return choice is not None and message.WhichOneof(choice.name) is not None


def _fill_message(message: Any, field: FieldDescriptor, values: Mapping[str, Any], method: str) -> None:
    kind = field.message_type
    assert kind is not None
    if kind.GetOptions().map_entry or kind.file.package == "google.protobuf" or kind.name == "Failure":
        return
    part = _filled(kind, values, method)
    if field.is_repeated:
        getattr(message, field.name).append(part)
    elif field.containing_oneof is None or field.name not in {"colony", "all"}:
        getattr(message, field.name).CopyFrom(part)


def _fill_scalar(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(value if isinstance(value, list) else [value])
    elif not isinstance(value, list):
        setattr(message, field.name, value)


@dataclass(frozen=True, slots=True)
class Slot:
    """A text field somewhere in a method's requests: the method, the message's name, and the field's."""

    method: str
    message: str
    field: str


def slots(method: Method) -> Iterator[Slot]:
    """Every text field of a method's request, at any depth."""
    yield from _slots(method.descriptor.name, method.descriptor.input_type, ())


def _slots(method: str, descriptor: Descriptor, above: Sequence[str]) -> Iterator[Slot]:
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield Slot(method, descriptor.name, field.name)
        elif (kind := field.message_type) and not kind.GetOptions().map_entry and kind.full_name not in above:
            yield from _slots(method, kind, (*above, kind.full_name))
