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
    rotate_text,
)
from servicekit.failures import InvalidArgument, Unauthenticated, Violation

MAX_SKEW_MS = 60_000
MAX_JOIN_AGE_MS = 24 * 3600 * 1000

_FORMATS = {
    KEY_HEADER: r"[0-9a-f]{64}",
    TIME_HEADER: r"(?:0|[1-9][0-9]{0,14})",
    NONCE_HEADER: r"[0-9a-f]{32}",
    SIGNATURE_HEADER: r"[0-9a-f]{128}",
}
# All at once: no format lets a space through.
_ALL_FORMATS = re.compile(" ".join(_FORMATS.values()) + r"\Z")

# Y coordinates of the curve's points of small order, with the encodings above the prime 2^255 - 19: under such a key anybody
# can make signatures that fit any text, and Ed25519 as such allows it.
_PRIME = 2**255 - 19
_Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = frozenset({0, 1, _Y_OF_ORDER_8, _PRIME - _Y_OF_ORDER_8, _PRIME - 1, _PRIME, _PRIME + 1})


@dataclass(frozen=True, slots=True)
class Signed:
    """A call that its caller signed: whose key it was, and all that proves it. The nonce has yet to be claimed.

    `key` is the key's identity; `nonce` and `signature` are hex as in the metadata; `body` is the request as it was sent, and
    `text` what the signature is over.
    """

    key: str
    method: str
    public_key: str
    time_ms: int
    nonce: str
    signature: str
    body: bytes
    text: bytes


@lru_cache(maxsize=10_000)
def _key(public_key: bytes) -> tuple[Ed25519PublicKey, str]:
    """A key and its identity. Raises ValueError, which is not kept, for what is no key or one that anybody can sign under."""
    # The highest bit is the sign of x; what is left is y.
    if int.from_bytes(public_key, "little") % 2**255 in _SMALL_ORDER:
        raise ValueError
    return Ed25519PublicKey.from_public_bytes(public_key), identity_of(public_key)


def _signer(public_key: bytes, signature: bytes, text: bytes) -> str | None:
    """The identity of a key, if it signed the text."""
    try:
        key, identity = _key(public_key)
        key.verify(signature, text)
    except (InvalidSignature, ValueError):
        return None
    return identity


def is_signed(public_key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether the holder of this key signed the text."""
    return _signer(public_key, signature, text) is not None


def _malformed(headers: Mapping[str, str]) -> Unauthenticated:
    """What is wrong with the first header that is missing or malformed."""
    for name, pattern in _FORMATS.items():
        value = headers.get(name)
        if value is None:
            return Unauthenticated(f"the call is not signed: metadata {name} is missing", reason="SIGNATURE_MISSING")
        if re.fullmatch(pattern, value) is None:
            return Unauthenticated(f"the metadata {name} is malformed", reason="SIGNATURE_MALFORMED")
    raise AssertionError


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
    key, time, nonce, signature = map(headers.get, _FORMATS)
    # A header that is missing reads "None", which no format lets through.
    if _ALL_FORMATS.match(f"{key} {time} {nonce} {signature}") is None or not (key and time and nonce and signature):
        raise _malformed(headers)
    time_ms = int(time)
    if abs(now_ms - time_ms) > MAX_SKEW_MS:
        msg = f"signed {(now_ms - time_ms) / 1000:.0f} s ago by this server's clock; at most {MAX_SKEW_MS // 1000} s"
        raise Unauthenticated(msg, reason="SIGNATURE_STALE", metadata={"server_time_ms": str(now_ms)})
    text = call_text(method=method, audience=audience, time_ms=time_ms, nonce=nonce, body=body)
    identity = _signer(bytes.fromhex(key), bytes.fromhex(signature), text)
    if identity is None:
        msg = "the signature does not fit this call, its key and this cluster"
        raise Unauthenticated(msg, reason="SIGNATURE_INVALID")
    return Signed(identity, method, key, time_ms, nonce, signature, body, text)


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
    _check_age(field, time_ms, now_ms)
    text = join_text(audience=join.audience, colony=join.colony, role=join.role, name=join.name, time_ms=time_ms)
    identity = _signer(public_key, signature, text)
    if identity is None:
        description = f"must sign the role {join.role!r} and the name {join.name!r} in colony {join.colony!r} of this cluster"
        raise InvalidArgument([Violation(f"{field}.signature", description)])
    return identity


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a new key agreed to: to take the place of the key with the identity `old`."""

    audience: str
    colony: str
    old: str


def check_rotation(rotation: Rotation, *, field: str, public_key: bytes, signature: bytes, time_ms: int, now_ms: int) -> str:
    """The identity of the key that agreed to this rotation. Arguments and errors as for check_join."""
    _check_age(field, time_ms, now_ms)
    text = rotate_text(audience=rotation.audience, colony=rotation.colony, old=rotation.old, time_ms=time_ms)
    identity = _signer(public_key, signature, text)
    if identity is None:
        place = f"in colony {rotation.colony!r}" if rotation.colony else "outside of colonies"
        description = f"must sign that it takes the place of the key {rotation.old} {place} of this cluster"
        raise InvalidArgument([Violation(f"{field}.signature", description)])
    return identity


def _check_age(field: str, time_ms: int, now_ms: int) -> None:
    if not -MAX_SKEW_MS <= now_ms - time_ms <= MAX_JOIN_AGE_MS:
        raise InvalidArgument([Violation(f"{field}.time_ms", "must be at most 24 hours ago")])
