"""Requests in JSON that are nearly right: the bytes of a good one changed, or its members, by the same kind of programs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .mutations import LONG, MAX_OPERATIONS, NUMBERS, OF_ANY_BYTES, WORDS, Program

# What may stand where a value stands, JSON or not.
TOKENS: Sequence[bytes] = (
    b"null", b"true", b"false", b"[]", b"{}", b"[null]", b"[[]]", b'{"":null}', b'""', b"-0", b"0.0", b"1.5", b"1e0", b"1e400", b"-1e400",
    b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x10", b"1_0", b"nul", b"", b" ", b"'a'", b"1" * 400, b"1" * 5_000,
    b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\x41"', b'"a\nb"', b'"1"', b'"-1"', b'"1e3"', b'" 1"', b'"0x1"',
    b'"NaN"', b'"Infinity"', b'"YQ=="', b'"YQ"', b'"Y"', b'"*"', b'"2026-01-01T00:00:00Z"', b'"10000-01-01T00:00:00Z"', b'"5s"', b'"-1e99s"',
    b'{"@type":"type.googleapis.com/google.protobuf.Any"}', b'"PROCESS_STATE_WAITING"', b'"UNSPECIFIED"',
)  # fmt: skip
KEYS = (
    "colonyName",
    "colony_name",
    "onBehalfOf",
    "on_behalf_of",
    "name",
    "specs",
    "x",
    "",
    "@type",
    "[a.b]",
    "\ud800",
    "\0",
    "k" * 300,
)


@dataclass(slots=True)
class Members:
    """An object, whose keys may be there more than once."""

    pairs: list[list[Any]]


Node: TypeAlias = Members | list[Any] | bytes


def read(body: bytes) -> Node | None:
    """The document as something to change; None if it is none, or one that is too deep for that."""
    try:
        return _node(json.loads(body, object_pairs_hook=lambda pairs: Members([[key, value] for key, value in pairs])))
    except (ValueError, RecursionError):
        return None


def _node(value: Any) -> Node:
    if isinstance(value, Members):
        return Members([[key, _node(inner)] for key, inner in value.pairs])
    if isinstance(value, list):
        return [_node(inner) for inner in value]
    return json.dumps(value).encode()


def written(node: Node) -> bytes:
    """The document's bytes."""
    if isinstance(node, Members):
        return b"{" + b",".join(json.dumps(key).encode() + b":" + written(inner) for key, inner in node.pairs) + b"}"
    return b"[" + b",".join(map(written, node)) + b"]" if isinstance(node, list) else node


def mutated(body: bytes, program: Program) -> bytes:
    """A request after one to three changes."""
    for _ in range(1 + program.byte() % MAX_OPERATIONS):
        body = _OPERATIONS[program.byte() % len(_OPERATIONS)](body, program)
    return body


def _in_members(change: Callable[[list[list[Any]], int, Program], None]) -> Callable[[bytes, Program], bytes]:
    """A change of one member of an object, somewhere in the document."""

    def operation(body: bytes, program: Program) -> bytes:
        document = read(body)
        if not isinstance(document, Members) or not document.pairs:
            return OF_ANY_BYTES[0](body, program)
        among = document.pairs
        index = program.below(len(among))
        while (inner := _inside(among[index][1], program)) is not None and program.byte() % 4:
            among, index = inner, program.below(len(inner))
        change(among, index, program)
        return written(document)

    return operation


def _inside(node: Node, program: Program) -> list[list[Any]] | None:
    while isinstance(node, list) and node:
        node = node[program.below(len(node))]
    return node.pairs if isinstance(node, Members) and node.pairs else None


def _other_token(pairs: list[list[Any]], index: int, program: Program) -> None:
    pairs[index][1] = TOKENS[program.byte() % len(TOKENS)]


def _other_word(pairs: list[list[Any]], index: int, program: Program) -> None:
    word = WORDS[program.byte() % len(WORDS)].decode(errors="surrogateescape")
    pairs[index][1] = json.dumps(word, ensure_ascii=bool(program.byte() % 4)).encode(errors="surrogateescape")


def _other_number(pairs: list[list[Any]], index: int, program: Program) -> None:
    number = NUMBERS[program.byte() % len(NUMBERS)] * (-1 if program.byte() % 4 == 0 else 1)
    pairs[index][1] = (f'"{number}"' if program.byte() % 2 else str(number)).encode()


def _other_key(pairs: list[list[Any]], index: int, program: Program) -> None:
    pairs[index][0] = KEYS[program.byte() % len(KEYS)]


def _in_a_list(pairs: list[list[Any]], index: int, _program: Program) -> None:
    pairs[index][1] = [pairs[index][1]]


def _without(pairs: list[list[Any]], index: int, _program: Program) -> None:
    del pairs[index]


def _twice(pairs: list[list[Any]], index: int, program: Program) -> None:
    """Under the same key, or under the field's other name."""
    key, value = pairs[index]
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
    pairs.insert(program.below(len(pairs) + 1), [snake if program.byte() % 2 else key, value])


def _another(pairs: list[list[Any]], _index: int, program: Program) -> None:
    pairs.insert(program.below(len(pairs) + 1), [KEYS[program.byte() % len(KEYS)], TOKENS[program.byte() % len(TOKENS)]])


def _many(pairs: list[list[Any]], index: int, program: Program) -> None:
    # What is long already is not made a gigabyte of.
    most = LONG // (len(written(pairs[index][1])) + 1)
    pairs[index][1] = [pairs[index][1]] * min(most, (101, 1_001, 10_001)[program.byte() % 3])


def _long(pairs: list[list[Any]], index: int, program: Program) -> None:
    pairs[index][1] = b'"' + b"y" * (LONG if program.byte() < 4 else 5_000) + b'"'


def _deep(pairs: list[list[Any]], index: int, program: Program) -> None:
    depth = (50, 101, 999, 20_000)[program.byte() % 4]
    opening, closing = ((b"[", b"]"), (b'{"a":', b"}"))[program.byte() % 2]
    pairs[index][1] = opening * depth + b"0" + closing * depth


def _spaced(body: bytes, program: Program) -> bytes:
    """White space, and what is none, around it."""
    around = (b" ", b"\n", b"\xef\xbb\xbf", b"\0", b"\xc2\xa0", b"//", b"\x1e", b",")[program.byte() % 8]
    return around + body if program.byte() % 2 else body + around


_OPERATIONS: Sequence[Callable[[bytes, Program], bytes]] = (
    *OF_ANY_BYTES,
    _spaced,
    *(
        _in_members(change)
        for change in (
            _other_token, _other_token, _other_word, _other_word, _other_number, _other_number, _other_key, _in_a_list, _without, _twice,
            _another, _many, _long, _deep,
        )
    ),
)  # fmt: skip
