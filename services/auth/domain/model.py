"""Colonies and their members."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")

OWNER_NAME = "owner"


class Role(StrEnum):
    """What an identity is in a colony. `colony_owner` stands with the colony, the others with the member."""

    COLONY_OWNER = "colony_owner"
    USER = "user"
    EXECUTOR = "executor"


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
    """What an identity is in a colony, and whether there is such a colony at all."""

    colony_exists: bool
    role: Role | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; `more` says that the list goes on after its last item."""

    items: Sequence[T]
    more: bool
