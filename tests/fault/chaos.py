"""Faults by plan: every two seconds one part is killed, paused or cut off. The plan follows from its seed alone."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import redis.asyncio

from tests.acceptance.world import until
from tests.fault.proxy import Mode
from tests.fault.rig import EXECUTORS, REPLICAS, Rig, send

PERIOD_S = 2.0
PAUSE_S = 5.0
CUT_S = (1.0, 5.0)
RECOVERY_S = 60.0
SERVERS = ("postgres", "valkey")


class Kind(StrEnum):
    """What is done to a part."""

    KILL = "kill"
    PAUSE = "pause"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `at` and `seconds` count from the start of the plan; `way` is which of the part's ways is cut."""

    at: float
    part: str
    kind: Kind
    mode: Mode = Mode.PASS
    seconds: float = 0.0
    way: int = 0

    def __str__(self) -> str:
        what = f"{self.kind} {self.mode}" if self.kind is Kind.CUT else str(self.kind)
        return f"{self.at:5.1f} s  {self.part}: {what} {self.seconds:.1f} s"


def plan(seed: int, seconds: float) -> list[Fault]:
    """The faults of so many seconds."""
    rng = random.Random(seed)
    return [_fault(rng, number * PERIOD_S) for number in range(1, int(seconds / PERIOD_S))]


def _fault(rng: random.Random, at: float) -> Fault:
    part = rng.choice((*REPLICAS, *SERVERS, "executor"))
    if part == "executor":
        part = rng.choice(tuple(EXECUTORS))
    kind = rng.choice(tuple(Kind))
    if kind is Kind.KILL:
        return Fault(at, part, kind)
    if kind is Kind.PAUSE:
        return Fault(at, part, kind, seconds=PAUSE_S)
    mode = rng.choice((Mode.REFUSE, Mode.HANG, Mode.RESET))
    return Fault(at, part, kind, mode, rng.uniform(*CUT_S), rng.randrange(2))


@dataclass(slots=True)
class Outage:
    """When a part that the queue rests on was away, unix seconds."""

    begin: float
    end: float
    # The queue was lost, and is filled again after it.
    emptied: bool = False


@dataclass(slots=True)
class Chaos:
    """Follows a plan on a rig."""

    rig: Rig
    outages: list[Outage] = field(default_factory=list)
    # When Postgres was killed.
    crashes: list[float] = field(default_factory=list)
    done: int = 0
    passed_over: int = 0
    _busy: set[str] = field(default_factory=set)
    _faults: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, faults: list[Fault], flushes: int) -> None:
        """Returns when all faults are over and every part answers."""
        begun = asyncio.get_running_loop().time()
        every = max(1, len(faults) // (flushes + 1))
        for number, fault in enumerate(faults, 1):
            await asyncio.sleep(max(0.0, begun + fault.at - asyncio.get_running_loop().time()))
            self._begin(fault)
            if number % every == 0 and flushes:
                flushes -= 1
                self._faults.add(asyncio.create_task(self._flush()))
        await asyncio.gather(*self._faults)

    def _begin(self, fault: Fault) -> None:
        # A part that is down already is left to come back: which ones that are depends on how fast the machine is.
        if fault.part in self._busy:
            self.passed_over += 1
            return
        self.done += 1
        self._busy.add(fault.part)
        task = asyncio.create_task(self._strike(fault))
        self._faults.add(task)

    async def _strike(self, fault: Fault) -> None:
        begin = time.time()
        if fault.kind is Kind.CUT:
            await self._cut(fault)
        elif fault.kind is Kind.PAUSE:
            await self._pause(fault)
        else:
            for pid in self._pids(fault.part)[:1]:
                send(pid, signal.SIGKILL)
            if fault.part == "postgres":
                self.crashes.append(begin)
        await until(self._answers(fault.part), f"{fault.part} answers again after {fault.kind}", seconds=RECOVERY_S)
        if fault.part not in EXECUTORS:
            emptied = fault.part == "valkey" and fault.kind is Kind.KILL
            self.outages.append(Outage(begin, time.time(), emptied))
        self._busy.discard(fault.part)

    async def _cut(self, fault: Fault) -> None:
        ways = list(_ways(fault))
        for way in ways:
            await self.rig.ways[way].turn(fault.mode)
        await asyncio.sleep(fault.seconds)
        for way in ways:
            await self.rig.ways[way].turn(Mode.PASS)

    async def _pause(self, fault: Fault) -> None:
        pids = self._pids(fault.part)
        for pid in pids:
            send(pid, signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        for pid in pids:
            send(pid, signal.SIGCONT)

    def _pids(self, part: str) -> list[int]:
        if part in EXECUTORS:
            return [self.rig.executors[part].pid]
        if part in REPLICAS:
            return [self.rig.pid_of(REPLICAS[part])]
        return self.rig.family(part)

    def _answers(self, part: str) -> Callable[[], Awaitable[bool]]:
        async def answers() -> bool:
            if part in EXECUTORS:
                return self.rig.executors[part].pid != 0
            if part in REPLICAS:
                return await asyncio.to_thread(self.rig.well, REPLICAS[part])
            return await asyncio.to_thread(self.rig.keepers[part].child.healthy)

        return answers

    async def _flush(self) -> None:
        """FLUSHALL, as soon as valkey takes it."""
        begin = time.time()

        async def flushed() -> bool:
            try:
                async with redis.asyncio.Redis.from_url(self.rig.valkey.url(), socket_timeout=1.0) as client:
                    return bool(await client.flushall())
            except redis.RedisError:
                return False

        await until(flushed, "valkey is flushed", seconds=RECOVERY_S)
        self.outages.append(Outage(begin, time.time(), emptied=True))


def _ways(fault: Fault) -> Iterator[str]:
    if fault.part in EXECUTORS:
        yield fault.part
    elif fault.part in REPLICAS:
        yield f"{fault.part}-{SERVERS[fault.way]}"
    else:
        for replica in REPLICAS:
            yield f"{replica}-{fault.part}"
