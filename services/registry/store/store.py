"""The domain's stores on Postgres. Each change tells followers in its own transaction."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from servicekit.changes import Change
from servicekit.postgres import Connection, Database
from services.registry.domain.model import (
    Announced,
    Executor,
    ExecutorFilter,
    ExecutorState,
    Function,
    Heard,
    Location,
    Page,
)
from services.registry.domain.ports import Edit
from services.registry.store.edit import QUERIES, PostgresEdit, executor_of, row_of, tell

# As the query `notify` spells it.
CHANNEL = "registry_changes"

T = TypeVar("T")


class PostgresStore:
    """Executors, functions and locations in the schema `registry`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def edit(self, colony: str, identity: str, work: Callable[[Edit], Awaitable[T]]) -> T:
        """Runs `work` on one entry in one transaction. After a deadlock it runs again: it must bear repeating."""

        async def transaction(connection: Connection) -> T:
            return await work(await PostgresEdit.begin(connection, colony, identity))

        return await self._database.run(transaction)

    async def executor(self, colony: str, identity: str) -> Executor | None:
        """One executor, whatever its state."""
        async with self._database.transaction() as connection:
            row = await row_of(connection, "executor", {"colony": colony, "identity": identity})
        return None if row is None else executor_of(row)

    async def executor_named(self, colony: str, name: str) -> Executor | None:
        """One approved executor."""
        async with self._database.transaction() as connection:
            row = await row_of(connection, "executor_named", {"colony": colony, "name": name})
        return None if row is None else executor_of(row)

    async def executors(self, colony: str, wanted: ExecutorFilter, *, after: tuple[str, str], limit: int) -> Page[Executor]:
        """Executors by name, then identity, after these."""
        parameters = {
            "colony": colony,
            "after_name": after[0],
            "after_identity": after[1],
            "states": [state.value for state in wanted.states],
            "executor_type": wanted.executor_type,
        }
        return await self._page("executors", executor_of, parameters, limit)

    async def functions(self, colony: str, executor_name: str, *, after: tuple[str, str], limit: int) -> Page[Announced]:
        """Functions of approved executors by function name, then executor name, after these; "" is any executor."""
        parameters = {
            "colony": colony,
            "executor_name": executor_name,
            "after_name": after[0],
            "after_executor": after[1],
        }
        return await self._page("functions", _announced, parameters, limit)

    async def note_heard(self, heard: Sequence[Heard]) -> None:
        """Moves signs of life forward; unknown executors are passed over."""
        parameters = {
            "colonies": [one.colony for one in heard],
            "identities": [one.identity for one in heard],
            "times": [one.at for one in heard],
        }

        async def work(connection: Connection) -> None:
            await connection.execute(QUERIES["note_heard"], parameters)

        await self._database.run(work)

    async def put_location(self, colony: str, location: Location) -> None:
        """Adds a location, or changes it."""
        parameters = {
            "colony": colony,
            "name": location.name,
            "description": location.description,
            "longitude": location.longitude,
            "latitude": location.latitude,
        }
        async with self._database.transaction() as connection:
            await connection.execute(QUERIES["put_location"], parameters)

    async def location(self, colony: str, name: str) -> Location | None:
        """One location."""
        async with self._database.transaction() as connection:
            row = await row_of(connection, "location", {"colony": colony, "name": name})
        return None if row is None else Location(**row)

    async def locations(self, colony: str, *, after: str, limit: int) -> Page[Location]:
        """Locations by name, after this one."""
        return await self._page("locations", lambda row: Location(**row), {"colony": colony, "after": after}, limit)

    async def remove_location(self, colony: str, name: str) -> bool | None:
        """Removes a location. False: an approved executor is there. None: there is no such location."""
        key = {"colony": colony, "name": name}

        async def work(connection: Connection) -> bool | None:
            if await row_of(connection, "hold_location_for_removal", key) is None:
                return None
            if await row_of(connection, "executor_at_location", key) is not None:
                return False
            await connection.execute(QUERIES["delete_location"], key)
            return True

        return await self._database.run(work)

    async def remove_colonies(self, names: Collection[str]) -> None:
        """Deletes all that is kept of these colonies. Repeating it changes nothing."""
        parameters = {"colonies": sorted(names)}

        async def work(connection: Connection) -> None:
            rows = await connection.execute(QUERIES["purge_executors"], parameters)
            gone = [Change(row["colony"], row["identity"]) async for row in rows if row["state"] == ExecutorState.APPROVED]
            await connection.execute(QUERIES["purge_locations"], parameters)
            await tell(connection, gone)

        await self._database.run(work)

    async def _page(
        self, query: str, convert: Callable[[Mapping[str, Any]], T], parameters: Mapping[str, Any], limit: int
    ) -> Page[T]:
        async with self._database.transaction() as connection:
            # One more than asked for shows whether there are more.
            rows = await connection.execute(QUERIES[query], {**parameters, "limit": limit + 1})
            found = [convert(row) async for row in rows]
        return Page(found[:limit], more=len(found) > limit)


def _announced(row: Mapping[str, Any]) -> Announced:
    function = Function(row["name"], bytes(row["definition"]))
    return Announced(function, row["executor_name"], tuple(row["executor_types"]))
