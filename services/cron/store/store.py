"""Crons in Postgres."""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow

from servicekit.postgres import Database, Queries
from services.cron.domain.cron import Cron, Idle, Settlement
from services.cron.domain.schedule import Expression, Interval

QUERIES = Queries("services.cron.store")


def _cron_of(row: DictRow) -> Cron:
    expression: str | None = row["expression"]
    return Cron(
        cron_id=row["id"],
        colony=row["colony"],
        name=row["name"],
        schedule=Interval(row["interval_ms"]) if expression is None else Expression(expression),
        workflow=bytes(row["workflow"]),
        initiator=row["initiator"],
        initiator_name=row["initiator_name"],
        created=row["created_at"],
        next_fire=row["next_fire_at"],
        tries=row["tries"],
        last_fire=row["last_fire_at"],
        last_workflow_id=row["last_workflow_id"],
        last_error=row["last_error"],
    )


class PostgresCronStore:
    """The CronStore of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, cron: Cron) -> Cron:
        schedule = cron.schedule
        values = {
            "id": cron.cron_id,
            "colony": cron.colony,
            "name": cron.name,
            "expression": schedule.text if isinstance(schedule, Expression) else None,
            "interval_ms": schedule.milliseconds if isinstance(schedule, Interval) else None,
            "workflow": cron.workflow,
            "initiator": cron.initiator,
            "initiator_name": cron.initiator_name,
            "created_at": cron.created,
            "next_fire_at": cron.next_fire,
        }
        while True:
            async with self._database.transaction() as connection:
                if (await connection.execute(QUERIES["insert_cron"], values)).rowcount:
                    return cron
            there = await self.find(cron.colony, cron.name)
            if there is not None:
                return there
            # Whoever had the name was removed between the two statements: the name is free now.

    async def find(self, colony: str, name: str) -> Cron | None:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(QUERIES["find_cron"], {"colony": colony, "name": name})
            row = await cursor.fetchone()
        return None if row is None else _cron_of(row)

    async def page(self, colony: str, *, after: str, limit: int) -> list[Cron]:
        async with self._database.transaction() as connection:
            values = {"colony": colony, "after": after, "limit": limit}
            rows = await (await connection.execute(QUERIES["list_crons"], values)).fetchall()
        return [_cron_of(row) for row in rows]

    async def remove(self, cron_id: UUID) -> bool:
        async with self._database.transaction() as connection:
            return (await connection.execute(QUERIES["delete_cron"], {"id": cron_id})).rowcount > 0

    async def purge(self, colonies: Collection[str]) -> int:
        async with self._database.transaction() as connection:
            return (await connection.execute(QUERIES["delete_colonies"], {"colonies": list(colonies)})).rowcount

    async def note_run(self, cron_id: UUID, *, digest: str, workflow_id: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(QUERIES["note_run"], {"id": cron_id, "digest": digest, "workflow_id": workflow_id})

    async def fire_next(self, now: datetime, fire: Callable[[Cron], Awaitable[Settlement]]) -> Idle | None:
        async with self._database.transaction() as connection:
            row = await (await connection.execute(QUERIES["claim_due"], {"now": now})).fetchone()
            if row is None:
                next_row = await (await connection.execute(QUERIES["next_due"], {"now": now})).fetchone()
                return Idle(None if next_row is None else next_row["due_at"])
            settlement = await fire(_cron_of(row))
            await connection.execute(
                QUERIES["settle"],
                {
                    "id": row["id"],
                    "next_fire_at": settlement.next_fire,
                    "due_at": settlement.due,
                    "tries": settlement.tries,
                    "last_fire_at": settlement.last_fire,
                    "workflow_id": settlement.workflow_id,
                    "error": settlement.error,
                },
            )
        return None
