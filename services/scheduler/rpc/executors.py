"""What executors call: they get work, keep it, report on it and end it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from servicekit.bounds import checked
from servicekit.caller import Caller
from servicekit.clock import Clock, datetime_of
from services.scheduler.domain.dispatching import Dispatching
from services.scheduler.domain.finishing import Finishing
from services.scheduler.domain.reporting import Reporting
from services.scheduler.domain.states import State
from services.scheduler.domain.submitting import Submitting
from services.scheduler.rpc import convert
from services.scheduler.rpc.closes import closes_of
from services.scheduler.rpc.receipts import Receipts
from services.scheduler.rpc.specs import values_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_HEARTBEATS = 1_000


class ExecutorRpcs(SchedulerServiceServicer):
    """Translates."""

    _submitting: Submitting
    _dispatching: Dispatching
    _finishing: Finishing
    _reporting: Reporting
    _receipts: Receipts
    _clock: Clock

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

    async def WatchAssignments(
        self, request: pb.WatchAssignmentsRequest, context: Context
    ) -> AsyncIterator[pb.WatchAssignmentsResponse]:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            bounds.number("max_in_flight", request.max_in_flight, at_least=1, at_most=convert.MAX_IN_FLIGHT)
        lease_ms = self._dispatching.lease_ms
        identity = Caller.current().identity
        async with aclosing(self._dispatching.stream(request.colony_name, identity, request.max_in_flight)) as batches:
            async for batch in batches:
                yield pb.WatchAssignmentsResponse(assignments=[convert.assignment_of(one, lease_ms) for one in batch])

    async def CloseProcesses(self, request: pb.CloseProcessesRequest, context: Context) -> pb.CloseProcessesResponse:
        closes = closes_of(request)
        receipt = self._receipts.current()
        states = await self._finishing.close(request.colony_name, Caller.current().identity, closes, receipt)
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

    async def SetOutput(self, request: pb.SetOutputRequest, context: Context) -> pb.SetOutputResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            ref = convert.ref_of(bounds, "attempt", request.attempt)
            outputs = values_of(bounds, "outputs", request.outputs)
        receipt = self._receipts.current()
        await self._reporting.set_outputs(request.colony_name, Caller.current().identity, ref, outputs, receipt)
        return pb.SetOutputResponse()

    async def SetAttributes(self, request: pb.SetAttributesRequest, context: Context) -> pb.SetAttributesResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            ref = convert.ref_of(bounds, "attempt", request.attempt)
            attributes = convert.attributes_of(bounds, request.attributes)
        await self._reporting.set_attributes(request.colony_name, Caller.current().identity, ref, attributes)
        return pb.SetAttributesResponse()

    async def AddLogs(self, request: pb.AddLogsRequest, context: Context) -> pb.AddLogsResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            ref = convert.ref_of(bounds, "attempt", request.attempt)
            lines = convert.lines_of(bounds, request.lines, datetime_of(self._clock.now_ns()))
            bounds.number("first_number", request.first_number, at_least=0, at_most=2**53)
        caller = Caller.current()
        await self._reporting.add_logs(request.colony_name, caller.identity, caller.name, ref, lines, request.first_number)
        return pb.AddLogsResponse()

    async def AddChildren(self, request: pb.AddChildrenRequest, context: Context) -> pb.AddChildrenResponse:
        ref, nodes = convert.children_of(request)
        asked = convert.request_of(request, request.colony_name, request.request_id, self._receipts.current())
        ids = await self._submitting.children(asked, ref, nodes, insert=request.insert)
        return pb.AddChildrenResponse(process_ids=[str(one) for one in ids])
