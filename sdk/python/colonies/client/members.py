"""Methods about colonies, users, executors, functions and locations."""

from collections.abc import AsyncGenerator, Iterable, Sequence

from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.client.calls import Calls
from colonies.client.pages import every
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.signing import join_text, now_ms

COLONY_OWNER = "colony_owner"
USER = "user"


def join_proof(key: PrivateKey, audience: str, colony: str, role: str, name: str) -> auth.JoinProof:
    """The proof, good for 24 hours, that the holder of a key agrees to a membership.

    Args:
        key: the new member's.
        audience: cluster id of the server.
        colony: the colony.
        role: "colony_owner" or "user".
        name: the user's name; for an owner, the colony's.

    Raises:
        NotSignableError: one of them holds a line feed.
    """
    time_ms = now_ms()
    text = join_text(audience=audience, colony=colony, role=role, name=name, time_ms=time_ms)
    return auth.JoinProof(public_key=key.public_key, time_ms=time_ms, signature=key.sign(text))


class ColonyCalls(Calls):
    """What can be done with colonies and users."""

    async def server_info(self) -> auth.GetServerInfoResponse:
        """The server's version and cluster id."""
        return await self.call(self.auth.GetServerInfo, auth.GetServerInfoRequest())

    def join_proof(self, key: PrivateKey, role: str, name: str, colony: str | None = None) -> auth.JoinProof:
        """`join_proof` for this client's server and, unless another one is named, its colony."""
        return join_proof(key, self.cluster, self.colony if colony is None else colony, role, name)

    async def add_colony(self, name: str, owner: PrivateKey | auth.JoinProof) -> auth.Colony:
        """Adds a colony; for the server owner. `owner` is its owner's key, or the proof that its holder made."""
        proof = self.join_proof(owner, COLONY_OWNER, name, name) if isinstance(owner, PrivateKey) else owner
        request = auth.AddColonyRequest(name=name, owner=proof)
        return (await self.call(self.auth.AddColony, request)).colony

    async def remove_colony(self, name: str) -> None:
        """Removes a colony and all that it holds; for the server owner."""
        request = auth.RemoveColonyRequest(name=name)
        await self.call(self.auth.RemoveColony, request, gone=auth.RemoveColonyResponse())

    async def get_colony(self) -> auth.Colony:
        """This client's colony."""
        return (await self.call(self.auth.GetColony, auth.GetColonyRequest(colony_name=self.colony))).colony

    async def list_colonies(self, *, limit: int | None = None) -> AsyncGenerator[auth.Colony]:
        """All colonies by name; for the server owner."""

        async def page(cursor: str, size: int) -> tuple[Sequence[auth.Colony], str]:
            request = auth.ListColoniesRequest(page_size=size, cursor=cursor)
            response = await self.call(self.auth.ListColonies, request)
            return response.colonies, response.next_cursor

        async for colony in every(page, limit):
            yield colony

    async def add_user(self, name: str, user: PrivateKey | auth.JoinProof) -> auth.User:
        """Adds a user; for the colony's owner. `user` is the user's key, or the proof that its holder made."""
        proof = self.join_proof(user, USER, name) if isinstance(user, PrivateKey) else user
        request = auth.AddUserRequest(colony_name=self.colony, name=name, user=proof)
        return (await self.call(self.auth.AddUser, request)).user

    async def remove_user(self, name: str) -> None:
        """Removes a user; for the colony's owner."""
        request = auth.RemoveUserRequest(colony_name=self.colony, name=name)
        await self.call(self.auth.RemoveUser, request, gone=auth.RemoveUserResponse())

    async def get_user(self, name: str) -> auth.User:
        """One user."""
        request = auth.GetUserRequest(colony_name=self.colony, name=name)
        return (await self.call(self.auth.GetUser, request)).user

    async def list_users(self, *, limit: int | None = None) -> AsyncGenerator[auth.User]:
        """The colony's users by name."""

        async def page(cursor: str, size: int) -> tuple[Sequence[auth.User], str]:
            request = auth.ListUsersRequest(colony_name=self.colony, page_size=size, cursor=cursor)
            response = await self.call(self.auth.ListUsers, request)
            return response.users, response.next_cursor

        async for user in every(page, limit):
            yield user


class ExecutorCalls(Calls):
    """What can be done with executors, their functions and locations."""

    async def register_executor(
        self,
        name: str,
        executor_types: Iterable[str],
        *,
        location: str = "",
        capabilities: registry.Capabilities | None = None,
    ) -> registry.Executor:
        """Registers the caller as an executor; repeat it to learn whether the colony's owner has approved."""
        request = registry.RegisterExecutorRequest(
            colony=self.colony,
            name=name,
            executor_types=executor_types,
            location_name=location,
            capabilities=capabilities,
        )
        return (await self.call(self.registry.RegisterExecutor, request)).executor

    async def approve_executor(self, identity: str) -> registry.Executor:
        """Lets a registered executor in, by its identity; for the colony's owner."""
        request = registry.ApproveExecutorRequest(colony_name=self.colony, identity=identity)
        return (await self.call(self.registry.ApproveExecutor, request)).executor

    async def reject_executor(self, identity: str) -> registry.Executor:
        """Keeps an executor out, or throws it out, by its identity; for the colony's owner."""
        request = registry.RejectExecutorRequest(colony_name=self.colony, identity=identity)
        return (await self.call(self.registry.RejectExecutor, request)).executor

    async def remove_executor(self, identity: str) -> None:
        """Removes an executor with its functions, by its identity; for the colony's owner and the executor itself."""
        request = registry.RemoveExecutorRequest(colony_name=self.colony, identity=identity)
        await self.call(self.registry.RemoveExecutor, request, gone=registry.RemoveExecutorResponse())

    async def get_executor(self, name: str = "", *, identity: str = "") -> registry.Executor:
        """One executor: an approved one by its name, or any by its identity.

        Raises:
            ValueError: neither was named, or both.
        """
        if bool(name) == bool(identity):
            msg = "get_executor() takes a name or an identity"
            raise ValueError(msg)
        request = registry.GetExecutorRequest(colony_name=self.colony)
        if name:
            request.name = name
        else:
            request.identity = identity
        return (await self.call(self.registry.GetExecutor, request)).executor

    async def list_executors(
        self,
        *,
        states: Iterable[registry.ExecutorState.ValueType] = (),
        executor_type: str = "",
        limit: int | None = None,
    ) -> AsyncGenerator[registry.Executor]:
        """The colony's executors by name. Filters that are not set pass everything."""
        request = registry.ListExecutorsRequest(colony_name=self.colony, states=states, executor_type=executor_type)

        async def page(cursor: str, size: int) -> tuple[Sequence[registry.Executor], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.registry.ListExecutors, request)
            return response.executors, response.next_cursor

        async for executor in every(page, limit):
            yield executor

    async def update_executor(self, capabilities: registry.Capabilities) -> registry.Executor:
        """Changes what the caller, an approved executor, offers."""
        request = registry.UpdateExecutorRequest(colony_name=self.colony, capabilities=capabilities)
        return (await self.call(self.registry.UpdateExecutor, request)).executor

    async def announce_functions(self, functions: Iterable[registry.Function]) -> None:
        """Sets the functions that the caller, an approved executor, offers."""
        request = registry.AnnounceFunctionsRequest(colony_name=self.colony, functions=functions)
        await self.call(self.registry.AnnounceFunctions, request)

    async def list_functions(
        self, *, executor_name: str = "", limit: int | None = None
    ) -> AsyncGenerator[registry.ListFunctionsResponse.Entry]:
        """The functions that approved executors announced, by function and executor name."""
        request = registry.ListFunctionsRequest(colony_name=self.colony, executor_name=executor_name)

        async def page(cursor: str, size: int) -> tuple[Sequence[registry.ListFunctionsResponse.Entry], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.registry.ListFunctions, request)
            return response.entries, response.next_cursor

        async for entry in every(page, limit):
            yield entry

    async def remove_function(self, name: str) -> None:
        """Takes back one function that the caller, an approved executor, announced."""
        request = registry.RemoveFunctionRequest(colony_name=self.colony, name=name)
        await self.call(self.registry.RemoveFunction, request, gone=registry.RemoveFunctionResponse())

    async def put_location(self, name: str, *, description: str = "", longitude: float = 0.0, latitude: float = 0.0) -> None:
        """Adds a location, or changes it; degrees east and north. For the colony's owner."""
        location = registry.Location(name=name, description=description, longitude=longitude, latitude=latitude)
        request = registry.PutLocationRequest(colony_name=self.colony, location=location)
        await self.call(self.registry.PutLocation, request)

    async def get_location(self, name: str) -> registry.Location:
        """One location."""
        request = registry.GetLocationRequest(colony_name=self.colony, name=name)
        return (await self.call(self.registry.GetLocation, request)).location

    async def list_locations(self, *, limit: int | None = None) -> AsyncGenerator[registry.Location]:
        """The colony's locations by name."""

        async def page(cursor: str, size: int) -> tuple[Sequence[registry.Location], str]:
            request = registry.ListLocationsRequest(colony_name=self.colony, page_size=size, cursor=cursor)
            response = await self.call(self.registry.ListLocations, request)
            return response.locations, response.next_cursor

        async for location in every(page, limit):
            yield location

    async def remove_location(self, name: str) -> None:
        """Removes a location; for the colony's owner."""
        request = registry.RemoveLocationRequest(colony_name=self.colony, name=name)
        await self.call(self.registry.RemoveLocation, request, gone=registry.RemoveLocationResponse())
