"""Memberships as every service but auth gets them: from auth, over gRPC, kept by a Directory."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeVar

import grpc

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import from_rpc_error
from servicekit.caller import Member, Role
from servicekit.changes import SYNCED, Change, Event
from servicekit.clock import Clock
from servicekit.directory import Directory, Source
from servicekit.failures import Unavailable
from servicekit.status import failure_of
from servicekit.streams import SIGN_OF_LIFE_S

TIMEOUT_S = 5.0
# More than two signs of life (servicekit.streams).
SILENCE_S = 2.5 * SIGN_OF_LIFE_S

T = TypeVar("T")

ROLES = {
    pb.MEMBER_ROLE_COLONY_OWNER: Role.COLONY_OWNER,
    pb.MEMBER_ROLE_USER: Role.USER,
    pb.MEMBER_ROLE_EXECUTOR: Role.EXECUTOR,
    pb.MEMBER_ROLE_SERVER_OWNER: Role.SERVER_OWNER,
    pb.MEMBER_ROLE_SERVICE: Role.SERVICE,
}


def outage_of(error: grpc.aio.AioRpcError) -> Unavailable:
    """Whatever another service answers to one of our own questions, for the caller it is an outage."""
    failure = failure_of(from_rpc_error(error))
    if isinstance(failure, Unavailable):
        return failure
    return Unavailable(f"another service refused: {failure.message}", reason="UPSTREAM_REFUSED")


async def audible(call: AsyncIterable[T]) -> AsyncIterator[T]:
    """The messages of a stream that shows signs of life; a silent one counts as broken, long before TCP notices.

    Raises:
        Unavailable: nothing came for SILENCE_S seconds.
    """
    messages = aiter(call)
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                message = await anext(messages)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            msg = f"another service was silent for {SILENCE_S:.0f} s"
            raise Unavailable(msg, reason="UPSTREAM_SILENT") from error
        yield message


# Beside keys a Directory has the members themselves, by what they are known by: for those who act on their behalf.
KNOWN_AS = "known as "


def members_of(source: Source[Member], clock: Clock) -> Directory[Member]:
    """Members, each until its key's time is over."""
    return Directory(source, clock, lambda member: member.valid_until_ns)


class RemoteMembers:
    """Auth's members, as the source of a Directory."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._auth = AuthServiceStub(channel)

    async def fetch(self, colony: str, identity: str) -> Member | None:
        known_as, identity = identity.startswith(KNOWN_AS), identity.removeprefix(KNOWN_AS)
        request = pb.ResolveMemberRequest(colony=colony, identity=identity, known_as=known_as)
        try:
            response = await self._auth.ResolveMember(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise outage_of(error) from error
        role = ROLES.get(response.role)
        if role is None:
            return None
        until_ns = response.valid_until.ToNanoseconds() if response.HasField("valid_until") else None
        # An auth of an older version says no identity: no key has been rotated then.
        return Member(response.identity or identity, role, response.name, until_ns)

    async def changes(self) -> AsyncIterator[Event]:
        try:
            async for change in audible(self._auth.WatchMembers(pb.WatchMembersRequest())):
                if change.synced:
                    yield SYNCED
                elif change.colony or change.identity:
                    yield Change(change.colony, change.identity, change.colony_removed)
                    if not change.colony_removed:
                        yield Change(change.colony, KNOWN_AS + change.identity)
        except grpc.aio.AioRpcError as error:
            raise outage_of(error) from error
