"""The domain's store on Postgres. Each change tells followers, and is put into the ledger, in its own transaction."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from psycopg.errors import UniqueViolation

from servicekit.changes import Change
from servicekit.postgres import Connection, Database
from services.auth.domain.model import (
    NO_COLONY,
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
from services.auth.store.ledger import QUERIES, Who, append, event_of, live_keys, record, row_of, tell
from services.auth.store.rotation import rotate
from services.auth.store.turns import Turns

T = TypeVar("T")

# A page of the ledger ends with the event that makes it this large.
LEDGER_PAGE_BYTES = 16 * 1024 * 1024

_ADDED = {Role.USER: EventKind.USER_ADDED, Role.EXECUTOR: EventKind.EXECUTOR_APPROVED}
_REMOVED = {Role.USER: EventKind.USER_REMOVED, Role.EXECUTOR: EventKind.EXECUTOR_REMOVED}


class PostgresStore:
    """Colonies and memberships in the schema `auth`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns = Turns()

    async def _change(self, colony: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Makes a change of a colony's memberships; one at a time, among all replicas. Of this one, only whose turn it is takes
        a connection, so that a busy colony leaves the others theirs.
        """

        async def held(connection: Connection) -> T:
            await connection.execute(QUERIES["hold_colony"], {"colony": colony})
            return await work(connection)

        async with self._turns.of(colony):
            return await self._database.run(held)

    async def add_colony(self, name: str, owner: str, evidence: Evidence) -> Colony:
        """Enters a colony if the name was never used; returns what stands under the name, removed or not."""

        async def work(connection: Connection) -> Colony:
            parameters = {"name": name, "owner": owner, "now": evidence.at}
            if await row_of(connection, "insert_colony", parameters) is not None:
                who = Who(owner, Role.COLONY_OWNER, OWNER_NAME)
                await record(connection, name, EventKind.COLONY_ADDED, who, evidence)
            row = await row_of(connection, "colony_or_tombstone", {"name": name})
            assert row is not None  # rows of this table are never deleted
            return Colony(**row)

        return await self._change(name, work)

    async def remove_colony(self, name: str, evidence: Evidence) -> bool:
        """Leaves a tombstone and ends every membership. False: no such colony."""

        async def work(connection: Connection) -> bool:
            row = await row_of(connection, "entomb_colony", {"name": name, "now": evidence.at})
            if row is None:
                return False
            await connection.execute(QUERIES["delete_members"], {"colony": name})
            who = Who(row["owner"], Role.COLONY_OWNER, OWNER_NAME)
            current, _ = await live_keys(connection, name, who.identity, evidence)
            await append(connection, name, EventKind.COLONY_REMOVED, who, current, evidence)
            await tell(connection, Change(name, "", colony_removed=True))
            return True

        return await self._change(name, work)

    async def colony(self, name: str) -> Colony | None:
        """One colony."""
        async with self._database.transaction() as connection:
            row = await row_of(connection, "colony", {"name": name})
        return None if row is None else Colony(**row)

    async def colonies(self, *, after: str, limit: int) -> Page[Colony]:
        """Colonies by name, after this name."""
        return await self._page("colonies", lambda row: Colony(**row), {"after": after}, limit)

    async def put_member(self, member: Membership, evidence: Evidence) -> list[Membership] | None:
        """Enters a membership unless something is in its way; returns what is there. None: no such colony."""

        async def work(connection: Connection) -> list[Membership] | None:
            colony = await row_of(connection, "colony", {"name": member.colony})
            if colony is None:
                return None
            key = await row_of(connection, "key", {"colony": member.colony, "key": member.identity})
            if key is not None and key["identity"] != member.identity:
                return []
            if colony["owner"] == member.identity:
                owner = Membership(member.colony, member.identity, Role.COLONY_OWNER, OWNER_NAME, colony["created_at"])
                return [owner]
            parameters = _parameters(member)
            if await row_of(connection, "insert_member", parameters) is not None:
                await record(connection, member.colony, _ADDED[member.role], _who(parameters), evidence)
            rows = await connection.execute(QUERIES["members_in_the_way"], parameters)
            return [_membership(row) async for row in rows]

        return await self._change(member.colony, work)

    async def rename_executor(self, member: Membership, evidence: Evidence) -> bool:
        """Gives an executor another name. False: another executor has it."""

        async def work(connection: Connection) -> bool:
            row = await row_of(connection, "rename_executor", _parameters(member))
            if row is not None:
                await record(connection, member.colony, EventKind.EXECUTOR_RENAMED, _who(row), evidence)
            return True

        try:
            return await self._change(member.colony, work)
        except UniqueViolation:
            return False

    async def drop_member(self, colony: str, identity: str, role: Role, evidence: Evidence) -> bool:
        """Ends the membership that an identity has in this role. False: it has none."""
        parameters = {"colony": colony, "identity": identity, "role": role.value}
        return await self._drop("delete_member", parameters, evidence)

    async def drop_member_named(self, colony: str, name: str, role: Role, evidence: Evidence) -> bool:
        """Ends the membership with this name in this role. False: there is none."""
        return await self._drop("delete_member_named", {"colony": colony, "name": name, "role": role.value}, evidence)

    async def user(self, colony: str, name: str) -> Membership | None:
        """One user."""
        async with self._database.transaction() as connection:
            row = await row_of(connection, "user", {"colony": colony, "name": name})
        return None if row is None else _membership(row)

    async def users(self, colony: str, *, after: str, limit: int) -> Page[Membership]:
        """A colony's users by name, after this name."""
        return await self._page("users", _membership, {"colony": colony, "after": after}, limit)

    async def resolve(self, colony: str, key: str) -> Resolved:
        """Whose key it is in a colony, and the role that its member has there."""
        return await self._resolved(colony, "resolve" if colony else "key", {"colony": colony, "key": key})

    async def member(self, colony: str, identity: str) -> Resolved:
        """What the member is that is known by this identity."""
        return await self._resolved(colony, "resolve_known", {"colony": colony, "identity": identity})

    async def _resolved(self, colony: str, query: str, parameters: Mapping[str, str]) -> Resolved:
        row = await self._looked_up(query, parameters)
        exists = bool(colony) and row is not None
        if row is None or row["identity"] is None:
            return Resolved(colony_exists=exists)
        held = Resolved(colony_exists=exists, identity=row["identity"], valid_until=row["until"])
        if colony == NO_COLONY:
            return held
        if row["owner"] == row["identity"]:
            return replace(held, role=Role.COLONY_OWNER, name=OWNER_NAME)
        return held if row["role"] is None else replace(held, role=Role(row["role"]), name=row["name"])

    async def keys(self, colony: str, identity: str) -> list[str]:
        """All keys that an identity has, or had."""
        parameters = {"colony": colony, "identity": identity}
        return [row["key"] for row in await self._database.statement(QUERIES["keys"], parameters, durable=False)]

    async def predecessor(self, colony: str, key: str) -> str | None:
        """The key whose place this one took; None if it took nobody's."""
        row = await self._looked_up("key", {"colony": colony, "key": key})
        return None if row is None else row["replaces"]

    async def _looked_up(self, query: str, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The row that a question of every call's has for an answer. It is asked over connections that no change takes: however
        many changes wait, everybody is still known.
        """
        rows = await self._database.statement(QUERIES[query], parameters, durable=False)
        return rows[0] if rows else None

    async def rotate(self, rotation: Rotation, evidence: Evidence) -> Rotated | NotRotated | TooOften:
        """Puts a new key in the place of a current one; if that took place already, the answer is what it was."""
        return await self._change(rotation.colony, lambda connection: rotate(connection, rotation, evidence))

    async def events(self, colony: str, *, after: int, limit: int) -> Sequence[Event]:
        """A colony's ledger from behind a number, as much as fits into one answer."""
        parameters = {"colony": colony, "after": after, "limit": limit, "at_most": LEDGER_PAGE_BYTES}
        async with self._database.transaction() as connection:
            rows = await connection.execute(QUERIES["events"], parameters)
            return [event_of(row) async for row in rows]

    async def removed_colonies(self) -> list[str]:
        """The names of all colonies that were removed."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(QUERIES["removed_colonies"])
            return [row["name"] async for row in rows]

    async def _drop(self, query: str, parameters: Mapping[str, str], evidence: Evidence) -> bool:
        colony = parameters["colony"]

        async def work(connection: Connection) -> bool:
            row = await row_of(connection, query, parameters)
            if row is None:
                return False
            await record(connection, colony, _REMOVED[Role(row["role"])], _who(row), evidence)
            return True

        return await self._change(colony, work)

    async def _page(
        self, query: str, convert: Callable[[Mapping[str, Any]], T], parameters: Mapping[str, Any], limit: int
    ) -> Page[T]:
        async with self._database.transaction() as connection:
            # One more than asked for shows whether there are more.
            rows = await connection.execute(QUERIES[query], {**parameters, "limit": limit + 1})
            found = [convert(row) async for row in rows]
        return Page(found[:limit], more=len(found) > limit)


def _who(row: Mapping[str, Any]) -> Who:
    return Who(row["identity"], Role(row["role"]), row["name"])


def _parameters(member: Membership) -> dict[str, Any]:
    return {
        "colony": member.colony,
        "identity": member.identity,
        "role": member.role.value,
        "name": member.name,
        "now": member.created_at,
    }


def _membership(row: Mapping[str, Any]) -> Membership:
    return Membership(row["colony"], row["identity"], Role(row["role"]), row["name"], row["created_at"])
