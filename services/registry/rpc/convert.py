"""Requests checked and turned into the domain's words."""

from datetime import datetime
from typing import Protocol

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.registry.v1 import registry_service_pb2 as pb
from servicekit import cursors
from servicekit.bounds import Bounds, checked
from servicekit.clock import datetime_of
from services.registry.domain.model import ExecutorFilter, ExecutorState, Function, Heard, Location, Registration
from services.registry.rpc.checks import (
    MAX_FUNCTIONS,
    MAX_NAME_BYTES,
    MAX_TEXT_BYTES,
    MAX_TYPES,
    check_capabilities,
    check_function,
)

MAX_HEARD = 10_000
# The last second of the year 9999, where dates end in Postgres' and Python's calendars alike.
LAST_SECOND = 253_402_300_799
LAST_NANOSECOND = 999_999_999
NS_PER_S = 1_000_000_000

STATES = {
    pb.EXECUTOR_STATE_PENDING: ExecutorState.PENDING,
    pb.EXECUTOR_STATE_APPROVED: ExecutorState.APPROVED,
    pb.EXECUTOR_STATE_REJECTED: ExecutorState.REJECTED,
}


class InColony(Protocol):
    """A request within a colony."""

    @property
    def colony_name(self) -> str:
        """A Name."""
        ...


class NamedInColony(InColony, Protocol):
    """A request for something by `name` in a colony."""

    @property
    def name(self) -> str:
        """What is named."""
        ...


class OfIdentity(InColony, Protocol):
    """A request about an identity in a colony."""

    @property
    def identity(self) -> str:
        """64 hex digits."""
        ...


class PagedInColony(InColony, Protocol):
    """A request for a page of a list in a colony."""

    @property
    def page_size(self) -> int:
        """0 for the default."""
        ...

    @property
    def cursor(self) -> str:
        """Empty for the first page."""
        ...


def _bytes_of(message: Message) -> bytes:
    """The message without fields that this version does not know: nothing unchecked is stored."""
    message.DiscardUnknownFields()
    return message.SerializeToString(deterministic=True)


def registration(request: pb.RegisterExecutorRequest) -> tuple[str, Registration]:
    """Colony, and what an executor says of itself."""
    with checked() as bounds:
        bounds.name("colony", request.colony)
        bounds.name("name", request.name)
        bounds.names("executor_types", request.executor_types, at_least=1, at_most=MAX_TYPES)
        bounds.name("location_name", request.location_name, optional=True)
        check_capabilities(bounds, "capabilities", request.capabilities)
    types = tuple(request.executor_types)
    capabilities = _bytes_of(request.capabilities)
    return request.colony, Registration(request.name, types, request.location_name, capabilities)


def identity_in_colony(request: OfIdentity) -> tuple[str, str]:
    """Colony and identity."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.identity("identity", request.identity)
    return request.colony_name, request.identity


def resolved(request: pb.ResolveExecutorRequest) -> tuple[str, str]:
    """Colony and identity, as a service asks."""
    with checked() as bounds:
        bounds.name("colony", request.colony)
        bounds.identity("identity", request.identity)
    return request.colony, request.identity


def wanted_executor(request: pb.GetExecutorRequest) -> tuple[str, str, str]:
    """Colony, and an identity or a name; the other is empty."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        match request.WhichOneof("executor"):
            case "name":
                bounds.name("name", request.name)
            case "identity":
                bounds.identity("identity", request.identity)
            case _:
                bounds.refuse("executor", "must be a name or an identity; it is not set")
    return request.colony_name, request.identity, request.name


def executor_list(request: pb.ListExecutorsRequest) -> tuple[str, ExecutorFilter, tuple[str, str], int]:
    """Colony, filter, the sort key that the page begins behind, and how many are wanted."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("executor_type", request.executor_type, optional=True)
        bounds.count("states", request.states, at_most=len(STATES))
        for index, state in enumerate(request.states[: len(STATES)]):
            if state not in STATES:
                bounds.refuse(f"states[{index}]", f"must be PENDING, APPROVED or REJECTED; got {state}")
        limit = bounds.page("page_size", request.page_size)
    wanted = ExecutorFilter(tuple(STATES[state] for state in request.states), request.executor_type)
    return request.colony_name, wanted, _after_pair(request.cursor), limit


def capabilities(request: pb.UpdateExecutorRequest) -> tuple[str, bytes]:
    """Colony, and what the caller offers."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        check_capabilities(bounds, "capabilities", request.capabilities)
    return request.colony_name, _bytes_of(request.capabilities)


def functions(request: pb.AnnounceFunctionsRequest) -> tuple[str, list[Function]]:
    """Colony, and the functions that the caller offers."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.count("functions", request.functions, at_most=MAX_FUNCTIONS)
        if len(request.functions) <= MAX_FUNCTIONS:
            _check_functions(bounds, request)
    return request.colony_name, [Function(one.name, _bytes_of(one)) for one in request.functions]


def _check_functions(bounds: Bounds, request: pb.AnnounceFunctionsRequest) -> None:
    seen: set[str] = set()
    for index, function in enumerate(request.functions):
        check_function(bounds, f"functions[{index}]", function)
        if function.name in seen:
            bounds.refuse(f"functions[{index}].name", "must be announced once; it stands here twice")
        seen.add(function.name)


def function_list(request: pb.ListFunctionsRequest) -> tuple[str, str, tuple[str, str], int]:
    """Colony, executor name or "", the sort key that the page begins behind, and how many are wanted."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("executor_name", request.executor_name, optional=True)
        limit = bounds.page("page_size", request.page_size)
    return request.colony_name, request.executor_name, _after_pair(request.cursor), limit


def function_name(request: pb.RemoveFunctionRequest) -> tuple[str, str]:
    """Colony and function name."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.printable("name", request.name, at_most=MAX_NAME_BYTES)
    return request.colony_name, request.name


def location(request: pb.PutLocationRequest) -> tuple[str, Location]:
    """Colony and location."""
    given = request.location
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("location.name", given.name)
        bounds.text("location.description", given.description, at_most=MAX_TEXT_BYTES)
        bounds.number("location.longitude", given.longitude, at_least=-180, at_most=180)
        bounds.number("location.latitude", given.latitude, at_least=-90, at_most=90)
    return request.colony_name, Location(given.name, given.description, given.longitude, given.latitude)


def named_in_colony(request: NamedInColony) -> tuple[str, str]:
    """Colony and name."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
    return request.colony_name, request.name


def location_list(request: PagedInColony) -> tuple[str, str, int]:
    """Colony, the name that the page begins behind, and how many are wanted."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        limit = bounds.page("page_size", request.page_size)
    after = str(cursors.decode("cursor", request.cursor, str)[0]) if request.cursor else ""
    return request.colony_name, after, limit


def heard(request: pb.ReportHeardRequest) -> list[Heard]:
    """Signs of life."""
    with checked() as bounds:
        bounds.count("heard", request.heard, at_most=MAX_HEARD)
        for index, one in enumerate(request.heard[:MAX_HEARD]):
            bounds.name(f"heard[{index}].colony", one.colony)
            bounds.identity(f"heard[{index}].identity", one.identity)
            bounds.number(f"heard[{index}].time.seconds", one.time.seconds, at_least=0, at_most=LAST_SECOND)
            bounds.number(f"heard[{index}].time.nanos", one.time.nanos, at_least=0, at_most=LAST_NANOSECOND)
    return [Heard(one.colony, one.identity, _moment(one.time)) for one in request.heard]


def _moment(time: Timestamp) -> datetime:
    return datetime_of(time.seconds * NS_PER_S + time.nanos)


def _after_pair(cursor: str) -> tuple[str, str]:
    if not cursor:
        return "", ""
    first, second = cursors.decode("cursor", cursor, str, str)
    return str(first), str(second)
