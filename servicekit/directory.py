"""A local copy of what another service knows of identities, so that no call needs a network hop to check one.

The owner of the records pushes changes. While that push is live, a copy is good for ever; when it breaks, copies serve for
30 s and then calls fail closed. After a break every copy is dropped, for changes may have been missed.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

import structlog

from servicekit.changes import Change, Event
from servicekit.clock import Clock
from servicekit.failures import Unavailable

log = structlog.get_logger()

STALE_AFTER_NS = 30_000_000_000
MAX_ENTRIES = 200_000
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

Key: TypeAlias = tuple[str, str]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Where the records come from."""

    async def fetch(self, colony: str, identity: str) -> T_co | None:
        """The record now, or None.

        Raises:
            Unavailable: the owner of the records is out of reach.
        """
        ...

    def changes(self) -> AsyncIterator[Event]:
        """SYNCED, then every change. Ends or raises Unavailable when it breaks."""
        ...


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T | None
    fetched_ns: int


class Directory(Generic[T]):
    """Records by colony and identity, kept until the source says that they changed. Absence is kept too."""

    def __init__(self, source: Source[T], clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry[T]] = OrderedDict()
        self._live = False
        self._lost_ns = 0
        self._generation = 0
        self._watchers: dict[Key, set[asyncio.Event]] = {}
        self._on_colony_removed: list[Callable[[str], None]] = []

    def on_colony_removed(self, callback: Callable[[str], None]) -> None:
        """Calls back with the name of every colony that is, or already was, removed."""
        self._on_colony_removed.append(callback)

    async def get(self, colony: str, identity: str) -> T | None:
        """The record, from the copy if it is good.

        Raises:
            Unavailable: there is no good copy and the source is out of reach.
        """
        key = (colony, identity)
        entry = self._entries.get(key)
        if entry is not None and self._good(entry):
            self._entries.move_to_end(key)
            return entry.value
        generation = self._generation
        value = await self._source.fetch(colony, identity)
        if generation == self._generation:
            # No change came while we asked, so the answer is not older than what was pushed.
            self._entries[key] = _Entry(value, self._clock.now_ns())
            self._entries.move_to_end(key)
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
        return value

    def _good(self, entry: _Entry[T]) -> bool:
        if self._live:
            return True
        since = max(entry.fetched_ns, self._lost_ns)
        return self._clock.now_ns() - since < STALE_AFTER_NS

    @contextmanager
    def watching(self, colony: str, identity: str) -> Iterator[asyncio.Event]:
        """An event that is set when the record may have changed: look again then, and clear it before looking."""
        event = asyncio.Event()
        watchers = self._watchers.setdefault((colony, identity), set())
        watchers.add(event)
        try:
            yield event
        finally:
            watchers.discard(event)
            if not watchers:
                self._watchers.pop((colony, identity), None)

    async def run(self) -> None:
        """Follows the source until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                async for event in self._source.changes():
                    self._apply(event)
                    pause = FIRST_PAUSE_S
            except Unavailable as error:
                if self._live:
                    log.warning("directory lost its source", source=type(self._source).__name__, error=error.message)
            if self._live:
                self._live = False
                self._lost_ns = self._clock.now_ns()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _apply(self, event: Event) -> None:
        self._generation += 1
        if not isinstance(event, Change):
            self._live = True
            self._entries.clear()
            self._wake(list(self._watchers))
            return
        if event.colony_removed:
            for key in [key for key in self._entries if key[0] == event.colony]:
                del self._entries[key]
            self._wake([key for key in self._watchers if key[0] == event.colony])
            for callback in self._on_colony_removed:
                callback(event.colony)
            return
        self._entries.pop((event.colony, event.identity), None)
        self._wake([(event.colony, event.identity)])

    def _wake(self, keys: list[Key]) -> None:
        for key in keys:
            for watcher in self._watchers.get(key, ()):
                watcher.set()
