"""Generators in Postgres, as their members see them."""

from datetime import datetime
from typing import Final
from uuid import UUID

from servicekit.failures import FailedPrecondition
from servicekit.postgres import Connection, Database, Queries
from services.cron.domain.generator import MAX_LAUNCHES, Batch, Generator
from services.cron.domain.packing import Bin
from services.cron.store.generator_rows import batch_of, bin_of, generator_of

SQL: Final = Queries("services.cron.store", "generators.sql")


class PostgresGeneratorStore:
    """The GeneratorStore of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, generator: Generator) -> Generator:
        values = {
            "id": generator.generator_id,
            "colony": generator.colony,
            "name": generator.name,
            "max_count": generator.trigger.max_count,
            "timeout_ms": generator.trigger.timeout_ms,
            "max_bytes": generator.trigger.max_bytes,
            "workflow": generator.launchable.workflow,
            "nodes": generator.launchable.nodes,
            "roots": generator.launchable.roots,
            "initiator": generator.initiator,
            "initiator_name": generator.initiator_name,
            "created_at": generator.created,
            "at_most": MAX_LAUNCHES,
        }
        while True:
            async with self._database.transaction() as connection:
                if (await connection.execute(SQL["insert_generator"], values)).rowcount:
                    return generator
            there = await self.find(generator.colony, generator.name)
            if there is not None:
                return there
            # Whoever had the name was removed between the two statements: the name is free now.

    async def find(self, colony: str, name: str, *, whole: bool = True) -> Generator | None:
        rows = await self._database.statement(SQL["find_generator"], {"colony": colony, "name": name, "whole": whole})
        return generator_of(rows[0]) if rows else None

    async def page(self, colony: str, *, after: str, limit: int) -> list[Generator]:
        values = {"colony": colony, "after": after, "limit": limit}
        return [generator_of(row) for row in await self._database.statement(SQL["list_generators"], values)]

    async def bins(self, generator_id: UUID, *, after: str | None, limit: int) -> list[Bin]:
        values = {"id": generator_id, "after": after, "limit": limit}
        return [bin_of(row) for row in await self._database.statement(SQL["list_bins"], values)]

    async def batches(self, generator_id: UUID, *, before: int, limit: int, unsubmitted: bool) -> list[Batch]:
        values = {"id": generator_id, "before": before, "limit": limit}
        name = "list_unsubmitted" if unsubmitted else "list_batches"
        return [batch_of(row) for row in await self._database.statement(SQL[name], values)]

    async def pause(self, generator_id: UUID, reason: str) -> bool:
        return bool(await self._database.statement(SQL["pause"], {"id": generator_id, "reason": reason}))

    async def resume(self, generator_id: UUID, now: datetime) -> bool:
        if await self._database.statement(SQL["resume"], {"id": generator_id, "now": now}):
            return True
        return bool(await self._database.statement(SQL["is_there"], {"id": generator_id}))

    async def remove(self, generator_id: UUID, now: datetime, *, force: bool) -> bool:
        async def work(connection: Connection) -> bool:
            row = await (await connection.execute(SQL["lock_contents"], {"id": generator_id})).fetchone()
            if row is None:
                return False
            if row["arguments"] and not force:
                msg = f"{row['arguments']} arguments wait in it: flush or drop them, or use force"
                raise FailedPrecondition(msg, reason="ARGUMENTS_WAITING")
            await connection.execute(SQL["remove"], {"id": generator_id, "now": now})
            return True

        return await self._database.run(work)

    async def is_claimed(self, generator_id: UUID, now: datetime) -> bool:
        return bool(await self._database.statement(SQL["claimed"], {"id": generator_id, "now": now}))
