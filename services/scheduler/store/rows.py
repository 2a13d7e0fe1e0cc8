"""Rows to records: the only place that spells column names outside SQL."""

from collections.abc import Mapping
from typing import Any

from services.scheduler.domain.records import Live
from services.scheduler.domain.states import State

Row = Mapping[str, Any]


def live_of(row: Row) -> Live:
    """The columns that every decision is made by."""
    return Live(
        id=row["id"],
        colony=row["colony"],
        workflow_id=row["workflow_id"],
        node_name=row["node_name"],
        func_name=row["func_name"],
        sequence=row["sequence"],
        executor_type=row["executor_type"],
        executor_names=tuple(row["executor_names"]),
        location=row["location"],
        needs=row["needs"],
        priority_time=row["priority_time"],
        state=State(row["state"]),
        pending_parents=row["pending_parents"],
        attempt=row["attempt"],
        retries=row["retries"],
        undelivered=row["undelivered"],
        max_retries=row["max_retries"],
        max_wait_ms=row["max_wait_ms"],
        max_exec_ms=row["max_exec_ms"],
        backoff=tuple(row["backoff"]),
        backoff_until=row["backoff_until"],
        executor_id=row["executor_id"],
        executor_name=row["executor_name"],
        initiator=row["initiator"],
        ready_at=row["ready_at"],
        started_at=row["started_at"],
    )
