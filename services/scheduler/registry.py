"""The registry, as the scheduler needs it: what executors may run, and where to say that they were heard from."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import grpc
import structlog

from colonies.registry.v1 import registry_service_pb2 as pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from servicekit.changes import SYNCED, Change, Event
from servicekit.clock import Clock, datetime_of
from servicekit.members import TIMEOUT_S, audible, outage_of
from services.scheduler.domain.explaining import Registered
from services.scheduler.domain.matching import (
    EQUALS,
    EXISTS,
    IN,
    GpuKind,
    Offer,
    Requirement,
    bytes_of,
    cpu_of,
    kinds,
    requirements,
)
from services.scheduler.domain.records import ExecutorProfile

log = structlog.get_logger()

# `last_heard_time` is told to the registry this often, for all executors at once.
REPORT_S = 2.0
MAX_REPORTED = 10_000
# A colony's list of executors is good for this long.
LISTED_NS = 1_000_000_000
LIST_PAGE = 1_000
OPERATORS = {pb.LABEL_OPERATOR_EQUALS: EQUALS, pb.LABEL_OPERATOR_IN: IN, pb.LABEL_OPERATOR_EXISTS: EXISTS}


def offer_of(executor: pb.Executor) -> Offer:
    """What an executor offers. A quantity that is none counts as not offered, accelerators with such a one too."""
    offered = executor.capabilities
    return Offer(
        cpu=_offered(cpu_of, offered.cpu),
        memory=_offered(bytes_of, offered.memory),
        storage=_offered(bytes_of, offered.storage),
        nodes=max(0, offered.nodes),
        processes=max(0, offered.processes),
        gpus=kinds(GpuKind(gpu.count, memory, gpu.name) for gpu in offered.gpus for memory in _memory_of(gpu)),
        labels=dict(offered.labels),
        accepts=_accepted(offered.accepts),
        location=executor.location_name,
    )


def profile_of(executor: pb.Executor) -> ExecutorProfile:
    """What an approved executor may run."""
    return ExecutorProfile(
        identity=executor.identity,
        name=executor.name,
        executor_types=tuple(executor.executor_types),
        location=executor.location_name,
        offer=offer_of(executor).text,
    )


def _offered(read: Callable[[str], int], quantity: str) -> int:
    try:
        return read(quantity)
    except ValueError:
        log.info("a quantity that an executor offers is none", quantity=quantity)
        return 0


def _memory_of(gpu: pb.GpuOffer) -> tuple[int, ...]:
    """The memory of each of these accelerators; nothing where it is no quantity."""
    try:
        return (bytes_of(gpu.memory),)
    except ValueError:
        log.info("a quantity that an executor offers is none", quantity=gpu.memory)
        return ()


def _accepted(accepts: Sequence[pb.LabelRequirement]) -> tuple[Requirement, ...]:
    # What an operator of a later version means isn't known here: nothing meets it.
    return requirements(
        (one.key, OPERATORS[one.operator], one.values) if one.operator in OPERATORS else (one.key, IN, ()) for one in accepts
    )


class RemoteExecutors:
    """The registry's executors, as the source of a Directory."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._registry = RegistryServiceStub(channel)

    async def fetch(self, colony: str, identity: str) -> ExecutorProfile | None:
        request = pb.ResolveExecutorRequest(colony=colony, identity=identity)
        try:
            response = await self._registry.ResolveExecutor(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise outage_of(error) from error
        return profile_of(response.executor) if response.HasField("executor") else None

    async def changes(self) -> AsyncIterator[Event]:
        try:
            async for change in audible(self._registry.WatchExecutors(pb.WatchExecutorsRequest())):
                if change.synced:
                    yield SYNCED
                elif change.colony:
                    yield Change(change.colony, change.identity)
        except grpc.aio.AioRpcError as error:
            raise outage_of(error) from error


@dataclass(slots=True)
class _Listing:
    """A colony's executors, asked for at a moment: all who ask meanwhile share the answer."""

    asked_ns: int
    answer: "asyncio.Task[list[Registered]]"


class Roster:
    """All approved executors of a colony, at most a second old."""

    def __init__(self, channel: grpc.aio.Channel, heard: "HeardBuffer", clock: Clock) -> None:
        self._registry = RegistryServiceStub(channel)
        self._heard = heard
        self._clock = clock
        self._listings: dict[str, _Listing] = {}

    async def executors(self, colony: str) -> Sequence[Registered]:
        """The colony's approved executors, by name.

        Raises:
            Unavailable: the registry is out of reach.
        """
        listing = self._listings.get(colony)
        if listing is None or not self._is_good(listing):
            self._listings = {name: one for name, one in self._listings.items() if self._is_good(one)}
            listing = _Listing(self._clock.now_ns(), asyncio.create_task(self._list(colony)))
            self._listings[colony] = listing
        # One who goes away must not take the answer from the others.
        listed = await asyncio.shield(listing.answer)
        return [Registered(one.profile, self._heard.latest(colony, one.profile.identity, one.heard_at)) for one in listed]

    def _is_good(self, listing: _Listing) -> bool:
        failed = listing.answer.done() and (listing.answer.cancelled() or listing.answer.exception() is not None)
        return not failed and 0 <= self._clock.now_ns() - listing.asked_ns < LISTED_NS

    async def _list(self, colony: str) -> list[Registered]:
        request = pb.ListExecutorsRequest(colony_name=colony, states=[pb.EXECUTOR_STATE_APPROVED], page_size=LIST_PAGE)
        found: list[Registered] = []
        try:
            while True:
                page = await self._registry.ListExecutors(request, timeout=TIMEOUT_S)
                found += [Registered(profile_of(one), _heard_at(one)) for one in page.executors]
                if not page.next_cursor:
                    return found
                request.cursor = page.next_cursor
        except grpc.aio.AioRpcError as error:
            raise outage_of(error) from error


def _heard_at(executor: pb.Executor) -> datetime | None:
    return datetime_of(executor.last_heard_time.ToNanoseconds()) if executor.HasField("last_heard_time") else None


class HeardBuffer:
    """Gathers signs of life, and reports each executor's latest. What an outage swallows, the next sign replaces."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._registry = RegistryServiceStub(channel)
        self._clock = clock
        self._heard: dict[tuple[str, str], int] = {}
        # On their way to the registry.
        self._reporting: Mapping[tuple[str, str], int] = {}

    def note(self, colony: str, identity: str) -> None:
        """Notes a sign of life, now."""
        self._heard[colony, identity] = self._clock.now_ns()

    def latest(self, colony: str, identity: str, reported: datetime | None) -> datetime | None:
        """When an executor was last heard from, given what the registry says: here it may have been heard since."""
        key = (colony, identity)
        here_ns = self._heard.get(key) or self._reporting.get(key)
        if here_ns is None:
            return reported
        here = datetime_of(here_ns)
        return here if reported is None else max(here, reported)

    async def run(self) -> None:
        """Reports until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            self._reporting, self._heard = self._heard, {}
            items = list(self._reporting.items())
            for start in range(0, len(items), MAX_REPORTED):
                request = pb.ReportHeardRequest()
                for (colony, identity), at_ns in items[start : start + MAX_REPORTED]:
                    one = request.heard.add(colony=colony, identity=identity)
                    one.time.FromNanoseconds(at_ns)
                try:
                    await self._registry.ReportHeard(request, timeout=TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    log.info("signs of life not reported", error=outage_of(error).message)
                    break
