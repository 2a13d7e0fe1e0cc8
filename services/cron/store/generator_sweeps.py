"""Removing from Postgres what nobody needs any more of generators, a page in a transaction."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from servicekit.arrays import BigInts, Texts, Uuids
from servicekit.postgres import Connection, Database, Queries

SQL: Final = Queries("services.cron.store", "generator_sweeps.sql")
# What belongs to a generator, each with its own pages.
BELONGINGS: Final = ("delete_arguments", "delete_batches", "delete_bins", "delete_packs", "delete_ranges")


class PostgresGeneratorSweeps:
    """The GeneratorSweeps of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def forget_packs(self, before: datetime, limit: int) -> int:
        return await self._count("forget_packs", {"before": before, "limit": limit})

    async def forget_batches(self, before: datetime, limit: int) -> int:
        return await self._count("forget_batches", {"before": before, "limit": limit})

    async def remove_dropped(self, limit: int) -> int:
        async def work(connection: Connection) -> int:
            ranges = await (await connection.execute(SQL["lock_dropped"], {"limit": limit})).fetchall()
            if not ranges:
                return 0
            values = {
                "generators": Uuids([row["generator_id"] for row in ranges]),
                "keys": Texts([row["key"] for row in ranges]),
                "firsts": BigInts([row["first_sequence"] for row in ranges]),
                "lasts": BigInts([row["last_sequence"] for row in ranges]),
                "limit": limit,
            }
            gone = await (await connection.execute(SQL["delete_dropped"], values)).fetchone()
            assert gone is not None, "a count has a row"
            await connection.execute(SQL["forget_dropped"], values)
            return max(len(ranges), int(gone["count"]))

        return await self._database.run(work)

    async def remove_removed(self, now: datetime, limit: int) -> int:
        async def work(connection: Connection) -> int:
            row = await (await connection.execute(SQL["lock_removed"], {"now": now})).fetchone()
            if row is None:
                return 0
            for belongings in BELONGINGS:
                gone = (await connection.execute(SQL[belongings], {"id": row["id"], "limit": limit})).rowcount
                if gone:
                    return gone
            return (await connection.execute(SQL["delete_generator"], {"id": row["id"]})).rowcount

        return await self._database.run(work)

    async def purge(self, colonies: Collection[str], now: datetime) -> int:
        values = {"colonies": Texts(list(colonies)), "now": now}
        return len(await self._database.statement(SQL["remove_all"], values))

    async def waiting(self) -> int:
        rows = await self._database.statement(SQL["waiting"])
        return int(rows[0]["arguments"])

    async def _count(self, name: str, values: dict[str, Any]) -> int:
        rows = await self._database.statement(SQL[name], values)
        return int(rows[0]["count"])
