"""What the domain needs from outside: auth's word on membership, and a store."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol, TypeVar

from services.registry.domain.model import Announced, Executor, ExecutorFilter, Function, Heard, Location, Page

T = TypeVar("T")


class Authority(Protocol):
    """Auth: what counts for who may call. Every method may raise Unavailable."""

    async def identity_in(self, colony: str, key: str) -> str | None:
        """What the holder of a key is known by in a colony, or would be. None: there is no such colony, or another key has
        taken the place of this one.
        """
        ...

    async def admit(self, colony: str, identity: str, name: str, calls: Sequence[bytes]) -> None:
        """Makes the identity an executor of this name, as the signed calls ask for. Repeating it changes nothing.

        Raises:
            AlreadyExists: the identity is something else in the colony, or another executor has the name.
            NotFound: no such colony.
        """
        ...

    async def drop(self, colony: str, identity: str, calls: Sequence[bytes]) -> None:
        """Ends the identity's membership as an executor, as the signed calls ask for. Repeating it changes nothing."""
        ...


class Edit(Protocol):
    """One executor's entry, held against all other edits until its transaction ends. Followers learn of what was changed."""

    @property
    def executor(self) -> Executor | None:
        """What is there now."""
        ...

    async def hold_pending(self, at_most: int) -> None:
        """Sees to it that one more executor of the colony can be pending: those that have waited longest make place, first of
        all who was never heard from as a member. None else can become pending until this edit ends.
        """
        ...

    async def hold_name(self, name: str) -> bool:
        """Whether another approved executor has this name; none can take it until this edit ends."""
        ...

    async def hold_location(self, name: str) -> bool:
        """Whether the colony has this location; it cannot be removed until this edit ends."""
        ...

    async def has_registration(self) -> bool:
        """Whether there is a signed call by which the executor says what it is."""
        ...

    async def registration(self) -> bytes:
        """That call; empty if there is none."""
        ...

    async def save(self, executor: Executor, registration: bytes | None = None) -> None:
        """Enters the executor, or changes everything about it but its times; its registration only when there is a new one.

        Raises:
            AlreadyExists: another approved executor has the name.
        """
        ...

    async def remove(self) -> None:
        """Removes the executor with its functions."""
        ...

    async def set_functions(self, functions: Sequence[Function]) -> None:
        """Replaces all functions of the executor."""
        ...

    async def remove_function(self, name: str) -> bool:
        """Takes one function back. False: there is none of this name."""
        ...


class ExecutorStore(Protocol):
    """Executors and their functions, durable."""

    async def edit(self, colony: str, identity: str, work: Callable[[Edit], Awaitable[T]]) -> T:
        """Runs `work` on one entry in one transaction. After a deadlock it runs again: it must bear repeating."""
        ...

    async def executor(self, colony: str, identity: str) -> Executor | None:
        """One executor, whatever its state."""
        ...

    async def executor_named(self, colony: str, name: str) -> Executor | None:
        """One approved executor."""
        ...

    async def executors(self, colony: str, wanted: ExecutorFilter, *, after: tuple[str, str], limit: int) -> Page[Executor]:
        """Executors by name, then identity, after these."""
        ...

    async def functions(self, colony: str, executor_name: str, *, after: tuple[str, str], limit: int) -> Page[Announced]:
        """Functions of approved executors by function name, then executor name, after these; "" is any executor."""
        ...

    async def note_heard(self, heard: Sequence[Heard]) -> None:
        """Moves signs of life forward; unknown executors are passed over."""
        ...


class LocationStore(Protocol):
    """Locations, durable."""

    async def put_location(self, colony: str, location: Location) -> None:
        """Adds a location, or changes it."""
        ...

    async def location(self, colony: str, name: str) -> Location | None:
        """One location."""
        ...

    async def locations(self, colony: str, *, after: str, limit: int) -> Page[Location]:
        """Locations by name, after this one."""
        ...

    async def remove_location(self, colony: str, name: str) -> bool | None:
        """Removes a location. False: an approved executor is there. None: there is no such location."""
        ...


class ColonyStore(Protocol):
    """Everything that is kept of colonies."""

    async def remove_colonies(self, names: Collection[str]) -> None:
        """Deletes all that is kept of these colonies. Repeating it changes nothing."""
        ...
