"""What the scheduler's contract tests build: specs, submissions, places, executors. And the check of the ledger."""

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from servicekit.clock import ManualClock, datetime_of
from servicekit.postgres import Database
from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing, Prior
from services.scheduler.domain.ids import new_id
from services.scheduler.domain.priority import priority_time
from services.scheduler.domain.records import (
    Account,
    AttemptRef,
    Changes,
    Edge,
    Ending,
    Entered,
    ExecutorProfile,
    Live,
    NewProcess,
    Place,
    Submission,
)
from services.scheduler.domain.spec import Dependency, Spec
from services.scheduler.domain.states import FINAL, LEGAL, Outcome, State
from services.scheduler.domain.workflow import parents_of
from services.scheduler.store.transitions import Transitions

COLONY = "acme"
ALICE = Account("aa" * 32, "alice")
WORKER = ExecutorProfile("11" * 32, "worker-1", ("cli",), "")
WORKER_2 = ExecutorProfile("22" * 32, "worker-2", ("cli",), "")
START_NS = 1_679_906_715_000_000_000
START = datetime_of(START_NS)
TABLES = ("submission", "workflow", "process", "edge", "attempt", "ledger", "attribute", "log")
NO_PROCESS = UUID(int=0)


def at(seconds: float) -> datetime:
    """A moment after the start."""
    return START + timedelta(seconds=seconds)


def spec(node: str = "", *parents: str | Dependency, **fields: Any) -> Spec:
    """A function spec for "cli"; parents by name or as dependencies."""
    edges = [Dependency(parent) if isinstance(parent, str) else parent for parent in parents]
    return Spec(**{"func_name": "f", "executor_type": "cli", "body": b"", **fields}, node_name=node, dependencies=edges)


def submission(*specs: Spec, workflow: bool = False, request_id: str = "", now_ns: int = START_NS, **fields: Any) -> Submission:
    """A submit as the domain makes it."""
    ids = [new_id(now_ns) for _ in specs]
    parents = parents_of(specs, field="nodes") if workflow else [[] for _ in specs]
    found = Submission(
        **{
            "colony": COLONY,
            "request_id": request_id or uuid.uuid4().hex,
            "digest": b"digest",
            "account": ALICE,
            "actor": ALICE.identity,
            "at": datetime_of(now_ns),
            **fields,
        },
        processes=[
            NewProcess(one, given, priority_time(given.priority, now_ns + order), len(mine))
            for order, (one, given, mine) in enumerate(zip(ids, specs, parents, strict=True))
        ],
        edges=[
            Edge(ids[parent], child, position, dependency.selector, dependency.k, dependency.n)
            for child, given, mine in zip(ids, specs, parents, strict=True)
            for position, (parent, dependency) in enumerate(zip(mine, given.dependencies, strict=True))
        ],
        workflow_id=new_id(now_ns) if workflow else None,
    )
    assert isinstance(found, Submission)
    return found


def place(sequence: int, time_ns: int = START_NS, **fields: Any) -> Place:
    """A process as the queue sees it."""
    defaults = {"executor_type": "cli", "executor_names": (), "location": "", "wait_deadline": None, "colony": COLONY}
    return Place(id=new_id(START_NS), sequence=sequence, priority_time=time_ns, **{**defaults, **fields})


def running(sequence: int = 1, **fields: Any) -> Live:
    """A process with a live attempt of WORKER."""
    defaults: dict[str, Any] = {
        "id": new_id(START_NS),
        "colony": COLONY,
        "workflow_id": None,
        "node_name": "",
        "func_name": "f",
        "executor_type": "cli",
        "executor_names": (),
        "location": "",
        "priority_time": START_NS,
        "state": State.RUNNING,
        "pending_parents": 0,
        "attempt": 1,
        "retries": 0,
        "max_retries": 0,
        "max_wait_ms": 0,
        "max_exec_ms": 0,
        "executor_id": WORKER.identity,
        "executor_name": WORKER.name,
        "initiator": ALICE.identity,
        "ready_at": START,
        "started_at": START,
    }
    return Live(sequence=sequence, **{**defaults, **fields})


def success(*outputs: bytes) -> Closing:
    """A close as successful."""
    return Closing(successful=True, outputs=list(outputs) or None)


class World:
    """The tables, with the steps of the services in short."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tables = Transitions(database)
        self.clock = ManualClock(START_NS)

    async def enter(self, *specs: Spec, workflow: bool = True, **fields: Any) -> Entered:
        """Submits."""
        return await self.tables.submit(submission(*specs, workflow=workflow, **fields))

    async def assign(
        self, *ids: UUID, executor: ExecutorProfile = WORKER, seconds: float = 1, colony: str = COLONY
    ) -> dict[UUID, int]:
        """Begins attempts; their numbers by process."""
        assigned, _ = await self.tables.assign(colony, executor, ids, at(seconds))
        return {one.live.id: one.live.attempt for one in assigned}

    async def close(
        self,
        process_id: UUID,
        closing: Closing,
        *,
        number: int = 1,
        executor: ExecutorProfile = WORKER,
        seconds: float = 2,
    ) -> tuple[Changes, State]:
        """Closes an attempt as the domain does."""

        def decide(row: Live, prior: Prior | None) -> Ending | None:
            return endings.close(row, number, executor.identity, closing, prior)

        refs = [AttemptRef(process_id, number)]
        changes, states = await self.tables.end(COLONY, refs, decide, at(seconds), must_exist=True)
        return changes, states[process_id]

    async def run(self, process_id: UUID, closing: Closing, *, seconds: float = 1) -> Changes:
        """Assigns and closes."""
        numbers = await self.assign(process_id, seconds=seconds)
        changes, _ = await self.close(process_id, closing, number=numbers[process_id], seconds=seconds + 0.5)
        return changes

    async def cancel_workflow(self, workflow_id: UUID, *, seconds: float = 3) -> Changes:
        """Cancels all that is open."""
        return await self.tables.cancel_workflow(
            COLONY,
            workflow_id,
            lambda _initiator: None,
            lambda row, _prior: endings.cancel_open(row, ALICE.identity),
            at(seconds),
        )

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        async with self.database.transaction() as connection:
            cursor = await connection.execute(f"SELECT * FROM {table}".encode())
            return [dict(row) for row in await cursor.fetchall()]

    async def states(self) -> dict[UUID, State]:
        """Every process's state."""
        return {row["id"]: State(row["state"]) for row in await self.rows("process")}

    async def counts(self) -> dict[str, int]:
        """How many rows each table has."""
        return {table: len(await self.rows(table)) for table in TABLES}

    async def check_ledger(self) -> None:
        """Fails unless every process's ledger is a chain of legal steps to its row's state, and its attempts agree."""
        lines, attempts = defaultdict(list), defaultdict(list)
        for row in sorted(await self.rows("ledger"), key=lambda row: (int(row["xid"]), row["id"])):
            lines[row["process_id"]].append(row)
        for row in sorted(await self.rows("attempt"), key=lambda row: int(row["number"])):
            attempts[row["process_id"]].append(row)
        processes = await self.rows("process")
        assert set(lines) == {process["id"] for process in processes}
        for process in processes:
            check_chain(process, lines[process["id"]])
            check_attempts(process, attempts[process["id"]])


@asynccontextmanager
async def opened_world(database_url: str) -> AsyncIterator[World]:
    """The scheduler's tables in this database."""
    database = Database(database_url, "scheduler", connections=25)
    await database.open()
    try:
        yield World(database)
    finally:
        await database.close()


def check_chain(process: dict[str, Any], lines: Sequence[dict[str, Any]]) -> None:
    """The ledger of one process."""
    state, attempt = State.NONE, 0
    for line in lines:
        step = State(line["from_state"]), State(line["to_state"])
        assert step[0] is state, f"{step} does not follow on {state}"
        assert step in LEGAL, step
        assert line["workflow_id"] == process["workflow_id"]
        if step[1] is State.RUNNING:
            attempt += 1
            assert line["executor_name"], "an assignment names its executor"
        if State.RUNNING in step:
            assert line["attempt"] == attempt
        state = step[1]
    assert state is State(process["state"]), f"the ledger ends in {state}, the row says {State(process['state'])}"
    assert attempt == process["attempt"]
    assert (process["ended_at"] is not None) == (state in FINAL)


def check_attempts(process: dict[str, Any], attempts: Sequence[dict[str, Any]]) -> None:
    """The attempts of one process: numbered from 1, one after the other, at most the last one live."""
    assert [row["number"] for row in attempts] == list(range(1, process["attempt"] + 1))
    for row in attempts:
        live = Outcome(row["outcome"]) is Outcome.LIVE
        assert live == (row["ended_at"] is None)
        assert live == (State(process["state"]) is State.RUNNING and row["number"] == process["attempt"])
        assert live or row["started_at"] <= row["ended_at"]
    for before, after in pairwise(attempts):
        assert before["ended_at"] <= after["started_at"], "two attempts at one time"
    counted = sum(row["outcome"] in {Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST} for row in attempts)
    assert process["retries"] == counted - (
        State(process["state"]) is State.FAILED and bool(attempts) and _ended_it(process, attempts)
    )


def _ended_it(process: dict[str, Any], attempts: Sequence[dict[str, Any]]) -> bool:
    """Whether the last attempt's end was the process's own."""
    return bool(attempts[-1]["ended_at"] == process["ended_at"])
