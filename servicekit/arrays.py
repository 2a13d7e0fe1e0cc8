"""Array parameters of statements, written in Postgres' binary format at the speed of C.

The driver writes a plain list element by element, as text, and Postgres parses it again: for a batch of thousands of rows that
is a large part of the whole submit. A wrapper says the element type beforehand, so that all elements are packed in a few calls:

    await database.statement(SQL["enter"], {"ids": Uuids(ids), "at": Timestamps(deadlines)})

None is an SQL NULL in every one of them. A value that its type cannot hold raises psycopg.DataError, as text with a NUL
character does when Postgres sees it.
"""

import struct
from array import array
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

T = TypeVar("T")

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NULL = struct.pack("!i", -1)
# Dimensions, whether there may be NULLs, element type, elements, first index.
_HEADER = struct.Struct("!iiIii")
_EMPTY = struct.Struct("!iiI")
_length = struct.Struct("!i").pack
# Most texts are short: a look-up beats a call.
_LENGTHS = [_length(size) for size in range(512)]
_BOOLS = {False: b"\0\0\0\1\0", True: b"\0\0\0\1\1"}


class _Array(Generic[T]):
    """A list for one parameter; it is read when the statement is sent."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[T | None]) -> None:
        self.values = values


class BigInts(_Array[int]):
    """For bigint[]: -2**63 to 2**63 - 1."""


class Ints(_Array[int]):
    """For integer[]: -2**31 to 2**31 - 1."""


class SmallInts(_Array[int]):
    """For smallint[]: -2**15 to 2**15 - 1."""


class Floats(_Array[float]):
    """For double precision[]."""


class Bools(_Array[bool]):
    """For boolean[]."""


class Texts(_Array[str]):
    """For text[]."""


class Bytes(_Array[bytes]):
    """For bytea[]."""


class Uuids(_Array[UUID]):
    """For uuid[]."""


class Timestamps(_Array[datetime]):
    """For timestamptz[], of datetimes that know their zone; microseconds are kept."""


def _fixed(code: str, unit: str, values: Sequence[Any]) -> bytes:
    """Elements of one struct code, each behind its length.

    Lengths and elements are laid out as units (an array type that divides both) and merged by strided copies, which are several
    times as fast as one call for each element.
    """
    size = struct.calcsize(f"!{code}")
    packed = array(unit, struct.pack(f"!{len(values)}{code}", *values))
    return _behind_lengths(packed, size)


def _behind_lengths(packed: "array[int]", size: int) -> bytes:
    head = array(packed.typecode, _length(size))
    per_head, per_element = len(head), size // packed.itemsize
    per_both = per_head + per_element
    both = (head + array(packed.typecode, bytes(size))) * (len(packed) // per_element)
    for index in range(per_element):
        both[per_head + index :: per_both] = packed[index::per_element]
    return both.tobytes()


def _big_ints(values: Sequence[int]) -> bytes:
    return _fixed("q", "I", values)


def _ints(values: Sequence[int]) -> bytes:
    return _fixed("i", "I", values)


def _small_ints(values: Sequence[int]) -> bytes:
    return _fixed("h", "H", values)


def _floats(values: Sequence[float]) -> bytes:
    return _fixed("d", "I", values)


def _timestamps(values: Sequence[datetime]) -> bytes:
    return _fixed("q", "I", [(value - _EPOCH) // _MICROSECOND for value in values])


def _bools(values: Sequence[bool]) -> bytes:
    return b"".join(map(_BOOLS.__getitem__, values))


def _uuids(values: Sequence[UUID]) -> bytes:
    # What UUID.bytes does, without the call of a property.
    return _behind_lengths(array("I", b"".join([value.int.to_bytes(16, "big") for value in values])), 16)


def _variable(values: Sequence[bytes]) -> bytes:
    parts = [b""] * (2 * len(values))
    try:
        parts[::2] = map(_LENGTHS.__getitem__, map(len, values))
    except IndexError:
        parts[::2] = map(_length, map(len, values))
    parts[1::2] = values
    return b"".join(parts)


def _texts(values: Sequence[str]) -> bytes:
    return _variable([value.encode() for value in values])


def _with_nulls(values: Sequence[Any], elements: Callable[[Sequence[Any]], bytes]) -> bytes:
    """As `elements`, where some values are None."""
    packed = elements([value for value in values if value is not None])
    parts = []
    begin = 0
    for value in values:
        if value is None:
            parts.append(_NULL)
            continue
        end = begin + 4 + int.from_bytes(packed[begin : begin + 4], "big")
        parts.append(packed[begin:end])
        begin = end
    return b"".join(parts)


class _ArrayDumper(Dumper):
    """Writes one wrapper; `oid` and `element_oid` are Postgres' own numbers of the array and of its elements."""

    format = Format.BINARY
    element_oid: ClassVar[int]
    elements: ClassVar[Callable[[Sequence[Any]], bytes]]

    def dump(self, obj: _Array[Any]) -> bytes:
        kind = type(self)
        values = obj.values
        if not values:
            return _EMPTY.pack(0, 0, kind.element_oid)
        nulls = any(value is None for value in values)
        try:
            packed = _with_nulls(values, kind.elements) if nulls else kind.elements(values)
        except (struct.error, TypeError, AttributeError, LookupError, UnicodeEncodeError) as error:
            msg = f"{type(obj).__name__} cannot hold one of its values: {error}"
            raise psycopg.DataError(msg) from error
        return _HEADER.pack(1, int(nulls), kind.element_oid, len(values), 1) + packed


def _register(wrapper: type[_Array[Any]], name: str, elements: Callable[[Sequence[Any]], bytes]) -> None:
    info = psycopg.adapters.types[name]
    members = {"oid": info.array_oid, "element_oid": info.oid, "elements": staticmethod(elements)}
    psycopg.adapters.register_dumper(wrapper, type(f"{wrapper.__name__}Dumper", (_ArrayDumper,), members))


_register(BigInts, "int8", _big_ints)
_register(Ints, "int4", _ints)
_register(SmallInts, "int2", _small_ints)
_register(Floats, "float8", _floats)
_register(Bools, "bool", _bools)
_register(Texts, "text", _texts)
_register(Bytes, "bytea", _variable)
_register(Uuids, "uuid", _uuids)
_register(Timestamps, "timestamptz", _timestamps)
