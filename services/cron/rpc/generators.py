"""GeneratorService: translation and nothing else."""

from typing import Any, TypeAlias

import grpc

from colonies.cron.v1 import generator_service_pb2 as pb
from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceServicer
from servicekit.caller import Caller
from services.cron.domain.generators import Generators
from services.cron.rpc import convert_generators as convert

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class GeneratorServicer(GeneratorServiceServicer):
    """The RPCs of colonies.cron.v1.GeneratorService; their contract is in the proto."""

    def __init__(self, generators: Generators) -> None:
        self._generators = generators

    async def AddGenerator(self, request: pb.AddGeneratorRequest, context: Context) -> pb.AddGeneratorResponse:
        generator = await self._generators.add(Caller.current(), convert.new_generator(request))
        return pb.AddGeneratorResponse(generator=convert.generator_message(generator))

    async def GetGenerator(self, request: pb.GetGeneratorRequest, context: Context) -> pb.GetGeneratorResponse:
        generator = await self._generators.get(Caller.current().colony, convert.generator_name(request))
        return pb.GetGeneratorResponse(generator=convert.generator_message(generator))

    async def ListGenerators(self, request: pb.ListGeneratorsRequest, context: Context) -> pb.ListGeneratorsResponse:
        page = convert.page_of(request)
        generators, more = await self._generators.page(Caller.current().colony, after=page.after, limit=page.limit)
        return convert.page_message(generators, more=more)

    async def Pack(self, request: pb.PackRequest, context: Context) -> pb.PackResponse:
        pack = convert.pack_of(request, Caller.current().identity)
        return pb.PackResponse(first_sequence=await self._generators.pack(pack))

    async def ListBins(self, request: pb.ListBinsRequest, context: Context) -> pb.ListBinsResponse:
        page = convert.bins_page_of(request)
        generator, bins, more = await self._generators.bins(
            Caller.current().colony, page.name, after=page.after, limit=page.limit
        )
        return convert.bins_message(generator, bins, more=more)

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> pb.ListBatchesResponse:
        page = convert.batches_page_of(request)
        batches, more = await self._generators.batches(
            Caller.current().colony, page.name, before=page.before, limit=page.limit, unsubmitted=page.unsubmitted
        )
        return convert.batches_message(batches, more=more)

    async def FlushGenerator(self, request: pb.FlushGeneratorRequest, context: Context) -> pb.FlushGeneratorResponse:
        batches, arguments = await self._generators.flush(Caller.current(), *convert.name_and_key(request))
        return pb.FlushGeneratorResponse(batches=batches, arguments=arguments)

    async def DropArguments(self, request: pb.DropArgumentsRequest, context: Context) -> pb.DropArgumentsResponse:
        arguments = await self._generators.drop(Caller.current(), *convert.name_and_key(request))
        return pb.DropArgumentsResponse(arguments=arguments)

    async def PauseGenerator(self, request: pb.PauseGeneratorRequest, context: Context) -> pb.PauseGeneratorResponse:
        generator = await self._generators.pause(Caller.current(), convert.generator_name(request))
        return pb.PauseGeneratorResponse(generator=convert.generator_message(generator))

    async def ResumeGenerator(self, request: pb.ResumeGeneratorRequest, context: Context) -> pb.ResumeGeneratorResponse:
        generator = await self._generators.resume(Caller.current(), convert.generator_name(request))
        return pb.ResumeGeneratorResponse(generator=convert.generator_message(generator))

    async def RemoveGenerator(self, request: pb.RemoveGeneratorRequest, context: Context) -> pb.RemoveGeneratorResponse:
        await self._generators.remove(Caller.current(), convert.generator_name(request), force=request.force)
        return pb.RemoveGeneratorResponse()
