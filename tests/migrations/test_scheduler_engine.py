"""What the scheduler's second migration makes of the data of the first: nothing is lost, and the counts are right."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg.rows import DictRow, dict_row

from servicekit.postgres import migrate, migrations_of

pytestmark = pytest.mark.asyncio

PACKAGE = "services.scheduler.store.migrations"
START = datetime(2023, 3, 27, 8, 45, 15, tzinfo=UTC)
WAITING, RUNNING, SUCCESSFUL, FAILED, CANCELLED = range(1, 6)
# Outcomes of attempts.
LIVE, WON, BROKE, TIMED_OUT, LOST, STOPPED, UNDELIVERED = range(7)
# How a ledger line says that an attempt ended.
REASONS = {
    WON: "CLOSED",
    BROKE: "RETRIED",
    TIMED_OUT: "MAX_EXEC_TIME",
    LOST: "LEASE_EXPIRED",
    STOPPED: "CANCELLED",
    UNDELIVERED: "UNDELIVERED",
}
COUNTED = {BROKE, TIMED_OUT, LOST}

Connection = psycopg.AsyncConnection[DictRow]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def insert(connection: Connection, table: LiteralString, **values: Any) -> None:
    names = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, values))
    places = psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(values))
    query = psycopg.sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(psycopg.sql.Identifier(table), names, places)
    await connection.execute(query, list(values.values()))


@dataclass
class Old:
    """A database of the first version."""

    url: str
    connection: Connection

    async def workflow(self, colony: str = "acme") -> UUID:
        workflow_id = uuid4()
        await insert(
            self.connection,
            "workflow",
            id=workflow_id,
            colony=colony,
            label="",
            initiator="aa" * 32,
            initiator_name="alice",
            submitted_at=START,
        )
        return workflow_id

    async def process(
        self,
        state: int,
        *outcomes: int,
        workflow_id: UUID | None = None,
        colony: str = "acme",
        executor_type: str = "cli",
    ) -> UUID:
        """A process with these attempts, as the first version left it: rows, attempts, ledger lines."""
        one = uuid4()
        final = state > RUNNING
        counted = sum(outcome in COUNTED for outcome in outcomes) - (state == FAILED and bool(outcomes))
        await insert(
            self.connection,
            "process",
            id=one,
            colony=colony,
            workflow_id=workflow_id,
            node_name="",
            func_name="f",
            executor_type=executor_type,
            executor_names=["worker-1"],
            location="",
            label="",
            priority_time=1,
            max_wait_ms=0,
            max_exec_ms=0,
            max_retries=3,
            spec=b"spec",
            summary=b"",
            state=state,
            pending_parents=0,
            attempt=len(outcomes),
            retries=counted,
            initiator="aa" * 32,
            initiator_name="alice",
            submitted_at=START,
            ended_at=at(2 * len(outcomes) + 1) if final else None,
        )
        await self._line(one, workflow_id, 0, 0, WAITING, 0, "", "aa" * 32, "SUBMITTED")
        for number, outcome in enumerate(outcomes, 1):
            await self._attempt(one, workflow_id, number, outcome, state if number == len(outcomes) else WAITING)
        if final and not (outcomes and state == SUCCESSFUL) and (not outcomes or outcomes[-1] == UNDELIVERED):
            await self._line(one, workflow_id, 2 * len(outcomes) + 1, WAITING, state, len(outcomes), "", "", "PARENT_FAILED")
        return one

    async def _attempt(self, one: UUID, workflow_id: UUID | None, number: int, outcome: int, state: int) -> None:
        began, ended = 2 * number, 2 * number + 1
        executor, name = f"{number:02d}" * 32, f"worker-{number}"
        to_state = WAITING if outcome == UNDELIVERED else state
        await insert(
            self.connection,
            "attempt",
            process_id=one,
            number=number,
            executor_name=name,
            executor_id=executor,
            started_at=at(began),
            ended_at=at(ended) if outcome else None,
            outcome=outcome,
            errors=[f"attempt {number} broke"] if outcome in COUNTED else [],
        )
        await self._line(one, workflow_id, began, WAITING, RUNNING, number, name, executor, "ASSIGNED")
        if outcome:
            actor = executor if outcome in {WON, BROKE} else ""
            await self._line(one, workflow_id, ended, RUNNING, to_state, number, name, actor, REASONS[outcome])

    async def _line(
        self,
        one: UUID,
        workflow_id: UUID | None,
        seconds: int,
        from_state: int,
        to_state: int,
        attempt: int,
        name: str,
        actor: str,
        reason: str,
    ) -> None:
        await insert(
            self.connection,
            "ledger",
            process_id=one,
            workflow_id=workflow_id,
            at=at(seconds),
            from_state=from_state,
            to_state=to_state,
            attempt=attempt,
            executor_name=name,
            actor=actor,
            reason=reason,
        )

    async def rows(self, query: LiteralString) -> list[dict[str, Any]]:
        return [dict(row) for row in await (await self.connection.execute(query)).fetchall()]

    async def migrate(self) -> None:
        """To the newest version."""
        assert await migrate(self.url, "scheduler", PACKAGE) == len(migrations_of(PACKAGE)) - 1


@pytest_asyncio.fixture
async def old(empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Old]:
    """A schema of the first migration alone."""
    folder = tmp_path / f"first_{uuid4().hex}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "0001_initial.sql").write_text(dict(migrations_of(PACKAGE))[1])
    monkeypatch.syspath_prepend(tmp_path)
    await migrate(empty_database_url, "scheduler", folder.name)
    async with await psycopg.AsyncConnection.connect(
        empty_database_url, autocommit=True, row_factory=dict_row, options="-c search_path=scheduler -c timezone=UTC"
    ) as connection:
        yield Old(empty_database_url, connection)


async def test_attempts_are_the_same_though_they_are_read_from_the_ledger(old: Old) -> None:
    await old.process(WAITING)
    await old.process(WAITING, BROKE, UNDELIVERED, LOST)
    await old.process(RUNNING, LIVE)
    await old.process(RUNNING, TIMED_OUT, UNDELIVERED, LIVE)
    await old.process(SUCCESSFUL, BROKE, WON)
    await old.process(FAILED, BROKE, LOST, TIMED_OUT)
    await old.process(FAILED)
    await old.process(CANCELLED, STOPPED)
    await old.process(CANCELLED, UNDELIVERED)
    query: LiteralString = "SELECT * FROM attempt ORDER BY process_id, number"
    before = await old.rows(query)
    assert len(before) == 14
    await old.migrate()
    assert await old.rows(query) == before


async def test_the_ledger_keeps_its_lines_and_says_more(old: Old) -> None:
    one = await old.process(SUCCESSFUL, BROKE, WON, executor_type="gpu", colony="umbrella")
    # A colony that was removed while its ledger was written left lines that nobody can see.
    await old._line(uuid4(), None, 1, 0, WAITING, 0, "", "", "SUBMITTED")
    query: LiteralString = "SELECT * FROM ledger ORDER BY id"
    before = [line for line in await old.rows(query) if line["process_id"] == one]
    await old.migrate()
    after = await old.rows(query)
    assert [{key: line[key] for key in before[0]} for line in after] == before
    assert {(line["colony"], line["executor_type"]) for line in after} == {("umbrella", "gpu")}
    assert [(line["outcome"], line["errors"]) for line in after] == [
        *((LIVE, []), (LIVE, []), (BROKE, ["attempt 1 broke"]), (LIVE, []), (WON, []))
    ]


async def test_workflows_count_their_processes(old: Old) -> None:
    empty_of = {"waiting": 0, "running": 0, "successful": 0, "failed": 0, "cancelled": 0, "begun": False, "ended_at": None}
    wanted: dict[UUID, dict[str, Any]] = {}

    async def workflow(*processes: tuple[int, ...], **counts: Any) -> None:
        workflow_id = await old.workflow()
        for state, *outcomes in processes:
            await old.process(state, *outcomes, workflow_id=workflow_id)
        wanted[workflow_id] = {**empty_of, **counts}

    await workflow((WAITING,), (WAITING,), waiting=2)
    await workflow((RUNNING, LIVE), (WAITING,), waiting=1, running=1, begun=True)
    await workflow((WAITING, UNDELIVERED), waiting=1, begun=True)
    await workflow((SUCCESSFUL, WON), (SUCCESSFUL, BROKE, WON), successful=2, begun=True, ended_at=at(5))
    await workflow((FAILED, BROKE), (FAILED,), (SUCCESSFUL, WON), failed=2, successful=1, begun=True, ended_at=at(3))
    await workflow((CANCELLED,), (CANCELLED,), cancelled=2, ended_at=at(1))
    await workflow((FAILED, BROKE), (RUNNING, LIVE), failed=1, running=1, begun=True)
    await old.process(SUCCESSFUL, WON)
    await old.migrate()
    rows = {row["id"]: row for row in await old.rows("SELECT * FROM counted_workflow")}
    for workflow_id, counts in wanted.items():
        assert {key: rows[workflow_id][key] for key in counts} == counts


@pytest.mark.parametrize(
    ("state", "outcomes", "undelivered"),
    [
        (WAITING, [], 0),
        (WAITING, [UNDELIVERED, BROKE, UNDELIVERED], 2),
        (RUNNING, [LIVE], 0),
        (RUNNING, [UNDELIVERED, UNDELIVERED, LOST, LIVE], 2),
        (SUCCESSFUL, [WON], 0),
    ],
)
async def test_what_was_not_delivered_is_counted_on(old: Old, state: int, outcomes: list[int], undelivered: int) -> None:
    """Those that are open may have three of them in all: before, the numbers of attempts and retries told."""
    await old.process(state, *outcomes)
    await old.migrate()
    (row,) = await old.rows("SELECT * FROM process")
    assert row["undelivered"] == undelivered
    assert (row["needs"], row["backoff"], row["backoff_until"], row["parent_policy"]) == ("", [], None, 1)


async def test_an_empty_database_comes_to_the_same_shape(old: Old, empty_database_url: str) -> None:
    """With data or without, in one step or in several."""
    await old.process(RUNNING, LIVE)
    await old.migrate()
    assert await migrate(empty_database_url, "scheduler", PACKAGE) == 0
    (found,) = await old.rows("SELECT count(*) AS open FROM live WHERE ended_at IS NULL")
    assert found["open"] == 1
