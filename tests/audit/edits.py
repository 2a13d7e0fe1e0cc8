"""Random single edits of a file, such as accidents and meddlers make. Each changes something."""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """An edited file: what was done, and the first line (from 1) that is not as it was."""

    name: str
    data: bytes
    line: int


def flip_bit(data: bytes, dice: random.Random) -> bytes:
    place, bit = dice.randrange(len(data)), dice.randrange(8)
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def change_byte(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data))
    return data[:place] + bytes([(data[place] + dice.randrange(1, 256)) % 256]) + data[place + 1 :]


def drop_bytes(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data))
    return data[:place] + data[place + dice.randint(1, 400) :]


def insert_bytes(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data) + 1)
    return data[:place] + dice.randbytes(dice.randint(1, 40)) + data[place:]


def swap_bytes(data: bytes, dice: random.Random) -> bytes:
    one, other = sorted(dice.sample(range(len(data)), 2))
    return data[:one] + data[other : other + 1] + data[one + 1 : other] + data[one : one + 1] + data[other + 1 :]


def truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def drop_line(data: bytes, dice: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[dice.randrange(len(lines))]
    return b"".join(lines)


def swap_lines(data: bytes, dice: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    one, other = dice.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def duplicate_line(data: bytes, dice: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
    return b"".join(lines)


def insert_line(data: bytes, dice: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(dice.randrange(len(lines) + 1), dice.randbytes(32).hex().encode() + b' {"record":"event"}\n')
    return b"".join(lines)


def truncate_lines(data: bytes, dice: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[: dice.randrange(len(lines))])


EDITS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bit,
    change_byte,
    drop_bytes,
    insert_bytes,
    swap_bytes,
    truncate,
    drop_line,
    swap_lines,
    duplicate_line,
    insert_line,
    truncate_lines,
)


def first_difference(one: bytes, other: bytes) -> int:
    """Where two different files part."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def random_edit(data: bytes, seed: int) -> Edit:
    """One edit of a file; the same seed makes the same."""
    dice = random.Random(seed)
    edit = dice.choice(EDITS)
    edited = data
    while edited == data:
        edited = edit(data, dice)
    return Edit(edit.__name__, edited, data.count(b"\n", 0, first_difference(data, edited)) + 1)
