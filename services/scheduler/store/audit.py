"""What the audit export reads: processes in outline, as they were at one moment, then their lines and calls, some at a time."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from servicekit.arrays import BigInts, Bytes, Uuids
from servicekit.postgres import Database, Queries
from services.scheduler.domain.audited import AuditEvent, AuditProcess, Scope
from services.scheduler.domain.records import Receipt
from services.scheduler.store.sql import PACKAGE, no_process, no_workflow

SQL: Final = Queries(PACKAGE, "audit.sql")
STATISTICS: Final = Queries(PACKAGE, "statistics.sql")
FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
# Replicas' clocks differ, and batches overtake each other: submission order is that of time but for so much.
DISORDER: Final = timedelta(minutes=10)
# What comes in during an export belongs to it, unless it is for a time.
NO_END: Final = 2**63 - 1
# Lines of a large process that are read together at most.
MAX_LINES: Final = 1_000


class AuditLedgers:
    """The ledger and the receipts. Every method may raise Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def require(self, colony: str, scope: Scope) -> None:
        """Sees that what is named is there.

        Raises:
            NotFound: a process or workflow is not in this colony.
        """
        if not scope.process_ids and not scope.workflow_ids:
            return
        for row in await self._database.statement(SQL["audit_missing"], {"colony": colony, **_ids(scope)}):
            raise no_workflow(row["id"]) if row["is_workflow"] else no_process(row["id"])

    async def bounds(self, colony: str, scope: Scope) -> tuple[int, int]:
        """Where to look for what was submitted within the scope's times, by bisection. Cost: the logarithm of the colony."""
        (ends,) = await self._database.statement(SQL["audit_ends"], {"colony": colony})
        first, last = ends["first"] or 0, ends["last"] or 0
        after, until = 0, NO_END
        if scope.since is not None:
            after = await self._place(colony, first, last, scope.since - DISORDER) - 1
        if scope.before is not None:
            until = await self._place(colony, first, last, scope.before + DISORDER)
        return after, until

    async def _place(self, colony: str, low: int, high: int, moment: datetime) -> int:
        """The first place (to `high` at most) from which on processes were submitted at a moment or later."""
        while low < high:
            middle = (low + high) // 2
            rows = await self._database.statement(SQL["audit_probe"], {"colony": colony, "sequence": middle})
            if rows and rows[0]["submitted_at"] < moment:
                low = middle + 1
            else:
                high = middle
        return low

    async def page(self, colony: str, scope: Scope, after: int, until: int, limit: int) -> list[AuditProcess]:
        """Processes after a place in submission order, in outline."""
        parameters = {
            "colony": colony,
            "after": after,
            "until": until,
            "limit": limit,
            "since": scope.since or FIRST,
            "before": scope.before or LAST,
        }
        query = "audit_page"
        if scope.process_ids or scope.workflow_ids:
            query = "audit_chosen_page"
            parameters.update(_ids(scope))
        async with self._database.transaction() as connection:
            await connection.execute(STATISTICS["begin_reading"])
            rows = await (await connection.execute(SQL[query], parameters)).fetchall()
            cursor = await connection.execute(SQL["audit_outlines"], {"ids": Uuids([row["id"] for row in rows])})
            outlines = {row["process_id"]: row for row in await cursor.fetchall()}
        return [_process_of(row, outlines[row["id"]]) for row in rows]

    async def events(self, processes: Sequence[AuditProcess]) -> Mapping[UUID, Sequence[AuditEvent]]:
        """All lines of processes up to their last in the outline."""
        parameters = {
            "ids": Uuids([process.id for process in processes]),
            "lasts": BigInts([process.last_line for process in processes]),
        }
        found: dict[UUID, list[AuditEvent]] = defaultdict(list)
        for row in await self._database.statement(SQL["audit_events"], parameters):
            fields = dict(row)
            found[fields.pop("process_id")].append(AuditEvent(**fields))
        return found

    async def part(self, process: AuditProcess, after_line: int, at_most_bytes: int) -> Sequence[AuditEvent]:
        """Lines of one process, as many as weigh about so much if all weigh the same."""
        limit = max(1, min(MAX_LINES, at_most_bytes * process.lines // process.weight))
        parameters = {"id": process.id, "after": after_line, "last": process.last_line, "limit": limit}
        return [AuditEvent(**row) for row in await self._database.statement(SQL["audit_part"], parameters)]

    async def receipts(self, colony: str, digests: Sequence[bytes], at_most_bytes: int) -> AsyncIterator[Receipt]:
        """Kept calls; a larger one is read alone."""
        rows = await self._database.statement(SQL["audit_receipt_sizes"], {"colony": colony, "digests": Bytes(digests)})
        together: list[bytes] = []
        size = 0
        for row in rows:
            if together and size + row["size"] > at_most_bytes:
                for receipt in await self._receipts(colony, together):
                    yield receipt
                together, size = [], 0
            together.append(row["digest"])
            size += row["size"]
        for receipt in await self._receipts(colony, together):
            yield receipt

    async def _receipts(self, colony: str, digests: Sequence[bytes]) -> list[Receipt]:
        rows = await self._database.statement(SQL["audit_receipts"], {"colony": colony, "digests": Bytes(digests)})
        return [Receipt(**row) for row in rows]


def _ids(scope: Scope) -> dict[str, Uuids]:
    return {"process_ids": Uuids(scope.process_ids), "workflow_ids": Uuids(scope.workflow_ids)}


def _process_of(row: Mapping[str, Any], outline: Mapping[str, Any]) -> AuditProcess:
    names = dict.fromkeys([*outline["receipts"], *outline["output_receipts"]])
    return AuditProcess(
        **row,
        lines=outline["lines"],
        last_line=outline["last_line"],
        weight=outline["weight"],
        names=list(names),
        is_broken=outline["is_broken"],
    )
