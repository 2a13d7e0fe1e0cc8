"""CronService: translation and nothing else."""

from typing import Any, TypeAlias

import grpc

from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceServicer
from servicekit.caller import Caller
from services.cron.domain.crons import Crons
from services.cron.rpc import convert

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CronServicer(CronServiceServicer):
    """The RPCs of colonies.cron.v1.CronService; their contract is in the proto."""

    def __init__(self, crons: Crons) -> None:
        self._crons = crons

    async def AddCron(self, request: pb.AddCronRequest, context: Context) -> pb.AddCronResponse:
        cron = await self._crons.add(Caller.current(), convert.new_cron(request))
        return pb.AddCronResponse(cron=convert.cron_message(cron))

    async def UpdateCron(self, request: pb.UpdateCronRequest, context: Context) -> pb.UpdateCronResponse:
        cron = await self._crons.update(Caller.current(), convert.new_cron(request))
        return pb.UpdateCronResponse(cron=convert.cron_message(cron))

    async def GetCron(self, request: pb.GetCronRequest, context: Context) -> pb.GetCronResponse:
        cron = await self._crons.get(Caller.current().colony, convert.cron_name(request))
        return pb.GetCronResponse(cron=convert.cron_message(cron))

    async def ListCrons(self, request: pb.ListCronsRequest, context: Context) -> pb.ListCronsResponse:
        page = convert.page_of(request)
        crons, more = await self._crons.page(Caller.current().colony, after=page.after, limit=page.limit)
        return convert.page_message(crons, more=more)

    async def ListFires(self, request: pb.ListFiresRequest, context: Context) -> pb.ListFiresResponse:
        page = convert.fires_page_of(request)
        fires, more = await self._crons.fires(
            Caller.current().colony, page.name, before=page.before, outcomes=page.outcomes, limit=page.limit
        )
        return convert.fires_message(fires, more=more)

    async def PreviewSchedule(self, request: pb.PreviewScheduleRequest, context: Context) -> pb.PreviewScheduleResponse:
        asked = convert.preview_of(request)
        moments, words = await self._crons.preview(Caller.current().colony, asked.of, after=asked.after, count=asked.most)
        return convert.preview_message(moments, words)

    async def RunCron(self, request: pb.RunCronRequest, context: Context) -> pb.RunCronResponse:
        name, request_id = convert.run_of(request)
        return pb.RunCronResponse(workflow_id=str(await self._crons.run(Caller.current(), name, request_id)))

    async def PauseCron(self, request: pb.PauseCronRequest, context: Context) -> pb.PauseCronResponse:
        cron = await self._crons.pause(Caller.current(), convert.cron_name(request))
        return pb.PauseCronResponse(cron=convert.cron_message(cron))

    async def ResumeCron(self, request: pb.ResumeCronRequest, context: Context) -> pb.ResumeCronResponse:
        cron = await self._crons.resume(Caller.current(), convert.cron_name(request))
        return pb.ResumeCronResponse(cron=convert.cron_message(cron))

    async def RemoveCron(self, request: pb.RemoveCronRequest, context: Context) -> pb.RemoveCronResponse:
        await self._crons.remove(Caller.current(), convert.cron_name(request))
        return pb.RemoveCronResponse()
