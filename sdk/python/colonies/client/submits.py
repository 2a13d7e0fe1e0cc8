"""Concurrent submits, gathered so that many share one signature and one commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import grpc
from google.protobuf.message import Message

from colonies.errors import AlreadyExistsError, InvalidArgumentError, ResourceExhaustedError, RpcError

MAX_ITEMS = 500
# A batch may go over this by one item.
MAX_BYTES = 1 << 20

Item = TypeVar("Item", bound=Message)
Answer = TypeVar("Answer")


class SubmitBatcher(Generic[Item, Answer]):
    """Sends what is submitted at the same time as one call. An item on its own is not held back.

    One call is under way at a time: what comes meanwhile makes up the next batch, and the order of submits is kept.
    """

    def __init__(self, send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]]) -> None:
        self._send = send
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._flight: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Takes an item, which must not be changed until its answer is there. Whoever stops waiting for that does not stop the
        submit.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, answer))
        if self._flight is None or self._flight.done():
            # The task starts after everyone who submits in this turn of the loop has been put in line.
            self._flight = loop.create_task(self._fly())
        return answer

    async def _fly(self) -> None:
        while batch := self._next_batch():
            await self._deliver(batch)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        size = 0
        while self._waiting and len(batch) < MAX_ITEMS and size < MAX_BYTES:
            waiting = self._waiting.popleft()
            batch.append(waiting)
            size += waiting[0].ByteSize()
        return batch

    async def _deliver(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
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
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _parts(
    batch: list[tuple[Item, asyncio.Future[Answer]]], error: RpcError
) -> list[list[tuple[Item, asyncio.Future[Answer]]]]:
    """What to send by itself of a batch that was refused; nothing, if the error is everybody's."""
    if len(batch) == 1:
        return []
    if isinstance(error, InvalidArgumentError | AlreadyExistsError) or error.code is grpc.StatusCode.UNIMPLEMENTED:
        # A batch enters whole or not at all, and here are submits that have nothing to do with each other: one
        # that is bad must not fail its neighbours. Or the server is older than this client.
        return [[waiting] for waiting in batch]
    if isinstance(error, ResourceExhaustedError) and error.retry_delay is not None and not error.is_pace:
        # The queue has no room for all of them: less may fit, and one by itself is sent until it does.
        half = len(batch) // 2
        return [batch[:half], batch[half:]]
    return []


def _fail(batch: Sequence[tuple[Item, asyncio.Future[Answer]]], error: BaseException) -> None:
    for _, answer in batch:
        if answer.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            answer.cancel()
        else:
            answer.set_exception(error)
