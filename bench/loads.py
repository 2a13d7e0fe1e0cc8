"""Load generators in processes of their own: the benchmark's interpreter must not be what is measured.

A load is made here, sent to its process, opened there, given jobs one after another, and closed.
"""

import asyncio
import multiprocessing
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, ClassVar, Generic, TypeVar

import grpc
import uvloop

from bench.failure import BenchError

ANSWER_S = 120.0
# All processes have heard of a timed job by then, and begin together.
LEAD_S = 0.05

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Load(ABC, Generic[Job, Answer]):
    """What a load process does. Until `open` it is data that travels to the process.

    A load runs on uvloop, as the services do, to leave them as much of the machine as it can; `plain_loop` is for loads
    that are programs as users write them.
    """

    plain_loop: ClassVar[bool] = False

    async def open(self) -> None:
        """Connects. By default there is nothing to connect."""

    @abstractmethod
    async def run(self, job: Job) -> Answer:
        """Does one job."""

    async def close(self) -> None:
        """Disconnects."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Go on for `seconds` from the moment `begin_at` of the machine's monotonic clock, which all processes share."""

    begin_at: float
    seconds: float

    @classmethod
    def soon(cls, seconds: float) -> "Timed":
        """Beginning in a moment."""
        return cls(time.monotonic() + LEAD_S, seconds)

    async def until_begin(self) -> float:
        """Waits for the beginning; returns the moment of the end."""
        await asyncio.sleep(self.begin_at - time.monotonic())
        return self.begin_at + self.seconds


@dataclass(frozen=True, slots=True)
class Window:
    """What was done between two moments of the monotonic clock: `end` is when the last of it was done."""

    begin: float
    end: float
    count: int


def rate(windows: Sequence[Window]) -> float:
    """Per second, of windows that began together."""
    seconds = max(window.end for window in windows) - min(window.begin for window in windows)
    return sum(window.count for window in windows) / seconds


@dataclass(frozen=True, slots=True)
class _Failed:
    reason: str


class LoadProcess(Generic[Job, Answer]):
    """A load in its process."""

    def __init__(self, load: Load[Job, Answer]) -> None:
        self._what = type(load).__name__
        # Not forked: gRPC does not survive that.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load), name=f"bench {self._what}")
        self._process.start()
        theirs.close()

    def tell(self, job: Job) -> None:
        """Gives it a job; `answer` must be asked for before the next."""
        self._pipe.send(job)

    def answer(self) -> Answer:
        """What came of the job.

        Raises:
            BenchError: the load failed, or is silent.
        """
        return self._receive()  # type: ignore[no-any-return]

    def opened(self) -> None:
        """Returns when the load is open.

        Raises:
            BenchError: as `answer`.
        """
        self._receive()

    def run(self, job: Job) -> Answer:
        """`tell` and `answer`."""
        self.tell(job)
        return self.answer()

    def close(self) -> None:
        """Ends the process: it sees its pipe close."""
        self._pipe.close()
        self._process.join(10.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            if not self._pipe.poll(ANSWER_S):
                msg = f"the load {self._what} has said nothing for {ANSWER_S:g} s"
                raise BenchError(msg)
            answer = self._pipe.recv()
        except EOFError:
            msg = f"the load {self._what} has died"
            raise BenchError(msg) from None
        if isinstance(answer, _Failed):
            msg = f"the load {self._what} failed: {answer.reason}"
            raise BenchError(msg)
        return answer


@contextmanager
def running(loads: Sequence[Load[Job, Answer]]) -> Iterator[list[LoadProcess[Job, Answer]]]:
    """Processes for these loads, all open; ended at the end."""
    with ExitStack() as stack:
        processes = []
        for load in loads:
            process = LoadProcess(load)
            stack.callback(process.close)
            processes.append(process)
        for process in processes:
            process.opened()
        yield processes


def timed(processes: Sequence[LoadProcess[Timed, Window]], seconds: float) -> list[Window]:
    """One repetition: what all processes did in so many seconds."""
    job = Timed.soon(seconds)
    for process in processes:
        process.tell(job)
    return [process.answer() for process in processes]


def _serve(pipe: Connection, load: Load[Any, Any]) -> None:
    # Ctrl-C goes to the whole process group; the parent hears it and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (asyncio.run if load.plain_loop else uvloop.run)(_work(pipe, load))


async def _work(pipe: Connection, load: Load[Any, Any]) -> None:
    loop = asyncio.get_running_loop()
    try:
        await load.open()
        pipe.send(None)
        while True:
            pipe.send(await load.run(await loop.run_in_executor(None, pipe.recv)))
    except (EOFError, BrokenPipeError):
        return
    except grpc.aio.AioRpcError as error:
        pipe.send(_Failed(f"{error.code().name}: {error.details()}"))
    except Exception as error:  # noqa: BLE001 - the parent is told, whatever it is
        pipe.send(_Failed(f"{type(error).__name__}: {error}"))
    finally:
        await load.close()
