"""Postgres for a service: its schema, its migrations, its named queries, its statements and transactions.

Connections commit every statement by itself unless a transaction is asked for: what one statement can do costs one round trip.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import Any, LiteralString, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.rows import AsyncRowFactory, DictRow, dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from servicekit import arrays as _arrays  # noqa: F401 - the array parameters are known wherever there is a database
from servicekit.failures import Unavailable
from servicekit.metrics import POSTGRES_OUTAGES

Connection: TypeAlias = AsyncConnection[DictRow]
Parameters: TypeAlias = Mapping[str, Any] | Sequence[Any] | None
T = TypeVar("T")

_QUERY = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*")
_BLANKS = re.compile(r"\s+")
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql\Z")
# Locking order makes deadlocks rare, not impossible; Postgres names the victim, and a victim's whole transaction runs again.
DEADLOCK_TRIES = 4
POOL_TIMEOUT_S = 5.0
QUICK_CONNECTIONS = 4
# The server ends a statement after 20 s. If it says nothing at all, this ends the wait for it.
LIMIT_S = 30.0


class Queries(Mapping[str, LiteralString]):
    """The named queries of one file: `-- name: insert_process` begins each.

    Comments and indentation stay behind: the driver remembers what it has made of a query only up to 4 096 characters, and
    would read a longer one anew at each call. So no literal in them may hold "--" or several blanks.
    """

    def __init__(self, package: str, file: str = "queries.sql") -> None:
        text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
        self._queries: dict[str, LiteralString] = {name: _squeezed(body) for name, body in _QUERY.findall(text)}

    def __getitem__(self, name: str) -> LiteralString:
        return self._queries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)


def _squeezed(query: LiteralString) -> LiteralString:
    return _BLANKS.sub(" ", _COMMENT.sub("", query)).strip()


def migrations_of(package: str) -> list[tuple[int, str]]:
    """The migrations in a package (0001_name.sql ...), in order: number and SQL."""
    files = [(match, file) for file in resources.files(package).iterdir() if (match := _MIGRATION.match(file.name))]
    return sorted((int(match[1]), file.read_text(encoding="utf-8")) for match, file in files)


async def migrate(url: str, schema: str, package: str) -> int:
    """Brings the schema up to date, forward only; replicas that start together take turns. Returns how many were applied.

    Raises:
        RuntimeError: a migration that was applied has been changed since.
        Unavailable: Postgres does not answer.
    """
    with _translated():
        return await _migrate(url, schema, package)


async def _migrate(url: str, schema: str, package: str) -> int:
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
        self._pool = _pool(url, schema, connections)
        # Empty until somebody asks for it.
        self._quick = _pool(url, schema, min(QUICK_CONNECTIONS, connections), "-c synchronous_commit=off", at_first=0)
        self.answers = 0
        """How often Postgres has done what it was asked: as long as it grows, Postgres is in reach."""

    async def open(self) -> None:
        """Connects.

        Raises:
            Unavailable: Postgres does not answer.
        """
        with _translated():
            await self._pool.open(wait=True, timeout=30)
            await self._quick.open()

    async def close(self) -> None:
        """Gives all connections back."""
        await self._pool.close()
        await self._quick.close()

    async def ping(self) -> None:
        """One round trip.

        Raises:
            Unavailable: Postgres is out of reach.
        """
        await self.tuples("SELECT 1")

    @asynccontextmanager
    async def transaction(self, *, limit_s: float = LIMIT_S) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back by an exception; given up after `limit_s` seconds.

        Raises:
            Unavailable: Postgres is out of reach. Whether a commit under way took place is then unknown.
        """
        with _translated():
            async with asyncio.timeout(limit_s), self._pool.connection() as connection:
                # The pool's own block commits or rolls back what is open at its end; a Transaction object costs twice this.
                await connection.execute("BEGIN", prepare=False)
                yield connection
            self.answers += 1

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, limit_s: float = LIMIT_S) -> T:
        """Runs `work` in a transaction, again from the start when Postgres chose it as the victim of a deadlock.

        Raises:
            Unavailable: as `transaction`; or it was chosen every time.
        """

        async def once() -> T:
            async with self.transaction(limit_s=limit_s) as connection:
                return await work(connection)

        return await _unless_victim(once)

    async def statement(self, query: LiteralString, parameters: Parameters = None, *, durable: bool = True) -> list[DictRow]:
        """Runs one statement as a transaction of its own, in one round trip; again when a deadlock chose it as its victim.

        Args:
            query: the statement; its rows come in the binary format.
            parameters: its parameters; lists of many elements go as servicekit.arrays.
            durable: False answers before the commit is on disk. A crash of Postgres within about a second then undoes it,
                though nothing is torn: only for writes whose loss is no more than a retry.

        Returns:
            Its rows; none if it has none.

        Raises:
            Unavailable: Postgres is out of reach, and whether a commit under way took place is unknown; or the statement was
                chosen every time.
        """
        return await _unless_victim(lambda: self._once(query, parameters, dict_row, durable=durable))

    async def tuples(
        self, query: LiteralString, parameters: Parameters = None, *, durable: bool = True
    ) -> list[tuple[Any, ...]]:
        """As `statement`, with rows as plain tuples: cheaper where there are many."""
        return await _unless_victim(lambda: self._once(query, parameters, tuple_row, durable=durable))

    async def _once(self, query: LiteralString, parameters: Parameters, rows: AsyncRowFactory[T], *, durable: bool) -> list[T]:
        pool = self._pool if durable else self._quick
        with _translated():
            async with (
                asyncio.timeout(LIMIT_S),
                pool.connection() as connection,
                connection.cursor(binary=True, row_factory=rows) as cursor,
            ):
                await cursor.execute(query, parameters)
                self.answers += 1
                return await cursor.fetchall() if cursor.description else []


def _pool(url: str, schema: str, connections: int, options: str = "", *, at_first: int = 2) -> AsyncConnectionPool[Connection]:
    return AsyncConnectionPool(
        url,
        min_size=min(at_first, connections),
        max_size=connections,
        timeout=POOL_TIMEOUT_S,
        open=False,
        # After an outage, look again soon, and never give up.
        reconnect_timeout=float("inf"),
        kwargs={
            "autocommit": True,
            "row_factory": dict_row,
            # Statements are prepared at their first use: there are few, and all of them come again.
            "prepare_threshold": 0,
            "options": f"-c search_path={schema} -c timezone=UTC "
            # Bounds on how long a transaction stays open; the scheduler's upkeep counts on them.
            f"-c lock_timeout=3s -c statement_timeout=20s -c idle_in_transaction_session_timeout=30s {options}",
            "application_name": f"colonies-{schema}",
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            # A host that vanished while something was under way: keepalives do not count then.
            "tcp_user_timeout": 10_000,
        },
    )


async def _unless_victim(once: Callable[[], Awaitable[T]]) -> T:
    for _ in range(DEADLOCK_TRIES - 1):
        try:
            return await once()
        except errors.DeadlockDetected:
            continue
    try:
        return await once()
    except errors.DeadlockDetected as error:
        msg = "others hold the same rows"
        raise Unavailable(msg, reason="DATABASE_BUSY") from error


# Gone, going, too slow, or (after a fail-over) not the one that takes writes any more.
_OUTAGES = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    TimeoutError,
    PoolTimeout,
    errors.IdleInTransactionSessionTimeout,
    errors.ReadOnlySqlTransaction,
)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns "Postgres is gone" into Unavailable, and leaves all other errors as they are."""
    try:
        yield
    except (errors.DeadlockDetected, errors.ProgramLimitExceeded):
        # Not the server is at fault but what was asked of it.
        raise
    except errors.LockNotAvailable as error:
        msg = "others have held the same rows for too long"
        raise Unavailable(msg, reason="DATABASE_BUSY") from error
    except _OUTAGES as error:
        POSTGRES_OUTAGES.inc()
        msg = "the database is out of reach"
        raise Unavailable(msg, reason="DATABASE_UNAVAILABLE") from error
