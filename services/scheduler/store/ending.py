"""The end of processes in one transaction: their rows, attempts and ledger lines, their children and descendants."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from servicekit.postgres import Connection
from services.scheduler.domain.records import Changes, Ending, Live, Place
from services.scheduler.domain.states import LEGAL, Outcome, Reason, State
from services.scheduler.store.rows import live_of
from services.scheduler.store.sql import WRITES as SQL

MIB = 1024 * 1024
# The inputs of one process.
MAX_INPUT_BYTES = 32 * MIB

_DESCENDANT_ERRORS = {
    State.FAILED: "not run: %s failed",
    State.CANCELLED: "not run: %s was cancelled",
}


async def end(
    connection: Connection, lives: dict[UUID, Live], endings: Sequence[Ending], at: datetime, *, descendants: bool = True
) -> Changes:
    """Writes endings of locked rows and what follows from them: for children, and unless told not to, for descendants."""
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
    if not descendants:
        return changes
    failures = [ending.id for ending in in_workflows if ending.to_state is State.FAILED]
    await _end_descendants(connection, failures, State.FAILED, Reason.PARENT_FAILED, at, changes)
    cancelled = [ending.id for ending in in_workflows if ending.to_state is State.CANCELLED]
    await _end_descendants(connection, cancelled, State.CANCELLED, Reason.PARENT_CANCELLED, at, changes)
    return changes


async def store_outputs(connection: Connection, process_id: UUID, outputs: Sequence[bytes]) -> None:
    """Stores what a process put out: serialised Values."""
    parameters = {"id": process_id, "outputs": list(outputs), "output_bytes": sum(map(len, outputs))}
    await connection.execute(SQL["store_outputs"], parameters)


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
                await store_outputs(connection, ending.id, ending.outputs)
            if ending.errors:
                of_attempt = ending.outcome is not Outcome.LIVE
                parameters = {"id": ending.id, "errors": ending.errors, "of_attempt": of_attempt}
                await connection.execute(SQL["store_errors"], parameters)


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
    endings = [Ending(child, State.FAILED, Reason.MISSING_OUTPUT, "", errors=errors) for child, errors in missing.items()]
    cursor = await connection.execute(SQL["oversized_inputs"], {"children": list(lives), "at_most": MAX_INPUT_BYTES})
    for row in await cursor.fetchall():
        if row["child_id"] not in missing and row["bytes"] > MAX_INPUT_BYTES:
            error = f"its input would have {row['bytes']} bytes; at most {MAX_INPUT_BYTES}"
            endings.append(Ending(row["child_id"], State.FAILED, Reason.INPUT_TOO_LARGE, "", errors=[error]))
    failed = [ending.id for ending in endings]
    changes.ready += [live.place for live in lives.values() if live.id not in failed]
    if endings:
        await _write(connection, lives, endings, at)
        changes.touched.update(failed)
        await _end_descendants(connection, failed, State.FAILED, Reason.PARENT_FAILED, at, changes)


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
