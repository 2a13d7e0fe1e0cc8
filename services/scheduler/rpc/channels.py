"""The RPCs of channels: request to domain call to response. What they promise stands in the protos."""

from collections.abc import AsyncIterator
from typing import Any, TypeAlias
from uuid import UUID

import grpc

from colonies.scheduler.v1 import channel_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from colonies.scheduler.v1.spec_pb2 import Value
from servicekit import cursors
from servicekit.bounds import CONTROL, Bounds, checked
from servicekit.caller import Caller, Role
from services.scheduler.domain.channelling import MIB, SUBMITTER, Appending, Channelling, ChannelRef, Kind, Message, MessageView
from services.scheduler.rpc.convert import timestamp
from services.scheduler.rpc.spec_bounds import MAX_MEDIA_TYPE

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Request: TypeAlias = pb.AppendMessagesRequest | pb.ListMessagesRequest | pb.FollowChannelRequest

MAX_IN_CALL = 1_000
MAX_BYTES_IN_CALL = 4 * MIB
MAX_MESSAGE_BYTES = MIB
MAX_ATTEMPT = 2**31 - 1
MAX_NUMBER = 2**53


class ChannelRpcs(SchedulerServiceServicer):
    """Translates what is about channels."""

    _channelling: Channelling

    async def AppendMessages(self, request: pb.AppendMessagesRequest, context: Context) -> pb.AppendMessagesResponse:
        caller = Caller.current()
        with checked() as bounds:
            channel = _channel_of(bounds, request)
            bounds.number("attempt", request.attempt, at_least=SUBMITTER, at_most=MAX_ATTEMPT)
            bounds.number("first_number", request.first_number, at_least=1, at_most=MAX_NUMBER)
            messages = _messages_of(bounds, request)
        await self._channelling.append(
            channel, Appending(caller.identity, caller.name, request.attempt, request.first_number, messages)
        )
        return pb.AppendMessagesResponse()

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        caller = Caller.current()
        with checked() as bounds:
            channel = _channel_of(bounds, request)
            limit = bounds.page("page_size", request.page_size)
        owner = caller.role is Role.COLONY_OWNER
        page = await self._channelling.page(channel, caller.identity, _after(request.cursor), limit, owner=owner)
        return pb.ListMessagesResponse(
            messages=[_message_of(view) for view in page.messages],
            next_cursor=_cursor_of(page.messages[-1]) if page.more else "",
        )

    async def FollowChannel(
        self, request: pb.FollowChannelRequest, context: Context
    ) -> AsyncIterator[pb.FollowChannelResponse]:
        caller = Caller.current()
        with checked() as bounds:
            channel = _channel_of(bounds, request)
        owner = caller.role is Role.COLONY_OWNER
        async for page in self._channelling.follow(channel, caller.identity, _after(request.cursor), owner=owner):
            yield pb.FollowChannelResponse(messages=[_message_of(view) for view in page])


def _channel_of(bounds: Bounds, request: Request) -> ChannelRef:
    bounds.name("colony_name", request.colony_name)
    process_id = bounds.uuid("process_id", request.process_id)
    bounds.name("channel", request.channel)
    return ChannelRef(request.colony_name, process_id or UUID(int=0), request.channel)


def _messages_of(bounds: Bounds, request: pb.AppendMessagesRequest) -> list[Message]:
    """The messages, each value serialised as it will be stored."""
    bounds.count("messages", request.messages, at_least=1, at_most=MAX_IN_CALL)
    messages: list[Message] = []
    total = 0
    for index, new in enumerate(request.messages[:MAX_IN_CALL]):
        field = f"messages[{index}]"
        bounds.number(f"{field}.kind", new.kind, at_least=0, at_most=Kind.ERROR)
        _check_value(bounds, f"{field}.value", new.value)
        if messages and messages[-1].kind is not Kind.DATA:
            bounds.refuse(field, "nothing may follow END or ERROR")
        total += len(new.value.data)
        messages.append(Message(_kind_of(new.kind), new.value.SerializeToString()))
    if total > MAX_BYTES_IN_CALL:
        bounds.refuse("messages", f"must be at most {MAX_BYTES_IN_CALL} bytes together; they have {total}")
    return messages


def _kind_of(kind: int) -> Kind:
    return Kind(kind) if kind in {Kind.END, Kind.ERROR} else Kind.DATA


def _check_value(bounds: Bounds, field: str, value: Value) -> None:
    if len(value.data) > MAX_MESSAGE_BYTES:
        bounds.refuse(f"{field}.data", f"must be at most {MAX_MESSAGE_BYTES} bytes; it has {len(value.data)}")
    media_type = value.media_type
    if len(media_type) > MAX_MEDIA_TYPE or not media_type.isascii() or CONTROL.search(media_type):
        bounds.refuse(f"{field}.media_type", f"must be at most {MAX_MEDIA_TYPE} printable ASCII characters")


def _after(cursor: str) -> int:
    return int(cursors.decode("cursor", cursor, int)[0]) if cursor else 0


def _cursor_of(view: MessageView) -> str:
    return cursors.encode((view.number,))


def _message_of(view: MessageView) -> pb.ChannelMessage:
    return pb.ChannelMessage(
        cursor=_cursor_of(view),
        number=view.number,
        side=pb.CHANNEL_SIDE_SUBMITTER if view.attempt == SUBMITTER else pb.CHANNEL_SIDE_EXECUTOR,
        sender_name=view.sender_name,
        attempt=view.attempt,
        time=timestamp(view.at),
        kind=view.kind,  # type: ignore[arg-type]
        value=Value.FromString(view.value),
    )
