"""Records of an audit file, as they are read: every member there, of its type and form, and none else."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from colonies.audit.lines import VERSION, canonical

_INT64 = range(-(2**63), 2**63)
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_HEX128 = re.compile(r"[0-9a-f]{128}\Z")
_NONCE = re.compile(r"[0-9a-f]{32}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_CLUSTER = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_WORD = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")
_ROLE = re.compile(r"(?:colony_owner|user|executor)\Z")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_METHOD = re.compile(r"/[A-Za-z0-9_.]{1,256}/[A-Za-z0-9_]{1,256}(?:\+json)?\Z")
_LABEL_LENGTH = 80

Check = Callable[[Any], bool]
Record = Mapping[str, Any]


class MalformedError(ValueError):
    """A line is no record; says why."""


def _fits(pattern: re.Pattern[str], *, empty: bool = False) -> Check:
    return lambda value: isinstance(value, str) and (pattern.match(value) is not None or (empty and not value))


def _between(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_moment_or_none(value: object) -> bool:
    return value is None or (type(value) is int and value in _INT64)


_INT = _between(_INT64.start, _INT64.stop - 1)
_COUNT = _between(0, 2**53)
_NUMBER = _between(1, 2**53)
_STATE = _between(0, 5)
_DIGEST = _fits(_HEX64)
_DIGEST_OR_NONE = _fits(_HEX64, empty=True)
_SCOPE: Mapping[str, Check] = {
    "process_ids": _list_of(_fits(_UUID)),
    "workflow_ids": _list_of(_fits(_UUID)),
    "since_us": _is_moment_or_none,
    "before_us": _is_moment_or_none,
}


def _is_scope(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == _SCOPE.keys() and all(_SCOPE[name](value[name]) for name in _SCOPE)


# Every record: its members and the form of each. "record" itself comes on top.
_FORMS: Mapping[str, Mapping[str, Check]] = {
    "header": {
        "version": _between(VERSION, VERSION),
        "cluster": _fits(_CLUSTER),
        "colony": _fits(_NAME),
        "owner": _DIGEST_OR_NONE,
        "asked_by": _DIGEST,
        "time_ms": _COUNT,
        "scope": _is_scope,
    },
    "membership": {
        "number": _NUMBER,
        "at_us": _COUNT,
        "kind": _fits(_WORD),
        "identity": _DIGEST,
        "key": _DIGEST,
        "role": _fits(_ROLE),
        "name": _fits(_NAME, empty=True),
        "calls": _list_of(_DIGEST),
        "hash": _DIGEST,
    },
    "call": {
        "digest": _DIGEST,
        "method": _fits(_METHOD),
        "public_key": _DIGEST,
        "time_ms": _between(0, 10**15 - 1),
        "nonce": _fits(_NONCE),
        "signature": _fits(_HEX128),
        "body": _is_text,
    },
    "process": {
        "id": _fits(_UUID),
        "workflow_id": _fits(_UUID, empty=True),
        "initiator": _DIGEST,
        "initiator_name": _fits(_NAME),
        "submitted_us": _COUNT,
        "priority_time": _INT,
        "call": _DIGEST_OR_NONE,
        "place": _COUNT,
        "events": _NUMBER,
    },
    "event": {
        "process": _fits(_UUID),
        "number": _NUMBER,
        "at_us": _COUNT,
        "from": _STATE,
        "to": _STATE,
        "attempt": _between(0, 2**31 - 1),
        "executor_name": _fits(_NAME, empty=True),
        "actor": _DIGEST_OR_NONE,
        "reason": _fits(_WORD),
        "outcome": _between(0, 6),
        "errors": _list_of(_is_text),
        "call": _DIGEST_OR_NONE,
        "output_call": _DIGEST_OR_NONE,
        "hash": _DIGEST_OR_NONE,
    },
    "seal": {"records": _COUNT, "public_key": _DIGEST, "time_ms": _COUNT, "signature": _fits(_HEX128)},
}


def _no_number(text: str) -> NoReturn:
    msg = f"{text[:_LABEL_LENGTH]} is no number that this format has"
    raise MalformedError(msg)


_DECODER = json.JSONDecoder(parse_float=_no_number, parse_constant=_no_number)


def decoded(content: bytes) -> Record:
    """A line's JSON.

    Raises:
        MalformedError: it is no object, or not in the one form that it has.
    """
    try:
        record = _DECODER.decode(content.decode("utf-8"))
        same = isinstance(record, dict) and canonical(record) == content
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        msg = f"is no JSON of this format: {str(error)[:_LABEL_LENGTH]}"
        raise MalformedError(msg) from error
    if not isinstance(record, dict):
        msg = "is no JSON object"
        raise MalformedError(msg)
    if not same:
        msg = "is JSON, but not in its canonical form"
        raise MalformedError(msg)
    return record


def check_form(record: Record) -> str:
    """The record's kind, all its members being of the right form.

    Raises:
        MalformedError: they are not; names the first member that is not.
    """
    kind = record.get("record")
    form = _FORMS.get(kind) if isinstance(kind, str) else None
    if form is None or not isinstance(kind, str):
        msg = f"there is no record {str(kind)[:_LABEL_LENGTH]!r}"
        raise MalformedError(msg)
    if len(record) != len(form) + 1 or not form.keys() <= record.keys():
        odd = sorted((form.keys() | {"record"}) ^ record.keys())
        msg = f"a {kind} has just its members; missing or strange: {', '.join(odd)[:_LABEL_LENGTH]}"
        raise MalformedError(msg)
    for name, check in form.items():
        if not check(record[name]):
            msg = f"the member {name!r} of a {kind} is not of its form"
            raise MalformedError(msg)
    return kind


def label(record: Record) -> str:
    """What a record is about, for people. It need not be well-formed."""

    def short(name: str) -> str:
        return str(record.get(name))[:_LABEL_LENGTH]

    match record.get("record"):
        case "event":
            return f"event {short('number')} of process {short('process')} ({short('reason')})"
        case "process":
            return f"process {short('id')}"
        case "call":
            return f"call {short('digest')} ({short('method').rpartition('/')[2]})"
        case "membership":
            return f"membership event {short('number')} ({short('kind')} {short('name')})"
        case "header" | "seal":
            return f"the {short('record')}"
        case _:
            return "no record"


@dataclass(frozen=True, slots=True)
class Line:
    """A record with its number in the file, from 1."""

    number: int
    record: Record

    @property
    def label(self) -> str:
        """What it is about."""
        return label(self.record)
