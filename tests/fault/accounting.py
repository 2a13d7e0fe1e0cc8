"""The accounting at the end: what the client was promised, against what Postgres holds and what the executors did.

Reads the tables `process`, `workflow`, `edge` and `ledger`, and the view `attempt`, of the scheduler's schema.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, Self, TypeAlias

import psycopg
from psycopg.rows import dict_row

from colonies.scheduler.v1.spec_pb2 import Value
from tests.acceptance.ledger import LEGAL

# Process, number and executor of an attempt that was run.
Run: TypeAlias = tuple[str, int, str]

SHOWN = 5
# Assignments are committed without waiting for the disk. What a killed Postgres forgets was assigned at most so long before (three
# rounds of its WAL writer, 200 ms each, and some), and was begun by its executor at most so long after: it may have been paused,
# or cut off, in between.
UNWRITTEN_S = 1.0
UNDER_WAY_S = 15.0
# How a service ends that is started again in the middle of an outage, to be started once more.
CANNOT_START = "cannot start"
# gRPC's own line when whoever called has gone in the very moment of the answer.
CALLER_GONE = "ExecuteBatchError raised in core by servicer method"


@dataclass(slots=True)
class Promised:
    """What was acknowledged: the output that each process must have, and the workflows."""

    outputs: dict[str, int] = field(default_factory=dict)
    workflows: dict[str, list[str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, *logs: Path) -> Self:
        """From the client's logs."""
        promised = cls()
        for log in logs:
            for line in log.read_text().splitlines():
                entry = json.loads(line)
                if "refused" in entry:
                    promised.refused.append(entry["refused"])
                    continue
                assert len(entry["ids"]) == len(entry["outputs"]), line
                assert not promised.outputs.keys() & entry["ids"], f"acknowledged twice: {line}"
                promised.outputs.update(zip(entry["ids"], entry["outputs"], strict=True))
                if "workflow" in entry:
                    promised.workflows[entry["workflow"]] = entry["ids"]
        return promised


# Every query gives rows only for what is wrong.
FAULTS: Mapping[str, LiteralString] = {
    "a process that is not SUCCESSFUL": """
        SELECT id, state, attempt, retries, errors
        FROM process
        WHERE state <> 3""",
    "a process without exactly one successful attempt, its last": """
        SELECT p.id, p.attempt, count(a.number) AS attempts, array_agg(a.outcome ORDER BY a.number) AS outcomes
        FROM process AS p
        LEFT JOIN attempt AS a ON a.process_id = p.id
        GROUP BY p.id
        HAVING
          count(*) FILTER (WHERE a.outcome = 1) <> 1
          OR max(a.number) FILTER (WHERE a.outcome = 1) <> p.attempt
          OR count(a.number) <> p.attempt
          OR max(a.number) <> p.attempt""",
    "an attempt that is still live, or ended before it began": """
        SELECT process_id, number, executor_name, started_at, ended_at, outcome
        FROM attempt
        WHERE ended_at IS NULL OR outcome = 0 OR ended_at < started_at""",
    "two live attempts of a process at one instant": """
        SELECT *
        FROM (
          SELECT
            process_id, number, started_at, ended_at,
            lead(started_at) OVER (PARTITION BY process_id ORDER BY number) AS next_started_at
          FROM attempt
        ) AS a
        WHERE next_started_at < ended_at""",
    "a ledger that is no chain, or goes back in time": """
        SELECT *
        FROM (
          SELECT
            process_id, id, at, from_state, to_state, attempt,
            lag(to_state, 1, 0::smallint) OVER (PARTITION BY process_id ORDER BY id) AS before,
            lag(at) OVER (PARTITION BY process_id ORDER BY id) AS before_at,
            lag(attempt) OVER (PARTITION BY process_id ORDER BY id) AS before_attempt
          FROM ledger
        ) AS l
        WHERE from_state <> before OR at < before_at OR attempt < before_attempt""",
    "a process whose ledger does not end in its state": """
        SELECT p.id, p.state, l.to_state
        FROM process AS p
        LEFT JOIN LATERAL (SELECT to_state FROM ledger WHERE process_id = p.id ORDER BY id DESC LIMIT 1) AS l ON true
        WHERE l.to_state IS DISTINCT FROM p.state""",
    "a child that was assigned before its parents were done": """
        SELECT e.child_id, e.parent_id, a.started_at, p.ended_at
        FROM edge AS e
        JOIN process AS p ON p.id = e.parent_id
        JOIN attempt AS a ON a.process_id = e.child_id
        WHERE p.ended_at IS NULL OR a.started_at < p.ended_at""",
    "a workflow without its processes, or a process without its workflow": """
        SELECT w.id AS workflow_id, count(p.id) AS processes
        FROM workflow AS w
        FULL JOIN (SELECT * FROM process WHERE workflow_id IS NOT NULL) AS p ON p.workflow_id = w.id
        GROUP BY w.id
        HAVING w.id IS NULL OR count(p.id) <> 4""",
    "an edge of a process that is not there": """
        SELECT e.child_id, e.parent_id
        FROM edge AS e
        WHERE
          NOT EXISTS (SELECT FROM process WHERE id = e.child_id)
          OR NOT EXISTS (SELECT FROM process WHERE id = e.parent_id)""",
}


@dataclass(slots=True)
class Accounts:
    """What came out."""

    wrong: list[str] = field(default_factory=list)
    facts: dict[str, int] = field(default_factory=dict)

    def blame(self, what: str, cases: list[Any]) -> None:
        """Notes what is wrong, with its first cases."""
        if cases:
            shown = "".join(f"\n    {case}" for case in cases[:SHOWN])
            self.wrong.append(f"{len(cases)} x {what}:{shown}")


def connect(url: str) -> psycopg.Connection[dict[str, Any]]:
    """The scheduler's schema, for reading."""
    return psycopg.connect(url, options="-c search_path=scheduler -c timezone=UTC", row_factory=dict_row, autocommit=True)


def count_open(url: str) -> int:
    """How many processes are in no final state."""
    with connect(url) as connection:
        row = connection.execute("SELECT count(*) AS open FROM process WHERE state IN (1, 2)").fetchone()
    assert row is not None
    return int(row["open"])


def audit(url: str, promised: Promised, effects: Path, crashes: Sequence[float], accounts: Accounts) -> None:
    """Checks every promise. `crashes` is when Postgres was killed, unix seconds."""
    with connect(url) as connection:
        for what, query in FAULTS.items():
            accounts.blame(what, connection.execute(query).fetchall())
        rows = connection.execute("SELECT id::text AS id, outputs FROM process").fetchall()
        steps = connection.execute("SELECT from_state, to_state, count(*) AS n FROM ledger GROUP BY 1, 2").fetchall()
        workflows = connection.execute("SELECT id::text AS id FROM workflow").fetchall()
        attempts = connection.execute("SELECT process_id::text AS id, number, executor_name, outcome FROM attempt").fetchall()
    accounts.blame("an illegal step", [row for row in steps if (row["from_state"], row["to_state"]) not in LEGAL])
    accounts.blame("a submit that was refused", promised.refused)
    found = {row["id"]: row["outputs"] for row in rows}
    accounts.blame("a process that was acknowledged and is not there", sorted(promised.outputs.keys() - found.keys()))
    accounts.blame(
        "a process that nobody was promised (a repeated submit entered twice)", sorted(found.keys() - promised.outputs.keys())
    )
    accounts.blame("a workflow that differs", sorted(promised.workflows.keys() ^ {row["id"] for row in workflows}))
    values = {one: _values(outputs) for one, outputs in found.items()}
    accounts.blame(
        "a wrong output (process, found, promised)",
        [(one, values[one], wanted) for one, wanted in promised.outputs.items() if one in values and values[one] != [wanted]],
    )
    _audit_effects(attempts, effects, crashes, accounts)
    accounts.facts["processes"] = len(found)
    accounts.facts["workflows"] = len(workflows)
    accounts.facts["attempts"] = len(attempts)
    for outcome, name in ((2, "failed"), (3, "timed out"), (4, "lost"), (6, "undelivered")):
        accounts.facts[name] = sum(row["outcome"] == outcome for row in attempts)


def _values(outputs: list[bytes]) -> list[Any]:
    return [json.loads(Value.FromString(one).data) for one in outputs]


def _audit_effects(attempts: list[dict[str, Any]], effects: Path, crashes: Sequence[float], accounts: Accounts) -> None:
    runs: dict[Run, list[float]] = defaultdict(list)
    for line in effects.read_text().splitlines():
        process, attempt, executor, at = line.split()
        runs[process, int(attempt), executor].append(float(at))
    recorded = {(row["id"], row["number"], row["executor_name"]): row["outcome"] for row in attempts}
    # An attempt that Postgres forgot is as if it had never been: its number is given again, maybe to the same executor.
    forgotten = {run for run, times in runs.items() if any(_may_be_forgotten(at, crashes) for at in times)}
    accounts.blame(
        "an attempt that was run twice", [run for run, times in runs.items() if len(times) > 1 and run not in forgotten]
    )
    accounts.blame(
        "a run that is no attempt of its executor", [run for run in runs if run not in recorded and run not in forgotten]
    )
    accounts.blame(
        "a successful attempt that was never run",
        [one for one, outcome in recorded.items() if outcome == 1 and one not in runs],
    )
    accounts.facts["runs"] = sum(map(len, runs.values()))
    accounts.facts["forgotten by Postgres"] = sum(run not in recorded for run in runs)


def _may_be_forgotten(at: float, crashes: Sequence[float]) -> bool:
    return any(at - UNDER_WAY_S <= crash <= at + UNWRITTEN_S for crash in crashes)


def audit_logs(logs: Path, accounts: Accounts) -> None:
    """Checks that no service met anything that nobody foresaw: an outage is a warning, an error is a defect."""
    for log in sorted(logs.glob("*.log")):
        errors = [entry for line in log.read_text(errors="replace").splitlines() if (entry := _error(line))]
        accounts.blame(f"an error in {log.stem}'s log", [f"{n} x {text}" for text, n in Counter(errors).most_common()])


def _error(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(entry, dict) or entry.get("level") not in {"error", "critical"}:
        return ""
    if entry.get("event") == CANNOT_START or str(entry.get("event")).startswith(CALLER_GONE):
        return ""
    last = str(entry.get("exception", entry.get("error", ""))).strip().splitlines()
    return f"{entry.get('event')} ({entry.get('method', entry.get('loop', ''))}): {last[-1] if last else ''}"
