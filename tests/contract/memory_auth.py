"""Auth's store in memory, for tests of the domain. It passes the contract that the real one passes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from colonies.audit.chains import membership_hash
from servicekit.clock import ns_of
from services.auth.domain.model import (
    OWNER_NAME,
    Colony,
    Event,
    EventKind,
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

HOUR = timedelta(hours=1)


@dataclass
class Key:
    """A key that somebody has or had."""

    identity: str
    since: datetime
    until: datetime | None = None
    replaces: str | None = None


class MemoryStore:
    """The domain's Store."""

    def __init__(self) -> None:
        self._colonies: dict[str, Colony] = {}
        self._members: dict[tuple[str, str], Membership] = {}
        self._keys: dict[tuple[str, str], Key] = {}
        self._events: dict[str, list[Event]] = {}

    async def add_colony(self, name: str, owner: str, evidence: Evidence) -> Colony:
        if name not in self._colonies:
            self._colonies[name] = Colony(name, owner, evidence.at)
            self._keys[name, owner] = Key(owner, evidence.at)
            self._record(name, EventKind.COLONY_ADDED, (owner, Role.COLONY_OWNER, OWNER_NAME), evidence)
        return self._colonies[name]

    async def remove_colony(self, name: str, evidence: Evidence) -> bool:
        colony = await self.colony(name)
        if colony is None:
            return False
        self._record(name, EventKind.COLONY_REMOVED, (colony.owner, Role.COLONY_OWNER, OWNER_NAME), evidence)
        self._colonies[name] = replace(self._colonies[name], removed=True)
        self._members = {key: member for key, member in self._members.items() if key[0] != name}
        return True

    async def colony(self, name: str) -> Colony | None:
        colony = self._colonies.get(name)
        return None if colony is None or colony.removed else colony

    async def colonies(self, *, after: str, limit: int) -> Page[Colony]:
        found = sorted(name for name, colony in self._colonies.items() if not colony.removed and name > after)
        return Page([self._colonies[name] for name in found[:limit]], more=len(found) > limit)

    def _current(self, colony: str, identity: str) -> str:
        (current,) = (
            key for (place, key), held in self._keys.items() if (place, held.identity, held.until) == (colony, identity, None)
        )
        return current

    def _record(self, colony: str, kind: EventKind, who: tuple[str, Role, str], evidence: Evidence) -> None:
        identity, role, name = who
        chain = self._events.setdefault(colony, [])
        previous = chain[-1].hash if chain else b""
        key = self._current(colony, identity)
        digests = [call.digest for call in evidence.calls]
        time_us = ns_of(evidence.at) // 1000
        number = len(chain) + 1
        digest = membership_hash(
            previous.hex(),
            colony=colony,
            number=number,
            at_us=time_us,
            kind=kind.value,
            identity=identity,
            key=key,
            role=role.value,
            name=name,
            calls=digests,
        )
        calls = tuple(call.message for call in evidence.calls)
        new = Event(colony, number, evidence.at, kind, identity, key, role, name, calls, previous, bytes.fromhex(digest))
        chain.append(new)

    async def put_member(self, member: Membership, evidence: Evidence) -> list[Membership] | None:
        colony = await self.colony(member.colony)
        if colony is None:
            return None
        key = self._keys.get((member.colony, member.identity))
        if key is not None and key.identity != member.identity:
            return []
        if colony.owner == member.identity:
            return [Membership(member.colony, member.identity, Role.COLONY_OWNER, OWNER_NAME, colony.created_at)]
        in_the_way = self._in_the_way(member)
        if not in_the_way:
            self._members[(member.colony, member.identity)] = member
            self._keys.setdefault((member.colony, member.identity), Key(member.identity, evidence.at))
            kind = EventKind.USER_ADDED if member.role is Role.USER else EventKind.EXECUTOR_APPROVED
            self._record(member.colony, kind, (member.identity, member.role, member.name), evidence)
        return self._in_the_way(member)

    def _in_the_way(self, wanted: Membership) -> list[Membership]:
        return [
            member
            for member in self._members.values()
            if member.colony == wanted.colony
            and (member.identity == wanted.identity or (member.role, member.name) == (wanted.role, wanted.name))
        ]

    async def rename_executor(self, member: Membership, evidence: Evidence) -> bool:
        key = (member.colony, member.identity)
        held = self._members.get(key)
        if held is None or held.role is not Role.EXECUTOR:
            return True
        if any(other.identity != member.identity for other in self._in_the_way(member)):
            return False
        if held.name != member.name:
            self._members[key] = replace(held, name=member.name)
            self._record(member.colony, EventKind.EXECUTOR_RENAMED, (held.identity, held.role, member.name), evidence)
        return True

    async def drop_member(self, colony: str, identity: str, role: Role, evidence: Evidence) -> bool:
        member = self._members.get((colony, identity))
        if member is None or member.role is not role:
            return False
        del self._members[(colony, identity)]
        kind = EventKind.USER_REMOVED if role is Role.USER else EventKind.EXECUTOR_REMOVED
        self._record(colony, kind, (identity, role, member.name), evidence)
        return True

    async def drop_member_named(self, colony: str, name: str, role: Role, evidence: Evidence) -> bool:
        for member in list(self._members.values()):
            if (member.colony, member.name, member.role) == (colony, name, role):
                return await self.drop_member(colony, member.identity, role, evidence)
        return False

    async def user(self, colony: str, name: str) -> Membership | None:
        page = await self.users(colony, after="", limit=len(self._members) + 1)
        return next((user for user in page.items if user.name == name), None)

    async def users(self, colony: str, *, after: str, limit: int) -> Page[Membership]:
        users = [member for member in self._members.values() if member.colony == colony and member.role is Role.USER]
        found = sorted((user for user in users if user.name > after), key=lambda user: user.name)
        return Page(found[:limit], more=len(found) > limit)

    async def resolve(self, colony: str, key: str) -> Resolved:
        living = await self.colony(colony)
        held = self._keys.get((colony, key))
        if (colony and living is None) or held is None:
            return Resolved(colony_exists=living is not None)
        resolved = Resolved(colony_exists=living is not None, identity=held.identity, valid_until=held.until)
        who = self._who(colony, held.identity)
        return resolved if who is None else replace(resolved, role=who[0], name=who[1])

    async def member(self, colony: str, identity: str) -> Resolved:
        living = await self.colony(colony)
        if living is None:
            return Resolved(colony_exists=False)
        resolved = Resolved(colony_exists=True, identity=identity)
        who = self._who(colony, identity)
        return resolved if who is None else replace(resolved, role=who[0], name=who[1])

    def _who(self, colony: str, identity: str) -> tuple[Role, str] | None:
        if colony in self._colonies and self._colonies[colony].owner == identity:
            return Role.COLONY_OWNER, OWNER_NAME
        member = self._members.get((colony, identity))
        return None if member is None else (member.role, member.name)

    async def keys(self, colony: str, identity: str) -> list[str]:
        return [key for (place, key), held in self._keys.items() if (place, held.identity) == (colony, identity)]

    async def predecessor(self, colony: str, key: str) -> str | None:
        held = self._keys.get((colony, key))
        return None if held is None else held.replaces

    async def rotate(self, rotation: Rotation, evidence: Evidence) -> Rotated | NotRotated | TooOften:
        colony, principal = rotation.colony, rotation.principal
        if principal is not None:
            self._keys.setdefault((colony, rotation.old), Key(rotation.old, evidence.at))
        old = self._keys.get((colony, rotation.old))
        if old is None or (colony and await self.colony(colony) is None):
            return NotRotated.NOT_A_MEMBER
        who = self._who(colony, old.identity) if principal is None else (principal.role, principal.name)
        if who is None:
            return NotRotated.NOT_A_MEMBER
        if old.until is not None:
            new = self._keys.get((colony, rotation.new))
            if new is not None and new.replaces == rotation.old:
                return Rotated(*who, old.identity, self._current(colony, old.identity), old.until)
            return NotRotated.KEY_RETIRED if old.until > evidence.at else NotRotated.NOT_A_MEMBER
        if (colony, rotation.new) in self._keys:
            return NotRotated.KEY_TAKEN
        held = [key for (place, _), key in self._keys.items() if (place, key.identity) == (colony, old.identity)]
        recent = sorted(key.since for key in held if key.replaces is not None and key.since > evidence.at - HOUR)
        if len(recent) >= 10:
            return TooOften(recent[-10] + HOUR)
        for key in held:
            if key.until is not None:
                key.until = min(key.until, evidence.at)
        old.until = rotation.old_until
        self._keys[colony, rotation.new] = Key(old.identity, evidence.at, replaces=rotation.old)
        self._record(colony, EventKind.KEY_ROTATED, (old.identity, *who), evidence)
        return Rotated(*who, old.identity, rotation.new, rotation.old_until)

    async def events(self, colony: str, *, after: int, limit: int) -> Sequence[Event]:
        return self._events.get(colony, [])[after : after + limit]
