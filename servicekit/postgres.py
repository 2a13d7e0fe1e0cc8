"""Postgres for a service: its schema, its migrations, its named queries, its transactions."""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import LiteralString, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from servicekit.failures import Unavailable

Connection: TypeAlias = AsyncConnection[DictRow]
T = TypeVar("T")

_QUERY = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql\Z")
# Locking order makes deadlocks rare, not impossible; Postgres names the victim, and a victim's whole transaction runs again.
DEADLOCK_TRIES = 4
POOL_TIMEOUT_S = 5.0


class Queries(Mapping[str, LiteralString]):
    """The named queries of one file: `-- name: insert_process` begins each."""

    def __init__(self, package: str, file: str = "queries.sql") -> None:
        text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
        self._queries: dict[str, LiteralString] = {name: body.strip() for name, body in _QUERY.findall(text)}

    def __getitem__(self, name: str) -> LiteralString:
        return self._queries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)


def migrations_of(package: str) -> list[tuple[int, str]]:
    """The migrations in a package (0001_name.sql ...), in order: number and SQL."""
    files = [(match, file) for file in resources.files(package).iterdir() if (match := _MIGRATION.match(file.name))]
    return sorted((int(match[1]), file.read_text(encoding="utf-8")) for match, file in files)


async def migrate(url: str, schema: str, package: str) -> int:
    """Brings the schema up to date, forward only; replicas that start together take turns. Returns how many were applied.

    Raises:
        RuntimeError: a migration that was applied has been changed since.
    """
    applied = 0
    name = sql.Identifier(schema)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        # One lock for all services: CREATE SCHEMA IF NOT EXISTS and the like are not safe side by side.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('colonies migrations'))")
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        await connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(name))
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration ("
            "number integer PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        rows = await (await connection.execute("SELECT number, digest FROM migration")).fetchall()
        known: dict[int, str] = dict(rows)
        for number, text in migrations_of(package):
            digest = hashlib.sha256(text.encode()).hexdigest()
            if number in known:
                if known[number] != digest:
                    msg = f"migration {number} of {schema} was changed after it had been applied"
                    raise RuntimeError(msg)
                continue
            await connection.execute(text)
            await connection.execute("INSERT INTO migration (number, digest) VALUES (%s, %s)", (number, digest))
            applied += 1
    return applied


class Database:
    """A pool of connections whose search path is one schema."""

    def __init__(self, url: str, schema: str, *, connections: int = 10) -> None:
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=min(2, connections),
            max_size=connections,
            timeout=POOL_TIMEOUT_S,
            open=False,
            # After an outage, look again soon, and never give up.
            reconnect_timeout=float("inf"),
            kwargs={
                "row_factory": dict_row,
                # Statements are prepared at their first use: there are few, and all of them come again.
                "prepare_threshold": 0,
                "options": f"-c search_path={schema} -c timezone=UTC "
                # Bounds on how long a transaction stays open; the scheduler's upkeep counts on them.
                "-c lock_timeout=3s -c statement_timeout=20s -c idle_in_transaction_session_timeout=30s",
                "application_name": f"colonies-{schema}",
                "connect_timeout": 5,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
        )

    async def open(self) -> None:
        """Connects.

        Raises:
            Unavailable: Postgres does not answer.
        """
        with _translated():
            await self._pool.open(wait=True, timeout=30)

    async def close(self) -> None:
        """Gives all connections back."""
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back by an exception.

        Raises:
            Unavailable: Postgres is out of reach. Whether a commit under way took place is then unknown.
        """
        with _translated():
            async with self._pool.connection() as connection:
                yield connection

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs `work` in a transaction, again from the start when Postgres chose it as the victim of a deadlock.

        Raises:
            Unavailable: as `transaction`; or it was chosen every time.
        """
        for attempt in range(DEADLOCK_TRIES):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except errors.DeadlockDetected as error:
                if attempt == DEADLOCK_TRIES - 1:
                    msg = "others hold the same rows"
                    raise Unavailable(msg, reason="DATABASE_BUSY") from error
        raise AssertionError


# Gone, going, too slow, or (after a fail-over) not the one that takes writes any more.
_OUTAGES = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolTimeout,
    errors.IdleInTransactionSessionTimeout,
    errors.ReadOnlySqlTransaction,
)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns "Postgres is gone" into Unavailable, and leaves all other errors as they are."""
    try:
        yield
    except errors.DeadlockDetected:
        raise
    except _OUTAGES as error:
        msg = "the database is out of reach"
        raise Unavailable(msg, reason="DATABASE_UNAVAILABLE") from error
