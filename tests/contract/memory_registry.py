"""The registry's stores in memory, and an auth that can fail, for tests of the domain.

The stores pass the contract that the real ones pass.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from servicekit.failures import AlreadyExists, Unavailable
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
from services.registry.domain.ports import Edit

T = TypeVar("T")


class MemoryStore:
    """Executors, functions and locations. One edit at a time; an edit that fails leaves nothing behind."""

    def __init__(self) -> None:
        self.executors_by_key: dict[tuple[str, str], Executor] = {}
        self.functions_by_key: dict[tuple[str, str], list[Function]] = {}
        self.locations_by_key: dict[tuple[str, str], Location] = {}
        self.registrations_by_key: dict[tuple[str, str], bytes] = {}

    async def edit(self, colony: str, identity: str, work: Callable[[Edit], Awaitable[T]]) -> T:
        functions = {key: list(value) for key, value in self.functions_by_key.items()}
        before = dict(self.executors_by_key), functions, dict(self.registrations_by_key)
        try:
            return await work(MemoryEdit(self, (colony, identity)))
        except BaseException:
            self.executors_by_key, self.functions_by_key, self.registrations_by_key = before
            raise

    async def executor(self, colony: str, identity: str) -> Executor | None:
        return self.executors_by_key.get((colony, identity))

    async def executor_named(self, colony: str, name: str) -> Executor | None:
        return next((one for one in self.approved(colony) if one.name == name), None)

    def approved(self, colony: str) -> list[Executor]:
        """The approved executors of a colony."""
        everyone = self.executors_by_key.values()
        return [one for one in everyone if one.colony == colony and one.state is ExecutorState.APPROVED]

    async def executors(self, colony: str, wanted: ExecutorFilter, *, after: tuple[str, str], limit: int) -> Page[Executor]:
        found = [
            one
            for one in self.executors_by_key.values()
            if one.colony == colony
            and (one.name, one.identity) > after
            and (not wanted.states or one.state in wanted.states)
            and (not wanted.executor_type or wanted.executor_type in one.executor_types)
        ]
        found.sort(key=lambda one: (one.name, one.identity))
        return Page(found[:limit], more=len(found) > limit)

    async def functions(self, colony: str, executor_name: str, *, after: tuple[str, str], limit: int) -> Page[Announced]:
        found = [
            Announced(function, one.name, one.executor_types)
            for one in self.approved(colony)
            for function in self.functions_by_key.get((colony, one.identity), [])
            if (function.name, one.name) > after and executor_name in {"", one.name}
        ]
        found.sort(key=lambda announced: (announced.function.name, announced.executor_name))
        return Page(found[:limit], more=len(found) > limit)

    async def note_heard(self, heard: Sequence[Heard]) -> None:
        for one in heard:
            executor = self.executors_by_key.get((one.colony, one.identity))
            if executor is not None and (executor.last_heard_at is None or executor.last_heard_at < one.at):
                self.executors_by_key[(one.colony, one.identity)] = replace(executor, last_heard_at=one.at)

    async def put_location(self, colony: str, location: Location) -> None:
        self.locations_by_key[(colony, location.name)] = location

    async def location(self, colony: str, name: str) -> Location | None:
        return self.locations_by_key.get((colony, name))

    async def locations(self, colony: str, *, after: str, limit: int) -> Page[Location]:
        found = sorted(name for place, name in self.locations_by_key if place == colony and name > after)
        return Page([self.locations_by_key[(colony, name)] for name in found[:limit]], more=len(found) > limit)

    async def remove_location(self, colony: str, name: str) -> bool | None:
        if (colony, name) not in self.locations_by_key:
            return None
        if any(one.location_name == name for one in self.approved(colony)):
            return False
        del self.locations_by_key[(colony, name)]
        return True

    async def remove_colonies(self, names: Collection[str]) -> None:
        tables = (self.executors_by_key, self.functions_by_key, self.locations_by_key, self.registrations_by_key)
        for table in tables:
            for key in [key for key in table if key[0] in names]:
                del table[key]


class MemoryEdit:
    """The domain's Edit."""

    def __init__(self, store: MemoryStore, key: tuple[str, str]) -> None:
        self._store = store
        self._key = key

    @property
    def executor(self) -> Executor | None:
        return self._store.executors_by_key.get(self._key)

    async def hold_pending(self, at_most: int) -> None:
        everyone = self._store.executors_by_key.items()
        waiting = [
            (one.last_heard_at is not None, one.registered_at, key)
            for key, one in everyone
            if one.colony == self._key[0] and one.state is ExecutorState.PENDING
        ]
        for _, _, key in sorted(waiting)[: max(0, len(waiting) + 1 - at_most)]:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        for table in (self._store.executors_by_key, self._store.functions_by_key, self._store.registrations_by_key):
            table.pop(key, None)

    async def has_registration(self) -> bool:
        return bool(await self.registration())

    async def registration(self) -> bytes:
        return self._store.registrations_by_key.get(self._key, b"")

    async def hold_name(self, name: str) -> bool:
        return any(one.name == name and one.identity != self._key[1] for one in self._store.approved(self._key[0]))

    async def hold_location(self, name: str) -> bool:
        return (self._key[0], name) in self._store.locations_by_key

    async def save(self, executor: Executor, registration: bytes | None = None) -> None:
        if executor.state is ExecutorState.APPROVED and await self.hold_name(executor.name):
            msg = "taken"
            raise AlreadyExists(msg, reason="NAME_TAKEN")
        current = self.executor
        if current is not None:
            executor = replace(executor, registered_at=current.registered_at, last_heard_at=current.last_heard_at)
        self._store.executors_by_key[self._key] = executor
        if registration is not None:
            self._store.registrations_by_key[self._key] = registration

    async def remove(self) -> None:
        self._drop(self._key)

    async def set_functions(self, functions: Sequence[Function]) -> None:
        self._store.functions_by_key[self._key] = list(functions)

    async def remove_function(self, name: str) -> bool:
        functions = self._store.functions_by_key.get(self._key, [])
        kept = [function for function in functions if function.name != name]
        self._store.functions_by_key[self._key] = kept
        return len(kept) < len(functions)


class FakeAuthority:
    """An auth that knows one colony. `away` makes it answer nothing, `crash_after` has it do its work and then break."""

    def __init__(self, colony: str) -> None:
        self.members: dict[str, str] = {}
        self.calls: list[bytes] = []
        self.away = False
        self.crash_after = False
        self._colony = colony

    def _reach(self, *, before: bool) -> None:
        if self.away if before else self.crash_after:
            msg = "auth is out of reach"
            raise Unavailable(msg, reason="TEST")

    async def identity_in(self, colony: str, key: str) -> str | None:
        self._reach(before=True)
        return key if colony == self._colony else None

    async def admit(self, colony: str, identity: str, name: str, calls: Sequence[bytes]) -> None:
        self._reach(before=True)
        self.calls += calls
        self.members[identity] = name
        self._reach(before=False)

    async def drop(self, colony: str, identity: str, calls: Sequence[bytes]) -> None:
        self._reach(before=True)
        self.calls += calls
        self.members.pop(identity, None)
        self._reach(before=False)
