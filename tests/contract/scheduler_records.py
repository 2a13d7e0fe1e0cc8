"""What the scheduler's contract tests build: specs, submissions, places, executors. And the check of the ledger."""

import os
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from servicekit.clock import ManualClock, datetime_of
from servicekit.postgres import Database
from services.scheduler.domain.endings import CloseCall, Closing
from services.scheduler.domain.ids import new_id
from services.scheduler.domain.ports import Decide
from services.scheduler.domain.priority import priority_time
from services.scheduler.domain.records import (
    Account,
    Assigned,
    AttemptRef,
    Changes,
    Claim,
    Claimed,
    Edge,
    Entered,
    ExecutorProfile,
    Live,
    NewProcess,
    Place,
    Receipt,
    Submission,
    SubmitCall,
)
from services.scheduler.domain.spec import Dependency, ParentPolicy, Spec
from services.scheduler.domain.states import FINAL, LEGAL, Outcome, Reason, State
from services.scheduler.domain.workflow import parents_of
from services.scheduler.store.transitions import Transitions

from .scheduler_receipts import check_receipts

COLONY = "acme"
ALICE = Account("aa" * 32, "alice")
WORKER = ExecutorProfile("11" * 32, "worker-1", ("cli",), "", "")
WORKER_2 = ExecutorProfile("22" * 32, "worker-2", ("cli",), "", "")
START_NS = 1_679_906_715_000_000_000
START = datetime_of(START_NS)
TABLES = (
    *("submission", "workflow", "workflow_start", "process", "edge", "attempt", "ledger", "attribute", "log"),
    *("channel", "channel_message", "receipt"),
)
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
            "receipt": receipt(),
            **fields,
        },
        processes=[
            NewProcess(one, given, priority_time(given.priority, now_ns + order), awaited(given, len(mine)), order)
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


def receipt() -> Receipt:
    """A signed call, as far as the tables know."""
    return Receipt(os.urandom(32), "/test.Service/Call", bytes(32), 1_679_906_715_000, os.urandom(16), bytes(64), b"body")


def awaited(given: Spec, parents: int) -> int:
    """How many parents a process waits for."""
    return min(parents, 1) if given.parent_policy is ParentPolicy.ANY_DONE else parents


def place(sequence: int, time_ns: int = START_NS, **fields: Any) -> Place:
    """A process as the queue sees it."""
    defaults = {
        "executor_type": "cli",
        "executor_names": (),
        "location": "",
        "needs": "",
        "attempt": 1,
        "wait_deadline": None,
        "not_before": None,
        "colony": COLONY,
    }
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
        "needs": "",
        "priority_time": START_NS,
        "state": State.RUNNING,
        "pending_parents": 0,
        "attempt": 1,
        "retries": 0,
        "undelivered": 0,
        "backoff": (),
        "backoff_until": None,
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

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.url = url
        self.tables = Transitions(database)
        self.clock = ManualClock(START_NS)

    async def enter(self, *specs: Spec, workflow: bool = True, **fields: Any) -> Entered:
        """Submits."""
        return await self.submit(submission(*specs, workflow=workflow, **fields))

    async def submit(self, given: Submission) -> Entered:
        """Enters one submission; raises why not."""
        (entered,) = await self.call(given)
        return entered

    async def call(self, *given: Submission) -> list[Entered]:
        """Enters the submissions of one call; raises why not."""
        (outcome,) = await self.tables.submit([SubmitCall(given)], given[0].at)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def assign(
        self, *ids: UUID, executor: ExecutorProfile = WORKER, seconds: float = 1, colony: str = COLONY
    ) -> dict[UUID, int]:
        """Begins attempts; their numbers by process."""
        assigned = await self.begin(*ids, executor=executor, seconds=seconds, colony=colony)
        return {one.live.id: one.live.attempt for one in assigned}

    async def begin(
        self, *ids: UUID, executor: ExecutorProfile = WORKER, seconds: float = 1, colony: str = COLONY
    ) -> list[Assigned]:
        """Begins the next attempts of processes, as far as they go into one answer."""
        numbers = {live.id: live.attempt + 1 for live in await self.tables.lives(colony, ids)}
        claim = Claim(colony, executor, [Claimed(one, numbers.get(one, 1)) for one in ids])
        (begun,) = await self.tables.assign([claim], at(seconds))
        return begun.assigned

    async def close(
        self,
        process_id: UUID,
        closing: Closing,
        *,
        number: int = 1,
        executor: ExecutorProfile = WORKER,
        seconds: float = 2,
    ) -> tuple[Changes, State]:
        """Closes an attempt."""
        changes, states = await self.close_all({AttemptRef(process_id, number): closing}, executor=executor, seconds=seconds)
        return changes, states[0]

    async def close_all(
        self, closes: Mapping[AttemptRef, Closing], *, executor: ExecutorProfile = WORKER, seconds: float = 2
    ) -> tuple[Changes, list[State]]:
        """Closes attempts, all or none, as one call."""
        (outcome,), changes = await self.tables.close(
            [CloseCall(COLONY, executor.identity, closes, receipt())], at(seconds), patient=True
        )
        assert outcome is not None, "the patient have an outcome"
        if isinstance(outcome, Exception):
            raise outcome
        return changes, outcome

    async def end(
        self, process_id: UUID, decide: Decide, *, seconds: float = 2, must_exist: bool = False
    ) -> tuple[Changes, dict[UUID, State]]:
        """Ends a process as `decide` says."""
        return await self.tables.end(COLONY, [AttemptRef(process_id, 0)], decide, at(seconds), must_exist=must_exist)

    async def run(self, process_id: UUID, closing: Closing, *, seconds: float = 1) -> Changes:
        """Assigns and closes."""
        # What somebody else is at is passed over: a poll would come again.
        for _ in range(1_000):
            if numbers := await self.assign(process_id, seconds=seconds):
                break
        else:
            pytest.fail("it is not ready")
        changes, _ = await self.close(process_id, closing, number=numbers[process_id], seconds=seconds + 0.5)
        return changes

    async def cancel_workflow(self, workflow_id: UUID, *, seconds: float = 3) -> Changes:
        """Cancels all that is open."""
        return await self.tables.cancel_workflow(
            COLONY, workflow_id, lambda _initiator: None, ALICE.identity, at(seconds), receipt()
        )

    async def retry_workflow(self, workflow_id: UUID, *, seconds: float = 10) -> tuple[int, Changes]:
        """Takes what failed or was cancelled back."""
        return await self.tables.retry_workflow(
            COLONY, workflow_id, lambda _initiator: None, ALICE.identity, at(seconds), receipt()
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
        """Fails unless every process's ledger is a chain of legal steps to its row's state, its attempts agree, and workflows
        count their processes right.
        """
        lines, attempts = defaultdict(list), defaultdict(list)
        for row in sorted(await self.rows("ledger"), key=lambda row: int(row["id"])):
            lines[row["process_id"]].append(row)
        for row in sorted(await self.rows("attempt"), key=lambda row: int(row["number"])):
            attempts[row["process_id"]].append(row)
        processes = await self.rows("process")
        assert set(lines) == {process["id"] for process in processes}
        for process in processes:
            check_chain(process, lines[process["id"]])
            check_attempts(process, attempts[process["id"]], lines[process["id"]])
        for workflow in await self.rows("counted_workflow"):
            check_counts(workflow, [process for process in processes if process["workflow_id"] == workflow["id"]])
        check_receipts({table: await self.rows(table) for table in ("process", "ledger", "receipt")})


@asynccontextmanager
async def opened_world(database_url: str) -> AsyncIterator[World]:
    """The scheduler's tables in this database."""
    database = Database(database_url, "scheduler", connections=25)
    await database.open()
    try:
        yield World(database, database_url)
    finally:
        await database.close()


def check_chain(process: dict[str, Any], lines: Sequence[dict[str, Any]]) -> None:
    """The ledger of one process."""
    state, attempt = State.NONE, 0
    # Followers of workflows and colonies read them in this order, which must be the same.
    assert lines == sorted(lines, key=lambda line: (int(line["xid"]), line["id"]))
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


def check_counts(workflow: dict[str, Any], processes: Sequence[dict[str, Any]]) -> None:
    """What a workflow says of its processes."""
    states = Counter(State(process["state"]) for process in processes)
    for state in set(State) - {State.NONE}:
        assert workflow[state.name.lower()] == states[state], (state, workflow, states)
    assert workflow["begun"] == any(process["attempt"] for process in processes)
    is_over = not states[State.WAITING] and not states[State.RUNNING]
    assert (workflow["ended_at"] is not None) == is_over
    assert not is_over or workflow["ended_at"] == max(process["ended_at"] for process in processes)


def check_attempts(process: dict[str, Any], attempts: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> None:
    """The attempts of one process: numbered from 1, one after the other, at most the last one live."""
    assert [row["number"] for row in attempts] == list(range(1, process["attempt"] + 1))
    for row in attempts:
        live = Outcome(row["outcome"]) is Outcome.LIVE
        assert live == (row["ended_at"] is None)
        assert live == (State(process["state"]) is State.RUNNING and row["number"] == process["attempt"])
        assert live or row["started_at"] <= row["ended_at"]
    for before, after in pairwise(attempts):
        assert before["ended_at"] <= after["started_at"], "two attempts at one time"
    # Taken up again, it begins to count anew.
    retried = [place for place, line in enumerate(lines) if line["reason"] == Reason.RETRY_REQUESTED]
    since = lines[retried[-1] + 1 if retried else 0 :]
    ends = [line for line in since if line["from_state"] == State.RUNNING and line["to_state"] == State.WAITING]
    undelivered = sum(line["outcome"] == Outcome.UNDELIVERED for line in ends)
    assert (process["retries"], process["undelivered"]) == (len(ends) - undelivered, undelivered)
