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
        self.failure: failures.Failure | None = None
        self.code: grpc.StatusCode | None = None
        self.workflows: dict[str, str] = {}

    async def SubmitWorkflow(
        self, request: pb.SubmitWorkflowRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.SubmitWorkflowResponse:
        self.requests.append(request)
        if self.failure is not None:
            await abort(context, self.failure)
        if self.code is not None:
            await context.abort(self.code, "told so")
        if request.validate_only:
            return pb.SubmitWorkflowResponse()
        return pb.SubmitWorkflowResponse(workflow_id=self.workflows.setdefault(request.request_id, str(uuid4())))


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
