"""CronService: translation and nothing else."""

from typing import Any

import grpc

from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceServicer
from servicekit.caller import Caller
from services.cron.domain.crons import Crons
from services.cron.rpc import convert


class CronServicer(CronServiceServicer):
    """The RPCs of colonies.cron.v1.CronService; their contract is in the proto."""

    def __init__(self, crons: Crons) -> None:
        self._crons = crons

    async def AddCron(self, request: pb.AddCronRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.AddCronResponse:
        cron = await self._crons.add(Caller.current(), convert.new_cron(request))
        return pb.AddCronResponse(cron=convert.cron_message(cron))

    async def GetCron(self, request: pb.GetCronRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.GetCronResponse:
        cron = await self._crons.get(Caller.current().colony, convert.cron_name(request))
        return pb.GetCronResponse(cron=convert.cron_message(cron))

    async def ListCrons(
        self, request: pb.ListCronsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.ListCronsResponse:
        page = convert.page_of(request)
        crons, more = await self._crons.page(Caller.current().colony, after=page.after, limit=page.limit)
        return convert.page_message(crons, more=more)

    async def RunCron(self, request: pb.RunCronRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.RunCronResponse:
        name, request_id = convert.run_of(request)
        return pb.RunCronResponse(workflow_id=await self._crons.run(Caller.current(), name, request_id))

    async def RemoveCron(
        self, request: pb.RemoveCronRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.RemoveCronResponse:
        await self._crons.remove(Caller.current(), convert.cron_name(request))
        return pb.RemoveCronResponse()
