"""RegistryService: translation between the wire and the domain."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from colonies.registry.v1 import registry_service_pb2 as pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceServicer
from servicekit.caller import Caller
from servicekit.changes import Event
from servicekit.signed_calls import message_of
from servicekit.streams import with_signs_of_life
from services.registry.domain.catalogue import Catalogue, Sites
from services.registry.domain.enrolment import Enrolment
from services.registry.rpc import convert, messages


class RegistryServicer(RegistryServiceServicer):
    """Who may call is settled before a call gets here."""

    def __init__(
        self,
        enrolment: Enrolment,
        catalogue: Catalogue,
        sites: Sites,
        *,
        changes: Callable[[], AsyncIterator[Event]],
    ) -> None:
        self._enrolment = enrolment
        self._catalogue = catalogue
        self._sites = sites
        self._changes = changes

    async def RegisterExecutor(self, request: pb.RegisterExecutorRequest, _context: Any) -> pb.RegisterExecutorResponse:
        colony, registration = convert.registration(request)
        executor = await self._enrolment.register(colony, Caller.current().call.key, registration, _call())
        return pb.RegisterExecutorResponse(executor=messages.executor_message(executor))

    async def ApproveExecutor(self, request: pb.ApproveExecutorRequest, _context: Any) -> pb.ApproveExecutorResponse:
        executor = await self._enrolment.approve(*convert.identity_in_colony(request), _call())
        return pb.ApproveExecutorResponse(executor=messages.executor_message(executor))

    async def RejectExecutor(self, request: pb.RejectExecutorRequest, _context: Any) -> pb.RejectExecutorResponse:
        executor = await self._enrolment.reject(*convert.identity_in_colony(request), _call())
        return pb.RejectExecutorResponse(executor=messages.executor_message(executor))

    async def RemoveExecutor(self, request: pb.RemoveExecutorRequest, _context: Any) -> pb.RemoveExecutorResponse:
        colony, identity = convert.identity_in_colony(request)
        Caller.current().require_own(identity)
        await self._enrolment.remove(colony, identity, _call())
        return pb.RemoveExecutorResponse()

    async def GetExecutor(self, request: pb.GetExecutorRequest, _context: Any) -> pb.GetExecutorResponse:
        executor = await self._catalogue.find(*convert.wanted_executor(request))
        return pb.GetExecutorResponse(executor=messages.executor_message(executor))

    async def ListExecutors(self, request: pb.ListExecutorsRequest, _context: Any) -> pb.ListExecutorsResponse:
        colony, wanted, after, limit = convert.executor_list(request)
        page = await self._catalogue.executors(colony, wanted, after=after, limit=limit)
        return messages.executors_response(page)

    async def UpdateExecutor(self, request: pb.UpdateExecutorRequest, _context: Any) -> pb.UpdateExecutorResponse:
        colony, capabilities = convert.capabilities(request)
        executor = await self._catalogue.update(colony, Caller.current().identity, capabilities)
        return pb.UpdateExecutorResponse(executor=messages.executor_message(executor))

    async def AnnounceFunctions(self, request: pb.AnnounceFunctionsRequest, _context: Any) -> pb.AnnounceFunctionsResponse:
        colony, functions = convert.functions(request)
        await self._catalogue.announce(colony, Caller.current().identity, functions)
        return pb.AnnounceFunctionsResponse()

    async def ListFunctions(self, request: pb.ListFunctionsRequest, _context: Any) -> pb.ListFunctionsResponse:
        colony, executor_name, after, limit = convert.function_list(request)
        page = await self._catalogue.functions(colony, executor_name, after=after, limit=limit)
        return messages.functions_response(page)

    async def RemoveFunction(self, request: pb.RemoveFunctionRequest, _context: Any) -> pb.RemoveFunctionResponse:
        colony, name = convert.function_name(request)
        await self._catalogue.remove_function(colony, Caller.current().identity, name)
        return pb.RemoveFunctionResponse()

    async def PutLocation(self, request: pb.PutLocationRequest, _context: Any) -> pb.PutLocationResponse:
        await self._sites.put(*convert.location(request))
        return pb.PutLocationResponse()

    async def GetLocation(self, request: pb.GetLocationRequest, _context: Any) -> pb.GetLocationResponse:
        location = await self._sites.location(*convert.named_in_colony(request))
        return pb.GetLocationResponse(location=messages.location_message(location))

    async def ListLocations(self, request: pb.ListLocationsRequest, _context: Any) -> pb.ListLocationsResponse:
        colony, after, limit = convert.location_list(request)
        return messages.locations_response(await self._sites.locations(colony, after=after, limit=limit))

    async def RemoveLocation(self, request: pb.RemoveLocationRequest, _context: Any) -> pb.RemoveLocationResponse:
        await self._sites.remove(*convert.named_in_colony(request))
        return pb.RemoveLocationResponse()

    async def ResolveExecutor(self, request: pb.ResolveExecutorRequest, _context: Any) -> pb.ResolveExecutorResponse:
        return messages.resolve_response(await self._catalogue.approved(*convert.resolved(request)))

    async def WatchExecutors(
        self, _request: pb.WatchExecutorsRequest, _context: Any
    ) -> AsyncIterator[pb.WatchExecutorsResponse]:
        async for event in with_signs_of_life(self._changes()):
            yield messages.change_message(event)

    async def ReportHeard(self, request: pb.ReportHeardRequest, _context: Any) -> pb.ReportHeardResponse:
        await self._catalogue.note_heard(convert.heard(request))
        return pb.ReportHeardResponse()


def _call() -> bytes:
    """The signed call in hand: the reason for the change that it makes."""
    return message_of(Caller.current().call).SerializeToString()
