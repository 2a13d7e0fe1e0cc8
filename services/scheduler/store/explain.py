"""What an explanation needs of the scheduler's tables."""

from uuid import UUID

from servicekit.postgres import Database, Queries
from services.scheduler.store.sql import PACKAGE, no_process

SQL = Queries(PACKAGE, "explain.sql")
MAX_PARENTS = 100


class ExplainReads:
    """Reads a process's spec, and what it waits for."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def spec_and_parents(self, colony: str, process_id: UUID) -> tuple[bytes, list[str], int]:
        """The serialised spec, the node names of the first parents that have not ended, and how many those are in all.

        Raises:
            NotFound: no such process in this colony.
        """
        parameters = {"id": process_id, "colony": colony, "limit": MAX_PARENTS}
        async with self._database.transaction() as connection:
            row = await (await connection.execute(SQL["explained_spec"], parameters)).fetchone()
            if row is None:
                raise no_process(process_id)
            parents = await (await connection.execute(SQL["pending_parents"], parameters)).fetchall()
        return bytes(row["spec"]), [one["node_name"] for one in parents], parents[0]["pending"] if parents else 0
