"""Removing what has ended from Postgres, a page in a transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from servicekit.arrays import Uuids
from servicekit.postgres import Connection, Database, Queries
from services.scheduler.domain.retention import Mark, Policy, Sweep, Swept
from services.scheduler.domain.states import State
from services.scheduler.store.sql import WRITES

SQL: Final = Queries("services.scheduler.store", "retention.sql")
# Workflows whose processes are removed in one transaction.
MAX_DEPARTING: Final = 100
KEEP: Final = {
    State.SUCCESSFUL: "keep_successful_ms",
    State.FAILED: "keep_failed_ms",
    State.CANCELLED: "keep_cancelled_ms",
}


class RetentionStore:
    """Removes pages. Waits for no lock longer than a moment; every method may raise Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def policies(self) -> Sequence[Policy]:
        """Colonies that do not keep everything for ever."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["policies"])).fetchall()
        return [
            Policy(row["colony"], {state: timedelta(milliseconds=row[column]) for state, column in KEEP.items() if row[column]})
            for row in rows
        ]

    async def sweep(self, sweep: Sweep, mark: Mark, until: datetime, limit: int) -> Swept:
        """Removes what ended in one state after a mark and until a moment. Looks at `limit` rows, whatever their states."""
        parameters: dict[str, Any] = {
            "colony": sweep.colony,
            "state": sweep.state,
            "after_at": mark.ended_at,
            "after_id": mark.id,
            "until": until,
            "limit": limit,
        }

        async def work(connection: Connection) -> Swept:
            await connection.execute(SQL["be_brief"])
            query = SQL["sweep_workflows" if sweep.workflows else "sweep_processes"]
            rows = await (await connection.execute(query, parameters)).fetchall()
            taken = [row["id"] for row in rows if row["taken"]]
            if taken and not sweep.workflows:
                await connection.execute(WRITES["delete_processes"], {"ids": Uuids(taken)})
            reached = mark
            for row in rows:
                if row["due"] and not row["taken"]:
                    # Somebody is at it: from there on again.
                    return Swept(len(taken), full=False, mark=reached)
                reached = Mark(row["ended_at"], row["id"])
            return Swept(len(taken), full=len(rows) == limit, mark=reached)

        return await self._database.run(work)

    async def remove_departing(self, limit: int) -> tuple[int, set[str]]:
        """Removes processes of workflows that are gone: how many, and of which colonies."""

        async def work(connection: Connection) -> tuple[int, set[str]]:
            await connection.execute(SQL["be_brief"])
            departing = await (await connection.execute(SQL["lock_departing"], {"limit": MAX_DEPARTING})).fetchall()
            if not departing:
                return 0, set()
            workflows = {"workflow_ids": [row["workflow_id"] for row in departing]}
            page = await (await connection.execute(SQL["departing_page"], {**workflows, "limit": limit})).fetchall()
            if page:
                await connection.execute(WRITES["delete_processes"], {"ids": Uuids([row["id"] for row in page])})
            await connection.execute(SQL["forget_departed"], workflows)
            return len(page), {row["colony"] for row in departing}

        return await self._database.run(work)

    async def forget_submissions(self, before: datetime, limit: int) -> int:
        """Forgets request ids that came before a moment; returns how many."""

        async def work(connection: Connection) -> int:
            await connection.execute(SQL["be_brief"])
            parameters = {"before": before, "limit": limit}
            row = await (await connection.execute(SQL["forget_submissions"], parameters)).fetchone()
            assert row is not None, "a count has a row"
            return int(row["count"])

        return await self._database.run(work)


async def depart(connection: Connection, colony: str, workflow_id: UUID) -> None:
    """A workflow whose row is locked, and whose processes have all ended, is gone when this commits. They follow in pages."""
    await connection.execute(SQL["depart_workflow"], {"colony": colony, "workflow_id": workflow_id})
