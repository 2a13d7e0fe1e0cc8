"""The registry, as the scheduler needs it: what executors may run, and where to say that they were heard from."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import structlog

from colonies.registry.v1 import registry_service_pb2 as pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from servicekit.changes import SYNCED, Change, Event
from servicekit.clock import Clock
from servicekit.members import TIMEOUT_S, audible, outage_of
from services.scheduler.domain.records import ExecutorProfile

log = structlog.get_logger()

# `last_heard_time` is told to the registry this often, for all executors at once.
REPORT_S = 2.0
MAX_REPORTED = 10_000


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
        if not response.HasField("executor"):
            return None
        executor = response.executor
        return ExecutorProfile(identity, executor.name, tuple(executor.executor_types), executor.location_name)

    async def changes(self) -> AsyncIterator[Event]:
        try:
            async for change in audible(self._registry.WatchExecutors(pb.WatchExecutorsRequest())):
                if change.synced:
                    yield SYNCED
                elif change.colony:
                    yield Change(change.colony, change.identity)
        except grpc.aio.AioRpcError as error:
            raise outage_of(error) from error


class HeardBuffer:
    """Gathers signs of life, and reports each executor's latest. What an outage swallows, the next sign replaces."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._registry = RegistryServiceStub(channel)
        self._clock = clock
        self._heard: dict[tuple[str, str], int] = {}

    def note(self, colony: str, identity: str) -> None:
        """Notes a sign of life, now."""
        self._heard[colony, identity] = self._clock.now_ns()

    async def run(self) -> None:
        """Reports until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            heard, self._heard = self._heard, {}
            items = list(heard.items())
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
