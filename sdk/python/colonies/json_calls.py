"""Calls whose messages travel as JSON: `/package.Service/Method+json` is the call `/package.Service/Method` with its request
and its responses in the proto3 JSON mapping, as UTF-8.

Whoever reads such a request must find the same in it: the gate that asks for its colony, the service that acts on it, and who
audits it years later, in whatever language. JSON and the mapping leave some of that open, so what could be read in two ways is
refused here: a key that is there twice, also once as `colonyName` and once as `colony_name`; two members of one choice; NaN and
Infinity as bare words; lone surrogates; base64 and numbers that some parsers take and others do not; a byte order mark, and
whatever follows the document.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from colonies.errors import UnreadableRequestError

SUFFIX: Final = "+json"
# What the whole request is called where no field of it is to blame.
WHOLE: Final = "request"
# Objects and lists in one document: an empty one has two bytes and takes dozens in memory.
MAX_NESTED = 250_000
# Whoever reads numbers as doubles reads whole ones up to here as they are.
EXACT = 2**53
SHOWN = 40

M = TypeVar("M", bound=Message)
Check: TypeAlias = Callable[[Any], None]

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_WORDS_FOR_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}\Z")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
# Messages that are a text in JSON.
_WRITTEN_AS_TEXT = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def is_json(method: str) -> bool:
    """Whether calls of a method, as its path is called, are made in JSON."""
    return method.endswith(SUFFIX)


def base_of(method: str) -> str:
    """The method that a path asks for, whatever its messages are written in."""
    return method.removesuffix(SUFFIX)


def request_of(method: str, body: bytes, request_type: type[M]) -> M:
    """The request of a call that was kept, in whatever it was written. What a newer version added to it is passed over.

    Raises:
        UnreadableRequestError: it is no request of this type.
    """
    if is_json(method):
        return message_of(document_of(body), request_type, known_only=False)
    try:
        return request_type.FromString(body)
    except DecodeError as error:
        raise UnreadableRequestError(WHOLE, "is not a message of this method's type") from error


def document_of(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is.

    Raises:
        UnreadableRequestError: it is none, or one that could be read in two ways.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableRequestError(WHOLE, f"must be JSON in UTF-8; byte {error.start} is none of it") from error
    if (nested := body.count(b"{") + body.count(b"[")) > MAX_NESTED:
        raise UnreadableRequestError(WHOLE, f"must have at most {MAX_NESTED} braces and brackets; it has {nested}")
    try:
        document = json.loads(text, object_pairs_hook=_members_of, parse_constant=_refuse_word)
    except json.JSONDecodeError as error:
        raise UnreadableRequestError(WHOLE, f"must be JSON; at byte {_byte(text, error.pos)}: {error.msg}") from error
    except RecursionError as error:
        raise UnreadableRequestError(WHOLE, "is nested too deeply") from error
    except UnreadableRequestError:
        raise
    except ValueError as error:
        # Python bounds the digits that it makes a number of.
        raise UnreadableRequestError(WHOLE, "has a number of too many digits") from error
    if type(document) is not dict:
        raise UnreadableRequestError(WHOLE, f"must be a JSON object; got {_shown(document)}")
    if _ESCAPED_SURROGATE.search(body) is not None:
        _refuse_lone_surrogates(document)
    return document


def message_of(document: dict[str, Any], message_type: type[M], *, known_only: bool = True) -> M:
    """The message that a document of `document_of` says. With `known_only`, it may have no field and no enum value that this
    version does not know.

    Raises:
        UnreadableRequestError: it is no message of this type; the error names the field.
    """
    message = message_type()
    try:
        _form_of(message.DESCRIPTOR, known_only).check(document)
        json_format.ParseDict(document, message, ignore_unknown_fields=not known_only)
    except _Wrong as wrong:
        raise UnreadableRequestError(wrong.path or WHOLE, wrong.description) from wrong
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise UnreadableRequestError(WHOLE, f"is not a message of this method's type: {str(error)[:200]!r}") from error
    return message


def body_of(message: Message) -> bytes:
    """A message as a JSON body in one line; fields that cannot be absent are written with their defaults too."""
    document = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _members_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UnreadableRequestError(WHOLE, f"has the key {_shown(twice)} twice in one object")
    return members


def _refuse_word(word: str) -> NoReturn:
    raise UnreadableRequestError(WHOLE, f"must be JSON, which has no {word}")


def _refuse_lone_surrogates(document: dict[str, Any]) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UnreadableRequestError(WHOLE, "has half of a surrogate pair, which is no character") from error
    except RecursionError as error:
        raise UnreadableRequestError(WHOLE, "is nested too deeply") from error


def _byte(text: str, position: int) -> int:
    return len(text[:position].encode())


def _shown(value: object) -> str:
    """A value for an error message: of a large one only the beginning."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value[:SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


class _Wrong(Exception):
    """What is wrong at a place within a message. The path is put together on the way out: all that is right needs none."""

    def __init__(self, description: str, path: str = "") -> None:
        self.description = description
        self.path = path
        super().__init__(description)

    def within(self, place: str) -> "_Wrong":
        joint = "" if not self.path or self.path.startswith("[") else "."
        return _Wrong(self.description, f"{place}{joint}{self.path}")


class _Member(NamedTuple):
    """A field of a message: its name in the contract, the choice that it belongs to, and what its value must be."""

    name: str
    choice: str
    check: Check


class _Form:
    """What an object must be to say a message of one type."""

    def __init__(self, descriptor: Descriptor, *, known_only: bool) -> None:
        self._descriptor = descriptor
        self._known_only = known_only

    @cached_property
    def _members(self) -> Mapping[str, _Member]:
        """By each of their two names. Made when first asked for, as a message may hold its own kind."""
        found = {}
        for field in self._descriptor.fields:
            choice = field.containing_oneof.name if field.containing_oneof is not None else ""
            member = _Member(field.name, choice, _check_of(field, known_only=self._known_only))
            found[field.name] = found[field.json_name] = member
        return found

    def check(self, value: Any) -> None:
        """Raises _Wrong if it is something else."""
        if not isinstance(value, dict):
            raise _Wrong(f"must be an object; got {_shown(value)}")
        members = self._members
        # By the contract's name, what was called by it here.
        seen: dict[str, str] = {}
        chosen: dict[str, str] = {}
        for key, inner in value.items():
            member = members.get(key)
            if member is None:
                if self._known_only:
                    self._refuse_unknown(key)
                continue
            if (before := seen.setdefault(member.name, key)) is not key:
                raise _Wrong(f"is there twice, as {before} and as {key}", member.name)
            # As if it were not there.
            if inner is None:
                continue
            if member.choice and (other := chosen.setdefault(member.choice, member.name)) is not member.name:
                raise _Wrong(f"cannot be there together with {other}", member.name)
            try:
                member.check(inner)
            except _Wrong as wrong:
                raise wrong.within(member.name) from None

    def _refuse_unknown(self, key: str) -> NoReturn:
        name = self._descriptor.name
        if _FIELD_NAME.match(key) is not None:
            raise _Wrong(f"is no field of {name} that this version knows", key)
        raise _Wrong(f"has a key {_shown(key)}, which is no field of {name} that this version knows")


@cache
def _form_of(descriptor: Descriptor, known_only: bool) -> _Form:
    return _Form(descriptor, known_only=known_only)


def _check_of(field: FieldDescriptor, *, known_only: bool) -> Check:
    """What a field's value must be, if it is not null."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map(_one(field.message_type.fields_by_name["value"], known_only=known_only))
    one = _one(field, known_only=known_only)
    return _list(one) if field.is_repeated else one


def _one(field: FieldDescriptor, *, known_only: bool) -> Check:
    kind = field.cpp_type
    if field.message_type is not None:
        if field.message_type.full_name in _WRITTEN_AS_TEXT:
            return _text_of(field.message_type)
        return _form_of(field.message_type, known_only).check
    if field.enum_type is not None:
        return _enum(field.enum_type, known_only=known_only)
    if kind in _RANGES:
        return _integer(*_RANGES[kind])
    if kind in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return _check_number
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _check_bool
    return _check_base64 if field.type == FieldDescriptor.TYPE_BYTES else _check_text


def _map(check: Check) -> Check:
    def check_map(value: Any) -> None:
        if not isinstance(value, dict):
            raise _Wrong(f"must be an object; got {_shown(value)}")
        for key, inner in value.items():
            try:
                if inner is None:
                    raise _Wrong("must not be null")
                check(inner)
            except _Wrong as wrong:
                raise wrong.within(f"[{_shown(key)}]") from None

    return check_map


def _list(check: Check) -> Check:
    def check_list(value: Any) -> None:
        if not isinstance(value, list):
            raise _Wrong(f"must be a list; got {_shown(value)}")
        for index, inner in enumerate(value):
            try:
                if inner is None:
                    raise _Wrong("must not be null")
                check(inner)
            except _Wrong as wrong:
                raise wrong.within(f"[{index}]") from None

    return check_list


def _text_of(descriptor: Descriptor) -> Check:
    kind: Any = GetMessageClass(descriptor)

    def check_text_of(value: Any) -> None:
        _check_text(value)
        try:
            kind().FromJsonString(value)
        except (ValueError, OverflowError) as error:
            raise _Wrong(f"must be a {descriptor.name} in its text form; got {_shown(value)}") from error

    return check_text_of


def _enum(descriptor: EnumDescriptor, *, known_only: bool) -> Check:
    is_integer = _integer(*_RANGES[FieldDescriptor.CPPTYPE_INT32])

    def check_enum(value: Any) -> None:
        if isinstance(value, str):
            # A name with digits alone would be taken for a number.
            if value not in descriptor.values_by_name and (known_only or _FIELD_NAME.match(value) is None):
                raise _Wrong(f"must be a name or a number of {descriptor.name}; got {_shown(value)}")
            return
        is_integer(value)

    return check_enum


def _integer(least: int, most: int) -> Check:
    def check_integer(value: Any) -> None:
        number = value
        if isinstance(value, str) and _INTEGER.match(value) is not None:
            number = int(value)
        elif isinstance(value, bool | str) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
            raise _Wrong(f"must be a whole number; got {_shown(value)}")
        if not least <= number <= most:
            raise _Wrong(f"must be {least} to {most}; got {_shown(value)}")
        if abs(number) > EXACT and not isinstance(value, str):
            raise _Wrong(f"must be in quotes, as every number beyond {EXACT}: many read it as another; got {_shown(value)}")

    return check_integer


def _check_number(value: Any) -> None:
    if isinstance(value, str):
        good = value in _WORDS_FOR_NUMBERS or (_NUMBER.match(value) is not None and math.isfinite(float(value)))
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not good:
        raise _Wrong(f"must be a number; got {_shown(value)}")


def _check_bool(value: Any) -> None:
    if not isinstance(value, bool):
        raise _Wrong(f"must be true or false; got {_shown(value)}")


def _check_text(value: Any) -> None:
    if not isinstance(value, str):
        raise _Wrong(f"must be a text; got {_shown(value)}")


def _check_base64(value: Any) -> None:
    if not isinstance(value, str) or _BASE64.match(value) is None or len(value.rstrip("=")) % 4 == 1:
        raise _Wrong(f"must be bytes in base64; got {_shown(value)}")
