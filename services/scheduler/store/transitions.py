"""Every transaction that changes a process: submit, assign, end, cancel, remove. Each commits whole or not at all."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from servicekit.arrays import Texts, Uuids
from servicekit.failures import FailedPrecondition
from servicekit.postgres import Connection, Database
from services.scheduler.domain.endings import CloseCall
from services.scheduler.domain.ports import Allow, Decide
from services.scheduler.domain.records import (
    AttemptRef,
    Begun,
    Changes,
    Claim,
    Entered,
    Family,
    Live,
    Over,
    Receipt,
    SubmitCall,
)
from services.scheduler.domain.states import State
from services.scheduler.store import assigning, children, closing, entering, workflows
from services.scheduler.store.ending import end
from services.scheduler.store.rows import live_of
from services.scheduler.store.sql import ENTERING, no_process
from services.scheduler.store.sql import WRITES as SQL
from services.scheduler.store.statistics import purge_statistics


class Transitions:
    """Writes to the scheduler's tables. What a method returns as Changes is committed, and is still to be told to the queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, calls: Sequence[SubmitCall], at: datetime) -> Sequence[list[Entered] | Exception]:
        """Enters calls, each whole; of a submission whose request id was used before, gives what that gave when it came first.
        AlreadyExists if a request id was for something else, or an id that was chosen for a workflow is taken.
        """
        return await entering.enter(self._database, calls, at)

    async def requests(self, colony: str, actor: str, request_ids: Sequence[str]) -> set[str]:
        """Those of the request ids that have been committed."""
        parameters = {"colony": colony, "actor": actor, "request_ids": Texts(request_ids)}
        return {row[0] for row in await self._database.tuples(ENTERING["committed_requests"], parameters)}

    async def assign(self, claims: Sequence[Claim], at: datetime) -> list[Begun]:
        """Begins attempts of those processes that are still ready, that nobody is at, and that go into one answer."""
        return await assigning.assign(self._database, claims, at)

    async def close_successes(self, calls: Sequence[CloseCall], at: datetime) -> tuple[set[int], dict[str, Changes]]:
        """Closes those calls whose attempts are all live, successful and outside workflows. Returns their places in `calls`,
        and what changed in each colony.
        """
        return await closing.close_successes(self._database, calls, at)

    async def close(
        self, calls: Sequence[CloseCall], at: datetime, *, patient: bool
    ) -> tuple[list[list[State] | Exception | None], Changes]:
        """Closes the attempts of calls of one colony, each call whole; the states of its processes, or why it was refused.
        Unless it is `patient`, None for calls with a workflow that somebody is at, or with a process that is not there.
        """
        return await closing.close(self._database, calls, at, patient=patient)

    async def ping(self) -> None:
        """Whether Postgres answers.

        Raises:
            Unavailable: it does not.
        """
        await self._database.statement(SQL["ping"])

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
            decide: called with each locked row; what it raises undoes everything.
            at: now.
            must_exist: whether a process that is not there is an error, or of no consequence.
            skip_locked: rows that another transaction is at are left out.

        Returns:
            What changed, and the state that each process has now; without those that are not there or were left out.

        Raises:
            NotFound: with `must_exist`, no such process in this colony.
        """

        async def work(connection: Connection) -> tuple[Changes, dict[UUID, State]]:
            pick = "lock_free_processes" if skip_locked else "lock_processes"
            lives = await closing.lock(connection, colony, [ref.process_id for ref in refs], pick)
            if must_exist:
                for ref in refs:
                    if ref.process_id not in lives:
                        raise no_process(ref.process_id)
            endings = [
                ending
                for ref in refs
                if (live := lives.get(ref.process_id)) is not None and (ending := decide(live)) is not None
            ]
            states = {live.id: live.state for live in lives.values()}
            states.update({ending.id: ending.to_state for ending in endings})
            return await end(connection, lives, endings, at), states

        return await self._database.run(work)

    async def cancel_workflow(
        self, colony: str, workflow_id: UUID, allow: Allow, actor: str, at: datetime, receipt: Receipt | None = None
    ) -> Changes:
        """Cancels every open process of a workflow. `allow` is asked with the initiator first.

        Raises:
            NotFound: no such workflow in this colony.
        """
        return await workflows.cancel(self._database, colony, workflow_id, allow, actor, at, receipt)

    async def retry_workflow(
        self, colony: str, workflow_id: UUID, allow: Allow, actor: str, at: datetime, receipt: Receipt | None = None
    ) -> tuple[int, Changes]:
        """Takes what failed or was cancelled back to waiting; returns how many that were. `allow` is asked as above.

        Raises:
            NotFound: no such workflow in this colony.
        """
        return await workflows.retry(self._database, colony, workflow_id, allow, actor, at, receipt)

    async def add_children(self, family: Family) -> Sequence[UUID]:
        """Adds processes below a running one; returns their ids, or those that its request id gave when it came first.

        Raises:
            AlreadyExists, NotFound, FailedPrecondition, InvalidArgument: as store.children.add says.
        """
        return await children.add(self._database, family)

    async def remove_process(self, colony: str, process_id: UUID, allow: Allow) -> None:
        """Removes a process in a final state. `allow` is asked with the initiator first.

        Raises:
            NotFound: no such process in this colony.
            FailedPrecondition: it is not in a final state, or belongs to a workflow.
        """

        async def work(connection: Connection) -> None:
            live = (await closing.lock(connection, colony, [process_id])).get(process_id)
            if live is None:
                raise no_process(process_id)
            allow(live.initiator)
            if live.workflow_id is not None:
                msg = f"process {process_id} belongs to workflow {live.workflow_id}: remove that"
                raise FailedPrecondition(msg, reason="PROCESS_IN_WORKFLOW")
            if not live.is_final:
                msg = f"process {process_id} is {live.state.name}: cancel it first"
                raise FailedPrecondition(msg, reason="PROCESS_NOT_FINAL")
            await connection.execute(SQL["delete_processes"], {"ids": Uuids([process_id])})

        await self._database.run(work)

    async def remove_workflow(self, colony: str, workflow_id: UUID, allow: Allow) -> None:
        """Removes a workflow whose processes are all in a final state. `allow` is asked with the initiator first.

        Raises:
            NotFound: no such workflow in this colony.
            FailedPrecondition: a process is not in a final state.
        """
        await workflows.remove(self._database, colony, workflow_id, allow)

    async def lives(self, colony: str, ids: Sequence[UUID], *, with_children: bool = False) -> list[Live]:
        """Rows as they are; those that are not there are left out."""
        parameters = {"ids": Uuids(ids), "colony": colony}
        rows = await self._database.statement(SQL["read_live"], parameters)
        if with_children:
            rows += await self._database.statement(SQL["read_children"], parameters)
        return [live_of(row) for row in rows]

    async def over(self, ids: Sequence[UUID]) -> list[Over]:
        """The attempts of these processes that have ended."""
        rows = await self._database.tuples(SQL["read_over"], {"ids": Uuids(ids)})
        return [Over(*row) for row in rows]

    async def workflow_ids(self, workflow_id: UUID) -> list[UUID]:
        """The ids of a workflow's processes."""
        rows = await self._database.tuples(SQL["workflow_processes"], {"id": workflow_id})
        return [row[0] for row in rows]

    async def open_page(self, after: int, limit: int) -> list[Live]:
        """Open processes of all colonies in submission order, for a rebuild of the queue."""
        rows = await self._database.statement(SQL["read_open"], {"after": after, "limit": limit})
        return [live_of(row) for row in rows]

    async def recent_page(self, since: datetime, after: UUID, limit: int) -> dict[str, list[UUID]]:
        """By colony, a page of the processes that were changed at or after a moment, in the order of their ids."""
        rows = await self._database.tuples(SQL["read_recent"], {"since": since, "after": after, "limit": limit})
        found: dict[str, list[UUID]] = defaultdict(list)
        for process_id, colony in rows:
            found[colony].append(process_id)
        return found

    async def purge(self, colony: str, *, page: int = 1_000) -> None:
        """Deletes all of a removed colony, a page at a time, so that no lock is held for long."""

        async def work(connection: Connection) -> int:
            cursor = await connection.execute(SQL["purge_page"], {"colony": colony, "limit": page})
            ids = [row["id"] for row in await cursor.fetchall()]
            await connection.execute(SQL["delete_processes"], {"ids": Uuids(ids)})
            await connection.execute(SQL["delete_ledger"], {"ids": Uuids(ids)})
            if not ids:
                cursor = await connection.execute(SQL["purge_rest"], {"colony": colony, "limit": page})
                rest = await cursor.fetchone()
                assert rest is not None, "a count has a row"
                if rest["count"]:
                    return int(rest["count"])
                await purge_statistics(connection, colony)
            return len(ids)

        while await self._database.run(work):
            pass
