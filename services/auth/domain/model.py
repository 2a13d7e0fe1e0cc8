"""Colonies, their members, the keys of these, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")

OWNER_NAME = "owner"
# Where the keys of the server owner and of services are kept: the place of a colony without a name.
NO_COLONY = ""


class Role(StrEnum):
    """What an identity is. `colony_owner` stands with the colony, `user` and `executor` with the member; the others are known
    by the settings, outside of colonies.
    """

    COLONY_OWNER = "colony_owner"
    USER = "user"
    EXECUTOR = "executor"
    SERVER_OWNER = "server_owner"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Colony:
    """A tenant. A removed one keeps its name for ever, so that no data finds a second owner."""

    name: str
    owner: str
    created_at: datetime
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Membership:
    """An identity's place in a colony. It has one at most; the owner's is the colony itself."""

    colony: str
    identity: str
    role: Role
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Resolved:
    """Whose key it is in a colony, and whether there is such a colony at all.

    `identity` is what its member is, or was, known by; empty: it never was anybody's. Without a role it is no member's (any
    more). `valid_until` is when the key ceases, or ceased, to be good; None: it is the member's current one.
    """

    colony_exists: bool
    role: Role | None = None
    name: str = ""
    identity: str = ""
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """The server owner or a service: what it is, and the identity that the settings give it."""

    role: Role
    name: str
    identity: str


@dataclass(frozen=True, slots=True)
class Call:
    """A signed call as it is kept: the bytes of a colonies.call.v1.SignedCall, and its digest as 64 hex digits."""

    message: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """When a change is made, and the signed calls that ask for it."""

    at: datetime
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Rotation:
    """One key taking the place of another, which is good until some moment longer. `principal` is whose it is in NO_COLONY."""

    colony: str
    old: str
    new: str
    old_until: datetime
    principal: Principal | None = None


@dataclass(frozen=True, slots=True)
class Rotated:
    """Who somebody is after a rotation."""

    role: Role
    name: str
    identity: str
    key: str
    old_until: datetime


class NotRotated(StrEnum):
    """Why a rotation was not made."""

    NOT_A_MEMBER = "not a member"
    KEY_RETIRED = "the old key is not the current one"
    KEY_TAKEN = "the new key is, or was, somebody's"


@dataclass(frozen=True, slots=True)
class TooOften:
    """No rotation was made: the member has made as many as it may for now, and may make another one at this time."""

    again_at: datetime


class EventKind(StrEnum):
    """What became of a membership. The words are part of what is hashed."""

    COLONY_ADDED = "COLONY_ADDED"
    USER_ADDED = "USER_ADDED"
    USER_REMOVED = "USER_REMOVED"
    EXECUTOR_APPROVED = "EXECUTOR_APPROVED"
    EXECUTOR_RENAMED = "EXECUTOR_RENAMED"
    EXECUTOR_REMOVED = "EXECUTOR_REMOVED"
    KEY_ROTATED = "KEY_ROTATED"
    COLONY_REMOVED = "COLONY_REMOVED"


@dataclass(frozen=True, slots=True)
class Event:
    """One link of a colony's chain of memberships. `calls` are messages; `previous_hash` is empty in the first."""

    colony: str
    number: int
    at: datetime
    kind: EventKind
    identity: str
    key: str
    role: Role
    name: str
    calls: tuple[bytes, ...]
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; `more` says that the list goes on after its last item."""

    items: Sequence[T]
    more: bool
