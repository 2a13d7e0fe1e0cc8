"""The domain's answers as messages."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from colonies.registry.v1 import registry_service_pb2 as pb
from servicekit import cursors
from servicekit.changes import Change, Event
from services.registry.domain.model import Announced, Executor, ExecutorState, Location, Page

STATES = {
    ExecutorState.PENDING: pb.EXECUTOR_STATE_PENDING,
    ExecutorState.APPROVED: pb.EXECUTOR_STATE_APPROVED,
    ExecutorState.REJECTED: pb.EXECUTOR_STATE_REJECTED,
}


def _time(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    time = Timestamp()
    time.FromDatetime(moment)
    return time


def executor_message(executor: Executor) -> pb.Executor:
    """An executor as it goes out."""
    return pb.Executor(
        name=executor.name,
        identity=executor.identity,
        executor_types=executor.executor_types,
        location_name=executor.location_name,
        capabilities=pb.Capabilities.FromString(executor.capabilities),
        state=STATES[executor.state],
        registered_time=_time(executor.registered_at),
        last_heard_time=_time(executor.last_heard_at),
    )


def resolve_response(executor: Executor | None) -> pb.ResolveExecutorResponse:
    """An approved executor, or nothing."""
    return pb.ResolveExecutorResponse(executor=None if executor is None else executor_message(executor))


def executors_response(page: Page[Executor]) -> pb.ListExecutorsResponse:
    """A page of executors."""
    last = page.items[-1] if page.more else None
    return pb.ListExecutorsResponse(
        executors=[executor_message(executor) for executor in page.items],
        next_cursor="" if last is None else cursors.encode((last.name, last.identity)),
    )


def _entry(announced: Announced) -> pb.ListFunctionsResponse.Entry:
    return pb.ListFunctionsResponse.Entry(
        function=pb.Function.FromString(announced.function.definition),
        executor_name=announced.executor_name,
        executor_types=announced.executor_types,
    )


def functions_response(page: Page[Announced]) -> pb.ListFunctionsResponse:
    """A page of functions."""
    last = page.items[-1] if page.more else None
    return pb.ListFunctionsResponse(
        entries=[_entry(announced) for announced in page.items],
        next_cursor="" if last is None else cursors.encode((last.function.name, last.executor_name)),
    )


def location_message(location: Location) -> pb.Location:
    """A location as it goes out."""
    return pb.Location(
        name=location.name,
        description=location.description,
        longitude=location.longitude,
        latitude=location.latitude,
    )


def locations_response(page: Page[Location]) -> pb.ListLocationsResponse:
    """A page of locations."""
    return pb.ListLocationsResponse(
        locations=[location_message(location) for location in page.items],
        next_cursor=cursors.encode((page.items[-1].name,)) if page.more else "",
    )


def change_message(event: Event | None) -> pb.WatchExecutorsResponse:
    """A change, `synced`, or a sign of life."""
    if event is None:
        return pb.WatchExecutorsResponse()
    if not isinstance(event, Change):
        return pb.WatchExecutorsResponse(synced=True)
    return pb.WatchExecutorsResponse(colony=event.colony, identity=event.identity)
