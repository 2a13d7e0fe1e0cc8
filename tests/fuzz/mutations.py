"""Requests that are nearly right: a good one's bytes, changed by a short program of random bytes.

A program is what Hypothesis draws: plain bytes, read as operations and their operands. What a byte means does not matter, but that
the same program makes the same request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = range(6)
MAX_OPERATIONS = 3
# A request that must be small may have 1 MiB; more than that is a rare case, for it costs a hundred others.
LONG = 1_100_000
# No request of ours is deeper; what a mutation nested deeper stays bytes.
MAX_LEVELS = 8

WORDS: Sequence[bytes] = (
    b"", b"\0", b"a\0b", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", "ä\u0301\u202e\U0001f600".encode(), b" ", b"\n", b"' OR 1=1 --", b"%s%n{}$(x)",
    b"../../etc/passwd", b"a" * 63, b"a" * 64, b"A" * 255, b"x" * 70_000, b"0" * 64, b"f" * 64, b"g" * 64, b"-1", b"NaN", b"1e999", b"0x10",
    b"123e4567-e89b-12d3-a456-426614174000", b"123E4567-E89B-12D3-A456-426614174000", b"{123e4567e89b12d3a456426614174000}",
    b"ACME", b"acme\0", b"umbrella", b"decoy", b"* * * * *", b"0 0 30 2 *", b"@yearly", b"eyJhIjoxfQ==", b"999999999Gi", b"1Gi", b"*",
)  # fmt: skip
NUMBERS = (0, 1, 2, 5, 127, 128, 1_000, 10_001, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)


class Program:
    """Bytes that are read one after the other; what is beyond their end is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def below(self, bound: int) -> int:
        """A number from 0 to below `bound`."""
        return int.from_bytes(self.take(3), "little") % max(bound, 1)

    def take(self, count: int) -> bytes:
        """So many bytes."""
        taken = self._data[self._position : self._position + count]
        self._position += count
        return taken.ljust(count, b"\0")

    def rest(self) -> bytes:
        """All that has not been read."""
        taken = self._data[self._position :]
        self._position = len(self._data)
        return taken


@dataclass(slots=True)
class Field:
    """One field as it is on the wire; `parts` if its bytes can be read as a message."""

    number: int
    kind: int
    payload: bytes
    parts: "list[Field] | None" = None

    def encoded(self) -> bytes:
        """The field's bytes."""
        tag = varint(self.number << 3 | self.kind)
        if self.kind != LENGTH:
            return tag + self.payload
        payload = self.payload if self.parts is None else encoded(self.parts)
        return tag + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    """A number in base 128."""
    out = bytearray()
    while True:
        out.append(number & 127 | (128 if number > 127 else 0))
        number >>= 7
        if not number:
            return bytes(out)


def encoded(fields: Sequence[Field]) -> bytes:
    """The bytes of a message."""
    return b"".join(field.encoded() for field in fields)


def decoded(body: bytes, levels: int = MAX_LEVELS) -> list[Field] | None:
    """The fields of a message, and of what in it looks like one; None if these bytes are none."""
    fields: list[Field] = []
    position = 0
    while position < len(body):
        tag, position = _read_varint(body, position)
        number, kind = tag >> 3, tag & 7
        if position < 0 or number == 0:
            return None
        if kind == VARINT:
            _, end = _read_varint(body, position)
            start = position
        elif kind == LENGTH:
            length, start = _read_varint(body, position)
            end = start + length if start >= 0 else -1
        elif kind in {FIXED32, FIXED64}:
            start, end = position, position + (4 if kind == FIXED32 else 8)
        else:
            return None
        if end < 0 or end > len(body):
            return None
        payload = body[start:end]
        fields.append(
            Field(number, kind, payload, (decoded(payload, levels - 1) or None) if kind == LENGTH and levels else None)
        )
        position = end
    return fields


def _read_varint(body: bytes, position: int) -> tuple[int, int]:
    """A number and the position after it; -1 if there is none."""
    number = shift = 0
    while position < len(body) and shift < 70:
        byte = body[position]
        number |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return number, position
        shift += 7
    return 0, -1


def mutated(body: bytes, program: Program) -> bytes:
    """A request after one to three changes."""
    for _ in range(1 + program.byte() % MAX_OPERATIONS):
        body = _OPERATIONS[program.byte() % len(_OPERATIONS)](body, program)
    return body


def _flip(body: bytes, program: Program) -> bytes:
    if not body:
        return body
    changed = bytearray(body)
    changed[program.below(len(body))] ^= 1 << program.byte() % 8
    return bytes(changed)


def _cut(body: bytes, program: Program) -> bytes:
    return body[: program.below(len(body) + 1)]


def _insert(body: bytes, program: Program) -> bytes:
    at = program.below(len(body) + 1)
    return body[:at] + program.take(1 + program.byte() % 8) + body[at:]


def _delete(body: bytes, program: Program) -> bytes:
    at = program.below(len(body) + 1)
    return body[:at] + body[at + 1 + program.byte() % 8 :]


def _twice(body: bytes, program: Program) -> bytes:
    start = program.below(len(body) + 1)
    return body + body[start:]


def _unknown(body: bytes, program: Program) -> bytes:
    number = (16, 1_000, 19_500, 2**29 - 1)[program.byte() % 4]
    kind = (VARINT, LENGTH, FIXED32, FIXED64)[program.byte() % 4]
    size = {VARINT: 1, LENGTH: 2, FIXED32: 4, FIXED64: 8}[kind]
    return body + varint(number << 3 | kind) + (b"\x01" * size)


def _nested(body: bytes, program: Program) -> bytes:
    """Groups, or messages in messages, far deeper than any parser goes."""
    depth = (50, 99, 101, 5_000)[program.byte() % 4]
    number = 1 + program.byte() % 12
    if program.byte() % 2:
        return body + varint(number << 3 | START_GROUP) * depth + varint(number << 3 | END_GROUP) * depth
    inner = b""
    for _ in range(min(depth, 1_000)):
        inner = varint(number << 3 | LENGTH) + varint(len(inner)) + inner
    return body + inner


def _many(body: bytes, program: Program) -> bytes:
    """One field thousands of times: as a list, or as what the last of wins."""
    number = 1 + program.byte() % 12
    return body + (varint(number << 3 | LENGTH) + b"\x00") * (1_001, 10_001)[program.byte() % 2]


def _long(body: bytes, program: Program) -> bytes:
    size = LONG if program.byte() < 4 else 5_000
    number = 1 + program.byte() % 12
    return body + varint(number << 3 | LENGTH) + varint(size) + b"y" * size


def _in_fields(change: Callable[[list[Field], int, Program], None]) -> Callable[[bytes, Program], bytes]:
    """A change of one field somewhere in the message."""

    def operation(body: bytes, program: Program) -> bytes:
        fields = decoded(body)
        if not fields:
            return _insert(body, program)
        among = fields
        index = program.below(len(among))
        while (parts := among[index].parts) and program.byte() % 4:
            among, index = parts, program.below(len(parts))
        change(among, index, program)
        return encoded(fields)

    return operation


def _other_word(fields: list[Field], index: int, program: Program) -> None:
    word = WORDS[program.byte() % len(WORDS)]
    fields[index] = Field(fields[index].number, LENGTH, word)


def _other_number(fields: list[Field], index: int, program: Program) -> None:
    number = NUMBERS[program.byte() % len(NUMBERS)]
    fields[index] = Field(fields[index].number, VARINT, varint(number))


def _overlong(fields: list[Field], index: int, program: Program) -> None:
    # Ten bytes are a varint's most; the eleventh is one too many.
    fields[index] = Field(fields[index].number, VARINT, b"\xff" * (8 + program.byte() % 4) + b"\x01")


def _other_kind(fields: list[Field], index: int, program: Program) -> None:
    fields[index].kind = program.byte() % 8
    fields[index].parts = None


def _other_field(fields: list[Field], index: int, program: Program) -> None:
    fields[index].number = 1 + program.byte() % 16


def _without(fields: list[Field], index: int, _program: Program) -> None:
    del fields[index]


def _doubled(fields: list[Field], index: int, program: Program) -> None:
    fields.insert(program.below(len(fields) + 1), fields[index])


def _random_word(fields: list[Field], index: int, program: Program) -> None:
    fields[index] = Field(fields[index].number, LENGTH, program.take(program.byte() % 24))


# These know nothing of what the bytes mean.
OF_ANY_BYTES: Sequence[Callable[[bytes, Program], bytes]] = (_flip, _cut, _insert, _delete, _twice)
_OPERATIONS: Sequence[Callable[[bytes, Program], bytes]] = (
    *OF_ANY_BYTES, _unknown, _nested, _many, _long,
    *(
        _in_fields(change)
        for change in (_other_word, _other_word, _other_number, _other_number, _overlong, _other_kind, _other_field, _without, _doubled, _random_word)
    ),
)  # fmt: skip
