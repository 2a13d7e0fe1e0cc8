"""Submits: processes and workflows enter whole or not at all, once for each request id (I1, I7, I8)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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
    SubmitCall,
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


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """A workflow to enter. `workflow_id`, unless None, was chosen by the caller; `field` is its nodes' path, for errors."""

    request: Request
    nodes: Sequence[Spec]
    label: str
    workflow_id: UUID | None = None
    field: str = NODES_FIELD


class Submitting:
    """Enters processes and workflows; those of concurrent calls are written together."""

    def __init__(self, tables: Tables, aftermath: Aftermath, steps: Steps, limits: Limits, clock: Clock) -> None:
        self._tables = tables
        self._aftermath = aftermath
        self._steps = steps
        self._limits = limits
        self._clock = clock
        self.group: GroupCommit[SubmitCall, list[Entered]] = GroupCommit(self._enter, max_weight=MAX_WEIGHT)
        # Each alone, for seconds maybe: no other submit waits for one.
        self.large: GroupCommit[SubmitCall, list[Entered]] = GroupCommit(
            self._enter_large, max_weight=MAX_WEIGHT, workers=LARGE_WRITERS
        )
        # What is about to be entered by large ones.
        self._entering: Counter[object] = Counter()

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
        (entered,) = await self._submit(SubmitCall([_submission(request, now, new)]))
        return entered.process_ids

    async def workflows(self, new: Sequence[NewWorkflow]) -> list[tuple[UUID, Sequence[UUID]]]:
        """Enters the workflows of one call, all or none; returns of each its id and those of its processes, which count as
        submitted as in `processes`. No two have one request id, or one chosen workflow id.

        Raises:
            InvalidArgument: the nodes are no directed acyclic graph.
            AlreadyExists: a request id was used for something else, or a chosen workflow id is taken.
            ResourceExhausted: too many processes wait.
        """
        now = self._clock.now_ns()
        firsts = accumulate([len(one.nodes) for one in new], initial=0)
        submissions = [_workflow(one, now, first) for one, first in zip(new, firsts, strict=False)]
        answers = []
        for entered in await self._submit(SubmitCall(submissions)):
            assert entered.workflow_id is not None
            answers.append((entered.workflow_id, entered.process_ids))
        return answers

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
        with await self._room([submission]) as room:
            children = await self._tables.add_children(Family(parent, submission, lasts))
            if children[0] != submission.processes[0].id:
                room.keep(0)
        # None of them is ready: only those who follow the workflow are told.
        touched = {lives[0].workflow_id} if lives[0].workflow_id is not None else set()
        await self._aftermath.changed(request.colony, Changes(touched=touched))
        return children

    async def _submit(self, call: SubmitCall) -> list[Entered]:
        with await self._room(call.submissions) as room:
            weight = call.weight
            # What shares an id with a large one waits for its end, and must not keep waiting what it would be written with.
            is_large = weight >= MAX_WEIGHT or (bool(self._entering) and not call.ids.isdisjoint(self._entering))
            answers = await (self.large if is_large else self.group).do(call, weight)
            room.keep(
                sum(
                    len(one.processes)
                    for one, entered in zip(call.submissions, answers, strict=True)
                    if entered.process_ids[0] == one.processes[0].id
                )
            )
        return answers

    async def _room(self, submissions: Sequence[Submission]) -> Room:
        """Room in the colony's queue; to be taken (`with`) at once."""
        colony, actor = submissions[0].colony, submissions[0].actor
        try:
            return self._limits.admit(colony, sum([len(one.processes) for one in submissions]))
        except ResourceExhausted:
            # What is repeated gets its first answer, and enters nothing.
            before = await self._tables.requests(colony, actor, [one.request_id for one in submissions])
            if not before:
                raise
            return self._limits.admit(colony, sum(len(one.processes) for one in submissions if one.request_id not in before))

    async def _enter_large(self, calls: list[SubmitCall]) -> Sequence[list[Entered] | Exception]:
        ids = Counter([one for call in calls for one in call.ids])
        self._entering += ids
        try:
            return await self._enter(calls)
        finally:
            self._entering -= ids

    async def _enter(self, calls: list[SubmitCall]) -> Sequence[list[Entered] | Exception]:
        token = self._steps.begin()
        try:
            outcomes = await self._tables.submit(calls, datetime_of(self._clock.now_ns()))
        except BaseException:
            # They may be in all the same.
            for one in [one for call in calls for one in call.submissions]:
                self._aftermath.doubt(one.colony, [process.id for process in one.processes])
            self._steps.end(token)
            raise
        changes: dict[str, Changes] = defaultdict(Changes)
        for call, outcome in zip(calls, outcomes, strict=True):
            if not isinstance(outcome, Exception):
                for one, entered in zip(call.submissions, outcome, strict=True):
                    changes[one.colony].add(entered.changes)
        await self._aftermath.tell(changes, token)
        return outcomes


def _workflow(new: NewWorkflow, now_ns: int, first: int) -> Submission:
    """A workflow as it enters. `first` is the place of its first node among those of its call."""
    parents = parents_of(new.nodes, field=new.field)
    ids = [new_id(now_ns) for _ in new.nodes]
    processes = [
        NewProcess(process_id, node, priority_time(node.priority, now_ns + place), _awaited(node, len(mine)), place)
        for place, (process_id, node, mine) in enumerate(zip(ids, new.nodes, parents, strict=True), first)
    ]
    edges = [
        _edge(ids[parent], child, position, dependency)
        for child, node, mine in zip(ids, new.nodes, parents, strict=True)
        for position, (parent, dependency) in enumerate(zip(mine, node.dependencies, strict=True))
    ]
    return _submission(
        new.request,
        now_ns,
        processes,
        edges,
        workflow_id=new.workflow_id or new_id(now_ns),
        has_chosen_id=new.workflow_id is not None,
        label=new.label,
    )


def _submission(
    request: Request,
    now_ns: int,
    new: list[NewProcess],
    edges: Sequence[Edge] = (),
    *,
    workflow_id: UUID | None = None,
    has_chosen_id: bool = False,
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
        has_chosen_id=has_chosen_id,
        label=label,
        receipt=request.receipt,
    )


def _awaited(node: Spec, parents: int) -> int:
    """How many parents a process waits for."""
    return min(parents, 1) if node.parent_policy is ParentPolicy.ANY_DONE else parents


def _edge(parent: UUID, child: UUID, position: int, dependency: Dependency) -> Edge:
    return Edge(parent, child, position, dependency.selector, dependency.k, dependency.n)
