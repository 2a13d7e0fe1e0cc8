"""Submits: processes and workflows enter whole or not at all, once for each request id (I1, I7, I8)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from servicekit.batching import GroupCommit
from servicekit.clock import Clock, datetime_of
from servicekit.failures import NotFound, ResourceExhausted
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.ids import new_id
from services.scheduler.domain.limits import Limits, Room
from services.scheduler.domain.ports import Tables
from services.scheduler.domain.priority import priority_time
from services.scheduler.domain.records import (
    Account,
    AttemptRef,
    Changes,
    Edge,
    Entered,
    Family,
    NewProcess,
    Receipt,
    Submission,
)
from services.scheduler.domain.spec import Dependency, ParentPolicy, Spec
from services.scheduler.domain.watermark import Steps
from services.scheduler.domain.workflow import below, parents_of

NODES_FIELD = "workflow.nodes"
CHILDREN_FIELD = "nodes"
# Rows that are written together, besides those of a submit that has more; large ones count for several.
MAX_WEIGHT = 1_000
LARGE_WRITERS = 2


@dataclass(frozen=True, slots=True)
class Request:
    """Who submits, and under which request id. `digest` is over all that was asked for."""

    colony: str
    request_id: str
    digest: bytes
    account: Account
    actor: str
    receipt: Receipt | None = None


class Submitting:
    """Enters processes and workflows; those of concurrent calls are written together."""

    def __init__(self, tables: Tables, aftermath: Aftermath, steps: Steps, limits: Limits, clock: Clock) -> None:
        self._tables = tables
        self._aftermath = aftermath
        self._steps = steps
        self._limits = limits
        self._clock = clock
        self.group: GroupCommit[Submission, Entered] = GroupCommit(self._enter, max_weight=MAX_WEIGHT)
        # Each alone, for seconds maybe: no other submit waits for one.
        self.large: GroupCommit[Submission, Entered] = GroupCommit(self._enter, max_weight=MAX_WEIGHT, workers=LARGE_WRITERS)

    async def processes(self, request: Request, specs: Sequence[Spec]) -> Sequence[UUID]:
        """Enters processes that wait for nothing; returns their ids. Each counts as submitted a nanosecond after the last.

        Raises:
            AlreadyExists: the request id was used for something else.
            ResourceExhausted: too many processes wait.
        """
        now = self._clock.now_ns()
        new = [
            NewProcess(new_id(now), spec, priority_time(spec.priority, now + order), 0, order)
            for order, spec in enumerate(specs)
        ]
        entered = await self._submit(_submission(request, now, new))
        return entered.process_ids

    async def workflow(self, request: Request, nodes: Sequence[Spec], label: str) -> tuple[UUID, Sequence[UUID]]:
        """Enters a workflow; returns its id and those of its processes.

        Raises:
            InvalidArgument: the nodes are no directed acyclic graph.
            AlreadyExists: the request id was used for something else.
            ResourceExhausted: too many processes wait.
        """
        parents = parents_of(nodes, field=NODES_FIELD)
        now = self._clock.now_ns()
        ids = [new_id(now) for _ in nodes]
        new = [
            NewProcess(process_id, node, priority_time(node.priority, now + order), _awaited(node, len(mine)), order)
            for order, (process_id, node, mine) in enumerate(zip(ids, nodes, parents, strict=True))
        ]
        edges = [
            _edge(ids[parent], child, position, dependency)
            for child, node, mine in zip(ids, nodes, parents, strict=True)
            for position, (parent, dependency) in enumerate(zip(mine, node.dependencies, strict=True))
        ]
        entered = await self._submit(_submission(request, now, new, edges, new_id(now), label))
        assert entered.workflow_id is not None
        return entered.workflow_id, entered.process_ids

    @staticmethod
    def check_workflow(nodes: Sequence[Spec]) -> None:
        """The checks of `workflow`, and nothing else.

        Raises:
            InvalidArgument: the nodes are no directed acyclic graph.
        """
        parents_of(nodes, field=NODES_FIELD)

    async def children(self, request: Request, parent: AttemptRef, nodes: Sequence[Spec], *, insert: bool) -> Sequence[UUID]:
        """Adds processes below a running one; returns their ids.

        Raises:
            InvalidArgument: the nodes are no directed acyclic graph, or the workflow has one of their names already.
            AlreadyExists: the request id was used for something else.
            NotFound: no such process in this colony.
            FailedPrecondition: the attempt is not the live one, not the caller's, or outside a workflow; or that is full.
            ResourceExhausted: too many processes wait.
        """
        lives = await self._tables.lives(request.colony, [parent.process_id])
        if not lives:
            msg = f"no process {parent.process_id} in this colony"
            raise NotFound(msg, reason="PROCESS_NOT_FOUND")
        family = below(lives[0].node_name, nodes, field=CHILDREN_FIELD)
        now = self._clock.now_ns()
        ids = [new_id(now) for _ in nodes]
        new = [
            NewProcess(child, node, priority_time(node.priority, now + order), _awaited(node, len(mine)), order)
            for order, (child, node, mine) in enumerate(zip(ids, nodes, family.parents, strict=True))
        ]
        edges = [
            _edge(parent.process_id if place is None else ids[place], child, position, dependency)
            for child, mine in zip(ids, family.parents, strict=True)
            for position, (place, dependency) in enumerate(mine)
        ]
        lasts = [ids[place] for place in family.lasts] if insert else []
        submission = _submission(request, now, new, edges)
        with await self._room(submission) as room:
            children = await self._tables.add_children(Family(parent, submission, lasts))
            if children[0] != submission.processes[0].id:
                room.give_back()
        # None of them is ready: only those who follow the workflow are told.
        touched = {lives[0].workflow_id} if lives[0].workflow_id is not None else set()
        await self._aftermath.changed(request.colony, Changes(touched=touched))
        return children

    async def _submit(self, submission: Submission) -> Entered:
        with await self._room(submission) as room:
            group = self.group if submission.weight < MAX_WEIGHT else self.large
            entered = await group.do(submission, submission.weight)
            if entered.process_ids[0] != submission.processes[0].id:
                room.give_back()
        return entered

    async def _room(self, submission: Submission) -> Room:
        """Room in the colony's queue; to be taken (`with`) at once."""
        try:
            return self._limits.admit(submission.colony, len(submission.processes))
        except ResourceExhausted:
            # A repeated one gets its first answer, and enters nothing.
            if not await self._tables.request(submission.colony, submission.actor, submission.request_id):
                raise
            return self._limits.admit(submission.colony, 0)

    async def _enter(self, submissions: list[Submission]) -> Sequence[Entered | Exception]:
        token = self._steps.begin()
        try:
            outcomes = await self._tables.submit(submissions, datetime_of(self._clock.now_ns()))
        except BaseException:
            # They may be in all the same.
            for one in submissions:
                self._aftermath.doubt(one.colony, [process.id for process in one.processes])
            self._steps.end(token)
            raise
        changes: dict[str, Changes] = defaultdict(Changes)
        for one, outcome in zip(submissions, outcomes, strict=True):
            if isinstance(outcome, Entered):
                changes[one.colony].add(outcome.changes)
        await self._aftermath.tell(changes, token)
        return outcomes


def _submission(
    request: Request,
    now_ns: int,
    new: list[NewProcess],
    edges: Sequence[Edge] = (),
    workflow_id: UUID | None = None,
    label: str = "",
) -> Submission:
    return Submission(
        colony=request.colony,
        request_id=request.request_id,
        digest=request.digest,
        account=request.account,
        actor=request.actor,
        at=datetime_of(now_ns),
        processes=new,
        edges=list(edges),
        workflow_id=workflow_id,
        label=label,
        receipt=request.receipt,
    )


def _awaited(node: Spec, parents: int) -> int:
    """How many parents a process waits for."""
    return min(parents, 1) if node.parent_policy is ParentPolicy.ANY_DONE else parents


def _edge(parent: UUID, child: UUID, position: int, dependency: Dependency) -> Edge:
    return Edge(parent, child, position, dependency.selector, dependency.k, dependency.n)
