"""The curve of Ed25519 in plain numbers: slow, and able to make the keys and signatures that no honest signer makes.

For the vectors alone. Names are those of RFC 8032: A the key, R and S the signature, k the hash, B the base point, L its order.
"""

import hashlib
from itertools import count

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, PRIME) % PRIME
_SIGN = 1 << 255

Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def add(first: Point, second: Point) -> Point:
    """The sum of two points."""
    (x, y), (u, v) = first, second
    product = _D * x * y * u * v
    return (
        (x * v + u * y) * pow(1 + product, -1, PRIME) % PRIME,
        (y * v + x * u) * pow(1 - product, -1, PRIME) % PRIME,
    )


def times(scalar: int, point: Point) -> Point:
    """The point added to itself so many times."""
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def negative(point: Point) -> Point:
    """What gives the neutral point with it."""
    return -point[0] % PRIME, point[1]


def point_at(y: int) -> Point | None:
    """The point with this y and an even x, if there is one."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if x * x % PRIME != square:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    if x * x % PRIME != square:
        return None
    return (PRIME - x if x & 1 else x), y


def encoded(point: Point) -> bytes:
    """Its 32 bytes: y, and the lowest bit of x in the highest bit."""
    x, y = point
    return (y | (x & 1) * _SIGN).to_bytes(32, "little")


def second_encodings(point: Point) -> list[bytes]:
    """The other ways to write a point: y not below the prime, or a sign where x is 0. Most points have none."""
    x, y = point
    signs = (0, _SIGN) if x == 0 else ((x & 1) * _SIGN,)
    heights = (y, y + PRIME) if y < 2**255 - PRIME else (y,)
    every = [(height | sign).to_bytes(32, "little") for height in heights for sign in signs]
    return [encoding for encoding in every if encoding != encoded(point)]


def _base() -> Point:
    point = point_at(4 * pow(5, -1, PRIME) % PRIME)
    assert point is not None
    return point


def _torsion() -> list[Point]:
    """The eight points of small order, as multiples of one of order 8."""
    for y in count(2):
        point = point_at(y)
        if point is not None:
            small = times(ORDER, point)
            if times(4, small) != NEUTRAL:
                return [times(multiple, small) for multiple in range(8)]
    raise AssertionError


BASE = _base()
TORSION = _torsion()


def hash_of(r: bytes, a: bytes, text: bytes) -> int:
    """The number k, reduced."""
    return int.from_bytes(hashlib.sha512(r + a + text).digest(), "little") % ORDER


def secret_of(seed: bytes) -> int:
    """The secret scalar of a private key."""
    number = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return number & ((1 << 254) - 8) | 1 << 254


def signature(r: bytes, s: int) -> bytes:
    """Its 64 bytes."""
    return r + s.to_bytes(32, "little")
