"""Crons in tables of their own, entered as rows: to add them one by one would take minutes."""

import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit, urlunsplit

from psycopg import AsyncConnection, sql

from bench.calls import noop
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec
from servicekit.postgres import migrate

SCHEMA = "cron"
MIGRATIONS = "services.cron.store.migrations"
COLONY = "idle"
# Of those that are made due again and again.
DUE_COLONY = "due"
YEAR = timedelta(days=365)
OWNER = "0a" * 32
COLUMNS = (
    "id", "colony", "name", "interval_ms", "workflow", "initiator", "initiator_name", "created_at", "since", "next_fire_at",
    "next_due_at",
)  # fmt: skip


async def create(url: str, name: str) -> str:
    """A new database with the cron service's tables; returns its URL."""
    await drop(url, name)
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    own = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    await migrate(own, SCHEMA, MIGRATIONS)
    return own


async def drop(url: str, name: str) -> None:
    """Takes it away again."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


async def add(url: str, colony: str, count: int) -> None:
    """Adds so many crons that are due in a year."""
    workflow = WorkflowSpec(nodes=[noop()])
    workflow.nodes[0].node_name = "root"
    now = datetime.now(UTC).replace(microsecond=0)
    year_ms = YEAR // timedelta(milliseconds=1)
    async with await AsyncConnection.connect(url, options=f"-c search_path={SCHEMA}", autocommit=True) as connection:
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        async with connection.cursor().copy(sql.SQL("COPY cron ({}) FROM STDIN").format(columns)) as copy:
            for _ in range(count):
                cron_id = uuid.uuid4()
                schedule = (year_ms, workflow.SerializeToString(), OWNER, "submitter", now, now, now + YEAR, now + YEAR)
                await copy.write_row((cron_id, colony, str(cron_id), *schedule))
        # So that no automatic vacuum does it while something is measured.
        await connection.execute("VACUUM (ANALYZE) cron")


async def make_due(connection: "AsyncConnection[tuple[object, ...]]", now: datetime) -> None:
    """Makes the crons of the one colony due at a moment, as if they had never fired."""
    await connection.execute("DELETE FROM fire")
    await connection.execute(
        "UPDATE cron SET pending = NULL, retry_at = NULL, claim = NULL, acted_until = NULL, state = 1, next_fire_at = %(now)s, "
        "next_due_at = %(now)s WHERE colony = %(colony)s",
        {"now": now, "colony": DUE_COLONY},
    )
