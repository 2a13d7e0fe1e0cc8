"""Auth, as the domain asks it: over gRPC, signed with the registry's own key."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.call.v1.signed_call_pb2 import SignedCall
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

    async def identity_in(self, colony: str, key: str) -> str | None:
        """What the holder of a key is known by in a colony, or would be. None: there is no such colony, or another key has
        taken the place of this one.

        Raises:
            Unavailable: auth does not answer.
        """
        request = pb.ResolveMemberRequest(colony=colony, identity=key)
        try:
            response = await self._auth.ResolveMember(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise outage_of(error) from error
        is_retired = response.role == pb.MEMBER_ROLE_UNSPECIFIED and response.HasField("valid_until")
        return None if is_retired or not response.colony_exists else response.identity or key

    async def admit(self, colony: str, identity: str, name: str, calls: Sequence[bytes]) -> None:
        """Makes the identity an executor of this name, as the signed calls ask for.

        Raises:
            AlreadyExists: the identity is something else in the colony, or another executor has the name.
            NotFound: no such colony.
            Unavailable: auth does not answer.
        """
        request = pb.PutExecutorRequest(colony=colony, identity=identity, name=name, calls=map(SignedCall.FromString, calls))
        with _answered():
            await self._auth.PutExecutor(request, timeout=TIMEOUT_S)

    async def drop(self, colony: str, identity: str, calls: Sequence[bytes]) -> None:
        """Ends the identity's membership as an executor, as the signed calls ask for.

        Raises:
            Unavailable: auth does not answer.
        """
        request = pb.DropExecutorRequest(colony=colony, identity=identity, calls=map(SignedCall.FromString, calls))
        with _answered():
            await self._auth.DropExecutor(request, timeout=TIMEOUT_S)
