"""Processes: submitted, read, followed, cancelled, removed."""

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from servicekit import cursors
from servicekit.bounds import checked
from servicekit.caller import Caller
from services.scheduler.domain.finishing import Finishing
from services.scheduler.domain.following import Following
from services.scheduler.domain.submitting import Submitting
from services.scheduler.domain.views import Reads, Target
from services.scheduler.rpc import convert
from services.scheduler.rpc.receipts import Receipts
from services.scheduler.rpc.specs import specs_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ProcessRpcs(SchedulerServiceServicer):
    """Translates."""

    _submitting: Submitting
    _finishing: Finishing
    _following: Following
    _reads: Reads
    _receipts: Receipts

    async def SubmitProcesses(self, request: pb.SubmitProcessesRequest, context: Context) -> pb.SubmitProcessesResponse:
        with checked() as bounds:
            convert.submit_bounds(bounds, request)
            specs = specs_of(bounds, "specs", request.colony_name, request.specs)
        asked = convert.request_of(request, request.colony_name, request.request_id, self._receipts.current())
        ids = await self._submitting.processes(asked, specs)
        return pb.SubmitProcessesResponse(process_ids=[str(one) for one in ids])

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

    async def ListAttributes(self, request: pb.ListAttributesRequest, context: Context) -> pb.ListAttributesResponse:
        process_id = convert.id_of(request, "process_id")
        spec, written = await self._reads.attributes(request.colony_name, process_id)
        return pb.ListAttributesResponse(attributes=convert.attributes_with_env(spec, written))

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
        if request.HasField("colony"):
            wanted = convert.colony_filter_of(request)
            start = convert.position_of("cursor", request.cursor) if request.cursor else None
            async for views, position in self._following.colony_events(request.colony_name, wanted, start):
                yield pb.WatchProcessesResponse(
                    events=[convert.event_of(view) for view in views], cursor=convert.cursor_of(position)
                )
            return
        target = convert.target_of(request)
        cursor = request.cursor
        position = convert.position_of("cursor", cursor)
        async for page in self._following.events(request.colony_name, target, position):
            events = [convert.event_of(view) for view in page]
            cursor = events[-1].cursor if events else cursor
            yield pb.WatchProcessesResponse(events=events, cursor=cursor)

    async def CancelProcess(self, request: pb.CancelProcessRequest, context: Context) -> pb.CancelProcessResponse:
        process_id, caller = convert.id_of(request, "process_id"), Caller.current()
        receipt = self._receipts.current()
        await self._finishing.cancel(request.colony_name, process_id, caller.identity, caller.require_own, receipt)
        return pb.CancelProcessResponse()

    async def RemoveProcess(self, request: pb.RemoveProcessRequest, context: Context) -> pb.RemoveProcessResponse:
        process_id, caller = convert.id_of(request, "process_id"), Caller.current()
        await self._finishing.remove(request.colony_name, process_id, caller.require_own)
        return pb.RemoveProcessResponse()
