"""Loads for one submit at a time on an idle system: how long until an executor that waits has it."""

import asyncio
import random
import time
from dataclasses import dataclass, field

from bench.calls import CALL_S, noop, signed_connection
from bench.failure import BenchError
from bench.installation import Door
from bench.loads import Load
from colonies.client import AsyncClient
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.signing import SigningChannel

# Between two submits. Part of the load: long enough for the executor to be idle again, and of no fixed
# length, so that it does not fall into step with anything.
PAUSE_S = (0.020, 0.040)


@dataclass
class IdleExecutor(Load[int, dict[str, float]]):
    """An executor with an open stream. A job waits for so many processes and answers with the moment each arrived at."""

    door: Door
    key: str
    _channel: SigningChannel | None = field(default=None, init=False)
    _arrived: dict[str, float] = field(default_factory=dict, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _pulling: asyncio.Task[None] | None = field(default=None, init=False)

    async def open(self) -> None:
        self._channel = signed_connection(self.door, self.key)
        await self._channel.channel_ready()
        self._pulling = asyncio.create_task(self._pull(self._channel))

    async def run(self, job: int) -> dict[str, float]:
        assert self._pulling is not None, "opened"
        while len(self._arrived) < job:
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait((news, self._pulling), timeout=CALL_S, return_when=asyncio.FIRST_COMPLETED)
            if self._pulling.done():
                self._pulling.result()
            if not news.done():
                msg = f"{len(self._arrived)} of {job} processes arrived"
                raise BenchError(msg)
        arrived, self._arrived = self._arrived, {}
        return arrived

    async def close(self) -> None:
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.gather(self._pulling, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    async def _pull(self, channel: SigningChannel) -> None:
        stub = SchedulerServiceStub(channel)
        colony = self.door.colony
        asking = scheduler.WatchAssignmentsRequest(colony_name=colony, max_in_flight=1)
        async for response in stub.WatchAssignments(asking):
            at = time.monotonic()
            for assigned in response.assignments:
                ref = scheduler.AttemptRef(process_id=assigned.process_id, attempt=assigned.attempt)
                close = scheduler.Close(attempt=ref, success=scheduler.Close.Success())
                closing = scheduler.CloseProcessesRequest(colony_name=colony, closes=[close])
                await stub.CloseProcesses(closing, timeout=CALL_S)
                # Only when it is closed: what has arrived here is over in the server too.
                self._arrived[assigned.process_id] = at
                self._news.set()


@dataclass
class IdleSubmits(Load[int, dict[str, float]]):
    """A client that submits so many processes with pauses; the answer is the moment that each submit began at."""

    door: Door
    key: str
    _client: AsyncClient | None = field(default=None, init=False)

    async def open(self) -> None:
        self._client = self.door.client(PrivateKey.from_hex(self.key))

    async def run(self, job: int) -> dict[str, float]:
        assert self._client is not None, "opened"
        begun: dict[str, float] = {}
        for _ in range(job):
            await asyncio.sleep(random.uniform(*PAUSE_S))
            begin = time.monotonic()
            begun[await self._client.submit(noop())] = begin
        return begun

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
