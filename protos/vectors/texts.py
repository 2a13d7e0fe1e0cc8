"""Test keys and the texts that they sign, spelled without any code of the SDK or the services."""

import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# 2023-03-27T08:45:15Z.
NOW_MS = 1_679_906_715_000
SKEW_MS = 60_000
DAY_MS = 24 * 3600 * 1000
AUDIENCE = "test-cluster"
COLONY = "dev"

Vector = dict[str, Any]


class TestKey:
    """A private key that everybody knows."""

    def __init__(self, name: str, seed: bytes | None = None) -> None:
        self.seed = seed or hashlib.sha256(f"colonies TEST key {name}".encode()).digest()
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.identity = identity_of(self.public)

    def sign(self, text: str) -> bytes:
        """The 64 bytes of R and S."""
        return self._key.sign(text.encode())


def identity_of(public_key: bytes) -> str:
    """What a key is known by."""
    return hashlib.sha3_256(public_key).hexdigest()


def nonce_of(name: str) -> str:
    """A nonce for a vector; real ones are random."""
    return hashlib.sha256(f"nonce {name}".encode()).hexdigest()[:32]


def call_text(method: str, audience: str, time_ms: int, nonce: str, body: bytes) -> str:
    """What the caller signs."""
    return f"colonies-call-v1\n{method}\n{audience}\n{time_ms}\n{nonce}\n{hashlib.sha256(body).hexdigest()}\n"


def join_text(audience: str, colony: str, role: str, name: str, time_ms: int) -> str:
    """What a new member signs."""
    return f"colonies-join-v1\n{audience}\n{colony}\n{role}\n{name}\n{time_ms}\n"


def rotate_text(audience: str, colony: str, old_key: str, time_ms: int) -> str:
    """What a new key signs to take over from an old one."""
    return f"colonies-rotate-v1\n{audience}\n{colony}\n{old_key}\n{time_ms}\n"


ALICE, BOB = TestKey("alice"), TestKey("bob")
