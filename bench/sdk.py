"""Loads of SDK objects: what a Python user writes."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from bench.calls import noop
from bench.failure import BenchError
from bench.installation import EXECUTOR_TYPE, Door
from bench.loads import Load
from colonies.client import AsyncClient
from colonies.executor import Executor
from colonies.keys import PrivateKey
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec

OPEN_STATES = ("waiting", "running")


async def _noop(*_arguments: object) -> None:
    """Does nothing."""


@dataclass
class SdkExecutors(Load[None, None]):
    """Executor objects in one process, running no-ops until it ends. A job makes sure that they all still run."""

    plain_loop: ClassVar[bool] = True

    door: Door
    # Name and private key (hex digits) of each.
    workers: Sequence[tuple[str, str]]
    concurrency: int
    _running: list[asyncio.Task[None]] = field(default_factory=list, init=False)

    async def open(self) -> None:
        for name, key in self.workers:
            executor = Executor(
                name,
                [EXECUTOR_TYPE],
                host=self.door.host,
                port=self.door.port,
                colony=self.door.colony,
                cluster=self.door.cluster,
                key=key,
                concurrency=self.concurrency,
                # Said, so that a scheduler without streams is an error and not another figure.
                pull="stream",
            )
            executor.function(name="noop")(_noop)
            self._running.append(asyncio.create_task(executor.arun()))

    async def run(self, job: None) -> None:  # noqa: ARG002 - there is but one thing to ask
        for task in self._running:
            if task.done():
                msg = f"an executor has ended: {task.exception()}"
                raise BenchError(msg)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


@dataclass
class SdkSubmits(Load[int, float]):
    """A client that submits so many functions at once and waits until all are over; the answer is in seconds."""

    plain_loop: ClassVar[bool] = True

    door: Door
    key: str
    _client: AsyncClient | None = field(default=None, init=False)

    async def open(self) -> None:
        self._client = self.door.client(PrivateKey.from_hex(self.key))

    async def run(self, job: int) -> float:
        assert self._client is not None, "opened"
        begin = time.monotonic()
        ids = await asyncio.gather(*(self._client.submit(noop()) for _ in range(job)))
        # The last in the queue is among the last to end; what is left after it, if anything, ends within moments.
        await self._client.wait(ids[-1])
        while [one async for one in self._client.list_processes(states=OPEN_STATES, limit=1)]:
            pass
        return time.monotonic() - begin

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


@dataclass
class Workflows(Load[bool, float]):
    """A client that submits one workflow and, if the job says so, waits until it has succeeded.

    The answer is in milliseconds; to check the counts takes part in neither.
    """

    plain_loop: ClassVar[bool] = True

    door: Door
    key: str
    # A serialised WorkflowSpec.
    spec: bytes
    _client: AsyncClient | None = field(default=None, init=False)
    _workflow: WorkflowSpec = field(default_factory=WorkflowSpec, init=False)

    async def open(self) -> None:
        self._workflow = WorkflowSpec.FromString(self.spec)
        self._client = self.door.client(PrivateKey.from_hex(self.key))
        await self._client.get_colony()

    async def run(self, job: bool) -> float:
        assert self._client is not None, "opened"
        begin = time.monotonic()
        answer = await self._client.submit_workflow(self._workflow)
        if job:
            await self._client.wait_workflow(answer.workflow_id)
        took = (time.monotonic() - begin) * 1000
        counts = (await self._client.get_workflow(answer.workflow_id)).counts
        found = counts.successful if job else counts.waiting
        if found != len(self._workflow.nodes):
            msg = f"of a workflow of {len(self._workflow.nodes)} processes, {found} are as they should be: {counts}"
            raise BenchError(msg)
        return took

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
