"""One byte of a signed call that is not as it was: every byte there is, in every way that whoever is on the way can carry.

It knows nothing of how calls are sent, so the same flips can be sent as gRPC, or by HTTP through whatever stands before.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from .wire import Wire

# Each bit alone, the lower half, and all.
PATTERNS = (*(1 << bit for bit in range(8)), 0x0F, 0xFF)
ANY_BYTE = range(256)
# What the value of an entry, and a path, can be made of; all else the library of whoever sends it refuses.
PRINTABLE = range(0x20, 0x7F)
IN_PATHS = range(0x21, 0x7F)
IN_NAMES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")


@dataclass(frozen=True, slots=True)
class Flip:
    """A call with one byte changed: in which part of it, which byte, and the bits."""

    part: str
    position: int
    pattern: int
    wire: Wire

    def __str__(self) -> str:
        return f"{self.part}, byte {self.position} ^ {self.pattern:#04x}"


def flips(call: Wire) -> Iterator[Flip]:
    """All there are: of the body, of each entry's value and name, and of the path."""
    for position, pattern, body in _flipped(call.body, ANY_BYTE):
        yield Flip("body", position, pattern, call.altered(body=body))
    for index, (name, value) in enumerate(call.headers):
        before, after = call.headers[:index], call.headers[index + 1 :]
        for position, pattern, altered in _flipped(value.encode(), PRINTABLE):
            # Blanks at the ends are no part of a value in HTTP; here there are none to lose.
            if altered.strip() == altered:
                yield Flip(name, position, pattern, call.altered(headers=(*before, (name, altered.decode()), *after)))
        for position, pattern, altered in _flipped(name.encode(), IN_NAMES):
            if not altered.endswith(b"-bin"):
                headers = (*before, (altered.decode(), value), *after)
                yield Flip(f"name of {name}", position, pattern, call.altered(headers=headers))
    for position, pattern, path in _flipped(call.path.encode(), IN_PATHS):
        yield Flip("path", position, pattern, call.altered(path=path.decode()))


def positions(call: Wire) -> int:
    """How many bytes a call has, of what is flipped."""
    return len(call.body) + len(call.path) + sum(len(name) + len(value) for name, value in call.headers)


def covered(made: Iterable[Flip]) -> int:
    """At how many positions there was a flip."""
    return len({(flip.part, flip.position) for flip in made})


def _flipped(data: bytes, allowed: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
    for position, byte in enumerate(data):
        for pattern in PATTERNS:
            if (changed := byte ^ pattern) in allowed:
                yield position, pattern, data[:position] + bytes((changed,)) + data[position + 1 :]
