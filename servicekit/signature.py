"""Checks who signed a call, and when. The scheme is specified in protos/vectors/README.md."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from colonies.keys import identity_of
from colonies.signing import (
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    call_text,
    join_text,
)
from servicekit.failures import InvalidArgument, Unauthenticated, Violation

MAX_SKEW_MS = 60_000
MAX_JOIN_AGE_MS = 24 * 3600 * 1000

_FORMATS = {
    KEY_HEADER: re.compile(r"[0-9a-f]{64}\Z"),
    TIME_HEADER: re.compile(r"(?:0|[1-9][0-9]{0,14})\Z"),
    NONCE_HEADER: re.compile(r"[0-9a-f]{32}\Z"),
    SIGNATURE_HEADER: re.compile(r"[0-9a-f]{128}\Z"),
}

# Y coordinates of the curve's points of small order, with the encodings above the prime 2^255 - 19: under such a key anybody
# can make signatures that fit any text, and Ed25519 as such allows it.
_PRIME = 2**255 - 19
_Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = frozenset({0, 1, _Y_OF_ORDER_8, _PRIME - _Y_OF_ORDER_8, _PRIME - 1, _PRIME, _PRIME + 1})


@dataclass(frozen=True, slots=True)
class Signed:
    """What a good signature shows. The nonce has yet to be claimed."""

    identity: str
    nonce: str
    time_ms: int


@lru_cache(maxsize=10_000)
def _public_key(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)


def _signed_by(public_key: bytes, signature: bytes, text: bytes) -> bool:
    # The highest bit is the sign of x; what is left is y.
    if int.from_bytes(public_key, "little") % 2**255 in _SMALL_ORDER:
        return False
    try:
        _public_key(public_key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_call(headers: Mapping[str, str], *, method: str, audience: str, body: bytes, now_ms: int) -> Signed:
    """The identity that signed this call.

    Args:
        headers: the call's metadata.
        method: full method name with its slashes.
        audience: this cluster's id.
        body: the request as it came over the wire.
        now_ms: unix milliseconds.

    Raises:
        Unauthenticated: a header is missing or malformed, the time is off by more than a minute, or the signature is wrong.
    """
    for name, pattern in _FORMATS.items():
        value = headers.get(name)
        if value is None:
            msg = f"the call is not signed: metadata {name} is missing"
            raise Unauthenticated(msg, reason="SIGNATURE_MISSING")
        if pattern.match(value) is None:
            msg = f"the metadata {name} is malformed"
            raise Unauthenticated(msg, reason="SIGNATURE_MALFORMED")
    time_ms = int(headers[TIME_HEADER])
    if abs(now_ms - time_ms) > MAX_SKEW_MS:
        msg = f"signed {(now_ms - time_ms) / 1000:.0f} s ago by this server's clock; at most {MAX_SKEW_MS // 1000} s"
        raise Unauthenticated(msg, reason="SIGNATURE_STALE", metadata={"server_time_ms": str(now_ms)})
    public_key = bytes.fromhex(headers[KEY_HEADER])
    text = call_text(method=method, audience=audience, time_ms=time_ms, nonce=headers[NONCE_HEADER], body=body)
    if not _signed_by(public_key, bytes.fromhex(headers[SIGNATURE_HEADER]), text):
        msg = "the signature does not fit this call, its key and this cluster"
        raise Unauthenticated(msg, reason="SIGNATURE_INVALID")
    return Signed(identity_of(public_key), headers[NONCE_HEADER], time_ms)


@dataclass(frozen=True, slots=True)
class Join:
    """What a new identity agreed to."""

    audience: str
    colony: str
    role: str
    name: str


def check_join(join: Join, *, field: str, public_key: bytes, signature: bytes, time_ms: int, now_ms: int) -> str:
    """The identity that agreed to this membership.

    Args:
        join: the membership.
        field: path of the proof in the request, for the error.
        public_key: raw Ed25519 public key.
        signature: Ed25519 signature of the join text.
        time_ms: unix milliseconds when it was signed.
        now_ms: unix milliseconds.

    Raises:
        InvalidArgument: the proof is malformed, too old, or does not fit.
    """
    if not -MAX_SKEW_MS <= now_ms - time_ms <= MAX_JOIN_AGE_MS:
        raise InvalidArgument([Violation(f"{field}.time_ms", "must be at most 24 hours ago")])
    text = join_text(audience=join.audience, colony=join.colony, role=join.role, name=join.name, time_ms=time_ms)
    if not _signed_by(public_key, signature, text):
        description = f"must sign the role {join.role!r} and the name {join.name!r} in colony {join.colony!r} of this cluster"
        raise InvalidArgument([Violation(f"{field}.signature", description)])
    return identity_of(public_key)
