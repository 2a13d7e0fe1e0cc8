"""Channels: messages both ways between a process's submitter and the executors of its attempts, in one order for all.

A sender is the submitter (attempt 0) or the executor of one attempt. It numbers its own messages, so that a call may be
repeated; the channel numbers all of them. What may be added is a pure decision over the channel's locked row.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Protocol, TypeAlias
from uuid import UUID

from servicekit.clock import Clock, datetime_of
from servicekit.failures import FailedPrecondition, InvalidArgument, PermissionDenied, ResourceExhausted, Violation
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.endings import superseded
from services.scheduler.domain.ports import Heard, Wakeups
from services.scheduler.domain.records import Changes
from services.scheduler.domain.states import FINAL, State

MIB = 1024 * 1024
# Of one channel.
MAX_MESSAGES = 100_000
MAX_BYTES = 64 * MIB
# The attempt of the submitter's messages.
SUBMITTER = 0
PAGE = 500
# As for logs: a wake-up can be lost.
LOOK_AGAIN_S = 5.0


class Kind(IntEnum):
    """What a message is; numbers as in the tables and in the protos."""

    DATA = 1
    END = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class ChannelRef:
    """Names a channel."""

    colony: str
    process_id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is sent; `value` is a serialised Value."""

    kind: Kind
    value: bytes


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as it is read."""

    number: int
    attempt: int
    sender_name: str
    at: datetime
    kind: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """What one sender has sent so far."""

    messages: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel and its process, as they are. `took_part`: whether the caller's was or is an attempt of the process."""

    state: State
    live_attempt: int
    executor_id: str
    initiator: str
    took_part: bool
    messages: int
    bytes: int
    submitter: Sent
    # The attempt that sent last, and what.
    attempt: int
    executor: Sent

    def sent_by(self, attempt: int) -> Sent:
        """What the sender of this attempt has sent. Of attempts before the last that spoke nothing is asked: they are over."""
        if attempt == SUBMITTER:
            return self.submitter
        return self.executor if attempt == self.attempt else Sent()

    @property
    def is_over(self) -> bool:
        """Whether nothing will be added: the process has ended, or both sides have while it runs. Between two attempts the
        next one may still speak.
        """
        if self.state in FINAL:
            return True
        return self.state is State.RUNNING and self.submitter.ended and self.sent_by(self.live_attempt).ended


@dataclass(frozen=True, slots=True)
class Appending:
    """A call that adds messages; `first_number` is the first one's among its sender's."""

    identity: str
    name: str
    attempt: int
    first_number: int
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Page:
    """Messages in order, whether there are more after them, and whether all that there will ever be is there."""

    messages: Sequence[MessageView]
    more: bool
    over: bool


Accept: TypeAlias = Callable[[ChannelRow], Sequence[Message]]
Allow: TypeAlias = Callable[[ChannelRow], None]


class Channels(Protocol):
    """The tables of channels. Both methods raise NotFound for a process or a channel that is not there."""

    async def append(self, channel: ChannelRef, appending: Appending, accept: Accept, at: datetime) -> int:
        """Adds what `accept` says of the locked row; how many that were."""
        ...

    async def messages_after(self, channel: ChannelRef, identity: str, allow: Allow, after: int, limit: int) -> Page:
        """Messages after a number, when `allow` lets the reader in."""
        ...


def accepted(row: ChannelRow, process_id: UUID, appending: Appending) -> Sequence[Message]:
    """Which messages of a call are to be added: all but those that are there already.

    Raises:
        PermissionDenied: the caller is no party.
        FailedPrecondition: its attempt is not the live one, its side has ended, or the process has.
        InvalidArgument: it left numbers out.
        ResourceExhausted: the channel would be too large.
    """
    _require_sender(row, process_id, appending)
    sent = row.sent_by(appending.attempt)
    if appending.first_number > sent.messages + 1:
        bound = f"must be at most {sent.messages + 1}, for {sent.messages} of this sender are there"
        raise InvalidArgument([Violation("first_number", f"{bound}; got {appending.first_number}")])
    new = appending.messages[sent.messages + 1 - appending.first_number :]
    # What is there already is accepted again whatever came after it: its sender may not have got the answer.
    if not new:
        return new
    if row.state in FINAL:
        raise _ended("the process has ended")
    if sent.ended:
        raise _ended("this side of the channel has ended")
    size = sum(len(message.value) for message in new)
    if row.messages + len(new) > MAX_MESSAGES or row.bytes + size > MAX_BYTES:
        msg = f"a channel holds at most {MAX_MESSAGES} messages and {MAX_BYTES} bytes"
        raise ResourceExhausted(msg, reason="CHANNEL_FULL", retry_delay_s=0)
    return new


def require_reader(row: ChannelRow, identity: str, *, owner: bool) -> None:
    """Lets in the two parties and the colony's owner.

    Raises:
        PermissionDenied: it is somebody else.
    """
    if not (owner or row.took_part or identity == row.initiator):
        raise _no_party("only the process's initiator, executors of its attempts and the colony's owner may read its channels")


def _require_sender(row: ChannelRow, process_id: UUID, appending: Appending) -> None:
    if appending.attempt == SUBMITTER:
        if appending.identity != row.initiator:
            raise _no_party("only the process's initiator sends without an attempt")
        return
    if not (row.took_part or appending.identity == row.initiator):
        raise _no_party("only the process's initiator and executors of its attempts may send")
    # The last attempt of a process that has ended keeps its executor in the row: it is told that the channel has ended.
    held = row.live_attempt == appending.attempt and row.executor_id == appending.identity
    if not held or row.state is State.WAITING:
        raise superseded(process_id)


def _no_party(message: str) -> PermissionDenied:
    return PermissionDenied(message, reason="NOT_A_PARTY")


def _ended(message: str) -> FailedPrecondition:
    return FailedPrecondition(message, reason="CHANNEL_ENDED")


class Channelling:
    """Adds messages, and hands them out."""

    def __init__(self, channels: Channels, aftermath: Aftermath, wakeups: Wakeups, heard: Heard, clock: Clock) -> None:
        self._channels = channels
        self._aftermath = aftermath
        self._wakeups = wakeups
        self._heard = heard
        self._clock = clock

    async def append(self, channel: ChannelRef, appending: Appending) -> None:
        """Adds messages, and wakes who follows. Errors as for `accepted`, and NotFound."""
        if appending.attempt != SUBMITTER:
            self._heard.note(channel.colony, appending.identity)
        added = await self._channels.append(
            channel,
            appending,
            lambda row: accepted(row, channel.process_id, appending),
            datetime_of(self._clock.now_ns()),
        )
        if added:
            await self._aftermath.changed(channel.colony, Changes(touched={channel.process_id}))

    async def page(self, channel: ChannelRef, identity: str, after: int, limit: int, *, owner: bool) -> Page:
        """Messages after a number.

        Raises:
            NotFound: no such process or channel.
            PermissionDenied: the caller is no party, nor the colony's owner.
        """
        return await self._channels.messages_after(
            channel, identity, lambda row: require_reader(row, identity, owner=owner), after, limit
        )

    async def follow(
        self, channel: ChannelRef, identity: str, after: int, *, owner: bool
    ) -> AsyncIterator[Sequence[MessageView]]:
        """Messages after a number as they come, to the channel's end; an empty page is a sign of life. Errors as for `page`."""
        async with self._wakeups.following(channel.colony, str(channel.process_id)) as news:
            while True:
                # News from here on wakes us: nothing falls between looking and waiting.
                news.clear()
                page = await self.page(channel, identity, after, PAGE, owner=owner)
                if page.messages:
                    after = page.messages[-1].number
                    yield page.messages
                if page.more:
                    continue
                if page.over:
                    return
                try:
                    await asyncio.wait_for(news.wait(), LOOK_AGAIN_S)
                except TimeoutError:
                    yield ()
