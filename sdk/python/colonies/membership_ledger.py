"""The ledger of memberships: how its events are chained, so that whoever has them can check that none was changed or left out.

`MembershipEvent` in protos/colonies/auth/v1/auth_service.proto spells out the text.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "colonies-membership-v1"


def call_digest(text: bytes, public_key: bytes, signature: bytes) -> bytes:
    """What stands for a signed call in a ledger: a digest of the signed text, of the key and of the signature."""
    return hashlib.sha256(text + public_key + signature).digest()


@dataclass(frozen=True, slots=True)
class Link:
    """What an event's hash is over. `kind` and `role` are words such as "USER_ADDED" and "user"; `calls` are digests."""

    previous_hash: bytes
    colony: str
    number: int
    time_us: int
    kind: str
    identity: str
    key: str
    role: str
    name: str
    calls: Sequence[bytes]

    def text(self) -> bytes:
        """The text that is hashed."""
        lines = (
            PREFIX,
            self.previous_hash.hex(),
            self.colony,
            str(self.number),
            str(self.time_us),
            self.kind,
            self.identity,
            self.key,
            self.role,
            self.name,
            *(digest.hex() for digest in self.calls),
        )
        return "".join(f"{line}\n" for line in lines).encode()

    def hash(self) -> bytes:
        """The event's hash: 32 bytes."""
        return hashlib.sha256(self.text()).digest()
