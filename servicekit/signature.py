"""Checks who signed a call, and when. The scheme is specified in protos/vectors/README.md."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from colonies.errors import NotSignableError
from colonies.signing import (
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    call_text,
    join_text,
    rotate_text,
)
from colonies.verifying import signer_of
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
_WORDS = {
    KEY_HEADER: "64 lower-case hex digits",
    TIME_HEADER: "Unix milliseconds in at most 15 decimal digits",
    NONCE_HEADER: "32 lower-case hex digits",
    SIGNATURE_HEADER: "128 lower-case hex digits",
}
# gRPC's other kind of entry: what is written in two ways could be read in two ways.
_BINARY = frozenset(f"{name}-bin" for name in _FORMATS)


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


def headers_of(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """A call's metadata by name. An entry of ours that came twice is what HTTP takes it for, a list: malformed."""
    pairs = tuple(metadata)
    # Binary entries are bytes; none of them is ours.
    headers: dict[str, str] = dict(pairs)  # type: ignore[arg-type]
    if len(headers) != len(pairs):
        for name in _FORMATS:
            values = [str(value) for each, value in pairs if each == name]
            if len(values) > 1:
                headers[name] = ",".join(values)
    return headers


def _refused(headers: Mapping[str, str]) -> Unauthenticated:
    """What is wrong with metadata of which something is missing or malformed."""
    for name in _FORMATS:
        if name not in headers and f"{name}-bin" not in headers:
            return Unauthenticated(f"the call is not signed: metadata {name} is missing", reason="SIGNATURE_MISSING")
    for name, pattern in _FORMATS.items():
        if f"{name}-bin" in headers or re.fullmatch(pattern, headers[name]) is None:
            msg = f"the metadata {name} is malformed: once, and as text, it must be {_WORDS[name]}"
            return Unauthenticated(msg, reason="SIGNATURE_MALFORMED")
    raise AssertionError


def _misfit() -> Unauthenticated:
    msg = "the signature does not fit this call, its key and this cluster (whose id `colonies status` tells)"
    return Unauthenticated(msg, reason="SIGNATURE_INVALID")


def check_fresh(time_ms: int, now_ms: int) -> None:
    """That a call was signed within a minute of now.

    Raises:
        Unauthenticated: it was not.
    """
    if abs(now_ms - time_ms) > MAX_SKEW_MS:
        msg = f"signed {(now_ms - time_ms) / 1000:.0f} s ago by this server's clock; at most {MAX_SKEW_MS // 1000} s"
        raise Unauthenticated(msg, reason="SIGNATURE_STALE", metadata={"server_time_ms": str(now_ms)})


def check_call(headers: Mapping[str, str], *, method: str, audience: str, body: bytes, now_ms: int) -> Signed:
    """The identity that signed this call.

    Args:
        headers: the call's metadata, from `headers_of`.
        method: full method name with its slashes.
        audience: this cluster's id.
        body: the request as it came over the wire.
        now_ms: unix milliseconds.

    Raises:
        Unauthenticated: a header is missing or malformed, the time is off by more than a minute, or the signature is wrong.
    """
    key, time, nonce, signature = map(headers.get, _FORMATS)
    # A header that is missing reads "None", which no format lets through.
    well_formed = _ALL_FORMATS.match(f"{key} {time} {nonce} {signature}") is not None and _BINARY.isdisjoint(headers)
    if not (well_formed and key and time and nonce and signature):
        raise _refused(headers)
    time_ms = int(time)
    check_fresh(time_ms, now_ms)
    try:
        text = call_text(method=method, audience=audience, time_ms=time_ms, nonce=nonce, body=body)
    except NotSignableError as error:
        raise _misfit() from error
    identity = signer_of(bytes.fromhex(key), bytes.fromhex(signature), text)
    if identity is None:
        raise _misfit()
    return Signed(identity, method, key, time_ms, nonce, signature, body, text)


@dataclass(frozen=True, slots=True)
class Join:
    """What a new identity agrees to."""

    audience: str
    colony: str
    role: str
    name: str

    def text(self, time_ms: int) -> bytes:
        """What it signs."""
        return join_text(audience=self.audience, colony=self.colony, role=self.role, name=self.name, time_ms=time_ms)

    def __str__(self) -> str:
        return f"the role {self.role!r} and the name {self.name!r} in colony {self.colony!r} of this cluster"


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a new key agrees to: taking over from an old one. The colony is empty for the server owner and for services."""

    audience: str
    colony: str
    old: str

    def text(self, time_ms: int) -> bytes:
        """What it signs."""
        return rotate_text(audience=self.audience, colony=self.colony, old=self.old, time_ms=time_ms)

    def __str__(self) -> str:
        where = f"in colony {self.colony!r} of" if self.colony else "in"
        return f"that it takes over from the key {self.old} {where} this cluster"


def _check_proof(
    agreement: Join | Rotation, *, field: str, public_key: bytes, signature: bytes, time_ms: int, now_ms: int
) -> str:
    if not -MAX_SKEW_MS <= now_ms - time_ms <= MAX_JOIN_AGE_MS:
        raise InvalidArgument([Violation(f"{field}.time_ms", "must be at most 24 hours ago")])
    try:
        identity = signer_of(public_key, signature, agreement.text(time_ms))
    except NotSignableError:
        # A value that is no line: it cannot have been signed.
        identity = None
    if identity is None:
        raise InvalidArgument([Violation(f"{field}.signature", f"must be the key's, and sign {agreement}")])
    return identity


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
    return _check_proof(join, field=field, public_key=public_key, signature=signature, time_ms=time_ms, now_ms=now_ms)


def check_rotation(rotation: Rotation, *, field: str, public_key: bytes, signature: bytes, time_ms: int, now_ms: int) -> str:
    """The identity of the new key, which agreed to take over. Arguments and errors are those of `check_join`."""
    return _check_proof(rotation, field=field, public_key=public_key, signature=signature, time_ms=time_ms, now_ms=now_ms)
