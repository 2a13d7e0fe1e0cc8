"""Ed25519 signatures, checked strictly: one key has one encoding, and no key fits more than its own signatures."""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from colonies.keys import PUBLIC_KEY_BYTES, identity_of

# Y coordinates of the curve's points of small order: under such a key anybody can make signatures that fit any text. Encodings
# of the prime 2^255 - 19 and above, which stand for small ones, are refused altogether.
_PRIME = 2**255 - 19
_Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = frozenset({0, 1, _Y_OF_ORDER_8, _PRIME - _Y_OF_ORDER_8, _PRIME - 1})


@lru_cache(maxsize=10_000)
def _key(public_key: bytes) -> tuple[Ed25519PublicKey, str]:
    """A key and its identity. Raises ValueError, which is not kept, for what is no key, or none to rely on."""
    # The highest bit is the sign of x; what is left is y.
    y = int.from_bytes(public_key, "little") % 2**255
    if len(public_key) != PUBLIC_KEY_BYTES or y >= _PRIME or y in _SMALL_ORDER:
        raise ValueError
    return Ed25519PublicKey.from_public_bytes(public_key), identity_of(public_key)


def signer_of(public_key: bytes, signature: bytes, text: bytes) -> str | None:
    """The identity of a raw public key, if it signed the text."""
    try:
        key, identity = _key(public_key)
        key.verify(signature, text)
    except (InvalidSignature, ValueError):
        return None
    return identity
