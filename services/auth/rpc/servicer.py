"""AuthService: translation between the wire and the domain."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceServicer
from servicekit.caller import Caller
from servicekit.changes import Event
from servicekit.clock import Clock
from servicekit.streams import with_signs_of_life
from services.auth.domain.keys import Keys
from services.auth.domain.memberships import Memberships
from services.auth.domain.model import Call
from services.auth.rpc import convert, rotation
from services.auth.rpc.calls import call_in_hand, passed_on


class AuthServicer(AuthServiceServicer):
    """Who may call is settled before a call gets here."""

    def __init__(
        self,
        memberships: Memberships,
        keys: Keys,
        *,
        changes: Callable[[], AsyncIterator[Event]],
        cluster: str,
        version: str,
        clock: Clock,
    ) -> None:
        self._memberships = memberships
        self._keys = keys
        self._changes = changes
        self._cluster = cluster
        self._version = version
        self._clock = clock

    async def GetServerInfo(self, _request: pb.GetServerInfoRequest, _context: Any) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(version=self._version, cluster=self._cluster)

    async def AddColony(self, request: pb.AddColonyRequest, _context: Any) -> pb.AddColonyResponse:
        name, owner = convert.new_colony(request, cluster=self._cluster, clock=self._clock)
        colony = await self._memberships.add_colony(name, owner, _calls())
        return pb.AddColonyResponse(colony=convert.colony_message(colony))

    async def RemoveColony(self, request: pb.RemoveColonyRequest, _context: Any) -> pb.RemoveColonyResponse:
        await self._memberships.remove_colony(convert.name_of(request), _calls())
        return pb.RemoveColonyResponse()

    async def GetColony(self, request: pb.GetColonyRequest, _context: Any) -> pb.GetColonyResponse:
        colony = await self._memberships.colony(convert.colony_of(request))
        return pb.GetColonyResponse(colony=convert.colony_message(colony))

    async def ListColonies(self, request: pb.ListColoniesRequest, _context: Any) -> pb.ListColoniesResponse:
        after, limit = convert.page(request)
        page = await self._memberships.colonies(after=after, limit=limit)
        colonies = [convert.colony_message(colony) for colony in page.items]
        return pb.ListColoniesResponse(colonies=colonies, next_cursor=convert.next_cursor(page))

    async def AddUser(self, request: pb.AddUserRequest, _context: Any) -> pb.AddUserResponse:
        colony, name, key = convert.new_user(request, cluster=self._cluster, clock=self._clock)
        user = await self._memberships.add_user(colony, name, key, _calls())
        return pb.AddUserResponse(user=convert.user_message(user))

    async def RemoveUser(self, request: pb.RemoveUserRequest, _context: Any) -> pb.RemoveUserResponse:
        colony, name = convert.named_in_colony(request)
        await self._memberships.remove_user(colony, name, _calls())
        return pb.RemoveUserResponse()

    async def GetUser(self, request: pb.GetUserRequest, _context: Any) -> pb.GetUserResponse:
        colony, name = convert.named_in_colony(request)
        user = await self._memberships.user(colony, name)
        return pb.GetUserResponse(user=convert.user_message(user))

    async def ListUsers(self, request: pb.ListUsersRequest, _context: Any) -> pb.ListUsersResponse:
        colony, after, limit = convert.page_in_colony(request)
        page = await self._memberships.users(colony, after=after, limit=limit)
        users = [convert.user_message(user) for user in page.items]
        return pb.ListUsersResponse(users=users, next_cursor=convert.next_cursor(page))

    async def ResolveMember(self, request: pb.ResolveMemberRequest, _context: Any) -> pb.ResolveMemberResponse:
        resolve = self._keys.known_as if request.known_as else self._keys.resolve
        return convert.resolved_message(await resolve(*convert.key_somewhere(request)))

    async def PutExecutor(self, request: pb.PutExecutorRequest, _context: Any) -> pb.PutExecutorResponse:
        colony, identity, name = convert.executor(request)
        calls = passed_on(request.calls, colony=colony, cluster=self._cluster)
        await self._memberships.put_executor(colony, identity, name, calls)
        return pb.PutExecutorResponse()

    async def DropExecutor(self, request: pb.DropExecutorRequest, _context: Any) -> pb.DropExecutorResponse:
        colony, identity = convert.identity_in_colony(request)
        calls = passed_on(request.calls, colony=colony, cluster=self._cluster)
        await self._memberships.drop_executor(colony, identity, calls)
        return pb.DropExecutorResponse()

    async def RotateKey(self, request: pb.RotateKeyRequest, _context: Any) -> pb.RotateKeyResponse:
        wanted = rotation.wanted(request)
        old = await self._keys.replaced(wanted.colony, Caller.current().call.key, wanted.new)
        wanted.check(old, cluster=self._cluster, clock=self._clock)
        rotated = await self._keys.rotate(wanted.colony, old, wanted.new, keep_old_ms=wanted.keep_old_ms, calls=_calls())
        return rotation.rotated_response(rotated)

    async def ListMembershipEvents(
        self, request: pb.ListMembershipEventsRequest, _context: Any
    ) -> pb.ListMembershipEventsResponse:
        colony, after, limit = rotation.ledger_page(request, Caller.current())
        return rotation.ledger_response(await self._keys.events(colony, after=after, limit=limit))

    async def WatchMembers(self, _request: pb.WatchMembersRequest, _context: Any) -> AsyncIterator[pb.WatchMembersResponse]:
        async for event in with_signs_of_life(self._changes()):
            yield convert.change_message(event)


def _calls() -> list[Call]:
    """The signed call in hand: the reason for the change that it makes."""
    return [call_in_hand(Caller.current().call)]
