"""Counting the ledger in Postgres, a page in a transaction, and reading what was counted."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from servicekit.postgres import Connection, Database, Queries
from services.scheduler.domain.quantiles import LOWERS, UPPERS, quantiles_of
from services.scheduler.domain.states import State
from services.scheduler.domain.statistics import MINUTE, Counted, Rates, Statistics, TypeStatistics, minute_of

SQL: Final = Queries("services.scheduler.store", "statistics.sql")
# Removals in one transaction; each names at most a page of processes.
MAX_REMOVALS: Final = 20
RATES: Final = ("submitted", "assigned", "successful", "failed", "cancelled", "retried")
# Numbers of statistics_class.kind.
WAIT: Final = 1
RUN: Final = 2


class StatisticsStore:
    """The small tables that GetStatistics reads. Every method may raise Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def uncounted(self) -> Sequence[str]:
        """Colonies with something to count."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["uncounted_colonies"])).fetchall()
        return [row["colony"] for row in rows]

    async def count(self, colony: str, oldest: datetime, limit: int) -> Counted:
        """Counts a page of a colony's lines, in one transaction with the position to go on from."""
        parameters = {"colony": colony, "floor": oldest, "limit": limit, "uppers": list(UPPERS), "lowers": list(LOWERS)}

        async def work(connection: Connection) -> Counted:
            await connection.execute(SQL["begin_progress"], {"colony": colony})
            position = await (await connection.execute(SQL["lock_progress"], {"colony": colony})).fetchone()
            if position is None:
                return Counted.LATER
            after = {"after_xid": position["xid"], "after_id": position["id"]}
            page = await (await connection.execute(SQL["count_page"], {**parameters, **after})).fetchone()
            assert page is not None, "a count has a row"
            progress = {"colony": colony, "xid": page["xid"], "id": page["id"]}
            await connection.execute(SQL["set_progress"], progress)
            folded = await _fold(connection, colony, page["xid"])
            if page["lines"] == limit or folded == MAX_REMOVALS:
                return Counted.MORE
            left = await (await connection.execute(SQL["removals_left"], {"colony": colony})).fetchone()
            assert left is not None, "EXISTS has a row"
            return Counted.LATER if page["unsettled"] or left["left_over"] else Counted.ALL

        return await self._database.run(work)

    async def drop_before(self, oldest: datetime) -> None:
        """Forgets minutes, of all colonies."""

        async def work(connection: Connection) -> None:
            await connection.execute(SQL["drop_minutes"], {"floor": oldest})
            await connection.execute(SQL["drop_classes"], {"floor": oldest})

        await self._database.run(work)

    async def read(self, colony: str, now: datetime) -> Statistics:
        """What is counted, as of one moment. Cost: the executor types of the colony, not its processes."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL["begin_reading"])
            until = await (await connection.execute(SQL["counted_until"], {"colony": colony})).fetchone()
            at = min(now, until["at"]) if until is not None and until["at"] is not None else now
            hour = {"colony": colony, "last": minute_of(at) - MINUTE}
            counts = await (await connection.execute(SQL["read_counts"], {"colony": colony})).fetchall()
            steps = await (await connection.execute(SQL["read_steps"], hour)).fetchall()
            classes = await (await connection.execute(SQL["read_classes"], hour)).fetchall()
        return Statistics(at, _types_of(counts, steps, classes))

    async def totals(self) -> dict[State, int]:
        """Processes by state, of all colonies together. Cost: the executor types of all colonies, not their processes."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["read_totals"])).fetchall()
        return {State(row["state"]): int(row["count"]) for row in rows}


async def purge_statistics(connection: Connection, colony: str) -> None:
    """Deletes what was set and counted of a removed colony, and what is left of its ledger."""
    await connection.execute(SQL["hold_counting"], {"colony": colony})
    await connection.execute(SQL["purge_statistics"], {"colony": colony})


async def _fold(connection: Connection, colony: str, xid: int) -> int:
    """Processes that were removed, all of whose lines are counted, count no more."""
    parameters = {"colony": colony, "xid": xid, "limit": MAX_REMOVALS}
    row = await (await connection.execute(SQL["fold_removals"], parameters)).fetchone()
    assert row is not None, "a count has a row"
    folded = int(row["count"])
    if folded:
        await connection.execute(SQL["drop_zeros"], {"colony": colony})
    return folded


Rows = Sequence[Mapping[str, Any]]


def _types_of(counts: Rows, steps: Rows, classes: Rows) -> list[TypeStatistics]:
    names = {row["executor_type"] for rows in (counts, steps, classes) for row in rows}
    types = {name: TypeStatistics(name) for name in sorted(names)}
    for row in counts:
        types[row["executor_type"]].counts[State(row["state"])] = row["count"]
    hours: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(RATES, 0))
    for row in steps:
        rates = {rate: row[rate] for rate in RATES}
        if row["in_last"]:
            types[row["executor_type"]].last_minute = Rates(**rates)
        hour = hours[row["executor_type"]]
        for rate in RATES:
            hour[rate] += rates[rate]
    for name, hour in hours.items():
        types[name].last_hour = Rates(**hour)
    times: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for row in classes:
        times[row["executor_type"], row["kind"]].append((row["upper_ms"], row["count"]))
    for (name, kind), held in times.items():
        if kind == WAIT:
            types[name].wait_ms = quantiles_of(held)
        else:
            types[name].run_ms = quantiles_of(held)
    return list(types.values())
