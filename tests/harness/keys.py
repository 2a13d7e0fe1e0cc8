"""Fixed keys: the same test signs with the same identities every time."""

import hashlib
from dataclasses import dataclass, field

from colonies.keys import PrivateKey


def key_of(name: str) -> PrivateKey:
    """The key of whoever has this name in the tests."""
    return PrivateKey(hashlib.sha256(f"colonies test key {name}".encode()).digest())


@dataclass(frozen=True, slots=True)
class Keys:
    """Who is who in a test cluster."""

    server_owner: PrivateKey = field(default_factory=lambda: key_of("server owner"))
    # Owner of the colony "acme".
    owner: PrivateKey = field(default_factory=lambda: key_of("owner of acme"))
    # The user "alice".
    user: PrivateKey = field(default_factory=lambda: key_of("alice"))
    # The executors "worker-1" and "worker-2".
    executor: PrivateKey = field(default_factory=lambda: key_of("worker-1"))
    executor_2: PrivateKey = field(default_factory=lambda: key_of("worker-2"))
    stranger: PrivateKey = field(default_factory=lambda: key_of("stranger"))

    def service(self, name: str) -> PrivateKey:
        """A service's own key."""
        return key_of(f"service {name}")
