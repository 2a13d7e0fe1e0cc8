"""Batches on their way to the scheduler, in Postgres."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from psycopg.rows import DictRow

from servicekit.arrays import BigInts
from servicekit.postgres import Connection, Database, Queries
from services.cron.domain.generator import MAX_LAUNCHES, Batch, Standing
from services.cron.domain.generator_ports import Cargo, Claim, Look, Setback
from services.cron.store.generator_rows import batch_of, bin_of, changes_of, standing_of
from services.cron.store.packs import BINS_AT_ONCE, cut_bins
from services.cron.store.packs import SQL as PACKS

SQL: Final = Queries("services.cron.store", "dispatches.sql")
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PostgresDispatchStore:
    """The DispatchStore of the service, and the index of what is due."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def upcoming(
        self, until: datetime, *, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[tuple[UUID, datetime]]:
        after_at, after_id = after or (_BEGINNING, UUID(int=0))
        values = {"until": until, "after_at": after_at, "after_id": after_id, "limit": limit}
        return [(row["id"], row["due_at"]) for row in await self._database.statement(SQL["upcoming"], values)]

    async def claim(self, generator_id: UUID, now: datetime, *, until: datetime, at_most: int) -> Claim | Look | None:
        async def work(connection: Connection) -> Claim | Look | None:
            row = await _locked(connection, generator_id)
            if row is None or row["removed_at"] is not None:
                return Look(None)
            standing = standing_of(row)
            if standing.is_claimed(now):
                return None
            if standing.due is None or standing.due > now:
                return Look(standing.due)
            cut, cut_all = await _cut_ripe(connection, standing, now)
            batches = []
            if standing.can_submit(now):
                values = {"id": generator_id, "limit": min(at_most, row["at_most"])}
                rows = await (await connection.execute(SQL["next_batches"], values)).fetchall()
                batches = [batch_of(each) for each in rows]
            if not batches:
                look = Look(await _next_look(connection, standing, now) if cut_all else now, cut)
                await connection.execute(SQL["look_at"], {"id": generator_id, "due": look.at})
                return look
            number = row["claim"] + 1
            await connection.execute(SQL["claim"], {"id": generator_id, "claim": number, "until": until})
            return _claim_of(row, number, batches, cut)

        return await self._database.run(work)

    async def load(self, claim: Claim, batches: Sequence[Batch]) -> Cargo | None:
        workflows = await self._database.statement(SQL["find_workflow"], {"id": claim.generator_id})
        values = {"id": claim.generator_id, "numbers": BigInts([batch.number for batch in batches])}
        rows = await self._database.tuples(SQL["batch_arguments"], values)
        arguments = {number: [bytes(value) for _, value in group] for number, group in groupby(rows, key=itemgetter(0))}
        if not workflows or any(len(arguments.get(batch.number, ())) != batch.count for batch in batches):
            return None
        return Cargo(bytes(workflows[0]["workflow"]), [arguments[batch.number] for batch in batches])

    async def submitted(self, claim: Claim, batches: Sequence[Batch], now: datetime) -> Look | None:
        async def work(connection: Connection) -> Look | None:
            # Arguments first: until they are gone, packs need not wait.
            values = {**_numbers(claim, batches), "now": now}
            done = await (await connection.execute(SQL["note_submitted"], values)).fetchone()
            assert done is not None, "a count has a row"
            row = await _locked(connection, claim.generator_id)
            if row is None:
                return Look(None)
            standing = standing_of(row)
            standing.unsubmitted -= done["batches"]
            ours = row["claim"] == claim.number
            due = await _due(connection, row, replace(standing, retry_at=None), now) if ours else None
            counts = {
                "id": claim.generator_id,
                "batches": done["batches"],
                "arguments": done["arguments"],
                "bytes": done["bytes"],
                "workflow_id": str(batches[-1].workflow_id),
                "at_most": min(MAX_LAUNCHES, 2 * row["at_most"]),
            }
            await connection.execute(SQL["settle_submitted"], {**counts, "ours": ours, "due": due})
            return Look(due) if ours else None

        return await self._database.run(work)

    async def failed(self, claim: Claim, batches: Sequence[Batch], setback: Setback, now: datetime) -> Look | None:
        async def work(connection: Connection) -> Look | None:
            row = await _locked(connection, claim.generator_id)
            if row is None:
                return Look(None)
            if row["claim"] != claim.number:
                return None
            first = batches[0].number if setback.is_first else 0
            values = {**_numbers(claim, batches), "first": first, "error": setback.error}
            await connection.execute(SQL["note_failed"], values)
            blocked = bool(setback.pause_reason)
            standing = replace(standing_of(row), blocked=blocked, retry_at=setback.retry_at)
            standing.paused = standing.paused or blocked
            due = await _due(connection, row, standing, now)
            settled = {
                "id": claim.generator_id,
                "at_most": setback.at_most,
                "retry_at": setback.retry_at,
                "error": setback.error,
                "blocked": blocked,
                "pause_reason": setback.pause_reason,
                "due": due,
            }
            await connection.execute(SQL["settle_failed"], settled)
            return Look(due)

        return await self._database.run(work)


async def _locked(connection: Connection, generator_id: UUID) -> DictRow | None:
    return await (await connection.execute(SQL["lock_claimable"], {"id": generator_id})).fetchone()


async def _cut_ripe(connection: Connection, standing: Standing, now: datetime) -> tuple[Sequence[Batch], bool]:
    """Makes batches of what is full or has waited long enough; and whether nothing of that is left to do."""
    if standing.paused or standing.bins == 0:
        return (), True
    timeout_ms = standing.trigger.timeout_ms
    before = now - timedelta(milliseconds=timeout_ms) if timeout_ms else _BEGINNING
    values = {"id": standing.generator_id, "before": before, "limit": BINS_AT_ONCE}
    rows = await (await connection.execute(SQL["ripe_bins"], values)).fetchall()
    if not rows:
        return (), True
    gathering, cut_all = await cut_bins(connection, standing, [bin_of(row) for row in rows], now, flush=False)
    await connection.execute(PACKS["write"], changes_of([gathering], now))
    return gathering.batches, cut_all and len(rows) < BINS_AT_ONCE


async def _due(connection: Connection, row: DictRow, standing: Standing, now: datetime) -> datetime | None:
    return None if row["removed_at"] is not None else await _next_look(connection, standing, now)


async def _next_look(connection: Connection, standing: Standing, now: datetime) -> datetime | None:
    row = await (await connection.execute(SQL["outlook"], {"id": standing.generator_id})).fetchone()
    assert row is not None, "an outlook has a row"
    return standing.next_look(row["oldest_at"], full=row["is_full"], now=now)


def _claim_of(row: DictRow, number: int, batches: Sequence[Batch], cut: Sequence[Batch]) -> Claim:
    return Claim(
        generator_id=row["id"],
        number=number,
        colony=row["colony"],
        initiator=row["initiator"],
        workflow_bytes=row["workflow_bytes"],
        nodes=row["nodes"],
        roots=row["roots"],
        batches=batches,
        tries=row["tries"],
        cut=cut,
    )


def _numbers(claim: Claim, batches: Sequence[Batch]) -> dict[str, Any]:
    return {"id": claim.generator_id, "numbers": BigInts([batch.number for batch in batches])}
