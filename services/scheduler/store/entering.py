"""Submits: what comes at the same time enters in one statement; each request id gives its first answer again (I1, I7, I8)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, repeat
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.rows import tuple_row

from servicekit.arrays import BigInts, Bytes, Ints, SmallInts, Texts, Timestamps, Uuids
from servicekit.failures import AlreadyExists, Unavailable
from servicekit.postgres import LIMIT_S, Connection, Database
from services.scheduler.domain.records import Changes, Entered, NewProcess, Place, Submission, SubmitCall
from services.scheduler.store import receipts
from services.scheduler.store.sql import ENTERING as SQL

# A workflow of a hundred thousand takes longer than statements usually may; and a plan that was made for few goes over all of
# them for each.
LARGE = 2_000
LARGE_LIMIT_S = 150.0


# What tells that the id which was chosen for a workflow is taken.
WORKFLOW_KEY = "workflow_pkey"


class _Overtaken(Exception):
    """Somebody else has entered one of the submissions, or a workflow of one of the ids, since these were looked at."""


async def enter(database: Database, calls: Sequence[SubmitCall], at: datetime) -> list[list[Entered] | Exception]:
    """Enters calls, each whole; of a submission whose request id was used before, gives what that gave when it came first."""
    if all(call.is_plain for call in calls):
        outcomes = await _enter_each(database, [call.submissions[0] for call in calls], at)
        return [outcome if isinstance(outcome, Exception) else [outcome] for outcome in outcomes]
    answers: dict[int, list[Entered] | Exception] = {}
    waiting = dict(enumerate(calls))
    while waiting:
        # Of two that share something, the second finds what the first has left.
        turn = _apart(waiting)
        answers.update(await _enter_calls(database, turn, at))
        # What somebody else has overtaken is looked at again: whoever did so has committed, so this comes to an end.
        waiting = {place: call for place, call in waiting.items() if place not in answers}
    return [answers[place] for place in range(len(calls))]


def _apart(calls: Mapping[int, SubmitCall]) -> dict[int, SubmitCall]:
    """The first of the calls, and those that share neither request ids nor chosen workflow ids with one before."""
    taken: set[object] = set()
    apart = {}
    for place, call in calls.items():
        if taken.isdisjoint(call.ids):
            apart[place] = call
        taken |= call.ids
    return apart


async def _enter_calls(
    database: Database, calls: Mapping[int, SubmitCall], at: datetime
) -> dict[int, list[Entered] | Exception]:
    """Enters calls that share nothing; none, if somebody else was faster with anything of them. Those that are refused have
    their answers in any case.
    """
    known = await _known(database, [one for call in calls.values() for one in call.submissions])
    refused = {place: refusal for place, call in calls.items() if (refusal := _refusal(call, known)) is not None}
    good = {place: call for place, call in calls.items() if place not in refused}
    new = [one for call in good.values() for one in call.submissions if known[_key(one)]["digest"] is None]
    try:
        sequences = await _write_all(database, new, at) if new else {}
    except _Overtaken:
        return {**refused}
    answers = {
        place: [
            _entered(one, sequences) if (row := known[_key(one)])["digest"] is None else _before(row)
            for one in call.submissions
        ]
        for place, call in good.items()
    }
    return {**refused, **answers}


async def _known(database: Database, submissions: Sequence[Submission]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """What their request ids gave when they came first (a `digest`, if they did), and whether chosen workflow ids are taken."""
    parameters = {
        "colonies": Texts([one.colony for one in submissions]),
        "actors": Texts([one.actor for one in submissions]),
        "request_ids": Texts([one.request_id for one in submissions]),
        "workflow_ids": Uuids([one.workflow_id if one.has_chosen_id else None for one in submissions]),
    }
    rows = await database.statement(SQL["read_known"], parameters)
    return {_key(one): row for one, row in zip(submissions, rows, strict=True)}


def _refusal(call: SubmitCall, known: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> Exception | None:
    """Why a call cannot enter, if so."""
    for one in call.submissions:
        row = known[_key(one)]
        if row["digest"] is None:
            if row["is_taken"]:
                msg = f"workflow_id {one.workflow_id} is taken"
                return AlreadyExists(msg, reason="WORKFLOW_ID_TAKEN", metadata={"workflow_id": str(one.workflow_id)})
        elif isinstance(again := answer_again(one, row), Exception):
            return again
    return None


async def _write_all(database: Database, submissions: Sequence[Submission], at: datetime) -> dict[UUID, int]:
    """As `_write`, all or none.

    Raises:
        _Overtaken: not all were new, or a chosen workflow id is taken.
    """
    parameters = {**parameters_of(submissions), "at": at}
    is_large = _is_large(submissions)

    async def work(connection: Connection) -> dict[UUID, int]:
        if is_large:
            await connection.execute(SQL["expect_many"])
        async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["enter"], parameters)
            sequences: dict[UUID, int] = dict(await cursor.fetchall())
        if not all(_is_in(one, sequences) for one in submissions):
            raise _Overtaken
        return sequences

    try:
        return await database.run(work, limit_s=LARGE_LIMIT_S if is_large else LIMIT_S)
    except UniqueViolation as error:
        if error.diag.constraint_name != WORKFLOW_KEY:
            raise
        raise _Overtaken from error


async def _enter_each(database: Database, submissions: Sequence[Submission], at: datetime) -> list[Entered | Exception]:
    """Enters submissions, each on its own."""
    # As above.
    firsts = {_key(one): one for one in reversed(submissions)}
    sequences = await _write(database, [one for one in submissions if firsts[_key(one)] is one], at)
    return [
        _entered(one, sequences)
        if firsts[_key(one)] is one and _is_in(one, sequences)
        else await _entered_before(database, one)
        for one in submissions
    ]


async def _write(database: Database, submissions: Sequence[Submission], at: datetime) -> dict[UUID, int]:
    """Enters what is new; returns the sequences of those processes that are ready."""
    parameters = {**parameters_of(submissions), "at": at}
    if not _is_large(submissions):
        rows = await database.tuples(SQL["enter"], parameters)
        return {row[0]: row[1] for row in rows}
    async with database.transaction(limit_s=LARGE_LIMIT_S) as connection:
        await connection.execute(SQL["expect_many"])
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
        return AlreadyExists(msg, reason="REQUEST_ID_REUSED", metadata={"request_id": submission.request_id})
    return _before(row)


def _before(row: Mapping[str, Any]) -> Entered:
    return Entered(row["workflow_id"], row["process_ids"], Changes())


def _is_large(submissions: Sequence[Submission]) -> bool:
    return sum([len(one.processes) for one in submissions]) > LARGE


def _is_in(submission: Submission, sequences: Mapping[UUID, int]) -> bool:
    """Whether it was entered: some of its processes are ready at once."""
    return any(process.id in sequences for process in submission.processes)


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
    # One for all submissions of a call.
    calls = {(one.colony, one.receipt.digest): one.receipt for one in submissions if one.receipt is not None}
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
        "submit_receipts": Bytes([receipts.digest_of(one.receipt) for one in submissions]),
        "receipt_colonies": Texts([colony for colony, _ in calls]),
        **receipts.columns_of(list(calls.values())),
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
