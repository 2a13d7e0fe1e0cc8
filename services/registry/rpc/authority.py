"""Auth, as the domain asks it: over gRPC, signed with the registry's own key."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import from_rpc_error
from servicekit.members import TIMEOUT_S, outage_of
from servicekit.status import failure_of


@contextmanager
def _answered() -> Iterator[None]:
    """Auth's refusals are about what the caller asked for, so they become this service's own."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise failure_of(from_rpc_error(error)) from error


class RemoteAuthority:
    """The domain's Authority."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._auth = AuthServiceStub(channel)

    async def colony_exists(self, colony: str, identity: str) -> bool:
        """Whether there is such a colony.

        Raises:
            Unavailable: auth does not answer.
        """
        request = pb.ResolveMemberRequest(colony=colony, identity=identity)
        try:
            response = await self._auth.ResolveMember(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise outage_of(error) from error
        return response.colony_exists

    async def admit(self, colony: str, identity: str, name: str) -> None:
        """Makes the identity an executor of this name.

        Raises:
            AlreadyExists: the identity is something else in the colony, or another executor has the name.
            NotFound: no such colony.
            Unavailable: auth does not answer.
        """
        with _answered():
            await self._auth.PutExecutor(pb.PutExecutorRequest(colony=colony, identity=identity, name=name), timeout=TIMEOUT_S)

    async def drop(self, colony: str, identity: str) -> None:
        """Ends the identity's membership as an executor.

        Raises:
            Unavailable: auth does not answer.
        """
        with _answered():
            await self._auth.DropExecutor(pb.DropExecutorRequest(colony=colony, identity=identity), timeout=TIMEOUT_S)
