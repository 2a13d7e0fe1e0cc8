"""What members read, from the scheduler's tables."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from servicekit.arrays import Bytes, Uuids
from servicekit.failures import ResourceExhausted
from servicekit.postgres import Connection, Database
from services.scheduler.domain.endings import superseded
from services.scheduler.domain.records import AttemptRef, Receipt
from services.scheduler.domain.states import Outcome, State
from services.scheduler.domain.views import (
    AttemptView,
    AttributeView,
    ColonyFilter,
    EventView,
    LogSource,
    LogView,
    OutputsView,
    Position,
    ProcessFilter,
    ProcessView,
    ResultView,
    Target,
    TransitionView,
    WorkflowFilter,
    WorkflowView,
)
from services.scheduler.store.receipts import digest_of, keep
from services.scheduler.store.rows import Row, live_of
from services.scheduler.store.sql import ASSIGNING, ENDING, WRITES, no_process, no_workflow
from services.scheduler.store.sql import READS as SQL

MAX_ATTRIBUTES = 1_000
MAX_RESULTS_BYTES = 16 * 1024 * 1024
MAX_PAGE_BYTES = 2 * 1024 * 1024
LAST_ID = 2**63 - 1


class Reads:
    """Reads, and the small writes of running attempts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def process(self, colony: str, process_id: UUID) -> ProcessView:
        """One process, whole.

        Raises:
            NotFound: no such process in this colony.
        """
        row = await self._row(colony, process_id)
        inputs: list[bytes] = []
        if row["parent_ids"] and not row["pending_parents"]:
            inputs = [one for (one,) in await self._database.tuples(ASSIGNING["read_inputs"], {"id": process_id})]
        return _process_of(row, inputs)

    async def _row(self, colony: str, process_id: UUID) -> Row:
        rows = await self._database.statement(SQL["get_process"], {"id": process_id, "colony": colony})
        if not rows:
            raise no_process(process_id)
        return rows[0]

    async def processes(self, colony: str, where: ProcessFilter) -> list[ProcessView]:
        """A page of processes, newest first."""
        parameters = {
            "colony": colony,
            "states": None if where.states is None else list(where.states),
            "executor_type": where.executor_type,
            "label": where.label,
            "initiator": where.initiator,
            "workflow_id": where.workflow_id,
            "executor_name": where.executor_name,
            "submitted_from": where.submitted_from,
            "submitted_until": where.submitted_until,
            "before": where.before,
            "limit": where.limit,
        }
        rows = await self._database.statement(SQL[_list_for(where)], parameters)
        return [_process_of(row, []) for row in rows]

    async def history(self, colony: str, process_id: UUID) -> tuple[list[AttemptView], list[TransitionView]]:
        """Every attempt and every transition of a process.

        Raises:
            NotFound: no such process in this colony.
        """
        async with self._database.transaction() as connection:
            await _require(connection, colony, process_id)
            attempts = await (await connection.execute(SQL["list_attempts"], {"id": process_id})).fetchall()
            transitions = await (await connection.execute(SQL["list_transitions"], {"id": process_id})).fetchall()
        return [
            AttemptView(
                row["number"],
                row["executor_name"],
                row["executor_id"],
                row["started_at"],
                row["ended_at"],
                Outcome(row["outcome"]),
                row["errors"],
            )
            for row in attempts
        ], [_transition_of(row) for row in transitions]

    async def attributes(self, colony: str, process_id: UUID) -> tuple[bytes, list[AttributeView]]:
        """The serialised spec of a process, whose environment counts too, and the attributes that executors wrote.

        Raises:
            NotFound: no such process in this colony.
        """
        row = await self._row(colony, process_id)
        rows = await self._database.statement(SQL["list_attributes"], {"id": process_id})
        return bytes(row["spec"]), [AttributeView(one["kind"], one["key"], one["value"]) for one in rows]

    async def workflow(self, colony: str, workflow_id: UUID) -> WorkflowView:
        """One workflow.

        Raises:
            NotFound: no such workflow in this colony.
        """
        rows = await self._database.statement(SQL["get_workflow"], {"id": workflow_id, "colony": colony})
        if not rows:
            raise no_workflow(workflow_id)
        return _workflow_of(rows[0])

    async def workflows(self, colony: str, where: WorkflowFilter) -> list[WorkflowView]:
        """A page of workflows, newest first."""
        parameters = {
            "colony": colony,
            "label": where.label,
            "initiator": where.initiator,
            "before": where.before,
            "limit": where.limit,
        }
        rows = await self._database.statement(SQL["list_workflows"], parameters)
        return [_workflow_of(row) for row in rows]

    async def results(self, colony: str, workflow_ids: Sequence[UUID], *, with_outputs: bool) -> dict[UUID, ResultView]:
        """What became of workflows; those that are not in this colony are left out.

        Raises:
            ResourceExhausted: the outputs are too much for one answer.
        """
        parameters = {"colony": colony, "ids": Uuids(workflow_ids), "limit": MAX_RESULTS_BYTES}
        # States first: a workflow that was over by then has all its outputs.
        rows = await self._database.statement(SQL["get_workflows"], parameters)
        found = {row["id"]: ResultView(_workflow_of(row)) for row in rows}
        if not with_outputs:
            return found
        # There may be a hundred thousand: as tuples they cost a third.
        leaves = await self._database.tuples(SQL["get_outputs"], parameters)
        if leaves[0][0]:
            msg = f"the outputs are more than {MAX_RESULTS_BYTES} bytes; ask for fewer workflows"
            raise ResourceExhausted(msg, reason="OUTPUTS_TOO_LARGE", retry_delay_s=0)
        for _, workflow_id, process_id, node_name, outputs in leaves:
            if workflow_id in found:
                found[workflow_id].outputs.append(OutputsView(process_id, node_name, outputs))
        # Each has a process without children, unless it was removed meanwhile.
        return {workflow_id: result for workflow_id, result in found.items() if result.outputs}

    async def watched(self, colony: str, target: Target) -> tuple[bool, bool]:
        """Whether it exists, and whether any of it is still open."""
        query = SQL["watched_process" if target.process_id is not None else "watched_workflow"]
        parameters = {"colony": colony, "process_id": target.process_id, "workflow_id": target.workflow_id}
        rows = await self._database.statement(query, parameters)
        return (True, rows[0]["open"]) if rows else (False, False)

    async def logs_after(self, colony: str, source: LogSource, position: Position, limit: int) -> tuple[list[LogView], bool]:
        """Settled log lines after a position, and whether there are lines that are not settled yet.

        Raises:
            NotFound: no such process in this colony.
        """
        query = SQL["list_process_logs" if source.process_id is not None else "list_executor_logs"]
        parameters = {
            "colony": colony,
            "process_id": source.process_id,
            "executor_name": source.executor_name,
            "after_xid": str(position.xid),
            "after_id": position.id,
            "limit": limit,
        }
        async with self._database.transaction() as connection:
            if source.process_id is not None:
                await _require(connection, colony, source.process_id)
            rows = await (await connection.execute(query, parameters)).fetchall()
        settled = _within(_settled(rows), lambda row: len(row["message"]))
        return [
            LogView(
                Position(row["xid"], row["id"]),
                row["process_id"],
                row["attempt"],
                row["executor_name"],
                row["at"],
                row["message"],
            )
            for row in settled
        ], len(settled) < len(rows)

    async def events_after(self, colony: str, target: Target, position: Position, limit: int) -> tuple[list[EventView], bool]:
        """Settled events after a position, and whether there are events that are not settled yet."""
        query = SQL["list_process_events" if target.process_id is not None else "list_workflow_events"]
        parameters = {
            "colony": colony,
            "process_id": target.process_id,
            "workflow_id": target.workflow_id,
            "after_xid": str(position.xid),
            "after_id": position.id,
            "limit": limit,
        }
        rows = await self._database.statement(query, parameters)
        settled = _settled(rows)
        return [_event_of(row) for row in settled], len(settled) < len(rows)

    async def colony_events_after(
        self, colony: str, wanted: ColonyFilter, position: Position, limit: int
    ) -> tuple[list[EventView], Position, bool]:
        """Settled events after a position that are wanted; up to where everything was looked at; and whether there is more."""
        parameters = {
            "colony": colony,
            "executor_types": None if wanted.executor_types is None else list(wanted.executor_types),
            "labels": None if wanted.labels is None else list(wanted.labels),
            "states": None if wanted.states is None else list(wanted.states),
            "after_xid": str(position.xid),
            "after_id": position.id,
            "limit": limit,
        }
        rows = await self._database.statement(SQL["list_colony_events"], parameters)
        settled = _settled(rows)
        last = Position(settled[-1]["xid"], settled[-1]["id"]) if settled else position
        return [_event_of(row) for row in settled if row["wanted"]], last, len(settled) < len(rows)

    async def now(self) -> Position:
        """Before everything that is still to come."""
        rows = await self._database.statement(SQL["now_position"])
        # Of the transaction before the oldest open one, all.
        return Position(rows[0]["xid"], LAST_ID)

    async def set_outputs(
        self, colony: str, executor_id: str, ref: AttemptRef, outputs: Sequence[bytes], receipt: Receipt | None = None
    ) -> None:
        """Stores outputs of a live attempt."""
        async with self._database.transaction() as connection:
            await _lock_attempt(connection, colony, executor_id, ref)
            parameters = {
                "id": ref.process_id,
                "outputs": Bytes(outputs),
                "output_bytes": sum(map(len, outputs)),
                "receipt": digest_of(receipt),
            }
            await connection.execute(ENDING["store_outputs"], parameters)
            await keep(connection, colony, receipt, 1)

    async def set_attributes(self, colony: str, executor_id: str, ref: AttemptRef, attributes: Sequence[AttributeView]) -> None:
        """Stores attributes of a live attempt.

        Raises:
            ResourceExhausted: the process would have too many.
        """
        async with self._database.transaction() as connection:
            await _lock_attempt(connection, colony, executor_id, ref)
            await connection.execute(
                WRITES["put_attributes"],
                {
                    "id": ref.process_id,
                    "kinds": [one.kind for one in attributes],
                    "keys": [one.key for one in attributes],
                    "values": [one.value for one in attributes],
                },
            )
            row = await (await connection.execute(WRITES["count_attributes"], {"id": ref.process_id})).fetchone()
            assert row is not None, "count gives a row"
            if row["count"] > MAX_ATTRIBUTES:
                msg = f"a process has at most {MAX_ATTRIBUTES} attributes"
                raise ResourceExhausted(msg, reason="TOO_MANY_ATTRIBUTES", retry_delay_s=0)

    async def add_logs(
        self,
        colony: str,
        executor_id: str,
        executor_name: str,
        ref: AttemptRef,
        lines: Sequence[tuple[datetime, str]],
        first_number: int = 0,
    ) -> None:
        """Stores log lines of a live attempt, in order."""
        async with self._database.transaction() as connection:
            await _lock_attempt(connection, colony, executor_id, ref)
            await connection.execute(
                WRITES["insert_logs"],
                {
                    "colony": colony,
                    "id": ref.process_id,
                    "attempt": ref.number,
                    "executor_name": executor_name,
                    "first_number": first_number,
                    "times": [at for at, _ in lines],
                    "messages": [message for _, message in lines],
                },
            )


def _list_for(where: ProcessFilter) -> str:
    """The list whose index leaves the fewest rows to look at."""
    if where.workflow_id is not None:
        return "list_workflow_processes"
    if where.label is not None:
        return "list_labelled_processes"
    if where.states is not None and set(where.states) <= {State.WAITING, State.RUNNING}:
        return "list_open_processes"
    return "list_processes"


async def _require(connection: Connection, colony: str, process_id: UUID) -> None:
    cursor = await connection.execute(WRITES["process_exists"], {"id": process_id, "colony": colony})
    if await cursor.fetchone() is None:
        raise no_process(process_id)


async def _lock_attempt(connection: Connection, colony: str, executor_id: str, ref: AttemptRef) -> None:
    parameters = {"id": ref.process_id, "colony": colony, "attempt": ref.number, "executor_id": executor_id}
    if await (await connection.execute(WRITES["lock_attempt"], parameters)).fetchone() is None:
        await _require(connection, colony, ref.process_id)
        raise superseded(ref.process_id)


def _settled(rows: Sequence[Row]) -> list[Row]:
    """The rows before the first that an open transaction could still add lines in front of."""
    for index, row in enumerate(rows):
        if row["unsettled"]:
            return list(rows[:index])
    return list(rows)


def _within(rows: list[Row], size: Callable[[Row], int]) -> list[Row]:
    """The first rows, as many as go into one answer but at least one."""
    total = 0
    for index, row in enumerate(rows):
        total += size(row)
        if index and total > MAX_PAGE_BYTES:
            return rows[:index]
    return rows


def _process_of(row: Row, inputs: list[bytes]) -> ProcessView:
    return ProcessView(
        live=live_of(row),
        spec=bytes(row["spec"]),
        label=row["label"],
        initiator_name=row["initiator_name"],
        submitted_at=row["submitted_at"],
        ended_at=row["ended_at"],
        outputs=row["outputs"],
        errors=row["errors"],
        parent_ids=row["parent_ids"],
        inputs=inputs,
    )


def _transition_of(row: Row) -> TransitionView:
    return TransitionView(
        row["at"], State(row["from_state"]), State(row["to_state"]), row["attempt"], row["actor"], row["reason"]
    )


def _event_of(row: Row) -> EventView:
    return EventView(
        Position(row["xid"], row["id"]),
        row["process_id"],
        row["node_name"],
        row["func_name"],
        row["executor_name"],
        _transition_of(row),
    )


def _workflow_of(row: Row) -> WorkflowView:
    return WorkflowView(
        id=row["id"],
        colony=row["colony"],
        sequence=row["sequence"],
        label=row["label"],
        initiator=row["initiator"],
        initiator_name=row["initiator_name"],
        submitted_at=row["submitted_at"],
        counts={
            State.WAITING: row["waiting"],
            State.RUNNING: row["running"],
            State.SUCCESSFUL: row["successful"],
            State.FAILED: row["failed"],
            State.CANCELLED: row["cancelled"],
        },
        begun=bool(row["begun"]),
        ended_at=row["ended_at"],
    )
