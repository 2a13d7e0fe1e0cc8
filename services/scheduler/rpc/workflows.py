"""Workflows: submitted, read, cancelled, taken up again, removed."""

from typing import Any, TypeAlias

import grpc

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from servicekit import cursors
from servicekit.bounds import checked
from servicekit.caller import Caller
from services.scheduler.domain.finishing import Finishing
from services.scheduler.domain.submitting import NODES_FIELD, NewWorkflow, Submitting
from services.scheduler.domain.views import Reads
from services.scheduler.rpc import convert, submissions
from services.scheduler.rpc.receipts import Receipts
from services.scheduler.rpc.specs import nodes_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class WorkflowRpcs(SchedulerServiceServicer):
    """Translates."""

    _submitting: Submitting
    _finishing: Finishing
    _reads: Reads
    _receipts: Receipts

    async def SubmitWorkflow(self, request: pb.SubmitWorkflowRequest, context: Context) -> pb.SubmitWorkflowResponse:
        with checked() as bounds:
            convert.submit_bounds(bounds, request)
            nodes = nodes_of(bounds, NODES_FIELD, request.colony_name, request.workflow.nodes)
            bounds.printable("workflow.label", request.workflow.label, optional=True)
        if request.validate_only:
            self._submitting.check_workflow(nodes)
            return pb.SubmitWorkflowResponse()
        asked = convert.request_of(request, request.colony_name, request.request_id, self._receipts.current())
        (entered,) = await self._submitting.workflows([NewWorkflow(asked, nodes, request.workflow.label)])
        return submissions.submitted(*entered)

    async def SubmitWorkflows(self, request: pb.SubmitWorkflowsRequest, context: Context) -> pb.SubmitWorkflowsResponse:
        new = submissions.workflows_of(request, self._receipts.current())
        entered = await self._submitting.workflows(new)
        return pb.SubmitWorkflowsResponse(workflows=[submissions.submitted(*one) for one in entered])

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, context: Context) -> pb.GetWorkflowResponse:
        view = await self._reads.workflow(request.colony_name, convert.id_of(request, "workflow_id"))
        return pb.GetWorkflowResponse(workflow=convert.workflow_of(view))

    async def GetWorkflowResults(
        self, request: pb.GetWorkflowResultsRequest, context: Context
    ) -> pb.GetWorkflowResultsResponse:
        ids = submissions.result_ids(request)
        found = await self._reads.results(request.colony_name, ids, with_outputs=request.with_outputs)
        return pb.GetWorkflowResultsResponse(results=[submissions.result_of(found[one]) for one in ids if one in found])

    async def ListWorkflows(self, request: pb.ListWorkflowsRequest, context: Context) -> pb.ListWorkflowsResponse:
        where = convert.workflow_filter(request)
        views = await self._reads.workflows(request.colony_name, where)
        page = views[: where.limit - 1]
        return pb.ListWorkflowsResponse(
            workflows=[convert.workflow_of(view) for view in page],
            next_cursor=cursors.encode((page[-1].sequence,)) if len(views) > len(page) else "",
        )

    async def CancelWorkflow(self, request: pb.CancelWorkflowRequest, context: Context) -> pb.CancelWorkflowResponse:
        workflow_id, caller = convert.id_of(request, "workflow_id"), Caller.current()
        receipt = self._receipts.current()
        await self._finishing.cancel_workflow(request.colony_name, workflow_id, caller.identity, caller.require_own, receipt)
        return pb.CancelWorkflowResponse()

    async def RetryWorkflow(self, request: pb.RetryWorkflowRequest, context: Context) -> pb.RetryWorkflowResponse:
        workflow_id, caller = convert.id_of(request, "workflow_id"), Caller.current()
        receipt = self._receipts.current()
        count = await self._finishing.retry_workflow(
            request.colony_name, workflow_id, caller.identity, caller.require_own, receipt
        )
        return pb.RetryWorkflowResponse(count=count)

    async def RemoveWorkflow(self, request: pb.RemoveWorkflowRequest, context: Context) -> pb.RemoveWorkflowResponse:
        workflow_id, caller = convert.id_of(request, "workflow_id"), Caller.current()
        await self._finishing.remove_workflow(request.colony_name, workflow_id, caller.require_own)
        return pb.RemoveWorkflowResponse()
