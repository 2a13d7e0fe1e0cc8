"""Submits: what comes at the same time enters in one statement; each request id gives its first answer again (I1, I7, I8)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, repeat
from typing import Any
from uuid import UUID

from servicekit.arrays import BigInts, Bytes, Ints, SmallInts, Texts, Timestamps, Uuids
from servicekit.failures import AlreadyExists, Unavailable
from servicekit.postgres import Database
from services.scheduler.domain.records import Changes, Entered, NewProcess, Place, Submission
from services.scheduler.store import receipts
from services.scheduler.store.sql import ENTERING as SQL

# A workflow of a hundred thousand takes longer than statements usually may.
LARGE = 10_000
LARGE_LIMIT_S = 150.0
LARGE_TIMEOUT = "SET LOCAL statement_timeout = '120s'"


async def enter(database: Database, submissions: Sequence[Submission], at: datetime) -> list[Entered | Exception]:
    """Enters submissions, each whole; of one whose request id was used before, gives what that gave when it came first."""
    # Of two with one request id, the second finds what the first has left.
    firsts = {_key(one): one for one in reversed(submissions)}
    sequences = await _write(database, [one for one in submissions if firsts[_key(one)] is one], at)
    return [
        _entered(one, sequences)
        if firsts[_key(one)] is one and any(process.id in sequences for process in one.processes)
        else await _entered_before(database, one)
        for one in submissions
    ]


async def _write(database: Database, submissions: Sequence[Submission], at: datetime) -> dict[UUID, int]:
    """Enters what is new; returns the sequences of those processes that are ready."""
    parameters = {**parameters_of(submissions), "at": at}
    if sum(len(one.processes) for one in submissions) <= LARGE:
        rows = await database.tuples(SQL["enter"], parameters)
        return {row[0]: row[1] for row in rows}
    async with database.transaction(limit_s=LARGE_LIMIT_S) as connection:
        await connection.execute(LARGE_TIMEOUT)
        cursor = await connection.execute(SQL["enter"], parameters)
        return {row["id"]: row["sequence"] for row in await cursor.fetchall()}


async def _entered_before(database: Database, submission: Submission) -> Entered | Exception:
    parameters = {"colony": submission.colony, "actor": submission.actor, "request_id": submission.request_id}
    rows = await database.statement(SQL["read_request"], parameters)
    if not rows:
        # It was taken when the statement ran, and forgotten since: a day had just passed.
        return Unavailable("a request id of that name was just forgotten", reason="REQUEST_ID_EXPIRING")
    return answer_again(submission, rows[0])


def answer_again(submission: Submission, row: Mapping[str, Any]) -> Entered | Exception:
    """What a request id gave when it came first, or the refusal if it was for something else."""
    if bytes(row["digest"]) != submission.digest:
        msg = f"request_id {submission.request_id} was used for another submit"
        return AlreadyExists(msg, reason="REQUEST_ID_REUSED")
    return Entered(row["workflow_id"], row["process_ids"], Changes())


def columns_of(processes: Sequence[NewProcess]) -> dict[str, Any]:
    """What is entered of processes, as parameters."""
    specs = [process.spec for process in processes]
    return {
        "ids": Uuids([process.id for process in processes]),
        "node_names": Texts([spec.node_name for spec in specs]),
        "func_names": Texts([spec.func_name for spec in specs]),
        "executor_types": Texts([spec.executor_type for spec in specs]),
        "executor_names": Texts([",".join(spec.executor_names) for spec in specs]),
        "locations": Texts([spec.location for spec in specs]),
        "needs": Texts([spec.needs for spec in specs]),
        "labels": Texts([spec.label for spec in specs]),
        "priority_times": BigInts([process.priority_time for process in processes]),
        "max_wait_ms": BigInts([spec.max_wait_ms for spec in specs]),
        "max_exec_ms": BigInts([spec.max_exec_ms for spec in specs]),
        "max_retries": Ints([spec.max_retries for spec in specs]),
        "backoffs": Texts([",".join(map(repr, spec.backoff)) for spec in specs]),
        "channels": Texts([",".join(spec.channels) for spec in specs]),
        "specs": Bytes([spec.body for spec in specs]),
        "summaries": Bytes([spec.summary for spec in specs]),
        "parent_policies": SmallInts([spec.parent_policy for spec in specs]),
        "pending_parents": Ints([process.pending_parents for process in processes]),
        "places": Ints([process.place for process in processes]),
    }


def _key(submission: Submission) -> tuple[str, str, str]:
    return submission.colony, submission.actor, submission.request_id


def _entered(submission: Submission, sequences: Mapping[UUID, int]) -> Entered:
    ready = [_place(process, submission, sequences[process.id]) for process in submission.processes if process.id in sequences]
    return Entered(submission.workflow_id, [process.id for process in submission.processes], Changes(ready=ready))


def _place(process: NewProcess, submission: Submission, sequence: int) -> Place:
    spec = process.spec
    return Place(
        process.id,
        submission.colony,
        sequence,
        spec.executor_type,
        spec.executor_names,
        spec.location,
        spec.needs,
        process.priority_time,
        1,
        submission.at + timedelta(milliseconds=spec.max_wait_ms) if spec.max_wait_ms else None,
        None,
    )


def parameters_of(submissions: Sequence[Submission]) -> dict[str, Any]:
    """All that `enter` takes but the time."""
    numbered = list(enumerate(submissions, 1))
    edges = [edge for one in submissions for edge in one.edges]
    return {
        "colonies": Texts([one.colony for one in submissions]),
        "actors": Texts([one.actor for one in submissions]),
        "request_ids": Texts([one.request_id for one in submissions]),
        "digests": Bytes([one.digest for one in submissions]),
        "workflow_ids": Uuids([one.workflow_id for one in submissions]),
        "workflow_labels": Texts([one.label for one in submissions]),
        "initiators": Texts([one.account.identity for one in submissions]),
        "initiator_names": Texts([one.account.name for one in submissions]),
        "times": Timestamps([one.at for one in submissions]),
        **receipts.columns_of([one.receipt for one in submissions]),
        "requests": Ints(list(chain.from_iterable(repeat(number, len(one.processes)) for number, one in numbered))),
        **columns_of([process for one in submissions for process in one.processes]),
        "edge_requests": Ints(list(chain.from_iterable(repeat(number, len(one.edges)) for number, one in numbered))),
        "edge_children": Uuids([edge.child for edge in edges]),
        "edge_positions": Ints([edge.position for edge in edges]),
        "edge_parents": Uuids([edge.parent for edge in edges]),
        "edge_selectors": SmallInts([edge.selector for edge in edges]),
        "edge_ks": Ints([edge.k for edge in edges]),
        "edge_ns": Ints([edge.n for edge in edges]),
    }
