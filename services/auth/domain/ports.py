"""What the domain needs from a store.

Every method is one transaction. One that changes something tells followers, and writes an event with its evidence into the
colony's ledger.
"""

from collections.abc import Sequence
from typing import Protocol

from services.auth.domain.model import (
    Colony,
    Event,
    Evidence,
    Membership,
    NotRotated,
    Page,
    Resolved,
    Role,
    Rotated,
    Rotation,
    TooOften,
)


class Store(Protocol):
    """Colonies and memberships, durable. Lookups pass over removed colonies, except where they say otherwise."""

    async def add_colony(self, name: str, owner: str, evidence: Evidence) -> Colony:
        """Enters a colony if the name was never used; returns what stands under the name, removed or not."""
        ...

    async def remove_colony(self, name: str, evidence: Evidence) -> bool:
        """Leaves a tombstone and ends every membership. False: no such colony."""
        ...

    async def colony(self, name: str) -> Colony | None:
        """One colony."""
        ...

    async def colonies(self, *, after: str, limit: int) -> Page[Colony]:
        """Colonies by name."""
        ...

    async def put_member(self, member: Membership, evidence: Evidence) -> list[Membership] | None:
        """Enters a membership unless the colony has one of this identity, or of this role and name; returns what is there
        under either, the one just entered included. None: no such colony. An entry that is the colony's owner's is refused
        in the same way: the answer is the owner's membership. Nothing: the identity is a key of another identity.

        With the membership enters the key of this identity, unless the identity has keys already.
        """
        ...

    async def rename_executor(self, member: Membership, evidence: Evidence) -> bool:
        """Gives an executor another name. False: another executor has it."""
        ...

    async def drop_member(self, colony: str, identity: str, role: Role, evidence: Evidence) -> bool:
        """Ends the membership that an identity has in this role. False: it has none."""
        ...

    async def drop_member_named(self, colony: str, name: str, role: Role, evidence: Evidence) -> bool:
        """Ends the membership with this name in this role. False: there is none."""
        ...

    async def user(self, colony: str, name: str) -> Membership | None:
        """One user."""
        ...

    async def users(self, colony: str, *, after: str, limit: int) -> Page[Membership]:
        """A colony's users by name."""
        ...

    async def resolve(self, colony: str, key: str) -> Resolved:
        """Whose key it is in a colony, and the role that its member has there. The caller looks whether the key's time is over.
        In NO_COLONY there are keys but no roles.
        """
        ...

    async def member(self, colony: str, identity: str) -> Resolved:
        """What the member is that is known by this identity."""
        ...

    async def keys(self, colony: str, identity: str) -> list[str]:
        """All keys that an identity has, or had."""
        ...

    async def predecessor(self, colony: str, key: str) -> str | None:
        """The key whose place this one took; None if it took nobody's."""
        ...

    async def rotate(self, rotation: Rotation, evidence: Evidence) -> Rotated | NotRotated | TooOften:
        """Puts a new key in the place of a current one, which is good until the rotation's `old_until`; older ones that still
        were end at once, so that a member never has more than two. If it is what took place already, the answer is what it was.
        """
        ...

    async def events(self, colony: str, *, after: int, limit: int) -> Sequence[Event]:
        """A colony's ledger from behind a number, as much as fits into one answer, but at least one event if there is one.
        Also that of a removed colony.
        """
        ...


class Resolver(Protocol):
    """Whose key it is, in a colony or in none."""

    async def resolve(self, colony: str, key: str) -> Resolved:
        """Whose key it is now: without a role when its time is over."""
        ...
