"""What the domain needs from a store. Every method is one transaction, and tells followers what it changed."""

from datetime import datetime
from typing import Protocol

from services.auth.domain.model import Colony, Membership, Page, Resolved, Role


class Store(Protocol):
    """Colonies and memberships, durable. Lookups pass over removed colonies, except where they say otherwise."""

    async def add_colony(self, name: str, owner: str, now: datetime) -> Colony:
        """Enters a colony if the name was never used; returns what stands under the name, removed or not."""
        ...

    async def remove_colony(self, name: str, now: datetime) -> bool:
        """Leaves a tombstone and ends every membership. False: no such colony."""
        ...

    async def colony(self, name: str) -> Colony | None:
        """One colony."""
        ...

    async def colonies(self, *, after: str, limit: int) -> Page[Colony]:
        """Colonies by name, after this name."""
        ...

    async def put_member(self, member: Membership) -> list[Membership] | None:
        """Enters a membership unless the colony has one of this identity, or of this role and name; returns what is there
        under either, the one just entered included. None: no such colony. An entry that is the colony's owner's is refused
        in the same way: the answer is the owner's membership.
        """
        ...

    async def rename_executor(self, member: Membership) -> bool:
        """Gives an executor another name. False: another executor has it."""
        ...

    async def drop_member(self, colony: str, identity: str, role: Role) -> bool:
        """Ends the membership that an identity has in this role. False: it has none."""
        ...

    async def drop_member_named(self, colony: str, name: str, role: Role) -> bool:
        """Ends the membership with this name in this role. False: there is none."""
        ...

    async def user(self, colony: str, name: str) -> Membership | None:
        """One user."""
        ...

    async def users(self, colony: str, *, after: str, limit: int) -> Page[Membership]:
        """A colony's users by name, after this name."""
        ...

    async def resolve(self, colony: str, identity: str) -> Resolved:
        """What an identity is in a colony."""
        ...
