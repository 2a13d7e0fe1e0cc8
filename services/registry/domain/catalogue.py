"""What a colony's executors offer and where they are: for its members to read, for each executor to keep up to date."""

from collections.abc import Sequence
from dataclasses import replace

from servicekit.failures import FailedPrecondition, NotFound
from services.registry.domain.enrolment import present
from services.registry.domain.model import (
    Announced,
    Executor,
    ExecutorFilter,
    ExecutorState,
    Function,
    Heard,
    Location,
    Page,
)
from services.registry.domain.ports import Edit, ExecutorStore, LocationStore


class Catalogue:
    """Executors and their functions, once they are in."""

    def __init__(self, store: ExecutorStore) -> None:
        self._store = store

    async def find(self, colony: str, identity: str, name: str) -> Executor:
        """The executor with this identity, whatever its state; without an identity, the approved one with this name.

        Raises:
            NotFound: there is none.
        """
        if identity:
            return present(await self._store.executor(colony, identity))
        return present(await self._store.executor_named(colony, name))

    async def executors(self, colony: str, wanted: ExecutorFilter, *, after: tuple[str, str], limit: int) -> Page[Executor]:
        """Executors by name, then identity."""
        return await self._store.executors(colony, wanted, after=after, limit=limit)

    async def approved(self, colony: str, identity: str) -> Executor | None:
        """An executor if it is approved."""
        executor = await self._store.executor(colony, identity)
        return executor if executor is not None and executor.state is ExecutorState.APPROVED else None

    async def update(self, colony: str, identity: str, capabilities: bytes) -> Executor:
        """Changes what an approved executor offers.

        Raises:
            FailedPrecondition: it is not approved.
        """

        async def work(edit: Edit) -> Executor:
            executor = _working(edit.executor)
            updated = replace(executor, capabilities=capabilities)
            if updated != executor:
                await edit.save(updated)
            return updated

        return await self._store.edit(colony, identity, work)

    async def announce(self, colony: str, identity: str, functions: Sequence[Function]) -> None:
        """Sets the functions of an approved executor.

        Raises:
            FailedPrecondition: it is not approved.
        """

        async def work(edit: Edit) -> None:
            _working(edit.executor)
            await edit.set_functions(functions)

        await self._store.edit(colony, identity, work)

    async def remove_function(self, colony: str, identity: str, name: str) -> None:
        """Takes back one function of an approved executor.

        Raises:
            FailedPrecondition: it is not approved.
            NotFound: it announced no such function.
        """

        async def work(edit: Edit) -> None:
            _working(edit.executor)
            if not await edit.remove_function(name):
                msg = f"this executor announced no function {name!r}"
                raise NotFound(msg, reason="FUNCTION_NOT_FOUND")

        await self._store.edit(colony, identity, work)

    async def functions(self, colony: str, executor_name: str, *, after: tuple[str, str], limit: int) -> Page[Announced]:
        """Functions of approved executors by function name, then executor name."""
        return await self._store.functions(colony, executor_name, after=after, limit=limit)

    async def note_heard(self, heard: Sequence[Heard]) -> None:
        """Notes when executors were last heard from."""
        await self._store.note_heard(heard)


class Sites:
    """A colony's locations."""

    def __init__(self, store: LocationStore) -> None:
        self._store = store

    async def put(self, colony: str, location: Location) -> None:
        """Adds a location, or changes it."""
        await self._store.put_location(colony, location)

    async def location(self, colony: str, name: str) -> Location:
        """One location.

        Raises:
            NotFound: there is none of this name.
        """
        location = await self._store.location(colony, name)
        if location is None:
            raise _no_location(name)
        return location

    async def locations(self, colony: str, *, after: str, limit: int) -> Page[Location]:
        """Locations by name."""
        return await self._store.locations(colony, after=after, limit=limit)

    async def remove(self, colony: str, name: str) -> None:
        """Removes a location.

        Raises:
            NotFound: there is none of this name.
            FailedPrecondition: an approved executor is there.
        """
        removed = await self._store.remove_location(colony, name)
        if removed is None:
            raise _no_location(name)
        if not removed:
            msg = f"an approved executor is at the location {name!r}"
            raise FailedPrecondition(msg, reason="LOCATION_IN_USE")


def _working(executor: Executor | None) -> Executor:
    """The caller's own entry. Auth let the caller in as an executor, so anything but an approved one is about to change."""
    if executor is None or executor.state is not ExecutorState.APPROVED:
        msg = "this executor's approval is being given or taken away at this moment"
        raise FailedPrecondition(msg, reason="EXECUTOR_NOT_APPROVED")
    return executor


def _no_location(name: str) -> NotFound:
    return NotFound(f"no location {name!r} in this colony", reason="LOCATION_NOT_FOUND")
