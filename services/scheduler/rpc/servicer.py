"""The scheduler's RPCs: request to domain call to response. What they promise stands in the proto."""

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import grpc

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from servicekit import cursors
from servicekit.bounds import checked
from servicekit.caller import Caller
from servicekit.clock import Clock, datetime_of
from services.scheduler.domain.dispatching import Dispatching
from services.scheduler.domain.finishing import Finishing
from services.scheduler.domain.following import Following
from services.scheduler.domain.reporting import Reporting
from services.scheduler.domain.states import State
from services.scheduler.domain.submitting import NODES_FIELD, Submitting
from services.scheduler.domain.views import (
    AttemptView,
    AttributeView,
    LogSource,
    LogView,
    Position,
    ProcessFilter,
    ProcessView,
    Target,
    TransitionView,
    WorkflowFilter,
    WorkflowView,
)
from services.scheduler.rpc import convert
from services.scheduler.rpc.specs import nodes_of, specs_of, values_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_HEARTBEATS = 1_000


class Reads(Protocol):
    """What is read straight from the tables."""

    async def process(self, colony: str, process_id: UUID) -> ProcessView: ...

    async def processes(self, colony: str, where: ProcessFilter) -> list[ProcessView]: ...

    async def history(self, colony: str, process_id: UUID) -> tuple[list[AttemptView], list[TransitionView]]: ...

    async def attributes(self, colony: str, process_id: UUID) -> tuple[bytes, list[AttributeView]]: ...

    async def workflow(self, colony: str, workflow_id: UUID) -> WorkflowView: ...

    async def workflows(self, colony: str, where: WorkflowFilter) -> list[WorkflowView]: ...

    async def logs_after(
        self, colony: str, source: LogSource, position: Position, limit: int
    ) -> tuple[list[LogView], bool]: ...


class Servicer(SchedulerServiceServicer):
    """Translates."""

    def __init__(
        self,
        *,
        submitting: Submitting,
        dispatching: Dispatching,
        finishing: Finishing,
        reporting: Reporting,
        following: Following,
        reads: Reads,
        clock: Clock,
    ) -> None:
        self._submitting = submitting
        self._dispatching = dispatching
        self._finishing = finishing
        self._reporting = reporting
        self._following = following
        self._reads = reads
        self._clock = clock

    async def SubmitProcesses(self, request: pb.SubmitProcessesRequest, context: Context) -> pb.SubmitProcessesResponse:
        with checked() as bounds:
            convert.submit_bounds(bounds, request)
            specs = specs_of(bounds, "specs", request.colony_name, request.specs)
        asked = convert.request_of(request, request.colony_name, request.request_id, Caller.current())
        ids = await self._submitting.processes(asked, specs)
        return pb.SubmitProcessesResponse(process_ids=[str(one) for one in ids])

    async def SubmitWorkflow(self, request: pb.SubmitWorkflowRequest, context: Context) -> pb.SubmitWorkflowResponse:
        with checked() as bounds:
            convert.submit_bounds(bounds, request)
            nodes = nodes_of(bounds, NODES_FIELD, request.colony_name, request.workflow.nodes)
            bounds.printable("workflow.label", request.workflow.label, optional=True)
        if request.validate_only:
            self._submitting.check_workflow(nodes)
            return pb.SubmitWorkflowResponse()
        asked = convert.request_of(request, request.colony_name, request.request_id, Caller.current())
        workflow_id, ids = await self._submitting.workflow(asked, nodes, request.workflow.label)
        return pb.SubmitWorkflowResponse(workflow_id=str(workflow_id), process_ids=[str(one) for one in ids])

    async def AssignProcesses(self, request: pb.AssignProcessesRequest, context: Context) -> pb.AssignProcessesResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            bounds.number("max_processes", request.max_processes, at_least=1, at_most=convert.MAX_ASSIGN)
            bounds.number("wait_ms", request.wait_ms, at_least=0, at_most=convert.MAX_WAIT_MS)
        assigned = await self._dispatching.assign(
            request.colony_name, Caller.current().identity, request.max_processes, request.wait_ms / 1000
        )
        lease_ms = self._dispatching.lease_ms
        return pb.AssignProcessesResponse(assignments=[convert.assignment_of(one, lease_ms) for one in assigned])

    async def CloseProcesses(self, request: pb.CloseProcessesRequest, context: Context) -> pb.CloseProcessesResponse:
        closes = convert.closes_of(request)
        states = await self._finishing.close(request.colony_name, Caller.current().identity, closes)
        return pb.CloseProcessesResponse(states=[state.value for state in states])  # type: ignore[misc]

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            bounds.count("attempts", request.attempts, at_most=MAX_HEARTBEATS)
            refs = [
                convert.ref_of(bounds, f"attempts[{index}]", ref) for index, ref in enumerate(request.attempts[:MAX_HEARTBEATS])
            ]
        drops = await self._dispatching.heartbeat(request.colony_name, Caller.current().identity, refs)
        return pb.HeartbeatResponse(
            drops=[
                pb.HeartbeatResponse.Drop(
                    attempt=pb.AttemptRef(process_id=str(ref.process_id), attempt=ref.number),
                    reason=pb.DROP_REASON_CANCELLED if state is State.CANCELLED else pb.DROP_REASON_SUPERSEDED,
                )
                for ref, state in drops
            ],
            lease_ms=self._dispatching.lease_ms,
        )

    async def GetProcess(self, request: pb.GetProcessRequest, context: Context) -> pb.GetProcessResponse:
        view = await self._reads.process(request.colony_name, convert.id_of(request, "process_id"))
        return pb.GetProcessResponse(process=convert.process_of(view, whole=True))

    async def ListProcesses(self, request: pb.ListProcessesRequest, context: Context) -> pb.ListProcessesResponse:
        where = convert.process_filter(request)
        views = await self._reads.processes(request.colony_name, where)
        page = views[: where.limit - 1]
        return pb.ListProcessesResponse(
            processes=[convert.process_of(view, whole=False) for view in page],
            next_cursor=cursors.encode((page[-1].live.sequence,)) if len(views) > len(page) else "",
        )

    async def GetProcessHistory(self, request: pb.GetProcessHistoryRequest, context: Context) -> pb.GetProcessHistoryResponse:
        process_id = convert.id_of(request, "process_id")
        attempts, transitions = await self._reads.history(request.colony_name, process_id)
        return pb.GetProcessHistoryResponse(
            attempts=[convert.attempt_of(one) for one in attempts],
            transitions=[convert.transition_of(one) for one in transitions],
        )

    async def SetOutput(self, request: pb.SetOutputRequest, context: Context) -> pb.SetOutputResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            ref = convert.ref_of(bounds, "attempt", request.attempt)
            outputs = values_of(bounds, "outputs", request.outputs)
        await self._reporting.set_outputs(request.colony_name, Caller.current().identity, ref, outputs)
        return pb.SetOutputResponse()

    async def SetAttributes(self, request: pb.SetAttributesRequest, context: Context) -> pb.SetAttributesResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            ref = convert.ref_of(bounds, "attempt", request.attempt)
            attributes = convert.attributes_of(bounds, request.attributes)
        await self._reporting.set_attributes(request.colony_name, Caller.current().identity, ref, attributes)
        return pb.SetAttributesResponse()

    async def ListAttributes(self, request: pb.ListAttributesRequest, context: Context) -> pb.ListAttributesResponse:
        process_id = convert.id_of(request, "process_id")
        spec, written = await self._reads.attributes(request.colony_name, process_id)
        return pb.ListAttributesResponse(attributes=convert.attributes_with_env(spec, written))

    async def AddLogs(self, request: pb.AddLogsRequest, context: Context) -> pb.AddLogsResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            ref = convert.ref_of(bounds, "attempt", request.attempt)
            lines = convert.lines_of(bounds, request.lines, datetime_of(self._clock.now_ns()))
            bounds.number("first_number", request.first_number, at_least=0, at_most=2**53)
        caller = Caller.current()
        await self._reporting.add_logs(request.colony_name, caller.identity, caller.name, ref, lines, request.first_number)
        return pb.AddLogsResponse()

    async def ListLogs(self, request: pb.ListLogsRequest, context: Context) -> pb.ListLogsResponse:
        source, limit = convert.log_source_of(request)
        position = convert.position_of("cursor", request.cursor)
        views, more = await self._reads.logs_after(request.colony_name, source, position, limit + 1)
        page = views[:limit]
        # With lines that are not settled yet there is a next page too: it begins with them.
        goes_on = page and (more or len(views) > limit)
        return pb.ListLogsResponse(
            entries=[convert.log_entry_of(view) for view in page],
            next_cursor=convert.cursor_of(page[-1].position) if goes_on else "",
        )

    async def FollowLogs(self, request: pb.FollowLogsRequest, context: Context) -> AsyncIterator[pb.FollowLogsResponse]:
        target = Target(process_id=convert.id_of(request, "process_id"))
        position = convert.position_of("cursor", request.cursor)
        async for page in self._following.logs(request.colony_name, target, position):
            yield pb.FollowLogsResponse(entries=[convert.log_entry_of(view) for view in page])

    async def WatchProcesses(
        self, request: pb.WatchProcessesRequest, context: Context
    ) -> AsyncIterator[pb.WatchProcessesResponse]:
        target = convert.target_of(request)
        position = convert.position_of("cursor", request.cursor)
        async for page in self._following.events(request.colony_name, target, position):
            yield pb.WatchProcessesResponse(events=[convert.event_of(view) for view in page])

    async def CancelProcess(self, request: pb.CancelProcessRequest, context: Context) -> pb.CancelProcessResponse:
        process_id, caller = convert.id_of(request, "process_id"), Caller.current()
        await self._finishing.cancel(request.colony_name, process_id, caller.identity, caller.require_own)
        return pb.CancelProcessResponse()

    async def RemoveProcess(self, request: pb.RemoveProcessRequest, context: Context) -> pb.RemoveProcessResponse:
        process_id, caller = convert.id_of(request, "process_id"), Caller.current()
        await self._finishing.remove(request.colony_name, process_id, caller.require_own)
        return pb.RemoveProcessResponse()

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, context: Context) -> pb.GetWorkflowResponse:
        view = await self._reads.workflow(request.colony_name, convert.id_of(request, "workflow_id"))
        return pb.GetWorkflowResponse(workflow=convert.workflow_of(view))

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
        await self._finishing.cancel_workflow(request.colony_name, workflow_id, caller.identity, caller.require_own)
        return pb.CancelWorkflowResponse()

    async def RemoveWorkflow(self, request: pb.RemoveWorkflowRequest, context: Context) -> pb.RemoveWorkflowResponse:
        workflow_id, caller = convert.id_of(request, "workflow_id"), Caller.current()
        await self._finishing.remove_workflow(request.colony_name, workflow_id, caller.require_own)
        return pb.RemoveWorkflowResponse()
