"""The channels of a running attempt: a function sends and receives, in a thread or in a coroutine."""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from colonies.client import AsyncClient
from colonies.client.channels import Channel, data, end, failure
from colonies.errors import RpcError
from colonies.scheduler.v1.channel_pb2 import NewMessage
from colonies.scheduler.v1.scheduler_service_pb2 import AttemptRef

log = logging.getLogger("colonies.executor")

_END = object()


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a function, on its way out."""

    channel: "ContextChannel"
    message: NewMessage


class ContextChannel:
    """A channel of the process that a function runs for.

        for value in ctx.channel("chat"):        # in a function; `async for` in an async one
            ctx.channel("chat").send(value * 2)

    Iterating gives what the submitter says, as Python values, up to its end marker; iterating again goes on from there.
    Each attempt hears all of it from the beginning. What is sent goes out in order, and before the process is closed.
    """

    def __init__(self, name: str, report: Callable[[Said], None], readings: "Readings | None" = None) -> None:
        """`Context.channel` makes channels. Without `readings` there is nothing to receive."""
        self.name = name
        self.refusal: RpcError | None = None
        self._report = report
        self._readings = readings

    def send(self, *items: Any) -> None:
        """Sends values, each at most 1 MiB, soon. Works in any thread, and returns at once.

        Raises:
            ValueEncodingError: a value cannot be sent; none is.
            RpcError: what was sent before was refused, such as with CHANNEL_FULL or CHANNEL_ENDED.
        """
        self._say(*[data(item) for item in items])

    def end(self) -> None:
        """Says that this attempt has said all. Errors as for `send`."""
        self._say(end())

    def fail(self, text: str) -> None:
        """Says that something went wrong, and that nothing more will come from this attempt. Errors as for `send`."""
        self._say(failure(text))

    def _say(self, *messages: NewMessage) -> None:
        if self.refusal is not None:
            raise self.refusal
        for message in messages:
            self._report(Said(self, message))

    def __iter__(self) -> Iterator[Any]:
        """Blocks between the values. Ends early when the attempt is over.

        Raises:
            RuntimeError: it is used in a coroutine of the executor, which it would block.
            ChannelError: the submitter said that something went wrong.
        """
        if self._readings is None:
            return iter(())
        return self._readings.blocking(self.name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return _nothing() if self._readings is None else self._readings.asynchronous(self.name)


async def _nothing() -> AsyncGenerator[Any]:
    return
    yield


class Readings:
    """What functions read from the channels of one attempt: in the executor's event loop, for whichever thread asks."""

    def __init__(self, channels: Callable[[str], Channel], loop: asyncio.AbstractEventLoop) -> None:
        self._channels = channels
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._over = False

    def blocking(self, name: str) -> Generator[Any]:
        """Values, for a thread."""
        if _running_loop() is self._loop:
            msg = "this would block the executor: use `async for` in a coroutine"
            raise RuntimeError(msg)
        return self._blocking(self._channels(name).received())

    def _blocking(self, items: AsyncGenerator[Any]) -> Generator[Any]:
        try:
            while (item := self._ask(_next(items)).result()) is not _END:
                yield item
        except concurrent.futures.CancelledError:
            return  # the attempt is over
        except GeneratorExit:
            self._close(items)
            raise

    async def asynchronous(self, name: str) -> AsyncGenerator[Any]:
        """Values, for a coroutine in this loop or another one."""
        items = self._channels(name).received()
        try:
            while (item := await asyncio.wrap_future(self._ask(_next(items)))) is not _END:
                yield item
        except GeneratorExit:
            self._close(items)
            raise

    def abandon(self) -> None:
        """Ends all waiting: the attempt is over."""
        with self._lock:
            self._over = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    def _ask(self, coroutine: Coroutine[Any, Any, Any]) -> "concurrent.futures.Future[Any]":
        with self._lock:
            if self._over:
                coroutine.close()
                future: concurrent.futures.Future[Any] = concurrent.futures.Future()
                future.cancel()
                return future
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._waiting.add(future)
        future.add_done_callback(self._answered)
        return future

    def _answered(self, future: "concurrent.futures.Future[Any]") -> None:
        with self._lock:
            self._waiting.discard(future)

    def _close(self, items: AsyncGenerator[Any]) -> None:
        """Ends a stream that its reader left. All other ends are its own."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(_closed(items), self._loop)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _next(items: AsyncGenerator[Any]) -> Any:
    return await anext(items, _END)


async def _closed(items: AsyncGenerator[Any]) -> None:
    await items.aclose()


class AttemptChannels:
    """All channels of one attempt."""

    def __init__(self, client: AsyncClient, attempt: AttemptRef, report: Callable[[Said], None]) -> None:
        self._client = client
        self._attempt = attempt
        self._report = report
        self._lock = threading.Lock()
        self._channels: dict[str, tuple[Channel, ContextChannel]] = {}
        self._readings = Readings(lambda name: self._channels[name][0], asyncio.get_running_loop())

    def open(self, name: str) -> ContextChannel:
        """The channel of this name, the same each time; in any thread."""
        with self._lock:
            if name not in self._channels:
                # A new attempt has sent nothing yet: there is nothing to count.
                ref = self._attempt
                channel = Channel(self._client, ref.process_id, name, attempt=ref.attempt, sent=0)
                self._channels[name] = channel, ContextChannel(name, self._report, self._readings)
            return self._channels[name][1]

    async def send(self, batch: Sequence[Said]) -> None:
        """Sends messages, each channel's in order. After a refusal no more goes out on that channel: its function is told."""
        by_name: dict[str, list[NewMessage]] = {}
        for said in batch:
            by_name.setdefault(said.channel.name, []).append(said.message)
        for name, messages in by_name.items():
            channel, face = self._channels[name]
            if face.refusal is not None:
                continue
            try:
                await channel.deliver(messages)
            except RpcError as error:
                face.refusal = error
                log.warning("channel %s of process %s refused messages: %s", name, self._attempt.process_id, error)

    def abandon(self) -> None:
        """Ends all waiting: the attempt is over."""
        self._readings.abandon()
