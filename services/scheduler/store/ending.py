"""The end of processes in one transaction: their rows and ledger lines, their children and descendants."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from servicekit.arrays import Bools, Bytes, Ints, SmallInts, Texts, Timestamps, Uuids
from servicekit.postgres import Connection
from services.scheduler.domain.records import Changes, Ending, Live, Place
from services.scheduler.domain.states import LEGAL, Reason, State
from services.scheduler.store.receipts import digest_of, keep
from services.scheduler.store.rows import live_of
from services.scheduler.store.sql import ENDING as SQL

MIB = 1024 * 1024
# The inputs of one process.
MAX_INPUT_BYTES = 32 * MIB

_DESCENDANT_ERRORS = {
    State.FAILED: "not run: %s failed",
    State.CANCELLED: "not run: %s was cancelled",
}


async def end(connection: Connection, lives: Mapping[UUID, Live], endings: Sequence[Ending], at: datetime) -> Changes:
    """Writes endings of locked rows, and what follows from them for children and descendants."""
    changes = Changes()
    if not endings:
        return changes
    # The clock may have been read before that of an assignment which had the row first: nothing ends before it began.
    at = max([at, *(began for ending in endings if (began := lives[ending.id].started_at) is not None)])
    await _write(connection, lives, endings, at)
    for ending in endings:
        live = lives[ending.id]
        changes.touched.update({live.id, live.workflow_id} if live.workflow_id else {live.id})
        if live.state is State.RUNNING:
            changes.released.append(live.live_attempt)
        elif live.is_ready:
            changes.withdrawn.append(live.place)
        if ending.to_state is State.WAITING:
            changes.ready.append(_again(live, ending, at))
    over = [ending for ending in endings if ending.to_state is not State.WAITING and lives[ending.id].workflow_id is not None]
    while over:
        over, lives = await _follow(connection, lives, over, at, changes)
    return changes


async def _follow(
    connection: Connection, lives: Mapping[UUID, Live], over: Sequence[Ending], at: datetime, changes: Changes
) -> tuple[list[Ending], Mapping[UUID, Live]]:
    """What the end of processes means for those below them. Returns the children that fail because of it, ended already, with
    their rows.
    """
    failed = [ending.id for ending in over if ending.to_state is State.FAILED]
    cancelled = [ending.id for ending in over if ending.to_state is State.CANCELLED]
    unsuccessful = failed + cancelled
    unsuccessful += await _end_descendants(connection, lives, failed, State.FAILED, Reason.PARENT_FAILED, at)
    unsuccessful += await _end_descendants(connection, lives, cancelled, State.CANCELLED, Reason.PARENT_CANCELLED, at)
    changes.touched.update(unsuccessful)
    successful = [ending.id for ending in over if ending.to_state is State.SUCCESSFUL]
    return await _unlock(connection, successful, unsuccessful, at, changes)


def _again(live: Live, ending: Ending, at: datetime) -> Place:
    """The place of a process that goes back to the queue. Its row was read while it ran."""
    place = live.place
    wait_deadline = live.wait_deadline_from(ending.backoff_until or at)
    return Place(
        place.id,
        place.colony,
        place.sequence,
        place.executor_type,
        place.executor_names,
        place.location,
        place.needs,
        place.priority_time,
        place.attempt,
        wait_deadline,
        ending.backoff_until,
    )


async def _write(connection: Connection, lives: Mapping[UUID, Live], endings: Sequence[Ending], at: datetime) -> None:
    for ending in endings:
        assert (lives[ending.id].state, ending.to_state) in LEGAL, (lives[ending.id].state, ending)
    outputs = flattened(ending.outputs or () for ending in endings)
    errors = flattened(ending.errors for ending in endings)
    await connection.execute(
        SQL["end_processes"],
        {
            "ids": Uuids([ending.id for ending in endings]),
            "from_states": SmallInts([lives[ending.id].state for ending in endings]),
            "to_states": SmallInts([ending.to_state for ending in endings]),
            "outcomes": SmallInts([ending.outcome for ending in endings]),
            "retries": Ints([int(ending.counts_as_retry) for ending in endings]),
            "actors": Texts([ending.actor for ending in endings]),
            "reasons": Texts([ending.reason.value for ending in endings]),
            "backoffs": Timestamps([ending.backoff_until for ending in endings]),
            "put": Bools([ending.outputs is not None for ending in endings]),
            "receipts": Bytes([digest_of(ending.receipt) for ending in endings]),
            "output_positions": Ints([position for position, _ in outputs]),
            "outputs": Bytes([output for _, output in outputs]),
            "error_positions": Ints([position for position, _ in errors]),
            "errors": Texts([error for _, error in errors]),
            "at": at,
        },
    )
    # All rows are of one colony.
    colony = lives[endings[0].id].colony
    uses = Counter(digest_of(ending.receipt) for ending in endings)
    for receipt in {ending.receipt.digest: ending.receipt for ending in endings if ending.receipt is not None}.values():
        await keep(connection, colony, receipt, uses[receipt.digest])


def flattened(lists: Iterable[Sequence[Any]]) -> list[tuple[int, Any]]:
    """Elements with the positions (from 1) of the lists that they are in: Postgres has no ragged arrays."""
    return [(position, element) for position, elements in enumerate(lists, 1) for element in elements]


async def _unlock(
    connection: Connection, successful: Sequence[UUID], unsuccessful: Sequence[UUID], at: datetime, changes: Changes
) -> tuple[list[Ending], Mapping[UUID, Live]]:
    """Children that now have no parent left to wait for become ready, or fail for want of an output. Returns these."""
    parameters = {
        "parents": Uuids([*successful, *unsuccessful]),
        "successful": Bools([True] * len(successful) + [False] * len(unsuccessful)),
        "at": at,
    }
    rows = await (await connection.execute(SQL["unlock_children"], parameters)).fetchall()
    lives = {row["id"]: live_of(row) for row in rows}
    endings = await _unusable(connection, rows)
    failed = {ending.id for ending in endings}
    changes.ready += [live.place for live in lives.values() if live.id not in failed]
    if endings:
        await _write(connection, lives, endings, at)
    return endings, lives


async def _unusable(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Ending]:
    """The ends of children that cannot have their input."""
    suspects = [row["id"] for row in rows if row["missing"]]
    missing: dict[UUID, list[str]] = defaultdict(list)
    if suspects:
        cursor = await connection.execute(SQL["missing_outputs"], {"children": Uuids(suspects)})
        for row in await cursor.fetchall():
            missing[row["child_id"]].append(
                f"parent {row['parent']!r} closed with {row['count']} outputs; there is no output {row['index']}"
            )
    endings = [Ending(child, State.FAILED, Reason.MISSING_OUTPUT, "", errors=errors) for child, errors in missing.items()]
    suspects = [row["id"] for row in rows if row["bytes"] > MAX_INPUT_BYTES and row["id"] not in missing]
    if suspects:
        parameters = {"children": Uuids(suspects), "at_most": MAX_INPUT_BYTES}
        cursor = await connection.execute(SQL["oversized_inputs"], parameters)
        for row in await cursor.fetchall():
            if row["bytes"] > MAX_INPUT_BYTES:
                error = f"its input would have {row['bytes']} bytes; at most {MAX_INPUT_BYTES}"
                endings.append(Ending(row["child_id"], State.FAILED, Reason.INPUT_TOO_LARGE, "", errors=[error]))
    return endings


async def _end_descendants(
    connection: Connection, lives: Mapping[UUID, Live], roots: Sequence[UUID], to_state: State, reason: Reason, at: datetime
) -> list[UUID]:
    if not roots:
        return []
    parameters = {
        "roots": Uuids(roots),
        "root": lives[roots[0]].node_name if len(roots) == 1 else None,
        "to_state": to_state,
        "reason": reason.value,
        "error": _DESCENDANT_ERRORS[to_state],
        "at": at,
    }
    rows = await (await connection.execute(SQL["end_descendants"], parameters)).fetchall()
    return [row["process_id"] for row in rows]
