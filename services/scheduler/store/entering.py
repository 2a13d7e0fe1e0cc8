"""The submit's transaction: a request id is taken, and everything enters with it, or nothing."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from servicekit.failures import AlreadyExists
from servicekit.postgres import Connection
from services.scheduler.domain.records import Changes, Edge, Entered, NewProcess, Place, Submission
from services.scheduler.store.sql import WRITES as SQL

# Rows in one statement, so that no statement of a large workflow takes long.
INSERT_PAGE = 5_000


async def enter(connection: Connection, submission: Submission) -> Entered:
    """Enters a submission, or returns what its request id gave when it came first."""
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
        await connection.execute(SQL["insert_workflow"], {**common, "id": submission.workflow_id, "label": submission.label})
    sequences: dict[UUID, int] = {}
    for start in range(0, len(submission.processes), INSERT_PAGE):
        sequences |= await _insert(connection, submission.processes[start : start + INSERT_PAGE], common)
    for start in range(0, len(submission.edges), INSERT_PAGE):
        await _draw(connection, submission.edges[start : start + INSERT_PAGE])
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


async def _insert(connection: Connection, processes: Sequence[NewProcess], common: Mapping[str, object]) -> dict[UUID, int]:
    """Enters processes; returns the sequences of those that are ready."""
    specs = [process.spec for process in processes]
    cursor = await connection.execute(
        SQL["insert_processes"],
        {
            **common,
            "ids": [process.id for process in processes],
            "node_names": [spec.node_name for spec in specs],
            "func_names": [spec.func_name for spec in specs],
            "executor_types": [spec.executor_type for spec in specs],
            "executor_names": [",".join(spec.executor_names) for spec in specs],
            "locations": [spec.location for spec in specs],
            "labels": [spec.label for spec in specs],
            "priority_times": [process.priority_time for process in processes],
            "max_wait_ms": [spec.max_wait_ms for spec in specs],
            "max_exec_ms": [spec.max_exec_ms for spec in specs],
            "max_retries": [spec.max_retries for spec in specs],
            "specs": [spec.body for spec in specs],
            "summaries": [spec.summary for spec in specs],
            "pending_parents": [process.pending_parents for process in processes],
        },
    )
    return {row["id"]: row["sequence"] for row in await cursor.fetchall()}


async def _draw(connection: Connection, edges: Sequence[Edge]) -> None:
    await connection.execute(
        SQL["insert_edges"],
        {
            "children": [edge.child for edge in edges],
            "positions": [edge.position for edge in edges],
            "parents": [edge.parent for edge in edges],
            "selectors": [edge.selector for edge in edges],
            "ks": [edge.k for edge in edges],
            "ns": [edge.n for edge in edges],
        },
    )


async def _entered_before(connection: Connection, submission: Submission, request: dict[str, str]) -> Entered:
    row = await (await connection.execute(SQL["read_request"], request)).fetchone()
    assert row is not None, "a request id that is taken has a committed row"
    if bytes(row["digest"]) != submission.digest:
        msg = f"request_id {submission.request_id} was used for another submit"
        raise AlreadyExists(msg, reason="REQUEST_ID_REUSED")
    return Entered(row["workflow_id"], row["process_ids"], Changes())
