"""Fires in Postgres: begun and settled, many at a time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from servicekit.arrays import BigInts, Ints, SmallInts, Texts, Timestamps, Uuids
from servicekit.postgres import Connection, Database, Queries
from services.cron.domain.cron import Cron
from services.cron.domain.due import Looks
from services.cron.domain.ports import Begun, Settlement
from services.cron.domain.ticking import Tick
from services.cron.store.crons import QUERIES as CRONS
from services.cron.store.crons import fires_by_id
from services.cron.store.rows import cron_of

QUERIES = Queries("services.cron.store", "fires.sql")


class PostgresFireStore:
    """The FireStore of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def upcoming(
        self, until: datetime, *, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[tuple[UUID, datetime]]:
        after_at, after_id = after or (None, None)
        values = {"until": until, "after_at": after_at, "after_id": after_id, "limit": limit}
        return [(row[0], row[1]) for row in await self._database.tuples(QUERIES["upcoming_crons"], values)]

    async def begin(
        self, ids: Sequence[UUID], *, now: datetime, claim: UUID, until: datetime, decide: Callable[[Cron], Tick]
    ) -> Begun:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(QUERIES["lock_due"], {"ids": Uuids(ids), "now": now})
            rows = await cursor.fetchall()
            fires = await fires_by_id(connection, [row["pending"] for row in rows])
            crons = [cron_of(row, fires.get(row["pending"])) for row in rows]
            again = [cron for cron in crons if cron.pending is not None]
            ticks = [(cron, decide(cron)) for cron in crons if cron.pending is None]
            if again:
                values = {"ids": Uuids([cron.cron_id for cron in again]), "claim": claim, "until": until}
                await connection.execute(QUERIES["begin_again"], values)
            if ticks:
                await connection.execute(QUERIES["begin"], {**_begin_values(ticks), "claim": claim, "until": until})
            looks = await _looks_of_others(connection, set(ids) - {cron.cron_id for cron in crons}, now)
        begun = [*map(_tried_again, again), *(_ticked(cron, tick) for cron, tick in ticks if tick.fire is not None)]
        return Begun(begun, looks | {cron.cron_id: tick.next_due for cron, tick in ticks if tick.fire is None})

    async def workflows(self, ids: Sequence[UUID]) -> Mapping[UUID, bytes]:
        rows = await self._database.tuples(CRONS["read_workflows"], {"ids": Uuids(ids)})
        return {row[0]: bytes(row[1]) for row in rows}

    async def settle(self, settlements: Sequence[Settlement], *, claim: UUID, now: datetime) -> Looks:
        left = [(settlement.cron.cron_id, fire) for settlement in settlements for fire in settlement.left_out]
        values = {
            **_settle_values(settlements),
            "left_ids": Uuids([fire.fire_id for _, fire in left]),
            "left_crons": Uuids([cron_id for cron_id, _ in left]),
            "left_dues": Timestamps([fire.due for _, fire in left]),
            "left_outcomes": SmallInts([fire.outcome for _, fire in left]),
            "left_moments": Ints([fire.moments for _, fire in left]),
            "left_errors": Texts([fire.error for _, fire in left]),
            "claim": claim,
            "now": now,
        }
        return {row[0]: row[1] for row in await self._database.tuples(QUERIES["settle"], values)}

    async def put_off(self, cron_id: UUID, until: datetime) -> None:
        await self._database.statement(QUERIES["put_off"], {"id": cron_id, "until": until})


async def _looks_of_others(connection: Connection, ids: Collection[UUID], now: datetime) -> dict[UUID, datetime | None]:
    """When to look at what could not be locked.

    What is due or in hand is in good hands, and looked at again after the claim: whoever has it says when to look next, may be
    saying so now, and what was read before that must not come after it.
    """
    if not ids:
        return {}
    cursor = await connection.execute(QUERIES["due_of"], {"ids": Uuids(list(ids))})
    there = {row["id"]: row for row in await cursor.fetchall()}
    free = [each for each in ids if each not in there or not there[each]["in_hand"]]
    looks = {each: there[each]["due_at"] if each in there else None for each in free}
    return {each: due for each, due in looks.items() if due is None or due > now}


def _tried_again(cron: Cron) -> Cron:
    assert cron.pending is not None
    return replace(cron, pending=replace(cron.pending, tries=cron.pending.tries + 1))


def _ticked(cron: Cron, tick: Tick) -> Cron:
    assert tick.fire is not None
    return replace(
        cron,
        state=tick.state,
        next_fire=tick.next_fire,
        next_due=tick.next_due,
        acted_until=tick.acted_until,
        catch_up_until=tick.catch_up_until,
        pending=replace(tick.fire, tries=1),
    )


def _begin_values(ticks: Sequence[tuple[Cron, Tick]]) -> dict[str, object]:
    decided = [tick for _, tick in ticks]
    missed = [tick.left_out if tick.fire is None else None for tick in decided]
    new = [(cron.cron_id, fire) for cron, tick in ticks for fire in (tick.fire, tick.left_out) if fire is not None]
    return {
        "ids": Uuids([cron.cron_id for cron, _ in ticks]),
        "states": SmallInts([tick.state for tick in decided]),
        "next_fires": Timestamps([tick.next_fire for tick in decided]),
        "next_dues": Timestamps([tick.next_due for tick in decided]),
        "acted": Timestamps([tick.acted_until for tick in decided]),
        "catch_ups": Timestamps([tick.catch_up_until for tick in decided]),
        "pendings": Uuids([tick.fire.fire_id if tick.fire is not None else None for tick in decided]),
        "lasts": Timestamps([None if fire is None else fire.due for fire in missed]),
        "errors": Texts(["" if fire is None else fire.error for fire in missed]),
        "fire_ids": Uuids([fire.fire_id for _, fire in new]),
        "fire_crons": Uuids([cron_id for cron_id, _ in new]),
        "fire_kinds": SmallInts([fire.kind for _, fire in new]),
        "fire_dues": Timestamps([fire.due for _, fire in new]),
        "fire_outcomes": SmallInts([fire.outcome for _, fire in new]),
        "fire_moments": Ints([fire.moments for _, fire in new]),
        "fire_tries": Ints([1 if fire.fired is None else 0 for _, fire in new]),
        "fire_errors": Texts([fire.error for _, fire in new]),
        "fire_ends": Timestamps([fire.fired for _, fire in new]),
    }


def _settle_values(settlements: Sequence[Settlement]) -> dict[str, object]:
    fires = [settlement.cron.pending for settlement in settlements]
    return {
        "ids": Uuids([each.cron.cron_id for each in settlements]),
        "versions": Ints([each.cron.version for each in settlements]),
        "fires": Uuids([fire.fire_id for fire in fires if fire is not None]),
        "outcomes": SmallInts([each.outcome for each in settlements]),
        "errors": Texts([each.error for each in settlements]),
        "waits": Uuids([each.waits_for for each in settlements]),
        "limited": Ints([each.limited for each in settlements]),
        "untried": Ints([each.untried for each in settlements]),
        "retries": Timestamps([each.retry_at for each in settlements]),
        "states": SmallInts([each.state for each in settlements]),
        "reasons": Texts([each.pause_reason for each in settlements]),
        "next_fires": Timestamps([each.next_fire for each in settlements]),
        "next_dues": Timestamps([each.next_due for each in settlements]),
        "acted": Timestamps([each.acted_until for each in settlements]),
        "runs": BigInts([each.runs for each in settlements]),
        "failures": Ints([each.failures for each in settlements]),
        "feds": Uuids([each.fed_from for each in settlements]),
    }
