"""Concurrent submits, gathered so that many share one signature and one commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from colonies.errors import InvalidArgumentError, ResourceExhaustedError, RpcError
from colonies.scheduler.v1.spec_pb2 import FunctionSpec

MAX_SPECS = 500
# A batch may go over this by one spec, which is at most 4 MiB itself.
MAX_BYTES = 1 << 20

Waiting = tuple[FunctionSpec, asyncio.Future[str]]
Send = Callable[[Sequence[FunctionSpec]], Awaitable[Sequence[str]]]


class SubmitBatcher:
    """Sends specs that are submitted at the same time as one call. A spec on its own is not held back.

    One call is under way at a time: what comes meanwhile makes up the next batch, and the order of submits is kept.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[Waiting] = deque()
        self._flight: asyncio.Task[None] | None = None

    def put(self, spec: FunctionSpec) -> asyncio.Future[str]:
        """Takes a spec, which must not be changed until its process's id is there. Whoever stops waiting for the id does not
        stop the submit.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        self._waiting.append((spec, answer))
        if self._flight is None or self._flight.done():
            # The task starts after everyone who submits in this turn of the loop has been put in line.
            self._flight = loop.create_task(self._fly())
        return answer

    async def _fly(self) -> None:
        while batch := self._next_batch():
            await self._deliver(batch)

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_SPECS and size < MAX_BYTES:
            item = self._waiting.popleft()
            batch.append(item)
            size += item[0].ByteSize()
        return batch

    async def _deliver(self, batch: list[Waiting]) -> None:
        try:
            ids = await self._send([spec for spec, _ in batch])
        except RpcError as error:
            parts = _parts(batch, error)
            if not parts:
                _fail(batch, error)
                return
            await asyncio.sleep(error.retry_delay or 0.0)
            for part in parts:
                await self._deliver(part)
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, answer), process_id in zip(batch, ids, strict=True):
                if not answer.done():
                    answer.set_result(process_id)


def _parts(batch: list[Waiting], error: RpcError) -> list[list[Waiting]]:
    """What to send by itself of a batch that was refused; nothing, if the error is everybody's."""
    if len(batch) == 1:
        return []
    if isinstance(error, InvalidArgumentError):
        # A batch enters whole or not at all, and here are submits that have nothing to do with each other: one
        # bad spec must not fail its neighbours.
        return [[item] for item in batch]
    if isinstance(error, ResourceExhaustedError) and error.retry_delay is not None and not error.is_pace:
        # The queue has no room for all of them: less may fit, and one by itself is sent until it does.
        half = len(batch) // 2
        return [batch[:half], batch[half:]]
    return []


def _fail(batch: Sequence[Waiting], error: BaseException) -> None:
    for _, answer in batch:
        if answer.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            answer.cancel()
        else:
            answer.set_exception(error)
