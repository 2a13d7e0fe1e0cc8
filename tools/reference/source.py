"""What the protos say: services, methods, messages and enums, each with its comment."""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
# Where a descriptor keeps what, as the comments' paths have it: the numbers of descriptor.proto's own fields.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _NESTED, _NESTED_ENUM = 2, 3, 4
_METHOD = _VALUE = 2

Comments = Mapping[tuple[int, ...], str]


@dataclass(frozen=True, slots=True)
class Field:
    """A field. `kind` is a scalar's name, or the full name of a message or enum; in a map it is that of the values."""

    name: str
    json_name: str
    kind: str
    comment: str
    repeated: bool = False
    key: str = ""
    oneof: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message."""

    name: str
    comment: str
    fields: Sequence[Field]

    @property
    def oneofs(self) -> dict[str, list[Field]]:
        """Fields of which one at most is there, by the name of the choice."""
        found: dict[str, list[Field]] = {}
        for field in self.fields:
            if field.oneof:
                found.setdefault(field.oneof, []).append(field)
        return found


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum; `values` with their comments."""

    name: str
    comment: str
    values: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method that others than the servers may call, and who."""

    service: str
    name: str
    comment: str
    request: str
    response: str
    streams: bool
    roles: list[str]

    @property
    def path(self) -> str:
        """As gRPC spells it."""
        return f"/{self.service}/{self.name}"


@dataclass(frozen=True, slots=True)
class Service:
    """A service."""

    name: str
    comment: str
    methods: Sequence[Method]


@dataclass(frozen=True, slots=True)
class Source:
    """All of it: services in the order of their files, and what their methods speak of."""

    services: Sequence[Service]
    messages: Mapping[str, Message]
    enums: Mapping[str, Enum]


def read(protos: Path, callers: Mapping[str, list[str]]) -> Source:
    """Reads the protos below a folder. `callers` are the methods to tell of, and who may call them."""
    messages: dict[str, Message] = {}
    enums: dict[str, Enum] = {}
    services: list[Service] = []
    for file in _compiled(protos).file:
        comments = _comments(file)
        for index, message in enumerate(file.message_type):
            _add_message(message, file.package, (_MESSAGE, index), comments, messages, enums)
        for index, enum in enumerate(file.enum_type):
            _add_enum(enum, file.package, (_ENUM, index), comments, enums)
        services += _services(file, comments, callers)
    spoken_of = _reachable(services, messages)
    return Source(
        [service for service in services if service.methods],
        {name: messages[name] for name in sorted(spoken_of & set(messages))},
        {name: enums[name] for name in sorted(spoken_of & set(enums))},
    )


def _compiled(protos: Path) -> FileDescriptorSet:
    sources = sorted(str(path.relative_to(protos)) for path in protos.glob("colonies/**/*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "protos.binpb"
        arguments = ["protoc", f"--proto_path={protos}", f"--proto_path={WELL_KNOWN}", "--include_source_info"]
        if protoc.main([*arguments, f"--descriptor_set_out={out}", *sources]) != 0:
            sys.exit("protoc failed")
        return FileDescriptorSet.FromString(out.read_bytes())


def _comments(file: FileDescriptorProto) -> Comments:
    found = {}
    for location in file.source_code_info.location:
        text = location.leading_comments or location.trailing_comments
        found[tuple(location.path)] = "\n".join(line.removeprefix(" ").rstrip() for line in text.splitlines()).strip()
    return found


def _services(file: FileDescriptorProto, comments: Comments, callers: Mapping[str, list[str]]) -> Iterator[Service]:
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        methods = [
            Method(
                service=name,
                name=method.name,
                comment=comments.get((_SERVICE, index, _METHOD, number), ""),
                request=method.input_type.lstrip("."),
                response=method.output_type.lstrip("."),
                streams=method.server_streaming,
                roles=callers[f"{name}.{method.name}"],
            )
            for number, method in enumerate(service.method)
            if f"{name}.{method.name}" in callers
        ]
        yield Service(name, comments.get((_SERVICE, index), ""), methods)


def _add_message(
    message: DescriptorProto,
    scope: str,
    path: tuple[int, ...],
    comments: Comments,
    messages: dict[str, Message],
    enums: dict[str, Enum],
) -> None:
    name = f"{scope}.{message.name}"
    entries = {f".{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    fields = [
        _field(field, message, entries, comments.get((*path, _FIELD, index), "")) for index, field in enumerate(message.field)
    ]
    messages[name] = Message(name, comments.get(path, ""), fields)
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            _add_message(nested, name, (*path, _NESTED, index), comments, messages, enums)
    for index, enum in enumerate(message.enum_type):
        _add_enum(enum, name, (*path, _NESTED_ENUM, index), comments, enums)


def _field(
    field: FieldDescriptorProto, message: DescriptorProto, entries: Mapping[str, DescriptorProto], comment: str
) -> Field:
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    entry = entries.get(field.type_name)
    if entry is not None:
        key, value = entry.field
        return Field(field.name, field.json_name, _kind(value), comment, key=_kind(key))
    in_oneof = field.HasField("oneof_index") and not field.proto3_optional
    oneof = message.oneof_decl[field.oneof_index].name if in_oneof else ""
    return Field(field.name, field.json_name, _kind(field), comment, repeated, "", oneof, field.proto3_optional)


def _kind(field: FieldDescriptorProto) -> str:
    return field.type_name.lstrip(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _add_enum(enum: EnumDescriptorProto, scope: str, path: tuple[int, ...], comments: Comments, enums: dict[str, Enum]) -> None:
    values = [(value.name, comments.get((*path, _VALUE, index), "")) for index, value in enumerate(enum.value)]
    enums[f"{scope}.{enum.name}"] = Enum(f"{scope}.{enum.name}", comments.get(path, ""), values)


def _reachable(services: Sequence[Service], messages: Mapping[str, Message]) -> set[str]:
    found: set[str] = set()
    left = [name for service in services for method in service.methods for name in (method.request, method.response)]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        left += [field.kind for field in messages[name].fields] if name in messages else []
    return found
