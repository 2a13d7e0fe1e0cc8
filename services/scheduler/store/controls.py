"""What owners set for their queues, in Postgres."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from servicekit.postgres import Database, Queries
from services.scheduler.domain.controls import Controls, ControlsChange
from services.scheduler.domain.limits import Waiting

SQL: Final = Queries("services.scheduler.store", "controls.sql")
# Uncounted lines that are looked at to tell how many processes wait: some seconds' worth.
MAX_UNCOUNTED: Final = 50_000


class ControlStore:
    """Reads and writes controls. Every method may raise Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def controls(self, colony: str) -> Controls:
        """What is set."""
        async with self._database.transaction() as connection:
            row = await (await connection.execute(SQL["get_controls"], {"colony": colony})).fetchone()
        return Controls(**row) if row else Controls()

    async def update_controls(self, colony: str, change: ControlsChange, at: datetime) -> Controls:
        """Sets what is not None; what is set then."""
        parameters = {"colony": colony, "at": at, **asdict(change)}
        async with self._database.transaction() as connection:
            row = await (await connection.execute(SQL["update_controls"], parameters)).fetchone()
        assert row is not None, "the row is inserted or updated"
        return Controls(**row)

    async def pauses(self, since: datetime | None) -> Sequence[tuple[str, bool]]:
        """Colonies that are paused, and those that changed since; all that ever were set, for None."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["pauses"], {"since": since})).fetchall()
        return [(row["colony"], row["paused"]) for row in rows]

    async def limited(self) -> Sequence[Waiting]:
        """Colonies with a limit, and how many of their processes wait."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["limited"], {"at_most": MAX_UNCOUNTED})).fetchall()
        return [Waiting(**row) for row in rows]
