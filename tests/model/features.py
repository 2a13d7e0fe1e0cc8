"""The rules of what a scheduler may have besides: pause, back-off, parent policies, the retry of a workflow.

Where the contract leaves something open, the rules keep away from it: no limit of waiting for what backs off, and only workflows
that are over are retried.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from colonies.scheduler.v1 import spec_pb2
from services.scheduler.domain.states import Outcome, State
from tests.model.machine import LEASE_MS, REPLICA, WANTED, SchedulerMachine
from tests.model.model import ANY_TEXTS, FINAL, Job, Model, Wanted

ALL_SUCCESSFUL, ALL_DONE, ANY_DONE = (
    spec_pb2.PARENT_POLICY_ALL_SUCCESSFUL,
    spec_pb2.PARENT_POLICY_ALL_DONE,
    spec_pb2.PARENT_POLICY_ANY_DONE,
)


@dataclass
class RicherWanted(Wanted):
    """With a back-off before each retry (0 = none) and a parent policy."""

    first_ms: int = 0
    factor: int = 1
    longest_ms: int = 0
    policy: int = ALL_SUCCESSFUL

    def backoff_ms(self, retry: int) -> int:
        """How long to wait before the n-th retry."""
        wait: int = self.first_ms * self.factor ** (retry - 1)
        return min(self.longest_ms or max(3_600_000, self.first_ms), wait)


@dataclass
class RicherJob(Job):
    """A process that may back off, and may run in spite of its parents."""

    # The first millisecond at which its back-off is over; None while it does not back off.
    backoff_ms: int | None = None

    @property
    def policy(self) -> int:
        """Its parent policy."""
        return self.wanted.policy if isinstance(self.wanted, RicherWanted) else ALL_SUCCESSFUL

    @property
    def needs_success(self) -> bool:
        return self.policy == ALL_SUCCESSFUL

    @property
    def blocked(self) -> bool:
        if self.policy == ALL_DONE:
            return any(parent.state not in FINAL for parent in self.parents)
        if self.policy == ANY_DONE:
            return bool(self.parents) and not any(parent.state in FINAL for parent in self.parents)
        return any(parent.state is not State.SUCCESSFUL for parent in self.parents)

    @property
    def ready(self) -> bool:
        return self.state is State.WAITING and not self.blocked and self.backoff_ms is None


class RicherModel(Model):
    """With what the rules below need."""

    job_type: ClassVar[type[Job]] = RicherJob

    def __init__(self, lease_ms: int) -> None:
        super().__init__(lease_ms)
        self.paused = False

    def _end(self, job: Job, to: State, reason: str, outcome: Outcome = Outcome.LIVE) -> None:
        assert isinstance(job, RicherJob)
        job.backoff_ms = None
        wanted = job.wanted
        counted = to is State.WAITING and outcome is not Outcome.UNDELIVERED
        if counted and isinstance(wanted, RicherWanted) and wanted.first_ms:
            job.backoff_ms = self.now_ns // 1_000_000 + wanted.backoff_ms(job.retries) + 1
        super()._end(job, to, reason, outcome)

    def tick(self) -> None:
        over = self._back()
        super().tick()
        for job in over:
            job.backoff_ms = None

    def accorded(self) -> None:
        for job in self._back():
            job.backoff_ms = None

    def _back(self) -> list[RicherJob]:
        return [job for job in self.jobs.values() if isinstance(job, RicherJob) and self._is_over(job)]

    def _is_over(self, job: RicherJob) -> bool:
        return job.backoff_ms is not None and job.backoff_ms <= self.now_ns // 1_000_000

    def over(self) -> list[str]:
        """The workflows that are over."""
        running = {job.workflow for job in self.jobs.values() if job.state not in FINAL}
        return [workflow for workflow in self.workflows() if workflow not in running]

    def retry_workflow(self, workflow: str) -> int:
        """Takes back what did not succeed."""
        taken = [job for job in self.jobs.values() if job.workflow == workflow and job.state in {State.FAILED, State.CANCELLED}]
        for job in taken:
            job.retries = job.undelivered = 0
            job.executor, job.errors = "", ANY_TEXTS
            self._step(job, State.WAITING, 0, "RETRY_REQUESTED")
        for job in taken:
            if job.ready:
                self._enqueue(job)
        return len(taken)


@st.composite
def richer(draw: st.DrawFn) -> RicherWanted:
    """What WANTED has, and more."""
    plain = draw(WANTED)
    first_ms = draw(st.sampled_from((0, 0, 1_550, 12_345)))
    return RicherWanted(
        **{**vars(plain), "max_wait_ms": 0 if first_ms else plain.max_wait_ms},
        first_ms=first_ms,
        factor=draw(st.sampled_from((1, 2, 3))),
        longest_ms=draw(st.sampled_from((0, 20_000))),
        policy=draw(st.sampled_from((ALL_SUCCESSFUL, ALL_SUCCESSFUL, ALL_DONE, ANY_DONE))),
    )


@st.composite
def richer_workflows(draw: st.DrawFn) -> list[RicherWanted]:
    """As the machine's workflows."""
    nodes = draw(st.lists(richer(), min_size=1, max_size=5))
    for position, node in enumerate(nodes[1:], 1):
        node.parents = tuple(draw(st.lists(st.integers(0, position - 1), max_size=3, unique=True)))
    return nodes


class RicherMachine(SchedulerMachine):
    """All rules of the machine, and those of the features."""

    model: RicherModel

    def new_model(self) -> RicherModel:
        return RicherModel(LEASE_MS)

    def spec(self, wanted: Wanted, node: str = "", parents: tuple[str, ...] = ()) -> spec_pb2.FunctionSpec:
        spec = super().spec(wanted, node, parents)
        if isinstance(wanted, RicherWanted):
            spec.parent_policy = wanted.policy  # type: ignore[assignment]
            if wanted.first_ms:
                backoff = spec_pb2.Backoff(
                    first_ms=wanted.first_ms, factor=wanted.factor, longest_ms=wanted.longest_ms, jitter=0.0
                )
                spec.backoff.CopyFrom(backoff)
        return spec

    def assignable(self, executor: str) -> list[Any]:
        # A queue that was lost has forgotten the pause too, until somebody looks: a fraction of a second.
        return [] if self.model.paused and self.whole else super().assignable(executor)

    def inputs(self, job: Any) -> list[str]:
        return [parent.output for parent in job.parents if parent.state is State.SUCCESSFUL]

    @initialize()
    def resumed(self) -> None:
        self.run(self.stage.pause(paused=False))

    @rule(wanted=st.lists(richer(), min_size=1, max_size=4), replica=REPLICA, lost=st.booleans())
    def submit(self, wanted: list[Wanted], replica: int, lost: bool) -> None:
        self.submit_all(wanted, replica, lost)

    @rule(nodes=richer_workflows(), replica=REPLICA, lost=st.booleans())
    def submit_workflow(self, nodes: list[Wanted], replica: int, lost: bool) -> None:
        self.submit_nodes(nodes, replica, lost)

    @rule()
    def pause_or_resume(self) -> None:
        self.model.paused = not self.model.paused
        self.run(self.stage.pause(paused=self.model.paused))

    def teardown(self) -> None:
        if self.model.paused:
            self.pause_or_resume()
        super().teardown()

    @precondition(lambda self: self.model.over())
    @rule(data=st.data(), replica=REPLICA)
    def retry_workflow(self, data: st.DataObject, replica: int) -> None:
        workflow = data.draw(st.sampled_from(self.model.over()))
        taken = self.model.retry_workflow(workflow)
        assert self.run(self.stage.retry_workflow(workflow, replica)) == taken
