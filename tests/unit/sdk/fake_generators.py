"""Crons and generators in the test's process, that keep the promises of their protos as far as these tests look."""

from typing import Any

import grpc

from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.cron.v1 import generator_service_pb2 as generator
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceServicer
from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceServicer

from .fake_server import FakeServer, refusal


class FakeCrons(CronServiceServicer, GeneratorServiceServicer):
    """Takes what is added and packed; FakeServer says which calls fail."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.added: list[Any] = []
        self.packed: list[generator.Argument] = []
        self.pack_sizes: list[int] = []
        self.generators: list[str] = []
        self._answers: dict[str, generator.PackResponse] = {}

    async def AddCron(self, request: cron.AddCronRequest, context: Any) -> Any:
        await self.server.enter("AddCron", context)
        self.added.append(request)
        return cron.AddCronResponse(cron=cron.Cron(name=request.name))

    async def UpdateCron(self, request: cron.UpdateCronRequest, context: Any) -> Any:
        self.added.append(request)
        return cron.UpdateCronResponse(cron=cron.Cron(name=request.name))

    async def ListFires(self, request: cron.ListFiresRequest, context: Any) -> Any:
        self.added.append(request)
        first = int(request.cursor or 0)
        end = min(first + min(request.page_size, 2), 5)
        fires = [cron.Fire(fire_id=str(number)) for number in range(first, end)]
        return cron.ListFiresResponse(fires=fires, next_cursor=str(end) if end < 5 else "")

    async def PreviewSchedule(self, request: cron.PreviewScheduleRequest, context: Any) -> Any:
        self.added.append(request)
        return cron.PreviewScheduleResponse(description=request.schedule.expression or request.name)

    async def AddGenerator(self, request: generator.AddGeneratorRequest, context: Any) -> Any:
        self.added.append(request)
        return generator.AddGeneratorResponse(generator=generator.Generator(name=request.name, trigger=request.trigger))

    async def Pack(self, request: generator.PackRequest, context: Any) -> Any:
        if any(argument.value.data == b'"bad"' for argument in request.arguments):
            await refusal(grpc.StatusCode.INVALID_ARGUMENT)(context)
        answer = self._answers.get(request.request_id)
        if answer is None:
            self.generators.append(request.name)
            self.pack_sizes.append(len(request.arguments))
            answer = self._answers[request.request_id] = generator.PackResponse(first_sequence=len(self.packed) + 1)
            self.packed.extend(request.arguments)
        # After the work is done, so that a refused call is one whose answer got lost.
        await self.server.enter("Pack", context)
        return answer

    async def RemoveGenerator(self, request: generator.RemoveGeneratorRequest, context: Any) -> Any:
        await self.server.enter("RemoveGenerator", context)
        return await refusal(grpc.StatusCode.NOT_FOUND)(context)
