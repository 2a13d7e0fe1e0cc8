"""Generators: how long a pack takes, how many go in a second, and how long it takes from a pack to the workflow."""

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from bench.calls import CALL_S, noop, signed_connection
from bench.failure import BenchError
from bench.figures import percentile
from bench.idle import PAUSE_S
from bench.installation import Colony, Door
from bench.loads import Load, Timed, Window, running
from bench.run import Run, Samples, rates
from colonies.cron.v1 import generator_service_pb2 as pb
from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceStub
from colonies.scheduler.v1.spec_pb2 import FunctionSpec, Value, WorkflowSpec
from colonies.signing import SigningChannel

if TYPE_CHECKING:
    from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceAsyncStub

# Never full: what is packed only waits.
GATHERS = "gathers"
MOST = 900
CHANNELS = 16
# Full with each argument.
SUBMITS = "submits"
SUBMITTED_S = 30.0
LOOK_S = 0.02
PAGE = 1_000


def packs(run: Run) -> Samples:
    """Packs of one argument: one after another with pauses, as fast as one channel can, and sixteen."""
    colony = run.stack.colony("packs")
    # Paused, it gathers however much comes.
    asyncio.run(_add(colony, GATHERS, MOST, paused=True))
    single: list[Load[int, list[float]]] = [IdlePacks(colony.door, colony.user.hex)]
    took: list[list[float]] = []
    count = run.effort.idle_submits
    with running(single) as (packer,):
        packer.run(count)
        with run.measuring(run.stack):
            took = [packer.run(count) for _ in range(run.effort.repetitions)]
    one, done_by_one = rates(run, [Packs(colony.door, colony.user.hex, 1)])
    many, done_by_many = rates(run, [Packs(colony.door, colony.user.hex, CHANNELS // 2) for _ in range(2)])
    expected = count * (run.effort.repetitions + 1) + done_by_one + done_by_many
    waiting = asyncio.run(_waiting(colony))
    if waiting != expected:
        msg = f"{expected} arguments were packed, and {waiting} wait"
        raise BenchError(msg)
    return {
        "pack_p50": [median(times) for times in took],
        "pack_p99": [percentile(times, 99) for times in took],
        "packs_1": one,
        "packs_16": many,
    }


def filling(run: Run) -> Samples:
    """From the begin of a pack that makes a batch full until the scheduler has acknowledged its workflow."""
    colony = run.stack.colony("filling")
    asyncio.run(_add(colony, SUBMITS, 1, paused=False))
    loads: list[Load[int, list[float]]] = [FillingPacks(colony.door, colony.user.hex)]
    count = run.effort.idle_submits
    with running(loads) as (packer,):
        packer.run(count)
        with run.measuring(run.stack):
            repetitions = [packer.run(count) for _ in range(run.effort.repetitions)]
    return {"pack_to_workflow": [median(times) for times in repetitions]}


@dataclass
class _Packer:
    door: Door
    key: str
    channels: int = 1
    _channels: list[SigningChannel] = field(default_factory=list, init=False)
    _stubs: "list[GeneratorServiceAsyncStub]" = field(default_factory=list, init=False)

    async def open(self) -> None:
        self._channels = [signed_connection(self.door, self.key) for _ in range(self.channels)]
        self._stubs = [GeneratorServiceStub(channel) for channel in self._channels]
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def _pack(self, stub: "GeneratorServiceAsyncStub", generator: str) -> int:
        request = pb.PackRequest(colony_name=self.door.colony, name=generator, request_id=str(uuid.uuid4()))
        request.arguments.add(value=Value(data=b"42"))
        return (await stub.Pack(request, timeout=CALL_S)).first_sequence


@dataclass
class Packs(_Packer, Load[Timed, Window]):
    """Channels on each of which one pack follows another."""

    async def run(self, job: Timed) -> Window:
        until = await job.until_begin()
        counts = await asyncio.gather(*(self._pack_on(stub, until) for stub in self._stubs))
        return Window(job.begin_at, time.monotonic(), sum(counts))

    async def _pack_on(self, stub: "GeneratorServiceAsyncStub", until: float) -> int:
        count = 0
        while time.monotonic() < until:
            await self._pack(stub, GATHERS)
            count += 1
        return count


@dataclass
class IdlePacks(_Packer, Load[int, list[float]]):
    """So many packs with pauses; the answer has the milliseconds of each."""

    async def run(self, job: int) -> list[float]:
        took = []
        for _ in range(job):
            await asyncio.sleep(random.uniform(*PAUSE_S))
            begin = time.perf_counter()
            await self._pack(self._stubs[0], GATHERS)
            took.append((time.perf_counter() - begin) * 1000)
        return took


@dataclass
class FillingPacks(_Packer, Load[int, list[float]]):
    """So many packs that each make a batch, with pauses; the answer has the milliseconds until each was submitted."""

    async def run(self, job: int) -> list[float]:
        begun: dict[int, float] = {}
        for _ in range(job):
            await asyncio.sleep(random.uniform(*PAUSE_S))
            # The clock of the service, which is on this machine: its times have whole milliseconds.
            begin = time.time()
            begun[await self._pack(self._stubs[0], SUBMITS)] = begin
        submitted = await self._submitted(begun)
        return [(submitted[sequence] - begin) * 1000 for sequence, begin in begun.items()]

    async def _submitted(self, wanted: dict[int, float]) -> dict[int, float]:
        until = time.monotonic() + SUBMITTED_S
        asked = pb.ListBatchesRequest(colony_name=self.door.colony, name=SUBMITS, page_size=min(PAGE, len(wanted)))
        while True:
            batches: Sequence[pb.Batch] = (await self._stubs[0].ListBatches(asked, timeout=CALL_S)).batches
            found = {
                batch.first_sequence: batch.submitted_time.ToNanoseconds() / 1e9
                for batch in batches
                if batch.HasField("submitted_time")
            }
            if found.keys() == wanted.keys():
                return found
            if time.monotonic() > until:
                msg = f"{len(found)} of {len(wanted)} batches were submitted"
                raise BenchError(msg)
            await asyncio.sleep(LOOK_S)


async def _add(colony: Colony, name: str, most: int, *, paused: bool) -> None:
    async with colony.door.client(colony.user) as client:
        adding = pb.AddGeneratorRequest(
            colony_name=colony.door.colony,
            name=name,
            trigger=pb.Trigger(max_count=most),
            workflow=WorkflowSpec(nodes=[_node()]),
        )
        await client.generator.AddGenerator(adding, timeout=CALL_S)
        if paused:
            await client.pause_generator(name)


def _node() -> FunctionSpec:
    node = noop()
    node.node_name = "root"
    return node


async def _waiting(colony: Colony) -> int:
    async with colony.door.client(colony.user) as client:
        return (await client.get_generator(GATHERS)).waiting
