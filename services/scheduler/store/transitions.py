"""Every transaction that changes a process: submit, assign, end, cancel, remove. Each commits whole or not at all."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from servicekit.failures import FailedPrecondition
from servicekit.postgres import Connection, Database
from services.scheduler.domain.endings import Prior
from services.scheduler.domain.ports import Allow, Decide
from services.scheduler.domain.records import Assigned, AttemptRef, Changes, Entered, ExecutorProfile, Live, Over, Submission
from services.scheduler.domain.states import FINAL, Outcome, State
from services.scheduler.store.ending import end
from services.scheduler.store.entering import enter
from services.scheduler.store.rows import live_of
from services.scheduler.store.sql import WRITES as SQL
from services.scheduler.store.sql import no_process, no_workflow

MIB = 1024 * 1024
# What goes into one answer besides the first process; clients take 64 MiB.
MAX_ANSWER_BYTES = 16 * MIB


class Transitions:
    """Writes to the scheduler's tables. What a method returns as Changes is committed, and is still to be told to the queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, submission: Submission) -> Entered:
        """Enters a submission, or returns what its request id gave when it came first.

        Raises:
            AlreadyExists: the request id was used for something else.
        """
        return await self._database.run(lambda connection: enter(connection, submission))

    async def request(self, colony: str, actor: str, request_id: str) -> Sequence[UUID]:
        """The processes that a request id gave; none if it was never committed."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(SQL["read_request"], {"colony": colony, "actor": actor, "request_id": request_id})
            row = await cursor.fetchone()
        return row["process_ids"] if row else ()

    async def ping(self) -> None:
        """Whether Postgres answers.

        Raises:
            Unavailable: it does not.
        """
        async with self._database.transaction() as connection:
            await connection.execute(SQL["ping"])

    async def assign(
        self, colony: str, executor: ExecutorProfile, ids: Sequence[UUID], at: datetime
    ) -> tuple[list[Assigned], list[UUID]]:
        """Begins attempts of those processes that are still ready, most urgent first. What does not go into one answer with
        them is left, and returned beside them.
        """
        parameters = {
            "colony": colony,
            "ids": list(ids),
            "executor_id": executor.identity,
            "executor_name": executor.name,
            "at": at,
        }

        async def work(connection: Connection) -> tuple[list[Assigned], list[UUID]]:
            fitting, left = await _fitting(connection, ids)
            parameters["ids"] = fitting
            rows = await (await connection.execute(SQL["assign"], parameters)).fetchall()
            with_parents = [row["id"] for row in rows if row["workflow_id"] is not None]
            inputs = await read_inputs(connection, with_parents)
            return [Assigned(live_of(row), row["spec"], inputs[row["id"]]) for row in rows], left

        return await self._database.run(work)

    async def end(
        self,
        colony: str,
        refs: Sequence[AttemptRef],
        decide: Decide,
        at: datetime,
        *,
        must_exist: bool = False,
        skip_locked: bool = False,
    ) -> tuple[Changes, dict[UUID, State]]:
        """Ends attempts or processes as `decide` says, and all that follows for children and descendants.

        Args:
            colony: the tenant.
            refs: processes, each once, with the attempt number that is meant (0 for none).
            decide: called with each locked row and the attempt as recorded; what it raises undoes everything.
            at: now.
            must_exist: whether a process that is not there is an error, or of no consequence.
            skip_locked: rows that another transaction is at are left out.

        Returns:
            What changed, and the state that each process has now; without those that are not there or were left out.

        Raises:
            NotFound: with `must_exist`, no such process in this colony.
        """

        async def work(connection: Connection) -> tuple[Changes, dict[UUID, State]]:
            parameters = {"ids": [ref.process_id for ref in refs], "colony": colony}
            query = SQL["lock_free_processes" if skip_locked else "lock_processes"]
            rows = await (await connection.execute(query, parameters)).fetchall()
            lives = {row["id"]: live_of(row) for row in rows}
            if must_exist:
                for ref in refs:
                    if ref.process_id not in lives:
                        raise no_process(ref.process_id)
            priors = await _priors(connection, [ref for ref in refs if _is_past(lives.get(ref.process_id), ref)])
            endings = [
                ending
                for ref in refs
                if (live := lives.get(ref.process_id)) is not None
                and (ending := decide(live, priors.get(ref.process_id))) is not None
            ]
            states = {live.id: live.state for live in lives.values()}
            states.update({ending.id: ending.to_state for ending in endings})
            return await end(connection, lives, endings, at), states

        return await self._database.run(work)

    async def cancel_workflow(self, colony: str, workflow_id: UUID, allow: Allow, decide: Decide, at: datetime) -> Changes:
        """Ends every open process of a workflow as `decide` says. `allow` is asked with the initiator first.

        Raises:
            NotFound: no such workflow in this colony.
        """

        async def work(connection: Connection) -> Changes:
            await _lock_workflow_row(connection, colony, workflow_id, allow)
            parameters = {"workflow_id": workflow_id, "colony": colony}
            rows = await (await connection.execute(SQL["lock_workflow"], parameters)).fetchall()
            lives = {row["id"]: live_of(row) for row in rows}
            endings = [ending for live in lives.values() if (ending := decide(live, None)) is not None]
            # All that is open is here: to look for descendants would cost the square of the workflow's size.
            return await end(connection, lives, endings, at, descendants=False)

        return await self._database.run(work)

    async def remove_process(self, colony: str, process_id: UUID, allow: Allow) -> None:
        """Removes a process in a final state. `allow` is asked with the initiator first.

        Raises:
            NotFound: no such process in this colony.
            FailedPrecondition: it is not in a final state, or belongs to a workflow.
        """

        async def work(connection: Connection) -> None:
            parameters = {"ids": [process_id], "colony": colony}
            row = await (await connection.execute(SQL["lock_processes"], parameters)).fetchone()
            if row is None:
                raise no_process(process_id)
            live = live_of(row)
            allow(live.initiator)
            if live.workflow_id is not None:
                msg = f"process {process_id} belongs to workflow {live.workflow_id}: remove that"
                raise FailedPrecondition(msg, reason="PROCESS_IN_WORKFLOW")
            if not live.is_final:
                msg = f"process {process_id} is {live.state.name}: cancel it first"
                raise FailedPrecondition(msg, reason="PROCESS_NOT_FINAL")
            await connection.execute(SQL["delete_processes"], {"ids": [process_id]})

        await self._database.run(work)

    async def remove_workflow(self, colony: str, workflow_id: UUID, allow: Allow) -> None:
        """Removes a workflow whose processes are all in a final state. `allow` is asked with the initiator first.

        Raises:
            NotFound: no such workflow in this colony.
            FailedPrecondition: a process is not in a final state.
        """

        async def work(connection: Connection) -> None:
            await _lock_workflow_row(connection, colony, workflow_id, allow)
            rows = await (await connection.execute(SQL["workflow_processes"], {"id": workflow_id})).fetchall()
            if any(State(row["state"]) not in FINAL for row in rows):
                msg = f"workflow {workflow_id} has processes that are not in a final state: cancel it first"
                raise FailedPrecondition(msg, reason="WORKFLOW_NOT_FINAL")
            await connection.execute(SQL["delete_processes"], {"ids": [row["id"] for row in rows]})
            await connection.execute(SQL["delete_workflow"], {"id": workflow_id})

        await self._database.run(work)

    async def lives(self, colony: str, ids: Sequence[UUID], *, with_children: bool = False) -> list[Live]:
        """Rows as they are; those that are not there are left out."""
        async with self._database.transaction() as connection:
            parameters = {"ids": list(ids), "colony": colony}
            rows = await (await connection.execute(SQL["read_live"], parameters)).fetchall()
            if with_children:
                rows += await (await connection.execute(SQL["read_children"], parameters)).fetchall()
        return [live_of(row) for row in rows]

    async def over(self, ids: Sequence[UUID]) -> list[Over]:
        """The attempts of these processes that have ended."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["read_over"], {"ids": list(ids)})).fetchall()
        return [Over(row["process_id"], row["number"], row["executor_id"]) for row in rows]

    async def workflow_ids(self, workflow_id: UUID) -> list[UUID]:
        """The ids of a workflow's processes."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["workflow_processes"], {"id": workflow_id})).fetchall()
        return [row["id"] for row in rows]

    async def open_page(self, after: int, limit: int) -> list[Live]:
        """Open processes of all colonies in submission order, for a rebuild of the queue."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["read_open"], {"after": after, "limit": limit})).fetchall()
        return [live_of(row) for row in rows]

    async def purge(self, colony: str, *, page: int = 1_000) -> None:
        """Deletes all of a removed colony, a page at a time, so that no lock is held for long."""

        async def work(connection: Connection) -> int:
            cursor = await connection.execute(SQL["purge_page"], {"colony": colony, "limit": page})
            ids = [row["id"] for row in await cursor.fetchall()]
            await connection.execute(SQL["delete_processes"], {"ids": ids})
            if not ids:
                await connection.execute(SQL["purge_rest"], {"colony": colony})
            return len(ids)

        while await self._database.run(work):
            pass


async def read_inputs(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, list[bytes]]:
    """The inputs of processes: serialised Values, parents in dependency order."""
    inputs: dict[UUID, list[bytes]] = defaultdict(list)
    if ids:
        for row in await (await connection.execute(SQL["read_inputs"], {"ids": list(ids)})).fetchall():
            inputs[row["child_id"]] += row["outputs"]
    return inputs


async def _fitting(connection: Connection, ids: Sequence[UUID]) -> tuple[list[UUID], list[UUID]]:
    """The first of these processes, as many as go into one answer but at least one, and the others."""
    if len(ids) == 1:
        return list(ids), []
    rows = await (await connection.execute(SQL["measure"], {"ids": list(ids)})).fetchall()
    sizes = {row["id"]: row["bytes"] for row in rows}
    total = 0
    for position, process_id in enumerate(ids):
        total += sizes.get(process_id, 0)
        if position and total > MAX_ANSWER_BYTES:
            return list(ids[:position]), list(ids[position:])
    return list(ids), []


def _is_past(live: Live | None, ref: AttemptRef) -> bool:
    """Whether the attempt that a call names is not the live one, so that its record tells more."""
    return live is not None and ref.number > 0 and (live.state is not State.RUNNING or live.attempt != ref.number)


async def _priors(connection: Connection, refs: Sequence[AttemptRef]) -> dict[UUID, Prior]:
    if not refs:
        return {}
    parameters = {"ids": [ref.process_id for ref in refs], "numbers": [ref.number for ref in refs]}
    rows = await (await connection.execute(SQL["read_priors"], parameters)).fetchall()
    return {row["process_id"]: Prior(row["executor_id"], Outcome(row["outcome"])) for row in rows}


async def _lock_workflow_row(connection: Connection, colony: str, workflow_id: UUID, allow: Allow) -> None:
    cursor = await connection.execute(SQL["lock_workflow_row"], {"id": workflow_id, "colony": colony})
    row = await cursor.fetchone()
    if row is None:
        raise no_workflow(workflow_id)
    allow(row["initiator"])
