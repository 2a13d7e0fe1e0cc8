"""Who signed a text: Ed25519 without its loose ends, as protos/vectors/README.md has them.

Libraries differ in what they let through, and all let through some of what the scheme refuses. What it refuses is therefore
refused here, before the library is asked: points of small order, encodings that are not the one of their number, S not below
the order of the group.
"""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from colonies.keys import identity_of

_SIGNATURE_BYTES = 64
_PRIME = 2**255 - 19
# The order of the base point.
_ORDER = 2**252 + 27742317777372353535851937790883648493
# The highest bit of an encoded point is the sign of x; what is left is y.
_SIGN = 1 << 255
_Y = _SIGN - 1

_Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
# With either sign: where x is 0, one of the two is no encoding at all.
_SMALL_ORDER = frozenset(y | sign for y in (0, 1, _Y_OF_ORDER_8, _PRIME - _Y_OF_ORDER_8, _PRIME - 1) for sign in (0, _SIGN))


def _is_sound(point: int) -> bool:
    """Whether an encoded point, read as a number, is encoded in the one right way and not of small order."""
    return point & _Y < _PRIME and point not in _SMALL_ORDER


@lru_cache(maxsize=10_000)
def _key(public_key: bytes) -> tuple[Ed25519PublicKey, str]:
    """A key and its identity. Raises ValueError, which is not kept, for what is no key or one that anybody can sign under."""
    if not _is_sound(int.from_bytes(public_key, "little")):
        raise ValueError
    return Ed25519PublicKey.from_public_bytes(public_key), identity_of(public_key)


def signer_of(public_key: bytes, signature: bytes, text: bytes) -> str | None:
    """The identity of a raw public key, if it signed the text; None for every other key, signature or number of bytes."""
    number = int.from_bytes(signature, "little")
    # R is the lower half, S the upper one.
    if len(signature) != _SIGNATURE_BYTES or number >> 256 >= _ORDER or not _is_sound(number & (_SIGN | _Y)):
        return None
    try:
        key, identity = _key(public_key)
        key.verify(signature, text)
    except (InvalidSignature, ValueError):
        return None
    return identity
