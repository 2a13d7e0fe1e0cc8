"""What the audit export reads: pages of processes, each with its ledger and its calls as they were at one moment."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from servicekit.arrays import Bytes, Uuids
from servicekit.postgres import Connection, Database, Queries
from services.scheduler.domain.auditing import AuditEvent, AuditPage, AuditProcess, Scope
from services.scheduler.domain.records import Receipt
from services.scheduler.store.sql import PACKAGE, no_process, no_workflow

SQL: Final = Queries(PACKAGE, "audit.sql")
STATISTICS: Final = Queries(PACKAGE, "statistics.sql")
MIB: Final = 1024 * 1024
# Of calls in one page. A process whose own calls are larger has a page for itself.
MAX_BYTES: Final = 16 * MIB
# A whole colony may be looked through for a page.
LIMIT_S: Final = 90.0
TIMEOUT: Final = "SET LOCAL statement_timeout = '60s'"
FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)


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

    async def page(self, colony: str, scope: Scope, after: int, limit: int, known: Collection[bytes]) -> AuditPage:
        """Processes after a place in submission order, and the calls which they name that are not known."""
        parameters = {
            "colony": colony,
            "after": after,
            "limit": limit,
            "since": scope.since or FIRST,
            "before": scope.before or LAST,
        }
        query = "audit_page"
        if scope.process_ids or scope.workflow_ids:
            query = "audit_chosen_page"
            parameters.update(_ids(scope))
        async with self._database.transaction(limit_s=LIMIT_S) as connection:
            await connection.execute(STATISTICS["begin_reading"])
            await connection.execute(TIMEOUT)
            rows = await (await connection.execute(SQL[query], parameters)).fetchall()
            processes = await _with_events(connection, rows)
            fitting, digests = await _fitting(connection, colony, processes, known)
            receipts = await _receipts(connection, colony, digests)
        return AuditPage(processes[:fitting], receipts, more=len(rows) == limit or fitting < len(processes))


def _ids(scope: Scope) -> dict[str, Uuids]:
    return {"process_ids": Uuids(scope.process_ids), "workflow_ids": Uuids(scope.workflow_ids)}


async def _with_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[AuditProcess]:
    events: dict[UUID, list[AuditEvent]] = defaultdict(list)
    cursor = await connection.execute(SQL["audit_events"], {"ids": Uuids([row["id"] for row in rows])})
    for row in await cursor.fetchall():
        fields = dict(row)
        events[fields.pop("process_id")].append(AuditEvent(**fields))
    return [AuditProcess(**row, events=events[row["id"]]) for row in rows]


async def _fitting(
    connection: Connection, colony: str, processes: Sequence[AuditProcess], known: Collection[bytes]
) -> tuple[int, list[bytes]]:
    """How many of the processes go into one page, and the digests of the calls to read for them."""
    wanted = {digest for process in processes for digest in process.receipts if digest not in known}
    cursor = await connection.execute(SQL["audit_receipt_sizes"], {"colony": colony, "digests": Bytes(list(wanted))})
    sizes = {row["digest"]: row["size"] for row in await cursor.fetchall()}
    taken: dict[bytes, None] = {}
    size = 0
    for place, process in enumerate(processes):
        new = {digest: None for digest in process.receipts if digest in sizes and digest not in taken}
        size += sum(sizes[digest] for digest in new)
        if place and size > MAX_BYTES:
            return place, list(taken)
        taken.update(new)
    return len(processes), list(taken)


async def _receipts(connection: Connection, colony: str, digests: Sequence[bytes]) -> dict[bytes, Receipt]:
    cursor = await connection.execute(SQL["audit_receipts"], {"colony": colony, "digests": Bytes(digests)})
    return {row["digest"]: Receipt(**row) for row in await cursor.fetchall()}
