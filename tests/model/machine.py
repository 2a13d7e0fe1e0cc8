"""Random calls and time: the rules by which hypothesis drives the scheduler and the model side by side."""

from collections.abc import Sequence
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1 import spec_pb2
from services.scheduler.domain.states import Outcome
from tests.harness.calls import refusal
from tests.harness.stepped import REPLICAS, SteppedCluster
from tests.model.model import UNCONFIRMED_AT_MOST, Model, Wanted
from tests.model.stage import EXECUTORS, Ref, Stage, spec_of

LEASE_MS = 30_000
# Around every deadline that there is, and far beyond all.
PASSING_MS = (1, 999, 1_000, 1_001, 9_999, 10_000, 10_001, 29_999, 30_000, 30_001, 61_000)
# A hint is looked at again and again while a transaction of its time may be open.
HINTS_S, HINT_S = 60, 20
REPLICA = st.integers(0, 1)
EXECUTOR = st.sampled_from(tuple(EXECUTORS))
WANTED = st.builds(
    Wanted,
    executor_type=st.sampled_from(("cpu", "cpu", "gpu")),
    names=st.sampled_from(((), (), (), ("one",), ("three", "two"))),
    priority=st.integers(-2, 2),
    max_wait_ms=st.sampled_from((0, 0, 1_000, 10_000)),
    max_exec_ms=st.sampled_from((0, 0, 1_000, 10_000, 60_000)),
    max_retries=st.sampled_from((0, 1, 2, -1)),
)


@st.composite
def workflows(draw: st.DrawFn) -> list[Wanted]:
    """One to five nodes, each with parents among those before it."""
    nodes = draw(st.lists(WANTED, min_size=1, max_size=5))
    for position, node in enumerate(nodes[1:], 1):
        node.parents = tuple(draw(st.lists(st.integers(0, position - 1), max_size=3, unique=True)))
    return nodes


class SchedulerMachine(RuleBasedStateMachine):
    """The rules that every scheduler keeps. `stepped` is set by the test."""

    stepped: ClassVar[SteppedCluster]

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(self.stepped)
        self.run(self.stage.open())
        self.model = self.new_model()
        # Whether the queue is known to hold what the rows say.
        self.whole = True
        self.answers: list[tuple[Any, Any]] = []
        self.known: dict[str, list[Ref]] = {name: [] for name in EXECUTORS}
        self.begun_ns = self.model.now_ns = self.stepped.clock.now_ns()

    def new_model(self) -> Model:
        """What the scheduler is held against."""
        return Model(LEASE_MS)

    def run(self, coroutine: Any) -> Any:
        """Lets the cluster work until this is done."""
        return self.stepped.run(coroutine)

    def spec(self, wanted: Wanted, node: str = "", parents: tuple[str, ...] = ()) -> spec_pb2.FunctionSpec:
        """What is submitted."""
        return spec_of(wanted, node, parents)

    # Submitting -------------------------------------------------------------------------------------------------------

    @rule(wanted=st.lists(WANTED, min_size=1, max_size=4), replica=REPLICA, lost=st.booleans())
    def submit(self, wanted: list[Wanted], replica: int, lost: bool) -> None:
        self.submit_all(wanted, replica, lost)

    def submit_all(self, wanted: Sequence[Wanted], replica: int, lost: bool) -> None:
        """Submits processes; if the reply is lost, once more."""
        request = pb.SubmitProcessesRequest(
            colony_name=self.stage.colony,
            request_id=f"request-{len(self.answers)}",
            specs=[self.spec(one) for one in wanted],
        )
        answer = self._submitted(request, replica, lost)
        self.model.submit(list(answer.process_ids), wanted)

    @rule(nodes=workflows(), replica=REPLICA, lost=st.booleans())
    def submit_workflow(self, nodes: list[Wanted], replica: int, lost: bool) -> None:
        self.submit_nodes(nodes, replica, lost)

    def submit_nodes(self, nodes: Sequence[Wanted], replica: int, lost: bool) -> None:
        """Submits a workflow; if the reply is lost, once more."""
        specs = [
            self.spec(node, f"n{position}", tuple(f"n{parent}" for parent in node.parents))
            for position, node in enumerate(nodes)
        ]
        request = pb.SubmitWorkflowRequest(
            colony_name=self.stage.colony,
            request_id=f"request-{len(self.answers)}",
            workflow=spec_pb2.WorkflowSpec(nodes=specs),
        )
        answer = self._submitted(request, replica, lost)
        self.model.submit(list(answer.process_ids), nodes, answer.workflow_id)

    def _submitted(self, request: Any, replica: int, lost: bool) -> Any:
        answer = self.run(self.stage.submit(request, replica))
        if lost:
            assert self.run(self.stage.submit(request, 1 - replica)) == answer
        self.answers.append((request, answer))
        return answer

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), replica=REPLICA, changed=st.booleans())
    def submit_again(self, data: st.DataObject, replica: int, changed: bool) -> None:
        request, answer = data.draw(st.sampled_from(self.answers))
        if not changed:
            assert self.run(self.stage.submit(request, replica)) == answer
            return
        other = type(request).FromString(request.SerializeToString())
        (other.workflow.nodes if isinstance(other, pb.SubmitWorkflowRequest) else other.specs)[0].label = "other"
        assert self.run(self.stage.submit_refused(other, replica)).code.name == "ALREADY_EXISTS"

    # Working ----------------------------------------------------------------------------------------------------------

    @rule(executor=EXECUTOR, at_most=st.integers(1, 5), replica=REPLICA, lost=st.booleans())
    def assign(self, executor: str, at_most: int, replica: int, lost: bool) -> None:
        assigned = self.run(self.stage.assign(executor, at_most, replica))
        eligible = self.assignable(executor)
        got = [one.process_id for one in assigned]
        if self.whole:
            assert got == [job.id for job in eligible[:at_most]], (got, eligible)
        else:
            # Not all may be in the queue again: but what comes is ready, and in order.
            assert [job.id for job in eligible if job.id in got] == got, (got, eligible)
        jobs = [self.model.jobs[one] for one in got]
        self.model.assign(executor, jobs)
        for one, job in zip(assigned, jobs, strict=True):
            assert one.attempt == len(job.attempts)
            assert [entry.data.decode() for entry in one.inputs] == self.inputs(job)
            if not lost:
                self.known[executor].append((one.process_id, one.attempt))

    def assignable(self, executor: str) -> list[Any]:
        """What an executor may get now, in order."""
        return self.model.eligible(executor, EXECUTORS[executor])

    def inputs(self, job: Any) -> list[str]:
        """What a process gets from its parents."""
        return [parent.output for parent in job.parents]

    def _draw_refs(self, data: st.DataObject, executor: str, at_most: int) -> list[Ref]:
        refs = data.draw(
            st.lists(st.sampled_from(self.known[executor]), min_size=1, max_size=at_most, unique_by=lambda ref: ref[0])
        )
        return list(refs)

    @precondition(lambda self: self.whole and any(self.known.values()))
    @rule(data=st.data(), replica=REPLICA)
    def heartbeat(self, data: st.DataObject, replica: int) -> None:
        executor = data.draw(st.sampled_from([name for name, refs in self.known.items() if refs]))
        refs = self._draw_refs(data, executor, 8)
        drops = self.run(self.stage.heartbeat(executor, refs, replica))
        assert sorted(drops) == sorted(self.model.heartbeat(executor, refs))

    @precondition(lambda self: any(self.known.values()))
    @rule(data=st.data(), replica=REPLICA, how=st.sampled_from(("output", "output", "retryable", "final")), lost=st.booleans())
    def close(self, data: st.DataObject, replica: int, how: str, lost: bool) -> None:
        executor = data.draw(st.sampled_from([name for name, refs in self.known.items() if refs]))
        self.close_refs(executor, self._draw_refs(data, executor, 3), replica, how, lost)

    def close_refs(self, executor: str, refs: Sequence[Ref], replica: int, how: str, lost: bool) -> None:
        """Closes attempts together; if the reply is lost, once more."""
        word = str(self.model.now_ns)
        outcome = {"output": word} if how == "output" else {"error": word, "retryable": how == "retryable"}
        wanted = Outcome.SUCCESSFUL if how == "output" else Outcome.FAILED
        call = self.stage.closing(executor, refs, replica, **outcome)
        stale = [one for one, number in refs if not self.model.may_close(executor, one, number, wanted)]
        if stale:
            error = self.run(refusal(call))
            assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "ATTEMPT_SUPERSEDED")
            assert error.metadata["process_id"] in stale
            return
        states = list(self.run(_answer(call)).states)
        for one, number in refs:
            if how == "output":
                self.model.close(executor, one, number, word)
            else:
                self.model.fail(executor, one, number, word, retryable=how == "retryable")
        assert states == [self.model.jobs[one].state for one, _ in refs]
        if lost:
            again = self.run(_answer(self.stage.closing(executor, refs, 1 - replica, **outcome)))
            assert list(again.states) == states

    @rule(executor=EXECUTOR, replica=REPLICA, how=st.sampled_from(("output", "output", "output", "final")))
    def work(self, executor: str, replica: int, how: str) -> None:
        """An executor takes what there is, and is done with all that it has: so children come to their turn."""
        self.assign(executor=executor, at_most=100, replica=replica, lost=False)
        for held_by, ref in self.held():
            if held_by == executor:
                self.close_refs(executor, [ref], 1 - replica, how, lost=False)

    @precondition(lambda self: self.whole and self.held())
    @rule(data=st.data(), replica=REPLICA, how=st.sampled_from(("output", "retryable", "final")))
    def sleep_too_long(self, data: st.DataObject, replica: int, how: str) -> None:
        """An executor sleeps through its leases, asks for work, and closes what it had before it slept."""
        executor, ref = data.draw(st.sampled_from(self.held()))
        self.time_passes(ms=LEASE_MS, replica=replica, looked_after=True)
        self.assign(executor=executor, at_most=100, replica=replica, lost=False)
        self.close_refs(executor, [ref], 1 - replica, how, lost=False)

    @precondition(lambda self: self.whole)
    @rule(executor=EXECUTOR, replica=REPLICA)
    def die_again_and_again(self, executor: str, replica: int) -> None:
        """What kills every executor that takes it looks as if it never arrived, and does not come back for ever."""
        for _ in range(UNCONFIRMED_AT_MOST + 1):
            self.assign(executor=executor, at_most=1, replica=replica, lost=True)
            self.time_passes(ms=LEASE_MS, replica=1 - replica, looked_after=True)

    def held(self) -> list[tuple[str, Ref]]:
        """The live attempts that their executors know of."""
        return [
            (executor, (one, number))
            for executor, refs in self.known.items()
            for one, number in refs
            if self.model.jobs[one].live(number, executor)
        ]

    @rule(executor=EXECUTOR)
    def die(self, executor: str) -> None:
        """What it had in hand is never heard of again."""
        self.known[executor].clear()

    # Cancelling -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), replica=REPLICA)
    def cancel(self, data: st.DataObject, replica: int) -> None:
        one = data.draw(st.sampled_from(list(self.model.jobs)))
        call = self.stage.cancelling(one, replica)
        if self.model.cancel(one):
            self.run(_answer(call))
        else:
            assert self.run(refusal(call)).reason == "PROCESS_FINAL"

    @precondition(lambda self: self.model.workflows())
    @rule(data=st.data(), replica=REPLICA)
    def cancel_workflow(self, data: st.DataObject, replica: int) -> None:
        workflow = data.draw(st.sampled_from(self.model.workflows()))
        self.run(self.stage.cancel_workflow(workflow, replica))
        self.model.cancel_workflow(workflow)

    # Time and faults --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.whole)
    @rule(ms=st.sampled_from(PASSING_MS), replica=REPLICA, looked_after=st.booleans())
    def time_passes(self, ms: int, replica: int, looked_after: bool) -> None:
        """Deadlines take effect when a replica looks."""
        self.stepped.clock.advance(ns=ms * 1_000_000)
        self.model.now_ns = self.stepped.clock.now_ns()
        if looked_after:
            self.tick(replica)

    @rule(replica=REPLICA)
    def tick(self, replica: int) -> None:
        self.run(self.stage.stepped.tick(replica))
        if not self.whole:
            self.model.rebuilt()
            self.whole = True
        self.model.tick()

    @rule(replica=REPLICA)
    def patrol(self, replica: int) -> None:
        """Where queue and rows agree nothing comes of it."""
        self.run(self.stepped.patrol(replica))
        self.model.accorded()

    @rule(replica=REPLICA)
    def look_after_a_lost_replica(self, replica: int) -> None:
        """The same of what changed since the story began."""
        self.run(self.stepped.recover(replica, self.begun_ns))
        self.model.accorded()

    @rule()
    def redis_loses_everything(self) -> None:
        self.run(self.stepped.flush())
        self.whole = False

    @rule(executor=EXECUTOR, replica=REPLICA)
    def redis_loses_everything_and_is_rebuilt(self, executor: str, replica: int) -> None:
        self.redis_loses_everything()
        self.tick(replica)
        self.assign(executor=executor, at_most=2, replica=1 - replica, lost=False)

    # Comparing --------------------------------------------------------------------------------------------------------

    @invariant()
    def same(self) -> None:
        self.run(self.stage.compare(self.model))

    def teardown(self) -> None:
        """Once all is cancelled nothing is left in the queue, but for hints of calls that were refused, for a while."""
        for replica in range(REPLICAS):
            self.tick(replica)
            # A flush may have made a replica's news of the colony's timers stale: each tells of them again.
            self.submit_all([Wanted()], replica, lost=False)
        for one in self.model.jobs:
            if self.model.cancel(one):
                self.run(_answer(self.stage.cancelling(one, 0)))
        for _ in range(HINTS_S // HINT_S + 2):
            self.stepped.clock.advance(seconds=HINT_S)
            self.model.now_ns = self.stepped.clock.now_ns()
            self.tick(0)
        self.model.touched = dict(self.model.jobs)
        self.run(self.stage.compare(self.model))
        left = self.run(self.stage.left_in_queue())
        assert not left, left
        for name in EXECUTORS:
            assert self.run(self.stage.assign(name, 10, 0)) == []


async def _answer(call: Any) -> Any:
    return await call
