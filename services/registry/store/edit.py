"""One executor's entry, held in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.errors import UniqueViolation

from servicekit.changes import Change
from servicekit.failures import AlreadyExists
from servicekit.postgres import Connection, Queries
from services.registry.domain.model import Executor, ExecutorState, Function

QUERIES = Queries("services.registry.store")


async def row_of(connection: Connection, query: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first row that a query gives."""
    return await (await connection.execute(QUERIES[query], parameters)).fetchone()


async def tell(connection: Connection, changes: Sequence[Change]) -> None:
    """Tells followers when the transaction commits."""
    await connection.execute(QUERIES["notify"], {"payloads": [change.payload() for change in changes]})


def executor_of(row: Mapping[str, Any]) -> Executor:
    """An executor as it was stored."""
    return Executor(**{**row, "executor_types": tuple(row["executor_types"]), "state": ExecutorState(row["state"])})


class PostgresEdit:
    """The domain's Edit."""

    def __init__(self, connection: Connection, colony: str, identity: str, executor: Executor | None) -> None:
        self._connection = connection
        self._key = {"colony": colony, "identity": identity}
        self._executor = executor

    @classmethod
    async def begin(cls, connection: Connection, colony: str, identity: str) -> "PostgresEdit":
        """Holds the entry, then reads it."""
        key = {"colony": colony, "identity": identity}
        await connection.execute(QUERIES["hold_executor"], key)
        row = await row_of(connection, "executor", key)
        return cls(connection, colony, identity, None if row is None else executor_of(row))

    @property
    def executor(self) -> Executor | None:
        """What is there now."""
        return self._executor

    async def hold_pending(self, at_most: int) -> None:
        """Sees to it that one more executor of the colony can be pending: those that have waited longest make place, first of
        all who was never heard from as a member. None else can become pending until this edit ends.
        """
        await self._connection.execute(QUERIES["hold_pending"], self._key)
        row = await row_of(self._connection, "count_pending", self._key)
        assert row is not None  # an aggregate always gives a row
        if (too_many := int(row["pending"]) + 1 - at_most) > 0:
            await self._connection.execute(QUERIES["evict_pending"], {**self._key, "too_many": too_many})

    async def hold_name(self, name: str) -> bool:
        """Whether another approved executor has this name; none can take it until this edit ends."""
        await self._connection.execute(QUERIES["hold_name"], {**self._key, "name": name})
        return await row_of(self._connection, "other_with_name", {**self._key, "name": name}) is not None

    async def hold_location(self, name: str) -> bool:
        """Whether the colony has this location; it cannot be removed until this edit ends."""
        return await row_of(self._connection, "hold_location", {**self._key, "name": name}) is not None

    async def has_registration(self) -> bool:
        """Whether there is a signed call by which the executor says what it is."""
        row = await row_of(self._connection, "has_registration", self._key)
        return row is not None and bool(row["present"])

    async def registration(self) -> bytes:
        """That call; empty if there is none."""
        row = await row_of(self._connection, "registration", self._key)
        return b"" if row is None else bytes(row["registration"])

    async def save(self, executor: Executor, registration: bytes | None = None) -> None:
        """Enters the executor, or changes everything about it but its times; its registration only when there is a new one.

        Raises:
            AlreadyExists: another approved executor has the name.
        """
        parameters = {
            **self._key,
            "name": executor.name,
            "executor_types": list(executor.executor_types),
            "location_name": executor.location_name,
            "capabilities": executor.capabilities,
            "state": executor.state.value,
            "registered_at": executor.registered_at,
            "registration": registration,
        }
        try:
            await self._connection.execute(QUERIES["save_executor"], parameters)
        except UniqueViolation as error:
            msg = f"another approved executor has the name {executor.name!r}"
            raise AlreadyExists(msg, reason="NAME_TAKEN") from error
        await self._tell(executor.state)
        self._executor = executor

    async def remove(self) -> None:
        """Removes the executor with its functions."""
        await self._connection.execute(QUERIES["delete_executor"], self._key)
        await self._tell(None)
        self._executor = None

    async def set_functions(self, functions: Sequence[Function]) -> None:
        """Replaces all functions of the executor."""
        await self._connection.execute(QUERIES["delete_functions"], self._key)
        parameters = {
            **self._key,
            "names": [function.name for function in functions],
            "definitions": [function.definition for function in functions],
        }
        await self._connection.execute(QUERIES["insert_functions"], parameters)

    async def remove_function(self, name: str) -> bool:
        """Takes one function back. False: there is none of this name."""
        return await row_of(self._connection, "delete_function", {**self._key, "name": name}) is not None

    async def _tell(self, state: ExecutorState | None) -> None:
        """Tells followers if the executor is, or was, approved: of the others they know nothing, and strangers that register
        and register again cannot keep them busy.
        """
        before = None if self._executor is None else self._executor.state
        if ExecutorState.APPROVED in {before, state}:
            await tell(self._connection, [Change(self._key["colony"], self._key["identity"])])
