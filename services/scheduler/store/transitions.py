"""Every transaction that changes a process: submit, assign, end, cancel, remove. Each commits whole or not at all."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from servicekit.failures import AlreadyExists, FailedPrecondition, NotFound
from servicekit.postgres import Connection, Database, Queries
from services.scheduler.domain.endings import Prior
from services.scheduler.domain.ports import Allow, Decide
from services.scheduler.domain.records import (
    Assigned,
    AttemptRef,
    Changes,
    Ending,
    Entered,
    ExecutorProfile,
    Live,
    Place,
    Submission,
)
from services.scheduler.domain.states import FINAL, LEGAL, Outcome, Reason, State
from services.scheduler.store.rows import live_of

SQL = Queries("services.scheduler.store")


def no_process(process_id: UUID) -> NotFound:
    """The answer for a process that is not in this colony, wherever it is."""
    return NotFound(f"no process {process_id} in this colony", reason="PROCESS_NOT_FOUND")


def no_workflow(workflow_id: UUID) -> NotFound:
    """The answer for a workflow that is not in this colony, wherever it is."""
    return NotFound(f"no workflow {workflow_id} in this colony", reason="WORKFLOW_NOT_FOUND")


class Transitions:
    """Writes to the scheduler's tables. What a method returns as Changes is committed, and is still to be told to the queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, submission: Submission) -> Entered:
        """Enters a submission, or returns what its request id gave when it came first.

        Raises:
            AlreadyExists: the request id was used for something else.
        """
        return await self._database.run(lambda connection: _enter(connection, submission))

    async def request(self, colony: str, actor: str, request_id: str) -> Sequence[UUID]:
        """The processes that a request id gave; none if it was never committed."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                SQL["read_request"], {"colony": colony, "actor": actor, "request_id": request_id}
            )
            row = await cursor.fetchone()
        return row["process_ids"] if row else ()

    async def assign(
        self, colony: str, executor: ExecutorProfile, ids: Sequence[UUID], at: datetime
    ) -> list[Assigned]:
        """Begins attempts of those processes that are still ready, most urgent first."""
        parameters = {
            "colony": colony,
            "ids": list(ids),
            "executor_id": executor.identity,
            "executor_name": executor.name,
            "at": at,
        }

        async def work(connection: Connection) -> list[Assigned]:
            rows = await (await connection.execute(SQL["assign"], parameters)).fetchall()
            with_parents = [row["id"] for row in rows if row["workflow_id"] is not None]
            inputs = await read_inputs(connection, with_parents)
            return [Assigned(live_of(row), row["spec"], inputs[row["id"]]) for row in rows]

        return await self._database.run(work)

    async def end(
        self, colony: str, refs: Sequence[AttemptRef], decide: Decide, at: datetime, *, must_exist: bool = False
    ) -> tuple[Changes, dict[UUID, State]]:
        """Ends attempts or processes as `decide` says, and all that follows for children and descendants.

        Args:
            colony: the tenant.
            refs: processes, each once, with the attempt number that is meant (0 for none).
            decide: called with each locked row and the attempt as recorded; what it raises undoes everything.
            at: now.
            must_exist: whether a process that is not there is an error, or of no consequence.

        Returns:
            What changed, and the state that each process has now.

        Raises:
            NotFound: with `must_exist`, no such process in this colony.
        """

        async def work(connection: Connection) -> tuple[Changes, dict[UUID, State]]:
            parameters = {"ids": [ref.process_id for ref in refs], "colony": colony}
            rows = await (await connection.execute(SQL["lock_processes"], parameters)).fetchall()
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
            return await _end(connection, lives, endings, at), states

        return await self._database.run(work)

    async def cancel_workflow(
        self, colony: str, workflow_id: UUID, allow: Allow, decide: Decide, at: datetime
    ) -> Changes:
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
            return await _end(connection, lives, endings, at)

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

    async def open_page(self, after: int, limit: int) -> list[Live]:
        """Open processes of all colonies in submission order, for a rebuild of the queue."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(SQL["read_open"], {"after": after, "limit": limit})).fetchall()
        return [live_of(row) for row in rows]

    async def purge(self, colony: str, *, page: int = 1_000) -> None:
        """Deletes all of a removed colony, a page at a time, so that no lock is held for long."""
        while True:
            async with self._database.transaction() as connection:
                cursor = await connection.execute(SQL["purge_page"], {"colony": colony, "limit": page})
                ids = [row["id"] for row in await cursor.fetchall()]
                if not ids:
                    await connection.execute(SQL["purge_rest"], {"colony": colony})
                    return
                await connection.execute(SQL["delete_processes"], {"ids": ids})


async def read_inputs(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, list[bytes]]:
    """The inputs of processes: serialised Values, parents in dependency order."""
    inputs: dict[UUID, list[bytes]] = defaultdict(list)
    if ids:
        for row in await (await connection.execute(SQL["read_inputs"], {"ids": list(ids)})).fetchall():
            inputs[row["child_id"]] += row["outputs"]
    return inputs


async def _enter(connection: Connection, submission: Submission) -> Entered:
    ids = [process.id for process in submission.processes]
    request = {"colony": submission.colony, "actor": submission.actor, "request_id": submission.request_id}
    common = {
        "colony": submission.colony,
        "workflow_id": submission.workflow_id,
        "initiator": submission.account.identity,
        "initiator_name": submission.account.name,
        "actor": submission.actor,
        "at": submission.at,
    }
    taken = await connection.execute(
        SQL["claim_request"], {**request, **common, "digest": submission.digest, "process_ids": ids}
    )
    if await taken.fetchone() is None:
        return await _entered_before(connection, submission, request)
    if submission.workflow_id is not None:
        await connection.execute(
            SQL["insert_workflow"], {**common, "id": submission.workflow_id, "label": submission.label}
        )
    specs = [process.spec for process in submission.processes]
    cursor = await connection.execute(
        SQL["insert_processes"],
        {
            **common,
            "ids": ids,
            "node_names": [spec.node_name for spec in specs],
            "func_names": [spec.func_name for spec in specs],
            "executor_types": [spec.executor_type for spec in specs],
            "executor_names": [",".join(spec.executor_names) for spec in specs],
            "locations": [spec.location for spec in specs],
            "labels": [spec.label for spec in specs],
            "priority_times": [process.priority_time for process in submission.processes],
            "max_wait_ms": [spec.max_wait_ms for spec in specs],
            "max_exec_ms": [spec.max_exec_ms for spec in specs],
            "max_retries": [spec.max_retries for spec in specs],
            "specs": [spec.body for spec in specs],
            "pending_parents": [process.pending_parents for process in submission.processes],
        },
    )
    sequences = {row["id"]: row["sequence"] for row in await cursor.fetchall()}
    if submission.edges:
        await connection.execute(
            SQL["insert_edges"],
            {
                "children": [edge.child for edge in submission.edges],
                "positions": [edge.position for edge in submission.edges],
                "parents": [edge.parent for edge in submission.edges],
                "selectors": [edge.selector for edge in submission.edges],
                "ks": [edge.k for edge in submission.edges],
                "ns": [edge.n for edge in submission.edges],
            },
        )
    ready = [
        Place(
            process.id,
            submission.colony,
            sequences[process.id],
            process.spec.executor_type,
            process.spec.executor_names,
            process.spec.location,
            process.priority_time,
            submission.at + timedelta(milliseconds=process.spec.max_wait_ms) if process.spec.max_wait_ms else None,
        )
        for process in submission.processes
        if process.id in sequences
    ]
    return Entered(submission.workflow_id, ids, Changes(ready=ready))


async def _entered_before(connection: Connection, submission: Submission, request: dict[str, str]) -> Entered:
    row = await (await connection.execute(SQL["read_request"], request)).fetchone()
    assert row is not None, "a request id that is taken has a committed row"
    if bytes(row["digest"]) != submission.digest:
        msg = f"request_id {submission.request_id} was used for another submit"
        raise AlreadyExists(msg, reason="REQUEST_ID_REUSED")
    return Entered(row["workflow_id"], row["process_ids"], Changes())


def _is_past(live: Live | None, ref: AttemptRef) -> bool:
    """Whether the attempt that a call names is not the live one, so that its record tells more."""
    return live is not None and ref.number > 0 and (live.state is not State.RUNNING or live.attempt != ref.number)


async def _priors(connection: Connection, refs: Sequence[AttemptRef]) -> dict[UUID, Prior]:
    if not refs:
        return {}
    parameters = {"ids": [ref.process_id for ref in refs], "numbers": [ref.number for ref in refs]}
    rows = await (await connection.execute(SQL["read_priors"], parameters)).fetchall()
    return {row["process_id"]: Prior(row["executor_id"], Outcome(row["outcome"])) for row in rows}


async def _lock_workflow_row(
    connection: Connection, colony: str, workflow_id: UUID, allow: Allow
) -> None:
    cursor = await connection.execute(SQL["lock_workflow_row"], {"id": workflow_id, "colony": colony})
    row = await cursor.fetchone()
    if row is None:
        raise no_workflow(workflow_id)
    allow(row["initiator"])


async def _end(connection: Connection, lives: dict[UUID, Live], endings: Sequence[Ending], at: datetime) -> Changes:
    """Writes endings of locked rows and what follows from them."""
    changes = Changes()
    if not endings:
        return changes
    await _write(connection, lives, endings, at)
    for ending in endings:
        live = lives[ending.id]
        changes.touched.update({live.id, live.workflow_id} if live.workflow_id else {live.id})
        if live.state is State.RUNNING:
            changes.released.append(live)
        elif live.is_ready:
            changes.withdrawn.append(live.place)
        if ending.to_state is State.WAITING:
            changes.ready.append(_again(live, at))
    in_workflows = [ending for ending in endings if lives[ending.id].workflow_id is not None]
    successes = [ending.id for ending in in_workflows if ending.to_state is State.SUCCESSFUL]
    if successes:
        await _unlock(connection, successes, at, changes)
    failures = [ending.id for ending in in_workflows if ending.to_state is State.FAILED]
    await _end_descendants(connection, failures, State.FAILED, Reason.PARENT_FAILED, at, changes)
    cancelled = [ending.id for ending in in_workflows if ending.to_state is State.CANCELLED]
    await _end_descendants(connection, cancelled, State.CANCELLED, Reason.PARENT_CANCELLED, at, changes)
    return changes


def _again(live: Live, at: datetime) -> Place:
    deadline = at + timedelta(milliseconds=live.max_wait_ms) if live.max_wait_ms else None
    return Place(
        live.id,
        live.colony,
        live.sequence,
        live.executor_type,
        live.executor_names,
        live.location,
        live.priority_time,
        deadline,
    )


async def _write(connection: Connection, lives: dict[UUID, Live], endings: Sequence[Ending], at: datetime) -> None:
    for ending in endings:
        assert (lives[ending.id].state, ending.to_state) in LEGAL, (lives[ending.id].state, ending)
    await connection.execute(
        SQL["end_processes"],
        {
            "ids": [ending.id for ending in endings],
            "from_states": [lives[ending.id].state for ending in endings],
            "to_states": [ending.to_state for ending in endings],
            "outcomes": [ending.outcome for ending in endings],
            "retries": [int(ending.counts_as_retry) for ending in endings],
            "actors": [ending.actor for ending in endings],
            "reasons": [ending.reason.value for ending in endings],
            "at": at,
        },
    )
    async with connection.pipeline():
        for ending in endings:
            if ending.outputs is not None:
                await connection.execute(SQL["store_outputs"], {"id": ending.id, "outputs": ending.outputs})
            if ending.errors:
                await connection.execute(SQL["store_errors"], {"id": ending.id, "errors": ending.errors})


async def _unlock(connection: Connection, parents: Sequence[UUID], at: datetime, changes: Changes) -> None:
    """Children that now have no parent left to wait for become ready, or fail for want of an output."""
    rows = await (await connection.execute(SQL["unlock_children"], {"parents": list(parents), "at": at})).fetchall()
    lives = {row["id"]: live_of(row) for row in rows}
    if not lives:
        return
    cursor = await connection.execute(SQL["missing_outputs"], {"children": list(lives)})
    missing: dict[UUID, list[str]] = defaultdict(list)
    for row in await cursor.fetchall():
        missing[row["child_id"]].append(
            f"parent {row['parent']!r} closed with {row['count']} outputs; there is no output {row['index']}"
        )
    changes.ready += [live.place for live in lives.values() if live.id not in missing]
    if missing:
        endings = [Ending(child, State.FAILED, Reason.MISSING_OUTPUT, "", errors=errors) for child, errors in missing.items()]
        await _write(connection, lives, endings, at)
        changes.touched.update(missing)
        await _end_descendants(connection, list(missing), State.FAILED, Reason.PARENT_FAILED, at, changes)


_DESCENDANT_ERRORS = {
    State.FAILED: "not run: %s failed",
    State.CANCELLED: "not run: %s was cancelled",
}


async def _end_descendants(
    connection: Connection, roots: Sequence[UUID], to_state: State, reason: Reason, at: datetime, changes: Changes
) -> None:
    if not roots:
        return
    parameters = {
        "roots": list(roots),
        "to_state": to_state,
        "reason": reason.value,
        "error": _DESCENDANT_ERRORS[to_state],
        "at": at,
    }
    rows = await (await connection.execute(SQL["end_descendants"], parameters)).fetchall()
    changes.touched.update(row["process_id"] for row in rows)
