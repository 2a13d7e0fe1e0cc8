"""Channels of processes: messages to and from, counted so that an outage neither loses nor repeats one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any
from weakref import WeakValueDictionary

from colonies import values
from colonies.client.calls import Calls
from colonies.client.pages import every
from colonies.errors import ChannelError, RpcError
from colonies.scheduler.v1 import channel_pb2 as pb

MAX_MESSAGES_IN_CALL = 1_000
# The server takes 4 MiB; a call that is repeated should not be large.
MAX_BYTES_IN_CALL = 2 << 20
SUBMITTER = 0


def data(value: Any) -> pb.NewMessage:
    """A message that says something.

    Raises:
        ValueEncodingError: the value cannot be sent.
    """
    return pb.NewMessage(kind=pb.MESSAGE_KIND_DATA, value=values.encode(value))


def end() -> pb.NewMessage:
    """The last message of a side that has said all."""
    return pb.NewMessage(kind=pb.MESSAGE_KIND_END)


def failure(text: str) -> pb.NewMessage:
    """The last message of a side where something went wrong."""
    return pb.NewMessage(kind=pb.MESSAGE_KIND_ERROR, value=values.encode(text))


class Channel:
    """One channel of a process, as the submitter or the executor of an attempt sees it.

        channel = client.channel(process_id, "chat")
        await channel.send("hello", {"n": 1})
        async for value in channel:
            ...

    Iterating gives what the other side says, as Python values, up to its end marker or the end of the process; iterating
    again goes on from there. A submitter that iterates hears all attempts, one after the other: `follow` tells them apart.

    Messages are counted at their sender. Two programs that send on one side of a channel at the same time count the same
    numbers, and of two messages with one number the second is passed over: let one of them send.
    """

    def __init__(self, client: Calls, process_id: str, name: str, *, attempt: int = SUBMITTER, sent: int | None = None) -> None:
        """`AsyncClient.channel` makes channels. `sent` is how many messages this side has sent; None = to be counted."""
        self.process_id = process_id
        self.name = name
        self.attempt = attempt
        self._client = client
        self._sent = sent
        self._cursor = ""
        self._turn = asyncio.Lock()
        self._appends: set[asyncio.Task[None]] = set()

    async def send(self, *items: Any) -> None:
        """Sends values, each at most 1 MiB, in this order. Committed when this returns.

        Calls at the same time take turns. One that is cancelled is sent all the same.

        Raises:
            ValueEncodingError: a value cannot be sent; none was.
            FailedPreconditionError: this side or the process has ended (CHANNEL_ENDED), or the attempt is not the live one
                (ATTEMPT_SUPERSEDED).
            ResourceExhaustedError: the channel is full (CHANNEL_FULL).
            RpcError: refused for another reason, or the server was out of reach for too long; of several values the first
                may have been sent.
        """
        await self._in_turn([data(item) for item in items])

    async def end(self) -> None:
        """Says that this side has said all. Errors as for `send`."""
        await self._in_turn([end()])

    async def fail(self, text: str) -> None:
        """Says that something went wrong, and that nothing more will come from this side. Errors as for `send`."""
        await self._in_turn([failure(text)])

    async def messages(self, *, limit: int | None = None) -> AsyncGenerator[pb.ChannelMessage]:
        """The messages that are there, of both sides, in order."""
        request = pb.ListMessagesRequest(colony_name=self._client.colony, process_id=self.process_id, channel=self.name)

        async def page(cursor: str, size: int) -> tuple[Sequence[pb.ChannelMessage], str]:
            request.cursor, request.page_size = cursor, size
            response = await self._client.call(self._client.scheduler.ListMessages, request)
            return response.messages, response.next_cursor

        async for message in every(page, limit):
            yield message

    async def follow(self, cursor: str = "") -> AsyncGenerator[pb.ChannelMessage]:
        """The messages of both sides as they come, after those that are there; ends when both sides or the process have.

        Outages are ridden out: no message is lost or repeated.

        Args:
            cursor: of the last message seen; empty to begin with the first.
        """
        request = pb.FollowChannelRequest(
            colony_name=self._client.colony, process_id=self.process_id, channel=self.name, cursor=cursor
        )
        async for response in self._client.stream(self._client.scheduler.FollowChannel, lambda: request):
            for message in response.messages:
                request.cursor = message.cursor
                yield message

    async def received(self) -> AsyncGenerator[Any]:
        """What the other side says, as iterating gives it.

        Raises:
            ChannelError: the other side said that something went wrong.
            ValueEncodingError: a value cannot be decoded; iterating again goes on after it.
        """
        own = pb.CHANNEL_SIDE_SUBMITTER if self.attempt == SUBMITTER else pb.CHANNEL_SIDE_EXECUTOR
        async with aclosing(self.follow(self._cursor)) as messages:
            async for message in messages:
                self._cursor = message.cursor
                if message.side == own:
                    continue
                if message.kind == pb.MESSAGE_KIND_END:
                    return
                if message.kind == pb.MESSAGE_KIND_ERROR:
                    raise ChannelError(self.name, message.sender_name, str(values.decode(message.value)))
                yield values.decode(message.value)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.received()

    async def deliver(self, messages: Sequence[pb.NewMessage]) -> None:
        """Adds messages of this side, as `send`; for one caller at a time, who does not cancel."""
        if self._sent is None:
            self._sent = await self._count()
        for call in _calls(messages):
            request = pb.AppendMessagesRequest(
                colony_name=self._client.colony,
                process_id=self.process_id,
                channel=self.name,
                attempt=self.attempt,
                messages=call,
                first_number=self._sent + 1,
            )
            try:
                await self._client.call(self._client.scheduler.AppendMessages, request)
            except RpcError:
                # It may have arrived, with only the answer lost.
                self._sent = None
                raise
            self._sent += len(call)

    async def _in_turn(self, messages: Sequence[pb.NewMessage]) -> None:
        async def append() -> None:
            async with self._turn:
                await self.deliver(messages)

        task = asyncio.create_task(append())
        self._appends.add(task)
        task.add_done_callback(self._done)
        # A call that is cut off may arrive or not, and the next would not know its number: so it is finished.
        await asyncio.shield(task)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._appends.discard(task)
        if not task.cancelled():
            task.exception()  # fetched, for nobody does when `send` was cancelled

    async def _count(self) -> int:
        return sum([message.attempt == self.attempt async for message in self.messages()])


def _calls(messages: Sequence[pb.NewMessage]) -> Iterator[list[pb.NewMessage]]:
    """The messages, as many together as go into one call."""
    call: list[pb.NewMessage] = []
    size = 0
    for message in messages:
        if call and (len(call) == MAX_MESSAGES_IN_CALL or size + len(message.value.data) > MAX_BYTES_IN_CALL):
            yield call
            call, size = [], 0
        call.append(message)
        size += len(message.value.data)
    if call:
        yield call


class ChannelCalls(Calls):
    """What can be done with channels."""

    def channel(self, process_id: str, name: str, *, attempt: int = SUBMITTER) -> Channel:
        """One of the channels that a process was submitted with. Asking again gives the same object while it is in use.

        Args:
            process_id: whose.
            name: which of `Function.channels`.
            attempt: for an executor that is none of this package's: number of its running attempt. 0 for the submitter.
        """
        known = self.__dict__.setdefault("_channels", WeakValueDictionary[tuple[str, str, int], Channel]())
        key = (process_id, name, attempt)
        found: Channel | None = known.get(key)
        if found is None:
            found = known[key] = Channel(self, process_id, name, attempt=attempt)
        return found
