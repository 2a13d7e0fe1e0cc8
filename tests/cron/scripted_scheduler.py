"""A scheduler's address where a test decides the answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import (
    SchedulerServiceServicer,
    add_SchedulerServiceServicer_to_server,
)
from servicekit import failures
from servicekit.status import abort


class Scripted(SchedulerServiceServicer):
    """Notes requests, and answers as told; a request id gets the same workflow each time."""

    def __init__(self) -> None:
        self.requests: list[pb.SubmitWorkflowRequest] = []
        self.batches: list[pb.SubmitWorkflowsRequest] = []
        self.cancelled: list[pb.CancelWorkflowRequest] = []
        self.results: dict[str, pb.WorkflowResult] = {}
        self.failure: failures.Failure | None = None
        self.code: grpc.StatusCode | None = None
        self.workflows: dict[str, str] = {}

    async def SubmitWorkflow(
        self, request: pb.SubmitWorkflowRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.SubmitWorkflowResponse:
        self.requests.append(request)
        await self._fail(context)
        if request.validate_only:
            return pb.SubmitWorkflowResponse()
        return pb.SubmitWorkflowResponse(workflow_id=self.workflows.setdefault(request.request_id, str(uuid4())))

    async def SubmitWorkflows(
        self, request: pb.SubmitWorkflowsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.SubmitWorkflowsResponse:
        self.batches.append(request)
        await self._fail(context)
        ids = [self.workflows.setdefault(each.request_id, each.workflow_id) for each in request.submissions]
        return pb.SubmitWorkflowsResponse(workflows=[pb.SubmitWorkflowResponse(workflow_id=each) for each in ids])

    async def GetWorkflowResults(
        self, request: pb.GetWorkflowResultsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.GetWorkflowResultsResponse:
        await self._fail(context)
        wanted = [self.results[each] for each in request.workflow_ids if each in self.results]
        return pb.GetWorkflowResultsResponse(results=wanted)

    async def CancelWorkflow(
        self, request: pb.CancelWorkflowRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.CancelWorkflowResponse:
        self.cancelled.append(request)
        await self._fail(context)
        return pb.CancelWorkflowResponse()

    async def _fail(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        if self.failure is not None:
            await abort(context, self.failure)
        if self.code is not None:
            await context.abort(self.code, "told so")


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Scripted, str]]:
    """A scripted scheduler and its host:port."""
    scheduler = Scripted()  # type: ignore[abstract]  # only workflows are submitted here
    server = grpc.aio.server()
    add_SchedulerServiceServicer_to_server(scheduler, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield scheduler, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
