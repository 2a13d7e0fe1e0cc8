"""The scheduler as the machine sees it: a colony for each example, calls by name, and what it says of itself compared."""

import itertools
from collections.abc import Sequence
from typing import Any

from colonies.errors import RpcError
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import controls_pb2, process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from services.scheduler.domain.states import Outcome, State
from services.scheduler.queue import keys
from tests.harness.calls import refusal
from tests.harness.keys import key_of
from tests.harness.stepped import SteppedCluster
from tests.model.model import ANY_TEXTS, SOME_TEXT, Job, Model, Wanted

# Each executor and its types.
EXECUTORS = {"one": ("cpu",), "two": ("cpu", "gpu"), "three": ("gpu",)}
PAGE = 500
_colonies = itertools.count(1)

Ref = tuple[str, int]


def value(text: str) -> spec_pb2.Value:
    """A value in JSON."""
    return spec_pb2.Value(data=text.encode())


def spec_of(wanted: Wanted, node: str = "", parents: Sequence[str] = ()) -> spec_pb2.FunctionSpec:
    """What the model wants, as it is submitted."""
    return spec_pb2.FunctionSpec(
        node_name=node,
        func_name="f",
        priority=wanted.priority,
        max_wait_time_ms=wanted.max_wait_ms,
        max_exec_time_ms=wanted.max_exec_ms,
        max_retries=wanted.max_retries,
        conditions=spec_pb2.Conditions(
            executor_type=wanted.executor_type,
            executor_names=wanted.names,
            dependencies=[spec_pb2.Dependency(node_name=parent) for parent in parents],
        ),
    )


class Stage:
    """One colony of a stepped cluster."""

    def __init__(self, stepped: SteppedCluster) -> None:
        self.stepped = stepped
        self.colony = f"model-{next(_colonies)}"
        self.owner = key_of(f"owner of {self.colony}")
        self.user = key_of(f"user of {self.colony}")
        self.executors = {name: key_of(f"{name} of {self.colony}") for name in EXECUTORS}

    async def open(self) -> None:
        """An empty queue, the colony, its user and its executors."""
        await self.stepped.flush()
        cluster = self.stepped.cluster
        await cluster.add_colony(self.colony, self.owner)
        await cluster.add_user(self.colony, self.owner, "user", self.user)
        for name, key in self.executors.items():
            await cluster.add_executor(self.colony, self.owner, name, key, executor_types=EXECUTORS[name])
        await self.stepped.tick(0)

    def by(self, key: PrivateKey, replica: int = 0) -> Any:
        """A replica, called with this key."""
        return self.stepped.cluster.stub(SchedulerServiceStub, key, replica=replica)

    async def submit(self, request: Any, replica: int) -> Any:
        """Either kind of submit."""
        stub = self.by(self.user, replica)
        if isinstance(request, pb.SubmitWorkflowRequest):
            return await stub.SubmitWorkflow(request)
        return await stub.SubmitProcesses(request)

    async def submit_refused(self, request: Any, replica: int) -> RpcError:
        """How a submit is refused."""
        return await refusal(self.submit(request, replica))

    async def assign(self, executor: str, at_most: int, replica: int) -> list[Any]:
        """Asks for work."""
        request = pb.AssignProcessesRequest(colony_name=self.colony, max_processes=at_most)
        return list((await self.by(self.executors[executor], replica).AssignProcesses(request)).assignments)

    def closing(self, executor: str, refs: Sequence[Ref], replica: int, **outcome: Any) -> Any:
        """The call that closes: `output`, or `error` and `retryable`."""
        how: dict[str, Any] = (
            {"success": pb.Close.Success(outputs=[value(outcome["output"])])}
            if "output" in outcome
            else {"failure": pb.Close.Failure(errors=[outcome["error"]], retryable=outcome["retryable"])}
        )
        closes = [pb.Close(attempt=pb.AttemptRef(process_id=one, attempt=number), **how) for one, number in refs]
        return self.by(self.executors[executor], replica).CloseProcesses(
            pb.CloseProcessesRequest(colony_name=self.colony, closes=closes)
        )

    async def heartbeat(self, executor: str, refs: Sequence[Ref], replica: int) -> list[tuple[str, int, bool]]:
        """What is to be dropped, and whether because it was cancelled."""
        attempts = [pb.AttemptRef(process_id=one, attempt=number) for one, number in refs]
        response = await self.by(self.executors[executor], replica).Heartbeat(
            pb.HeartbeatRequest(colony_name=self.colony, attempts=attempts)
        )
        assert response.lease_ms == self.stepped.lease_ms
        return [
            (drop.attempt.process_id, drop.attempt.attempt, drop.reason == pb.DROP_REASON_CANCELLED) for drop in response.drops
        ]

    def cancelling(self, one: str, replica: int) -> Any:
        """The call that cancels a process."""
        return self.by(self.user, replica).CancelProcess(pb.CancelProcessRequest(colony_name=self.colony, process_id=one))

    async def cancel_workflow(self, workflow: str, replica: int) -> None:
        """Cancels a workflow."""
        request = pb.CancelWorkflowRequest(colony_name=self.colony, workflow_id=workflow)
        await self.by(self.user, replica).CancelWorkflow(request)

    async def pause(self, *, paused: bool) -> None:
        """Pauses assignments, or resumes them."""
        request = controls_pb2.UpdateControlsRequest(colony_name=self.colony, paused=paused)
        await self.by(self.owner).UpdateControls(request)

    async def retry_workflow(self, workflow: str, replica: int) -> int:
        """Takes back what failed; how many."""
        request = pb.RetryWorkflowRequest(colony_name=self.colony, workflow_id=workflow)
        return int((await self.by(self.user, replica).RetryWorkflow(request)).count)

    async def compare(self, model: Model) -> None:
        """Everything that can be read, against the model: all processes in short, those touched by the last step whole."""
        request = pb.ListProcessesRequest(colony_name=self.colony, page_size=PAGE)
        listed = (await self.by(self.user).ListProcesses(request)).processes
        # Newest first, and in the order of the submits.
        assert [one.process_id for one in reversed(listed)] == list(model.jobs)
        for one in listed:
            check_process(one, model.jobs[one.process_id])
        touched, model.touched = model.touched, {}
        for job in touched.values():
            await self._compare_whole(job)
        for workflow in {job.workflow for job in touched.values() if job.workflow}:
            await self._compare_workflow(model, workflow)

    async def _compare_whole(self, job: Job) -> None:
        request = pb.GetProcessRequest(colony_name=self.colony, process_id=job.id)
        found = (await self.by(self.user, 1).GetProcess(request)).process
        check_process(found, job)
        assert [one.data.decode() for one in found.outputs] == ([job.output] if job.state is State.SUCCESSFUL else [])
        assert list(found.parent_ids) == [parent.id for parent in job.parents]
        history = await self.by(self.user).GetProcessHistory(
            pb.GetProcessHistoryRequest(colony_name=self.colony, process_id=job.id)
        )
        steps = [(one.from_state, one.to_state, one.attempt, one.reason) for one in history.transitions]
        assert steps == job.steps, (steps, job)
        attempts = [(one.number, one.executor_name, one.outcome) for one in history.attempts]
        wanted = [(number, one.executor, one.outcome) for number, one in enumerate(job.attempts, 1)]
        assert attempts == wanted, (attempts, job)
        for recorded, attempt in zip(history.attempts, job.attempts, strict=True):
            assert recorded.HasField("end_time") == (attempt.outcome is not Outcome.LIVE)
            assert same_texts(recorded.errors, attempt.errors), (recorded, attempt)

    async def _compare_workflow(self, model: Model, workflow: str) -> None:
        request = pb.GetWorkflowRequest(colony_name=self.colony, workflow_id=workflow)
        found = (await self.by(self.user).GetWorkflow(request)).workflow
        state, counts = model.workflow_state(workflow)
        counted = found.counts
        assert found.state == state, found
        assert counts == [counted.waiting, counted.running, counted.successful, counted.failed, counted.cancelled], found
        assert found.HasField("end_time") == (not any(counts[:2])), found

    async def left_in_queue(self) -> list[str]:
        """Keys of this colony but its timers, and timers of attempts and stays."""
        prefix = keys.prefix(self.colony)
        found = [key async for key in self.stepped.redis.scan_iter(match=f"{prefix}*") if key != keys.timers(self.colony)]
        return [*found, *await self.stepped.redis.zrange(keys.timers(self.colony), 0, -1)]


def check_process(found: process_pb2.Process, job: Job) -> None:
    """A process as it was read, against the model's."""
    told = (State(found.state), found.attempt, found.retries, found.executor_name, found.priority_time)
    assert told == (job.state, len(job.attempts), job.retries, job.executor, job.rank[0]), (found, job)
    assert found.workflow_id == job.workflow
    if job.state is State.WAITING:
        assert found.wait_for_parents == job.blocked, (found, job)
    assert same_texts(found.errors, job.errors), (found, job)


def same_texts(found: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether texts are those of the model, which knows of the scheduler's own only that there is one."""
    if wanted == ANY_TEXTS:
        return True
    return len(found) == 1 if wanted == SOME_TEXT else list(found) == list(wanted)
