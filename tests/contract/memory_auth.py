"""Auth's store in memory, for tests of the domain. It passes the contract that the real one passes."""

from dataclasses import replace
from datetime import datetime

from services.auth.domain.model import OWNER_NAME, Colony, Membership, Page, Resolved, Role


class MemoryStore:
    """The domain's Store."""

    def __init__(self) -> None:
        self._colonies: dict[str, Colony] = {}
        self._members: dict[tuple[str, str], Membership] = {}

    async def add_colony(self, name: str, owner: str, now: datetime) -> Colony:
        return self._colonies.setdefault(name, Colony(name, owner, now))

    async def remove_colony(self, name: str, now: datetime) -> bool:
        if await self.colony(name) is None:
            return False
        self._colonies[name] = replace(self._colonies[name], removed=True)
        self._members = {key: member for key, member in self._members.items() if key[0] != name}
        return True

    async def colony(self, name: str) -> Colony | None:
        colony = self._colonies.get(name)
        return None if colony is None or colony.removed else colony

    async def colonies(self, *, after: str, limit: int) -> Page[Colony]:
        found = sorted(name for name, colony in self._colonies.items() if not colony.removed and name > after)
        return Page([self._colonies[name] for name in found[:limit]], more=len(found) > limit)

    async def put_member(self, member: Membership) -> list[Membership] | None:
        colony = await self.colony(member.colony)
        if colony is None:
            return None
        if colony.owner == member.identity:
            return [Membership(member.colony, member.identity, Role.COLONY_OWNER, OWNER_NAME, colony.created_at)]
        in_the_way = self._in_the_way(member)
        if not in_the_way:
            self._members[(member.colony, member.identity)] = member
        return self._in_the_way(member)

    def _in_the_way(self, wanted: Membership) -> list[Membership]:
        return [
            member
            for member in self._members.values()
            if member.colony == wanted.colony
            and (member.identity == wanted.identity or (member.role, member.name) == (wanted.role, wanted.name))
        ]

    async def rename_executor(self, member: Membership) -> bool:
        if any(other.identity != member.identity for other in self._in_the_way(member)):
            return False
        key = (member.colony, member.identity)
        if key in self._members and self._members[key].role is Role.EXECUTOR:
            self._members[key] = replace(self._members[key], name=member.name)
        return True

    async def drop_member(self, colony: str, identity: str, role: Role) -> bool:
        member = self._members.get((colony, identity))
        if member is None or member.role is not role:
            return False
        del self._members[(colony, identity)]
        return True

    async def drop_member_named(self, colony: str, name: str, role: Role) -> bool:
        for member in list(self._members.values()):
            if (member.colony, member.name, member.role) == (colony, name, role):
                return await self.drop_member(colony, member.identity, role)
        return False

    async def user(self, colony: str, name: str) -> Membership | None:
        page = await self.users(colony, after="", limit=len(self._members) + 1)
        return next((user for user in page.items if user.name == name), None)

    async def users(self, colony: str, *, after: str, limit: int) -> Page[Membership]:
        users = [member for member in self._members.values() if member.colony == colony and member.role is Role.USER]
        found = sorted((user for user in users if user.name > after), key=lambda user: user.name)
        return Page(found[:limit], more=len(found) > limit)

    async def resolve(self, colony: str, identity: str) -> Resolved:
        living = await self.colony(colony)
        if living is None:
            return Resolved(colony_exists=False)
        if living.owner == identity:
            return Resolved(colony_exists=True, role=Role.COLONY_OWNER, name=OWNER_NAME)
        member = self._members.get((colony, identity))
        if member is None:
            return Resolved(colony_exists=True)
        return Resolved(colony_exists=True, role=member.role, name=member.name)
