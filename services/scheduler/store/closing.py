"""Closes: those of concurrent calls together, each call whole or not at all (I1, I2)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from servicekit.arrays import Bytes, Ints, Texts, Uuids
from servicekit.failures import Failure
from servicekit.postgres import Connection, Database
from services.scheduler.domain import endings
from services.scheduler.domain.endings import CloseCall, Prior
from services.scheduler.domain.records import AttemptRef, Changes, Ending, Live, Over
from services.scheduler.domain.states import Outcome, State
from services.scheduler.store import receipts
from services.scheduler.store.ending import end, flattened
from services.scheduler.store.rows import live_of
from services.scheduler.store.sql import ENDING as SQL
from services.scheduler.store.sql import no_process

# What became of each call: the states of its processes in order, or why it was refused; None: somebody is at one of its
# workflows, or a process is not there.
Outcomes = list[list[State] | Exception | None]


async def close_successes(database: Database, calls: Sequence[CloseCall], at: datetime) -> tuple[set[int], dict[str, Changes]]:
    """Closes those calls whose attempts are all live, successful and outside workflows. Returns their places in `calls`."""
    rows = await database.tuples(SQL["close_successes"], parameters_of(calls, at))
    closed = set(rows)
    changes: dict[str, Changes] = defaultdict(Changes)
    whole = set()
    for position, call in enumerate(calls):
        mine = [(ref.process_id, ref.number, call.executor_id, call.colony) for ref in call.closes]
        # Two calls of one batch may hold the same closes: both are answered by what came of them.
        if closed.issuperset(mine):
            whole.add(position)
            changes[call.colony].released += [Over(*one[:3]) for one in mine]
            changes[call.colony].touched.update([ref.process_id for ref in call.closes])
    return whole, changes


def parameters_of(calls: Sequence[CloseCall], at: datetime) -> dict[str, Any]:
    """All that `close_successes` takes."""
    pairs = [(number, ref, closing) for number, call in enumerate(calls, 1) for ref, closing in call.closes.items()]
    outputs = flattened(closing.outputs or () for _, _, closing in pairs)
    return {
        "ids": Uuids([ref.process_id for _, ref, _ in pairs]),
        "attempts": Ints([ref.number for _, ref, _ in pairs]),
        "requests": Ints([number for number, _, _ in pairs]),
        "colonies": Texts([call.colony for call in calls]),
        "executor_ids": Texts([call.executor_id for call in calls]),
        "counts": Ints([len(call.closes) for call in calls]),
        **receipts.columns_of([call.receipt for call in calls]),
        "output_positions": Ints([position for position, _ in outputs]),
        "outputs": Bytes([output for _, output in outputs]),
        "at": at,
    }


async def close(database: Database, calls: Sequence[CloseCall], at: datetime, *, patient: bool) -> tuple[Outcomes, Changes]:
    """Closes the attempts of calls of one colony, and sees to all that follows. Unless it is `patient`, it waits for nobody who
    is at one of the workflows.
    """
    pick = "lock_processes" if patient else "lock_processes_at_hand"

    async def work(connection: Connection) -> tuple[Outcomes, Changes]:
        refs = [ref for call in calls for ref in call.closes]
        lives = await lock(connection, calls[0].colony, [ref.process_id for ref in refs], pick)
        known = await priors(connection, [ref for ref in refs if is_past(lives.get(ref.process_id), ref)])
        outcomes: Outcomes = []
        ended: dict[UUID, Ending] = {}
        for call in calls:
            if not patient and any(ref.process_id not in lives for ref in call.closes):
                outcomes.append(None)
                continue
            try:
                mine = _decided(call, lives, known, ended, at)
            except Failure as failure:
                outcomes.append(failure)
                continue
            ended.update(mine)
            outcomes.append(
                [
                    ended[ref.process_id].to_state if ref.process_id in ended else lives[ref.process_id].state
                    for ref in call.closes
                ]
            )
        return outcomes, await end(connection, lives, list(ended.values()), at)

    return await database.run(work)


def _decided(
    call: CloseCall,
    lives: Mapping[UUID, Live],
    known: Mapping[tuple[UUID, int], Prior],
    ended: Mapping[UUID, Ending],
    at: datetime,
) -> dict[UUID, Ending]:
    """The endings of one call.

    Raises:
        NotFound: no such process in this colony.
        FailedPrecondition: an attempt is not the live one, or not this executor's.
    """
    mine: dict[UUID, Ending] = {}
    for ref, closing in call.closes.items():
        live = lives.get(ref.process_id)
        if live is None:
            raise no_process(ref.process_id)
        if (before := ended.get(live.id)) is not None:
            # Another call of this very batch has closed it.
            endings.require_same(before, ref, live, call.executor_id, closing)
            continue
        prior = known.get((ref.process_id, ref.number))
        if (ending := endings.close(live, ref.number, call.executor_id, closing, prior, at)) is not None:
            mine[live.id] = replace(ending, receipt=call.receipt)
    return mine


async def lock(connection: Connection, colony: str, ids: Sequence[UUID], query: str = "lock_processes") -> dict[UUID, Live]:
    """Rows about to change, locked by one of the queries of that name; without those that are not in the colony."""
    parameters = {"ids": Uuids(ids), "colony": colony}
    rows = await (await connection.execute(SQL[query], parameters)).fetchall()
    return {row["id"]: live_of(row) for row in rows}


async def priors(connection: Connection, refs: Sequence[AttemptRef]) -> dict[tuple[UUID, int], Prior]:
    """Attempts as they are recorded."""
    if not refs:
        return {}
    parameters = {"ids": Uuids([ref.process_id for ref in refs]), "numbers": Ints([ref.number for ref in refs])}
    rows = await (await connection.execute(SQL["read_priors"], parameters)).fetchall()
    return {(row["process_id"], row["number"]): Prior(row["executor_id"], Outcome(row["outcome"])) for row in rows}


def is_past(live: Live | None, ref: AttemptRef) -> bool:
    """Whether the attempt that a call names is not the live one, so that its record tells more."""
    return live is not None and ref.number > 0 and (live.state is not State.RUNNING or live.attempt != ref.number)
