"""The load of assign_depth and assign_named: one process a call, of two colonies in turns."""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from bench.calls import assign_one, close_one, noop, signed_connection, submit
from bench.installation import Door
from bench.loads import Load
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.scheduler.v1.spec_pb2 import FunctionSpec

if TYPE_CHECKING:
    from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceAsyncStub

# Milliseconds of each assignment, of the first side and of the second.
Took: TypeAlias = tuple[list[float], list[float]]


@dataclass(frozen=True, slots=True)
class Side:
    """An executor of a colony in which much, or little, waits."""

    door: Door
    # Its private key as hex digits.
    key: str
    # The executors that its work names; empty for work that names nobody.
    names: Sequence[str] = ()

    def spec(self) -> FunctionSpec:
        """What is submitted for what was assigned, so that equally many wait."""
        spec = noop()
        spec.conditions.executor_names.extend(self.names)
        return spec


@dataclass
class Assigns(Load[int, Took]):
    """Assigns so many of each side, in turns, so that noise hits both alike. Only the assignment is timed."""

    few: Side
    many: Side
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)
    _stubs: "list[tuple[Side, SchedulerServiceAsyncStub]]" = field(default_factory=list, init=False)

    async def open(self) -> None:
        for side in (self.few, self.many):
            channel = signed_connection(side.door, side.key)
            self._stack.push_async_callback(channel.close)
            await channel.channel_ready()
            self._stubs.append((side, SchedulerServiceStub(channel)))

    async def run(self, job: int) -> Took:
        took: Took = ([], [])
        for _ in range(job):
            for (side, stub), mine in zip(self._stubs, took, strict=True):
                mine.append(await self._one(side, stub))
        return took

    async def close(self) -> None:
        await self._stack.aclose()

    @staticmethod
    async def _one(side: Side, stub: "SchedulerServiceAsyncStub") -> float:
        begin = time.monotonic()
        assigned = await assign_one(stub, side.door)
        took = (time.monotonic() - begin) * 1000
        await close_one(stub, side.door, assigned)
        await submit(stub, side.door, [side.spec()])
        return took
