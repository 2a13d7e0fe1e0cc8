"""What is done to workflows as a whole: cancel, take up again, remove. Each in one transaction, the workflow's row first."""

from datetime import datetime
from uuid import UUID

from servicekit.failures import FailedPrecondition
from servicekit.postgres import Connection, Database
from services.scheduler.domain.ports import Allow
from services.scheduler.domain.records import Changes, Receipt
from services.scheduler.domain.states import State
from services.scheduler.store.receipts import digest_of, keep
from services.scheduler.store.retention import depart
from services.scheduler.store.rows import live_of
from services.scheduler.store.sql import WORKFLOWS as SQL
from services.scheduler.store.sql import WRITES, no_workflow

# A workflow of a hundred thousand takes longer than statements usually may.
LIMIT_S = 150.0
TIMEOUT = "SET LOCAL statement_timeout = '120s'"


async def cancel(
    database: Database,
    colony: str,
    workflow_id: UUID,
    allow: Allow,
    actor: str,
    at: datetime,
    receipt: Receipt | None = None,
) -> Changes:
    """Cancels every open process of a workflow. `allow` is asked with the initiator first.

    Raises:
        NotFound: no such workflow in this colony.
    """

    async def work(connection: Connection) -> Changes:
        await lock_row(connection, colony, workflow_id, allow)
        await connection.execute(TIMEOUT)
        parameters = {"workflow_id": workflow_id, "actor": actor, "at": at, "receipt": digest_of(receipt)}
        await connection.execute(SQL["lock_open_processes"], parameters)
        rows = await (await connection.execute(SQL["cancel_workflow"], parameters)).fetchall()
        if not rows:
            return Changes()
        await keep(connection, colony, receipt, len(rows))
        # The others were nowhere in the queue.
        running = [live_of(row) for row in rows if row["was"] == State.RUNNING]
        ready = [live_of(row) for row in rows if row["was"] == State.WAITING and row["pending_parents"] == 0]
        return Changes(
            released=[live.live_attempt for live in running],
            withdrawn=[live.place for live in ready],
            touched={workflow_id, *(row["id"] for row in rows)},
        )

    return await database.run(work, limit_s=LIMIT_S)


async def retry(
    database: Database,
    colony: str,
    workflow_id: UUID,
    allow: Allow,
    actor: str,
    at: datetime,
    receipt: Receipt | None = None,
) -> tuple[int, Changes]:
    """Takes what failed or was cancelled back to waiting; returns how many that were. `allow` is asked as for `cancel`.

    Raises:
        NotFound: no such workflow in this colony.
    """

    async def work(connection: Connection) -> tuple[int, Changes]:
        await lock_row(connection, colony, workflow_id, allow)
        await connection.execute(TIMEOUT)
        parameters = {"workflow_id": workflow_id, "actor": actor, "at": at, "receipt": digest_of(receipt)}
        again = await (await connection.execute(SQL["retry_failed"], parameters)).fetchall()
        if not again:
            return 0, Changes()
        await keep(connection, colony, receipt, len(again))
        # Those that ran in spite of a failure, or are about to, wait for the retried parents again.
        rows = await (await connection.execute(SQL["count_parents"], parameters)).fetchall()
        touched = {workflow_id, *(row["process_id"] for row in again)}
        return len(again), Changes(ready=[live_of(row).place for row in rows], touched=touched)

    return await database.run(work, limit_s=LIMIT_S)


async def remove(database: Database, colony: str, workflow_id: UUID, allow: Allow) -> None:
    """Removes a workflow whose processes have all ended; these follow, page by page. `allow` is asked as for `cancel`.

    Raises:
        NotFound: no such workflow in this colony.
        FailedPrecondition: a process is not in a final state.
    """

    async def work(connection: Connection) -> None:
        if await lock_row(connection, colony, workflow_id, allow):
            msg = f"workflow {workflow_id} has processes that are not in a final state: cancel it first"
            raise FailedPrecondition(msg, reason="WORKFLOW_NOT_FINAL")
        await depart(connection, colony, workflow_id)

    await database.run(work)


async def lock_row(connection: Connection, colony: str, workflow_id: UUID, allow: Allow) -> int:
    """Locks a workflow, if the caller may do what it is about to do. Returns how many of its processes are open.

    Raises:
        NotFound: no such workflow in this colony.
    """
    cursor = await connection.execute(WRITES["lock_workflow_row"], {"id": workflow_id, "colony": colony})
    row = await cursor.fetchone()
    if row is None:
        raise no_workflow(workflow_id)
    allow(row["initiator"])
    return int(row["open"])
