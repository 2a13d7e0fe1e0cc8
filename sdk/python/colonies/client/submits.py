"""Concurrent submits, gathered so that many share one signature and one commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from colonies.errors import InvalidArgumentError
from colonies.scheduler.v1.spec_pb2 import FunctionSpec

MAX_SPECS = 500
# A batch may go over this by one spec, which is at most 4 MiB itself.
MAX_BYTES = 1 << 20

Send = Callable[[Sequence[FunctionSpec]], Awaitable[Sequence[str]]]


@dataclass(slots=True)
class _Waiting:
    spec: FunctionSpec
    answer: asyncio.Future[str]


class SubmitBatcher:
    """Sends specs that are submitted at the same time as one call. A spec on its own is not held back.

    One call is under way at a time: what comes meanwhile makes up the next batch, and the order of submits is kept.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[_Waiting] = deque()
        self._flight: asyncio.Task[None] | None = None

    async def submit(self, spec: FunctionSpec) -> str:
        """The new process's id. Whoever stops waiting for it does not stop the submit."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(spec, answer))
        if self._flight is None or self._flight.done():
            # The task starts after everyone who submits in this turn of the loop has been put in line.
            self._flight = asyncio.create_task(self._fly())
        return await answer

    async def _fly(self) -> None:
        while batch := self._next_batch():
            await self._deliver(batch)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_SPECS and size < MAX_BYTES:
            batch.append(self._waiting.popleft())
            size += batch[-1].spec.ByteSize()
        return batch

    async def _deliver(self, batch: list[_Waiting]) -> None:
        try:
            ids = await self._send([item.spec for item in batch])
        except InvalidArgumentError as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            # A batch enters whole or not at all, and here are submits that have nothing to do with each other: one
            # bad spec must not fail its neighbours.
            for item in batch:
                await self._deliver([item])
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
        else:
            for item, process_id in zip(batch, ids, strict=True):
                if not item.answer.done():
                    item.answer.set_result(process_id)


def _fail(batch: Sequence[_Waiting], error: BaseException) -> None:
    for item in batch:
        if item.answer.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            item.answer.cancel()
        else:
            item.answer.set_exception(error)
