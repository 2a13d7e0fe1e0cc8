"""Keys and signatures that no honest signer makes, each for a text: what libraries let through, and what they must not."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import count

import edwards25519 as curve
from texts import ALICE

# Makes a signature of a text that is right but for one thing.
Forger = Callable[[bytes], bytes]

_SECRET = curve.secret_of(ALICE.seed)
_KEY = curve.times(_SECRET, curve.BASE)
assert curve.encoded(_KEY) == ALICE.public


def small_keys() -> Iterator[tuple[str, bytes]]:
    """Every encoding of every point of small order, under a name."""
    for multiple, point in enumerate(curve.TORSION):
        yield f"{multiple}", curve.encoded(point)
        for number, encoding in enumerate(curve.second_encodings(point), 1):
            yield f"{multiple}_in_another_encoding_{number}", encoding


def under_small_key(key: bytes) -> Forger:
    """Anybody's signature, wrong in nothing but its key: R is S times the base point, and k times the key is nothing."""
    point = next(point for point in curve.TORSION if key in {curve.encoded(point), *curve.second_encodings(point)})

    def forge(text: bytes) -> bytes:
        for secret in count(1):
            r = curve.encoded(curve.times(secret, curve.BASE))
            if curve.times(curve.hash_of(r, key, text), point) == curve.NEUTRAL:
                return curve.signature(r, secret)
        raise AssertionError

    return forge


def by_alice(r: bytes, secret: int = 0) -> Forger:
    """Alice's signature with an R of choice, of which `secret` is the multiple of the base point."""
    return lambda text: curve.signature(r, (secret + curve.hash_of(r, ALICE.public, text) * _SECRET) % curve.ORDER)


NEUTRAL = curve.encoded(curve.NEUTRAL)
NEUTRAL_AGAIN = curve.second_encodings(curve.NEUTRAL)
MIXED_R = by_alice(curve.encoded(curve.add(curve.times(5, curve.BASE), curve.TORSION[1])), 5)
# Alice's key and a point of order 8: a key whose holder had to make it so.
MIXED_KEY = curve.encoded(curve.add(_KEY, curve.TORSION[1]))
# y = 3 and y = 4 are on the curve; nobody knows a private key for them.
NOBODYS_KEYS = [encoding for y in (3, 4) for encoding in curve.second_encodings(curve.point_at(y) or curve.NEUTRAL)]


def under_mixed_key(*, fits: bool, fits_unreduced: bool) -> Forger:
    """A signature under the mixed key, for which the equation holds up to a point of small order.

    Args:
        fits: whether it holds altogether, with k reduced modulo L as every library does.
        fits_unreduced: whether it would with all 64 bytes of k.
    """

    def forge(text: bytes) -> bytes:
        for secret in count(1):
            r = curve.encoded(curve.times(secret, curve.BASE))
            k = curve.hash_of(r, MIXED_KEY, text)
            whole = int.from_bytes(hashlib.sha512(r + MIXED_KEY + text).digest(), "little")
            if (k % 8 == 0, whole % 8 == 0) == (fits, fits_unreduced):
                return curve.signature(r, (secret + k * _SECRET) % curve.ORDER)
        raise AssertionError

    return forge
