"""Assignments: what several executors claimed at the same time begins in one statement (I2)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from servicekit.arrays import Ints, Texts, Uuids
from servicekit.postgres import Database
from services.scheduler.domain.records import Assigned, Begun, Claim
from services.scheduler.store.rows import live_of
from services.scheduler.store.sql import ASSIGNING as SQL

MIB = 1024 * 1024
# What goes into one answer besides the first process; clients take 64 MiB.
MAX_ANSWER_BYTES = 16 * MIB


async def assign(database: Database, claims: Sequence[Claim], at: datetime) -> list[Begun]:
    """Begins attempts of those processes that are still ready and go into one answer; for each claim, most urgent first.

    These commits need not be on disk before they are told: if Postgres crashes within the moment, an attempt that was told is
    as if it had never been, and its executor is told to drop it.
    """
    rows = await database.statement(SQL["assign"], parameters_of(claims, at), durable=False)
    begun: list[Begun] = [Begun() for _ in claims]
    for row in rows:
        mine = begun[row["executor"] - 1]
        if row["id"] is None:
            mine.left.append(row["claimed_id"])
        else:
            mine.assigned.append(Assigned(live_of(row), row["spec"], row["inputs"] or []))
    return begun


def parameters_of(claims: Sequence[Claim], at: datetime) -> dict[str, Any]:
    """All that `assign` takes."""
    pairs = [(number, one) for number, claim in enumerate(claims, 1) for one in claim.claimed]
    return {
        "ids": Uuids([one.id for _, one in pairs]),
        "attempts": Ints([one.attempt for _, one in pairs]),
        "executors": Ints([number for number, _ in pairs]),
        "colonies": Texts([claim.colony for claim in claims]),
        "executor_ids": Texts([claim.executor.identity for claim in claims]),
        "executor_names": Texts([claim.executor.name for claim in claims]),
        "at": at,
        "at_most_bytes": MAX_ANSWER_BYTES,
    }
