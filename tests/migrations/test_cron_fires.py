"""What the cron service's second migration makes of the crons of the first: each goes on where it was."""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from servicekit.postgres import Database, migrate
from services.cron.domain.cron import Policy, State
from services.cron.domain.schedule import Expression, Interval, Schedule
from services.cron.store import migrations
from services.cron.store.crons import PostgresCronStore
from services.cron.store.fires import PostgresFireStore

pytestmark = pytest.mark.asyncio

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORKFLOW_ID = UUID("123e4567-e89b-12d3-a456-426614174000")


@pytest.fixture
def first_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with the first migration alone."""
    package = tmp_path / "cron_of_old"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(Path(str(migrations.__path__[0])) / "0001_initial.sql", package)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    return package.name


async def test_crons_go_on_where_they_were(empty_database_url: str, first_version: str) -> None:
    await migrate(empty_database_url, "cron", first_version)
    following = START + timedelta(seconds=90)
    rows = [
        ("active", None, 90_000, following, following, WORKFLOW_ID, ""),
        ("retried", "@daily", None, following, following + timedelta(seconds=8), None, "away"),
        (
            "revoked",
            None,
            90_000,
            None,
            None,
            WORKFLOW_ID,
            "stopped: the member on whose account this cron ran is none any more",
        ),
        ("over", "@yearly", None, None, None, None, ""),
    ]
    async with await psycopg.AsyncConnection.connect(empty_database_url) as connection:
        for name, expression, interval_ms, next_fire, due, workflow_id, error in rows:
            await connection.execute(
                "INSERT INTO cron.cron (id, colony, name, expression, interval_ms, workflow, initiator, initiator_name, created_at, "
                "next_fire_at, due_at, last_workflow_id, last_error) VALUES (%s, 'acme', %s, %s, %s, 'w', 'aa', 'alice', %s, %s, %s, %s, %s)",
                (uuid4(), name, expression, interval_ms, START, next_fire, due, str(workflow_id or ""), error),
            )
    assert await migrate(empty_database_url, "cron", "services.cron.store.migrations") > 0
    database = Database(empty_database_url, "cron")
    await database.open()
    store = PostgresCronStore(database)
    crons = {cron.name: cron for cron in await store.page("acme", after="", limit=10)}
    upcoming = await PostgresFireStore(database).upcoming(following, after=None, limit=10)
    await database.close()
    assert {name: cron.state for name, cron in crons.items()} == {
        "active": State.ACTIVE,
        "retried": State.ACTIVE,
        "revoked": State.PAUSED,
        "over": State.ENDED,
    }
    active = crons["active"]
    assert (active.schedule, active.policy, active.since) == (Schedule(Interval(90_000)), Policy(), START)
    assert (active.next_fire, active.next_due, active.last_workflow_id) == (following, following, WORKFLOW_ID)
    assert crons["retried"].schedule == Schedule(Expression("@daily"))
    assert crons["revoked"].pause_reason.startswith("stopped: the member")
    assert {each for each, _ in upcoming} == {active.cron_id, crons["retried"].cron_id}
