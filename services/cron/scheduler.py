"""The scheduler, as the place where crons' workflows go: over gRPC, signed as this service, on behalf of a member."""

import grpc

from colonies.errors import from_rpc_error
from colonies.scheduler.v1.scheduler_service_pb2 import SubmitWorkflowRequest, SubmitWorkflowResponse
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec
from servicekit.status import failure_of

# Nothing is entered under it.
CHECK_REQUEST_ID = "check"


class SchedulerSubmitter:
    """The WorkflowSubmitter of the service. `timeout_s` bounds each call, in seconds."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._scheduler = SchedulerServiceStub(channel)
        self._timeout_s = timeout_s

    async def check(self, *, colony: str, workflow: bytes, account: str) -> None:
        await self._call(
            SubmitWorkflowRequest(
                colony_name=colony,
                request_id=CHECK_REQUEST_ID,
                workflow=WorkflowSpec.FromString(workflow),
                on_behalf_of=account,
                validate_only=True,
            )
        )

    async def submit(self, *, colony: str, request_id: str, workflow: bytes, account: str) -> str:
        response = await self._call(
            SubmitWorkflowRequest(
                colony_name=colony,
                request_id=request_id,
                workflow=WorkflowSpec.FromString(workflow),
                on_behalf_of=account,
            )
        )
        return response.workflow_id

    async def _call(self, request: SubmitWorkflowRequest) -> SubmitWorkflowResponse:
        try:
            return await self._scheduler.SubmitWorkflow(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            # No prefix: the workflow is `workflow` in the scheduler's request as in ours, so that its fields' paths are right.
            raise failure_of(from_rpc_error(error)) from error
