"""Concurrent calls, gathered so that many share one signature and one commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import grpc

from colonies.errors import AlreadyExistsError, InvalidArgumentError, ResourceExhaustedError, RpcError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class CallBatcher(Generic[Item, Answer]):
    """Sends what is put in at the same time as one call. An item on its own is not held back.

    One call is under way at a time: what comes meanwhile makes up the next batch, and the order of items is kept.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        weigh: Callable[[Item], tuple[int, int]],
        *,
        max_count: int,
        max_bytes: int,
        divide_if_full: bool = False,
    ) -> None:
        """`send` makes the call and gives an answer for each item; it enters all of them or none.

        Args:
            send: the call.
            weigh: how many an item counts for, and its bytes.
            max_count: a batch counts for no more; an item that does has a call of its own.
            max_bytes: likewise.
            divide_if_full: what the server has no room for as a whole is sent in parts.
        """
        self._send = send
        self._weigh = weigh
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._divide_if_full = divide_if_full
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._flight: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Takes an item, which must not be changed until its answer is there. Whoever stops waiting for the answer does not
        stop the call.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, answer))
        if self._flight is None or self._flight.done():
            # The task starts after everyone who calls in this turn of the loop has been put in line.
            self._flight = loop.create_task(self._fly())
        return answer

    async def _fly(self) -> None:
        while batch := self._next_batch():
            await self._deliver(batch)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        count = size = 0
        while self._waiting:
            more, larger = self._weigh(self._waiting[0][0])
            count, size = count + more, size + larger
            if batch and (count > self._max_count or size > self._max_bytes):
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _deliver(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except RpcError as error:
            parts = self._parts(batch, error)
            if not parts:
                _fail([future for _, future in batch], error)
                return
            await asyncio.sleep(error.retry_delay or 0.0)
            for part in parts:
                await self._deliver(part)
        except BaseException as error:
            _fail([future for _, future in batch], error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def _parts(
        self, batch: list[tuple[Item, asyncio.Future[Answer]]], error: RpcError
    ) -> list[list[tuple[Item, asyncio.Future[Answer]]]]:
        """What to send by itself of a batch that was refused; nothing, if the error is everybody's."""
        if len(batch) == 1:
            return []
        if isinstance(error, InvalidArgumentError | AlreadyExistsError) or error.code is grpc.StatusCode.UNIMPLEMENTED:
            # A batch enters whole or not at all, and here are items that have nothing to do with each other: one
            # bad one must not fail its neighbours. Or the server is older than this client.
            return [[item] for item in batch]
        is_full = isinstance(error, ResourceExhaustedError) and error.retry_delay is not None and not error.is_pace
        if self._divide_if_full and is_full:
            # The server has no room for all of them: less may fit, and one by itself is sent until it does.
            half = len(batch) // 2
            return [batch[:half], batch[half:]]
        return []


def _fail(futures: Sequence[asyncio.Future[Answer]], error: BaseException) -> None:
    for future in futures:
        if future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
