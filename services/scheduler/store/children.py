"""Children that a running process adds to its workflow: all or none, once for each request id (I7, I8)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

from servicekit.arrays import Ints, SmallInts, Uuids
from servicekit.bounds import shown
from servicekit.failures import FailedPrecondition, InvalidArgument, Violation
from servicekit.postgres import Connection, Database
from services.scheduler.domain import endings
from services.scheduler.domain.records import Edge, Family, Live
from services.scheduler.domain.spec import Selector
from services.scheduler.store.closing import lock
from services.scheduler.store.entering import answer_again, columns_of
from services.scheduler.store.receipts import digest_of, keep
from services.scheduler.store.rows import Row
from services.scheduler.store.sql import CHILDREN as SQL
from services.scheduler.store.sql import ENTERING, no_process

MAX_PROCESSES = 100_000


async def add(database: Database, family: Family) -> Sequence[UUID]:
    """Adds processes below a running one; returns their ids, or those that its request id gave when it came first.

    Raises:
        AlreadyExists: the request id was used for something else.
        NotFound: no such process in this colony.
        FailedPrecondition: the attempt is not the live one, not this executor's, or outside a workflow; or that is full.
        InvalidArgument: the workflow has a node of one of the names already.
    """

    async def work(connection: Connection) -> Sequence[UUID]:
        submission = family.submission
        parent = (await lock(connection, submission.colony, [family.parent.process_id])).get(family.parent.process_id)
        if parent is None:
            raise no_process(family.parent.process_id)
        request = {"colony": submission.colony, "actor": submission.actor, "request_id": submission.request_id}
        claim = {
            **request,
            "digest": submission.digest,
            "workflow_id": parent.workflow_id,
            "at": submission.at,
            "process_ids": Uuids([process.id for process in submission.processes]),
        }
        if await (await connection.execute(SQL["claim_request"], claim)).fetchone() is None:
            row = await (await connection.execute(ENTERING["read_request"], request)).fetchone()
            assert row is not None, "a request id that is taken has a committed row"
            before = answer_again(submission, row)
            if isinstance(before, Exception):
                raise before
            return before.process_ids
        await _check(connection, parent, family)
        await _enter(connection, parent, family)
        return [process.id for process in submission.processes]

    return await database.run(work)


async def _check(connection: Connection, parent: Live, family: Family) -> None:
    if not endings.holds(parent, family.parent.number, family.submission.actor):
        raise endings.superseded(parent.id)
    if parent.workflow_id is None:
        msg = f"process {parent.id} is no part of a workflow"
        raise FailedPrecondition(msg, reason="NOT_IN_WORKFLOW")
    names = [process.spec.node_name for process in family.submission.processes]
    parameters = {"workflow_id": parent.workflow_id, "names": names}
    taken = {row["node_name"] for row in await _rows(connection, "node_names_taken", parameters)}
    violations = [
        Violation(f"nodes[{index}].node_name", f"must be unique; the workflow has a node {shown(name)} already")
        for index, name in enumerate(names)
        if name in taken
    ]
    if violations:
        raise InvalidArgument(violations)
    rows = await _rows(connection, "count_added", {"workflow_id": parent.workflow_id, "count": len(names)})
    if rows[0]["processes"] > MAX_PROCESSES:
        msg = f"workflow {parent.workflow_id} would have {rows[0]['processes']} processes; at most {MAX_PROCESSES}"
        raise FailedPrecondition(msg, reason="WORKFLOW_FULL")


async def _enter(connection: Connection, parent: Live, family: Family) -> None:
    submission = family.submission
    parameters = {
        **columns_of(submission.processes),
        "workflow_id": parent.workflow_id,
        "actor": submission.actor,
        "at": submission.at,
        "receipt": digest_of(submission.receipt),
    }
    await connection.execute(SQL["insert_children"], parameters)
    await keep(connection, submission.colony, submission.receipt, len(submission.processes))
    if family.lasts:
        await _insert_between(connection, parent.id, family.lasts)
    await _draw(connection, submission.edges)


async def _insert_between(connection: Connection, parent: UUID, lasts: Sequence[UUID]) -> None:
    """The children that the parent has now, unless they ran already, wait for the last of the new ones in its place."""
    rows = await _rows(connection, "edges_of_children", {"parent": parent})
    if not rows:
        return
    by_child: dict[UUID, list[Row]] = defaultdict(list)
    for row in rows:
        by_child[row["child_id"]].append(row)
    edges = [edge for mine in by_child.values() for edge in _replaced(mine, parent, lasts)]
    children = Uuids(list(by_child))
    await connection.execute(SQL["delete_edges"], {"children": children})
    await _draw(connection, edges)
    await connection.execute(SQL["add_pending_parents"], {"children": children, "more": len(lasts) - 1})


def _replaced(rows: Sequence[Row], parent: UUID, lasts: Sequence[UUID]) -> list[Edge]:
    """One child's edges with the parent replaced, in the order in which its input comes."""
    edges: list[Edge] = []
    for row in rows:
        child = row["child_id"]
        if row["parent_id"] == parent:
            edges += [Edge(last, child, len(edges) + offset, Selector.ALL, 0, 0) for offset, last in enumerate(lasts)]
        else:
            edges.append(Edge(row["parent_id"], child, len(edges), Selector(row["selector"]), row["k"], row["n"]))
    return edges


async def _draw(connection: Connection, edges: Sequence[Edge]) -> None:
    await connection.execute(
        SQL["insert_edges"],
        {
            "children": Uuids([edge.child for edge in edges]),
            "positions": Ints([edge.position for edge in edges]),
            "parents": Uuids([edge.parent for edge in edges]),
            "selectors": SmallInts([edge.selector for edge in edges]),
            "ks": Ints([edge.k for edge in edges]),
            "ns": Ints([edge.n for edge in edges]),
        },
    )


async def _rows(connection: Connection, query: str, parameters: Mapping[str, object]) -> Sequence[Row]:
    return await (await connection.execute(SQL[query], parameters)).fetchall()
