"""The scheduler, as the place where workflows go: over gRPC, signed as this service, on behalf of a member."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID

import grpc

from colonies.errors import from_rpc_error
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.process_pb2 import PROCESS_STATE_SUCCESSFUL
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.scheduler.v1.spec_pb2 import Value, WorkflowSpec
from servicekit.envelope import LARGE_AT_MOST
from servicekit.failures import FailedPrecondition, NotFound
from servicekit.status import failure_of
from services.cron.domain.ports import Launch, Run

# Nothing is entered under it.
CHECK_REQUEST_ID = "check"


class SchedulerSubmitter:
    """The WorkflowSubmitter of the service. `timeout_s` bounds each call, in seconds."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._scheduler = SchedulerServiceStub(channel)
        self._timeout_s = timeout_s

    async def check(self, *, colony: str, workflow: bytes, account: str) -> None:
        request = pb.SubmitWorkflowRequest(
            colony_name=colony,
            request_id=CHECK_REQUEST_ID,
            workflow=WorkflowSpec.FromString(workflow),
            on_behalf_of=account,
            validate_only=True,
        )
        with _translated():
            await self._scheduler.SubmitWorkflow(request, timeout=self._timeout_s)

    async def submit_all(self, *, colony: str, account: str, launches: Sequence[Launch]) -> None:
        request = pb.SubmitWorkflowsRequest(colony_name=colony, submissions=_submissions(launches), on_behalf_of=account)
        with _translated():
            await self._scheduler.SubmitWorkflows(request, timeout=self._timeout_s)

    async def runs(self, *, colony: str, workflow_ids: Sequence[UUID], outputs: bool) -> Mapping[UUID, Run]:
        request = pb.GetWorkflowResultsRequest(
            colony_name=colony, workflow_ids=[str(each) for each in workflow_ids], with_outputs=outputs
        )
        with _translated():
            response = await self._scheduler.GetWorkflowResults(request, timeout=self._timeout_s)
        return {UUID(result.workflow_id): _run(result) for result in response.results}

    async def cancel(self, *, colony: str, account: str, workflow_id: UUID) -> None:
        request = pb.CancelWorkflowRequest(colony_name=colony, workflow_id=str(workflow_id), on_behalf_of=account)
        try:
            with _translated():
                await self._scheduler.CancelWorkflow(request, timeout=self._timeout_s)
        except NotFound:
            # Whoever looked a moment ago saw it: it was removed since.
            return


def _submissions(launches: Sequence[Launch]) -> Sequence[pb.WorkflowSubmission]:
    submissions = []
    size = 0
    for launch in launches:
        submission = pb.WorkflowSubmission(request_id=launch.request_id, workflow_id=str(launch.workflow_id))
        submission.workflow.MergeFromString(launch.workflow)
        roots = [node for node in submission.workflow.nodes if not node.conditions.dependencies]
        size += len(launch.workflow) + len(roots) * sum(map(len, launch.arguments))
        if size > LARGE_AT_MOST:
            # Before they are copied into each root: that may be a thousand times what came in.
            msg = f"the workflow with these arguments in each of its roots would have {size} bytes; at most {LARGE_AT_MOST}"
            raise FailedPrecondition(msg, reason="ARGUMENTS_TOO_LARGE")
        if launch.arguments:
            arguments = [Value.FromString(each) for each in launch.arguments]
            for node in roots:
                node.args.extend(arguments)
        submissions.append(submission)
    return submissions


def _run(result: pb.WorkflowResult) -> Run:
    outputs = [value.SerializeToString(deterministic=True) for node in result.outputs for value in node.outputs]
    return Run(is_open=result.open, succeeded=result.state == PROCESS_STATE_SUCCESSFUL, outputs=outputs)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        # No prefix: a single workflow is `workflow` in the scheduler's request as in ours, so that its fields' paths are right.
        raise failure_of(from_rpc_error(error)) from error
