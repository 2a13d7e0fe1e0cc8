"""Who calls: worked out once by the call pipeline, read by servicers."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from servicekit.failures import PermissionDenied
from servicekit.signature import Signed


class Role(StrEnum):
    """What an identity is, to the server or in one colony. The policy file uses these words."""

    ANYONE = "anyone"
    SERVER_OWNER = "server_owner"
    SERVICE = "service"
    COLONY_OWNER = "colony_owner"
    USER = "user"
    EXECUTOR = "executor"


MEMBER_ROLES = frozenset({Role.COLONY_OWNER, Role.USER, Role.EXECUTOR})
# Those that are known outside of colonies.
PRINCIPAL_ROLES = frozenset({Role.SERVER_OWNER, Role.SERVICE})
# The place of their keys among the members.
NO_COLONY = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A key's place in a colony, or outside of all: `identity` is what its member is known by, whatever its key is today.

    From `valid_until_ns` (unix nanoseconds) on it is nobody's key any more; None: it is the member's current one.
    """

    identity: str
    role: Role
    name: str
    valid_until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """The signer of the call in hand.

    `identity` is what the member is known by in its colony, or a service or the server owner outside of it (for all others the
    identity of the key); `call` is what it signed, and `key_until_ns` when that key ceases to be good, if it does.
    `name` is the member's name in `colony`, a service's name, or empty. `account` is the member on whose account the call acts:
    the caller itself, or whom a service acts for. `owns_all` says that the policy let the caller in by role; if not, it was by
    relation, and what is acted on must be the account's own.
    """

    identity: str
    colony: str
    role: Role
    name: str
    account: Member
    owns_all: bool
    call: Signed
    key_until_ns: int | None = None

    def require_own(self, initiator: str) -> None:
        """Refuses to act on what belongs to another member, for callers whom only the relation lets in.

        Raises:
            PermissionDenied: somebody else is the initiator.
        """
        if not self.owns_all and initiator != self.account.identity:
            msg = "only its initiator and the colony's owner may do this"
            raise PermissionDenied(msg, reason="NOT_THE_INITIATOR")

    @classmethod
    def current(cls) -> Self:
        """The caller of the RPC in hand."""
        caller = _current.get()
        assert isinstance(caller, cls)
        return caller


_current: ContextVar[Caller] = ContextVar("caller")


def set_current(caller: Caller) -> None:
    """For the call pipeline: each call runs in a context of its own."""
    _current.set(caller)
