"""Submits: processes and workflows enter whole or not at all, once for each request id (I1, I7, I8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from servicekit.clock import Clock, datetime_of
from servicekit.steps import uninterrupted
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.ids import new_id
from services.scheduler.domain.ports import Queue, Tables
from services.scheduler.domain.priority import priority_time
from services.scheduler.domain.records import Account, Edge, Entered, NewProcess, Submission
from services.scheduler.domain.spec import Spec
from services.scheduler.domain.workflow import parents_of

NODES_FIELD = "workflow.nodes"


@dataclass(frozen=True, slots=True)
class Request:
    """Who submits, and under which request id. `digest` is over all that was asked for."""

    colony: str
    request_id: str
    digest: bytes
    account: Account
    actor: str


class Submitting:
    """Enters processes and workflows."""

    def __init__(self, tables: Tables, queue: Queue, aftermath: Aftermath, clock: Clock) -> None:
        self._tables = tables
        self._queue = queue
        self._aftermath = aftermath
        self._clock = clock

    async def processes(self, request: Request, specs: Sequence[Spec]) -> Sequence[UUID]:
        """Enters processes that wait for nothing; returns their ids. Each counts as submitted a nanosecond after the last.

        Raises:
            AlreadyExists: the request id was used for something else.
        """
        now = self._clock.now_ns()
        new = [NewProcess(new_id(now), spec, priority_time(spec.priority, now + order), 0) for order, spec in enumerate(specs)]
        entered = await self._enter(request, now, new, [], None, "")
        return entered.process_ids

    async def workflow(self, request: Request, nodes: Sequence[Spec], label: str) -> tuple[UUID, Sequence[UUID]]:
        """Enters a workflow; returns its id and those of its processes.

        Raises:
            InvalidArgument: the nodes are no directed acyclic graph.
            AlreadyExists: the request id was used for something else.
        """
        parents = parents_of(nodes, field=NODES_FIELD)
        now = self._clock.now_ns()
        ids = [new_id(now) for _ in nodes]
        new = [
            NewProcess(process_id, node, priority_time(node.priority, now + order), len(mine))
            for order, (process_id, node, mine) in enumerate(zip(ids, nodes, parents, strict=True))
        ]
        edges = [
            Edge(ids[parent], child, position, dependency.selector, dependency.k, dependency.n)
            for child, node, mine in zip(ids, nodes, parents, strict=True)
            for position, (parent, dependency) in enumerate(zip(mine, node.dependencies, strict=True))
        ]
        entered = await self._enter(request, now, new, edges, new_id(now), label)
        assert entered.workflow_id is not None
        return entered.workflow_id, entered.process_ids

    @staticmethod
    def check_workflow(nodes: Sequence[Spec]) -> None:
        """The checks of `workflow`, and nothing else.

        Raises:
            InvalidArgument: the nodes are no directed acyclic graph.
        """
        parents_of(nodes, field=NODES_FIELD)

    async def _enter(
        self,
        request: Request,
        now_ns: int,
        new: list[NewProcess],
        edges: list[Edge],
        workflow_id: UUID | None,
        label: str,
    ) -> Entered:
        submission = Submission(
            colony=request.colony,
            request_id=request.request_id,
            digest=request.digest,
            account=request.account,
            actor=request.actor,
            at=datetime_of(now_ns),
            processes=new,
            edges=edges,
            workflow_id=workflow_id,
            label=label,
        )
        return await uninterrupted(self._step(submission))

    async def _step(self, submission: Submission) -> Entered:
        intended = await self._queue.intend_submit(submission.colony, submission.actor, submission.request_id)
        entered = await self._tables.submit(submission)
        await self._aftermath.changed(submission.colony, entered.changes, intended)
        return entered
