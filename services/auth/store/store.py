"""The domain's store on Postgres. Each change tells followers in its own transaction."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from psycopg.errors import UniqueViolation

from servicekit.changes import Change
from servicekit.postgres import Connection, Database, Queries
from services.auth.domain.model import OWNER_NAME, Colony, Membership, Page, Resolved, Role

QUERIES = Queries("services.auth.store")

T = TypeVar("T")


class PostgresStore:
    """Colonies and memberships in the schema `auth`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_colony(self, name: str, owner: str, now: datetime) -> Colony:
        """Enters a colony if the name was never used; returns what stands under the name, removed or not."""

        async def work(connection: Connection) -> Colony:
            parameters = {"name": name, "owner": owner, "now": now}
            if await _row(connection, "insert_colony", parameters) is not None:
                await _tell(connection, Change(name, owner))
            row = await _row(connection, "colony_or_tombstone", {"name": name})
            assert row is not None  # rows of this table are never deleted
            return Colony(**row)

        return await self._database.run(work)

    async def remove_colony(self, name: str, now: datetime) -> bool:
        """Leaves a tombstone and ends every membership. False: no such colony."""

        async def work(connection: Connection) -> bool:
            if await _row(connection, "entomb_colony", {"name": name, "now": now}) is None:
                return False
            await connection.execute(QUERIES["delete_members"], {"colony": name})
            await _tell(connection, Change(name, "", colony_removed=True))
            return True

        return await self._database.run(work)

    async def colony(self, name: str) -> Colony | None:
        """One colony."""
        async with self._database.transaction() as connection:
            row = await _row(connection, "colony", {"name": name})
        return None if row is None else Colony(**row)

    async def colonies(self, *, after: str, limit: int) -> Page[Colony]:
        """Colonies by name, after this name."""
        return await self._page("colonies", lambda row: Colony(**row), {"after": after}, limit)

    async def put_member(self, member: Membership) -> list[Membership] | None:
        """Enters a membership unless something is in its way; returns what is there. None: no such colony."""

        async def work(connection: Connection) -> list[Membership] | None:
            colony = await _row(connection, "colony_held", {"name": member.colony})
            if colony is None:
                return None
            if colony["owner"] == member.identity:
                owner = Membership(member.colony, member.identity, Role.COLONY_OWNER, OWNER_NAME, colony["created_at"])
                return [owner]
            parameters = _parameters(member)
            if await _row(connection, "insert_member", parameters) is not None:
                await _tell(connection, Change(member.colony, member.identity))
            rows = await connection.execute(QUERIES["members_in_the_way"], parameters)
            return [_membership(row) async for row in rows]

        return await self._database.run(work)

    async def rename_executor(self, member: Membership) -> bool:
        """Gives an executor another name. False: another executor has it."""

        async def work(connection: Connection) -> bool:
            if await _row(connection, "rename_executor", _parameters(member)) is not None:
                await _tell(connection, Change(member.colony, member.identity))
            return True

        try:
            return await self._database.run(work)
        except UniqueViolation:
            return False

    async def drop_member(self, colony: str, identity: str, role: Role) -> bool:
        """Ends the membership that an identity has in this role. False: it has none."""
        return await self._drop("delete_member", {"colony": colony, "identity": identity, "role": role.value})

    async def drop_member_named(self, colony: str, name: str, role: Role) -> bool:
        """Ends the membership with this name in this role. False: there is none."""
        return await self._drop("delete_member_named", {"colony": colony, "name": name, "role": role.value})

    async def user(self, colony: str, name: str) -> Membership | None:
        """One user."""
        async with self._database.transaction() as connection:
            row = await _row(connection, "user", {"colony": colony, "name": name})
        return None if row is None else _membership(row)

    async def users(self, colony: str, *, after: str, limit: int) -> Page[Membership]:
        """A colony's users by name, after this name."""
        return await self._page("users", _membership, {"colony": colony, "after": after}, limit)

    async def resolve(self, colony: str, identity: str) -> Resolved:
        """What an identity is in a colony."""
        async with self._database.transaction() as connection:
            row = await _row(connection, "resolve", {"colony": colony, "identity": identity})
        if row is None:
            return Resolved(colony_exists=False)
        if row["owner"] == identity:
            return Resolved(colony_exists=True, role=Role.COLONY_OWNER, name=OWNER_NAME)
        if row["role"] is None:
            return Resolved(colony_exists=True)
        return Resolved(colony_exists=True, role=Role(row["role"]), name=row["name"])

    async def removed_colonies(self) -> list[str]:
        """The names of all colonies that were removed."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(QUERIES["removed_colonies"])
            return [row["name"] async for row in rows]

    async def _drop(self, query: str, parameters: Mapping[str, str]) -> bool:
        async def work(connection: Connection) -> bool:
            row = await _row(connection, query, parameters)
            if row is None:
                return False
            await _tell(connection, Change(parameters["colony"], row["identity"]))
            return True

        return await self._database.run(work)

    async def _page(
        self, query: str, convert: Callable[[Mapping[str, Any]], T], parameters: Mapping[str, Any], limit: int
    ) -> Page[T]:
        async with self._database.transaction() as connection:
            # One more than asked for shows whether there are more.
            rows = await connection.execute(QUERIES[query], {**parameters, "limit": limit + 1})
            found = [convert(row) async for row in rows]
        return Page(found[:limit], more=len(found) > limit)


async def _row(connection: Connection, query: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    return await (await connection.execute(QUERIES[query], parameters)).fetchone()


async def _tell(connection: Connection, change: Change) -> None:
    await connection.execute(QUERIES["notify"], {"payload": change.payload()})


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
