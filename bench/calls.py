"""Loads of plain generated stubs over signed channels: what any language's client would send."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from bench.bare import OWN_CONNECTION
from bench.failure import BenchError
from bench.installation import EXECUTOR_TYPE, Door
from bench.loads import Load, Timed, Window
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import process_pb2 as process
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec, Value
from colonies.signing import CHANNEL_OPTIONS, Signer, SigningChannel

if TYPE_CHECKING:
    from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceAsyncStub

# Work is there when an executor asks: if none comes within this, some was lost.
ASSIGN_WAIT_MS = 10_000
CALL_S = 20.0


def noop() -> FunctionSpec:
    """A small, ordinary spec: a function with two arguments."""
    return FunctionSpec(
        func_name="noop",
        args=[Value(data=b"2"), Value(data=b'"edge"')],
        conditions=Conditions(executor_type=EXECUTOR_TYPE),
    )


def signed_connection(door: Door, key_hex: str) -> SigningChannel:
    """A signed channel with a connection of its own, as separate programs would have."""
    options = [*CHANNEL_OPTIONS, OWN_CONNECTION]
    channel = grpc.aio.insecure_channel(door.address, options=options)
    return SigningChannel(channel, Signer(PrivateKey.from_hex(key_hex), door.cluster))


async def submit(stub: "SchedulerServiceAsyncStub", door: Door, specs: Sequence[FunctionSpec]) -> None:
    """Submits processes in one call.

    Raises:
        BenchError: not all of them were acknowledged.
    """
    request = scheduler.SubmitProcessesRequest(colony_name=door.colony, request_id=str(uuid.uuid4()), specs=specs)
    response = await stub.SubmitProcesses(request, timeout=CALL_S)
    if len(set(response.process_ids)) != len(specs):
        msg = f"{len(specs)} processes were submitted, and {len(set(response.process_ids))} were acknowledged"
        raise BenchError(msg)


async def assign_one(stub: "SchedulerServiceAsyncStub", door: Door) -> scheduler.Assignment:
    """Gets one process, of which there must be one.

    Raises:
        BenchError: none came.
    """
    asking = scheduler.AssignProcessesRequest(colony_name=door.colony, max_processes=1, wait_ms=ASSIGN_WAIT_MS)
    (assigned,) = (await stub.AssignProcesses(asking, timeout=CALL_S)).assignments or (None,)
    if assigned is None:
        msg = f"no process came within {ASSIGN_WAIT_MS / 1000:g} s, although there must be one"
        raise BenchError(msg)
    return assigned


async def close_one(stub: "SchedulerServiceAsyncStub", door: Door, assigned: scheduler.Assignment) -> None:
    """Closes an attempt as successful.

    Raises:
        BenchError: the process is not successful then.
    """
    ref = scheduler.AttemptRef(process_id=assigned.process_id, attempt=assigned.attempt)
    close = scheduler.Close(attempt=ref, success=scheduler.Close.Success(outputs=[Value(data=b"4")]))
    closing = scheduler.CloseProcessesRequest(colony_name=door.colony, closes=[close])
    states = (await stub.CloseProcesses(closing, timeout=CALL_S)).states
    if list(states) != [process.PROCESS_STATE_SUCCESSFUL]:
        msg = f"process {assigned.process_id} was closed as successful and is in the states {list(states)}"
        raise BenchError(msg)


@dataclass
class _Stubs:
    """A signed stub for each of some keys."""

    door: Door
    # Private keys as hex digits.
    keys: Sequence[str]
    _channels: list[SigningChannel] = field(default_factory=list, init=False)
    _stubs: "list[SchedulerServiceAsyncStub]" = field(default_factory=list, init=False)

    async def open(self) -> None:
        self._channels = [signed_connection(self.door, key) for key in self.keys]
        self._stubs = [SchedulerServiceStub(channel) for channel in self._channels]
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


@dataclass
class UnaryCycles(_Stubs, Load[Timed, Window]):
    """Executors that submit one process, get one (their own or another's) and close it, a call each, over and over."""

    async def run(self, job: Timed) -> Window:
        until = await job.until_begin()
        counts = await asyncio.gather(*(self._cycle(stub, until) for stub in self._stubs))
        return Window(job.begin_at, time.monotonic(), sum(counts))

    async def _cycle(self, stub: "SchedulerServiceAsyncStub", until: float) -> int:
        count = 0
        while time.monotonic() < until:
            await submit(stub, self.door, [noop()])
            # Every cycle has submitted before it asks, so there is one for everyone who asks.
            await close_one(stub, self.door, await assign_one(stub, self.door))
            count += 1
        return count


@dataclass
class Submits(_Stubs, Load[Timed, Window]):
    """Clients that submit batches of one size, each client one call after another; the count is of processes."""

    batch: int = 1

    async def run(self, job: Timed) -> Window:
        until = await job.until_begin()
        counts = await asyncio.gather(*(self._submit_on(stub, until) for stub in self._stubs))
        return Window(job.begin_at, time.monotonic(), sum(counts))

    async def _submit_on(self, stub: "SchedulerServiceAsyncStub", until: float) -> int:
        count = 0
        while time.monotonic() < until:
            await submit(stub, self.door, [noop() for _ in range(self.batch)])
            count += self.batch
        return count
