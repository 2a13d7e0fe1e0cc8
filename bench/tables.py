"""Postgres alone: the statements of a submit, an assignment and a close, without anything around them."""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection, sql

from bench import statements
from bench.failure import BenchError
from bench.loads import Load, Timed, Window
from bench.statements import Step
from servicekit.postgres import migrate
from services.scheduler.domain.ids import new_id
from services.scheduler.domain.states import State

# Beside the schema of the scheduler, which looks after its own rows.
SCHEMA = "bench_tables"


async def create(url: str) -> None:
    """The scheduler's tables once more, empty."""
    await migrate(url, SCHEMA, statements.MIGRATIONS)


async def drop(url: str) -> None:
    """Takes them away again."""
    async with await AsyncConnection.connect(url) as connection:
        await connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(SCHEMA)))


async def check(url: str, *, entered: int, closed: int) -> None:
    """Counts what is in the tables.

    Raises:
        BenchError: it is not what was done.
    """
    async with await AsyncConnection.connect(url, options=f"-c search_path={SCHEMA}") as connection:
        query = "SELECT count(*), count(*) FILTER (WHERE state = %s) FROM process"
        row = await (await connection.execute(query, [State.SUCCESSFUL])).fetchone()
    if row != (entered, closed):
        msg = f"{entered} processes were entered and {closed} closed for the limits, and the tables have {row}"
        raise BenchError(msg)


@dataclass
class TableCycles(Load[Timed, Window]):
    """A connection that enters, assigns and closes batches of one size, one after another; or only enters them."""

    url: str
    batch: int
    enter_only: bool = False
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)
    # As the step is durable or not.
    _connections: dict[bool, AsyncConnection[Any]] = field(default_factory=dict, init=False)

    async def open(self) -> None:
        for durable in (True, False):
            options = f"-c search_path={SCHEMA} -c timezone=UTC -c synchronous_commit={'on' if durable else 'off'}"
            # As servicekit.postgres connects; a statement on its own is its own transaction.
            connection = await AsyncConnection.connect(self.url, options=options, prepare_threshold=0, autocommit=True)
            self._connections[durable] = await self._stack.enter_async_context(connection)

    async def run(self, job: Timed) -> Window:
        until = await job.until_begin()
        count = 0
        while time.monotonic() < until:
            ids = [new_id(time.time_ns()) for _ in range(self.batch)]
            await self._do(statements.enter(ids))
            if not self.enter_only:
                await self._do(statements.assign(ids))
                await self._do(statements.close(ids))
            count += self.batch
        return Window(job.begin_at, time.monotonic(), count)

    async def close(self) -> None:
        await self._stack.aclose()

    async def _do(self, step: Step) -> None:
        connection = self._connections[step.durable]
        if len(step.statements) == 1:
            statement, parameters = step.statements[0]
            await connection.execute(statement, parameters)
            return
        async with connection.pipeline(), connection.transaction():
            for statement, parameters in step.statements:
                await connection.execute(statement, parameters)
