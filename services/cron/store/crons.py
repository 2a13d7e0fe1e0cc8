"""Crons in Postgres, as their members see and change them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow

from servicekit.arrays import SmallInts, Uuids
from servicekit.postgres import Connection, Database, Queries
from services.cron.domain.cron import Cron, Fire, NewCron, Outcome
from services.cron.domain.ports import Change
from services.cron.store.rows import cron_of, fire_of, policy_values, schedule_values

# Few of a cron's fires come to this.
ODD = frozenset({Outcome.PENDING, Outcome.MISSED, Outcome.REFUSED})
QUERIES = Queries("services.cron.store", "crons.sql")


class PostgresCronStore:
    """The CronStore of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, cron: Cron) -> Cron:
        values = {
            "id": cron.cron_id,
            "colony": cron.colony,
            "name": cron.name,
            **schedule_values(cron.schedule),
            **policy_values(cron.policy),
            "workflow": cron.workflow,
            "initiator": cron.initiator,
            "initiator_name": cron.initiator_name,
            "created_at": cron.created,
            "state": cron.state,
            "next_fire_at": cron.next_fire,
            "next_due_at": cron.next_due,
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
            return next(iter(await _crons_of(connection, await cursor.fetchall())), None)

    async def page(self, colony: str, *, after: str, limit: int) -> Sequence[Cron]:
        async with self._database.transaction() as connection:
            values = {"colony": colony, "after": after, "limit": limit}
            return await _crons_of(connection, await (await connection.execute(QUERIES["list_crons"], values)).fetchall())

    async def fires(self, cron_id: UUID, *, before: UUID | None, outcomes: Collection[Outcome], limit: int) -> Sequence[Fire]:
        values = {"cron_id": cron_id, "before": before, "outcomes": SmallInts(sorted(outcomes)), "limit": limit}
        query = QUERIES["list_odd_fires" if outcomes and ODD.issuperset(outcomes) else "list_fires"]
        return [fire_of(row) for row in await self._database.statement(query, values)]

    async def change(self, cron_id: UUID, now: datetime, decide: Callable[[Cron], Change | None]) -> Cron | None:
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(QUERIES["lock_cron"], {"id": cron_id})).fetchall()
            if not rows:
                return None
            (cron,) = await _crons_of(connection, rows)
            change = decide(cron)
            if change is None:
                return cron
            await self._write(connection, cron_id, now, change)
            (changed,) = await _crons_of(
                connection, await (await connection.execute(QUERIES["lock_cron"], {"id": cron_id})).fetchall()
            )
            return changed

    async def _write(self, connection: Connection, cron_id: UUID, now: datetime, change: Change) -> None:
        values = {"id": cron_id, "state": change.state, "next_fire_at": change.next_fire, "next_due_at": change.next_due}
        if change.new is None:
            await connection.execute(QUERIES["set_state"], {**values, "pause_reason": change.pause_reason})
        else:
            new: NewCron = change.new
            await connection.execute(
                QUERIES["update_schedule"],
                {
                    **values,
                    **schedule_values(new.schedule),
                    **policy_values(new.policy),
                    "workflow": new.workflow,
                    "since": now,
                },
            )
        if change.give_up:
            await connection.execute(QUERIES["give_up_waiting"], {"id": cron_id, "now": now, "error": change.give_up})
        if change.left_out is not None:
            left = change.left_out
            await connection.execute(
                QUERIES["insert_left_out"],
                {
                    "id": left.fire_id,
                    "cron_id": cron_id,
                    "due_at": left.due,
                    "outcome": left.outcome,
                    "moments": left.moments,
                    "error": left.error,
                    "now": now,
                },
            )

    async def stop(self, cron_id: UUID) -> bool:
        return bool(await self._database.statement(QUERIES["stop_cron"], {"id": cron_id}))

    async def remove(self, cron_id: UUID, now: datetime) -> bool:
        async with self._database.transaction() as connection:
            return (await connection.execute(QUERIES["delete_cron"], {"id": cron_id, "now": now})).rowcount > 0

    async def purge(self, colonies: Collection[str]) -> int:
        async with self._database.transaction() as connection:
            return (await connection.execute(QUERIES["delete_colonies"], {"colonies": list(colonies)})).rowcount

    async def begin_run(self, cron_id: UUID, run: Fire, *, digest: str) -> Fire | None:
        values = {"id": run.fire_id, "cron_id": cron_id, "due_at": run.due, "request": digest}
        async with self._database.transaction() as connection:
            await connection.execute(QUERIES["insert_run"], values)
        rows = await self._database.statement(QUERIES["find_run"], {"cron_id": cron_id, "request": digest})
        return fire_of(rows[0]) if rows else None

    async def settle_run(
        self, fire_id: UUID, outcome: Outcome, error: str, now: datetime, *, fed_from: UUID | None = None
    ) -> None:
        values = {"id": fire_id, "outcome": outcome, "error": error, "now": now, "fed_from": fed_from}
        await self._database.statement(QUERIES["settle_run"], values)

    async def open_runs(self, before: datetime, *, limit: int) -> Sequence[tuple[str, UUID]]:
        rows = await self._database.statement(QUERIES["open_runs"], {"before": before, "limit": limit})
        return [(row["colony"], row["id"]) for row in rows]

    async def sweep(self, before: UUID, *, limit: int) -> int:
        async def once(connection: Connection) -> int:
            values = {"before": before, "limit": limit}
            swept = (await connection.execute(QUERIES["sweep_fires"], values)).rowcount
            swept = max(swept, (await connection.execute(QUERIES["sweep_removed"], {"limit": limit})).rowcount)
            if swept < limit:
                await connection.execute(QUERIES["forget_removed"])
            return swept

        # Again if it met another replica's.
        return await self._database.run(once)


async def fires_by_id(connection: Connection, ids: Iterable[UUID | None]) -> Mapping[UUID, Fire]:
    """Fires, in the transaction that has their crons' rows locked, or that has just read them."""
    wanted = [each for each in ids if each is not None]
    if not wanted:
        return {}
    cursor = await connection.execute(QUERIES["read_fires"], {"ids": Uuids(wanted)})
    return {row["id"]: fire_of(row) for row in await cursor.fetchall()}


async def _crons_of(connection: Connection, rows: Sequence[DictRow]) -> list[Cron]:
    fires = await fires_by_id(connection, [row["pending"] for row in rows])
    return [cron_of(row, fires.get(row["pending"])) for row in rows]
