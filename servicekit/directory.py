"""A local copy of what another service knows of identities, so that no call needs a network hop to check one.

The owner of the records pushes changes. While that push is live, a copy is good for ever, or until the record itself says that
it ends; when the push breaks, copies serve for 30 s and then calls fail closed. After a break every copy is dropped, for
changes may have been missed.

That there is no record is believed only of somebody who asks again and again: who has just become a member may call at once,
before the push of it has come here, and yet no stranger has the owner of the records asked for each of his calls.

And who is not known here waits for one of a few places to be asked for in, so that strangers with ever new keys are bounded
work for the owner of the records; who is known does not wait.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
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
# How often the source may say of one key that there is no record, within the time, before that is believed for the rest of it.
ABSENCES = 5
ABSENT_FOR_NS = 1_000_000_000
MAX_ABSENT = 10_000
# How many records are asked for at one time, and how long one waits to be.
MAX_FETCHES = 32
LONGEST_WAIT_S = 5.0

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
    value: T
    fetched_ns: int
    # Unix nanoseconds from which on there is no record any more.
    ends_ns: float


@dataclass(slots=True)
class _Fetch(Generic[T]):
    """A record that is being asked for, by all who want it now."""

    task: "asyncio.Task[T | None]"
    waiting: int = 0


@dataclass(slots=True)
class _Absence:
    """That there is no record: how often that was said since a moment."""

    since_ns: int
    times: int = 1


class Directory(Generic[T]):
    """Records by colony and identity, kept until the source says that they changed."""

    def __init__(self, source: Source[T], clock: Clock, ends: Callable[[T], int | None] = lambda _: None) -> None:
        """`ends` tells of a record from when on (unix nanoseconds) there is none any more; None: from no time on."""
        self._source = source
        self._clock = clock
        self._ends = ends
        self._entries: OrderedDict[Key, _Entry[T]] = OrderedDict()
        self._absences: OrderedDict[Key, _Absence] = OrderedDict()
        self._live = False
        self._lost_ns = 0
        # What no change has overtaken: what is not here any more when it ends may be older than what was pushed.
        self._fetches: dict[Key, _Fetch[T]] = {}
        self._places = asyncio.Semaphore(MAX_FETCHES)
        self._watchers: dict[Key, set[asyncio.Event]] = {}
        self._on_colony_removed: list[Callable[[str], None]] = []

    @property
    def is_live(self) -> bool:
        """Whether changes are heard of."""
        return self._live

    def on_colony_removed(self, callback: Callable[[str], None]) -> None:
        """Calls back with the name of every colony that is, or already was, removed."""
        self._on_colony_removed.append(callback)

    async def get(self, colony: str, identity: str) -> T | None:
        """The record, from the copy if it is good; all who want one at the same time share one answer of the source.

        Raises:
            Unavailable: there is no good copy and the source is out of reach, or too much is asked of it.
        """
        kept = self.kept(colony, identity)
        if kept is not None:
            return kept
        key = (colony, identity)
        if self._is_known_absent(key):
            return None
        fetch = self._fetches.get(key)
        if fetch is None:
            fetch = self._fetches[key] = _Fetch(asyncio.get_running_loop().create_task(self._fetch(key)))
        fetch.waiting += 1
        try:
            # Who stops waiting does not stop the others.
            return await asyncio.shield(fetch.task)
        finally:
            fetch.waiting -= 1
            if not fetch.waiting and not fetch.task.done():
                self._forget_fetch(key, fetch.task)
                fetch.task.cancel()

    async def _fetch(self, key: Key) -> T | None:
        """Asks the source, and keeps the answer unless a change came meanwhile."""
        task = asyncio.current_task()
        try:
            async with self._place():
                value = await self._source.fetch(*key)
            now_ns = self._clock.now_ns()
            ends_ns = None if value is None else self._ends(value)
            if ends_ns is not None and now_ns >= ends_ns:
                value = None
            fetch = self._fetches.get(key)
            if fetch is not None and fetch.task is task:
                # No change came while we asked, so the answer is not older than what was pushed.
                self._keep(key, value, now_ns, math.inf if ends_ns is None else ends_ns)
            return value
        finally:
            self._forget_fetch(key, task)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the places to be asked for in; whoever comes first gets the next that is free."""
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await self._places.acquire()
        except TimeoutError as error:
            msg = "too many who are not known here call at once"
            raise Unavailable(msg, reason="DIRECTORY_BUSY", retry_delay_s=LONGEST_PAUSE_S) from error
        try:
            yield
        finally:
            self._places.release()

    def _keep(self, key: Key, value: T | None, now_ns: int, ends_ns: float) -> None:
        if value is None:
            self._entries.pop(key, None)
            self._note_absent(key, now_ns)
            return
        self._entries[key] = _Entry(value, now_ns, ends_ns)
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)

    def _forget_fetch(self, key: Key, task: "asyncio.Task[T | None] | None") -> None:
        fetch = self._fetches.get(key)
        if fetch is not None and fetch.task is task:
            del self._fetches[key]

    def _is_known_absent(self, key: Key) -> bool:
        absence = self._absences.get(key)
        if absence is None or not self._live:
            return False
        return absence.times >= ABSENCES and self._clock.now_ns() - absence.since_ns < ABSENT_FOR_NS

    def _note_absent(self, key: Key, now_ns: int) -> None:
        absence = self._absences.get(key)
        if absence is not None and now_ns - absence.since_ns < ABSENT_FOR_NS:
            absence.times += 1
            return
        self._absences[key] = _Absence(now_ns)
        self._absences.move_to_end(key)
        if len(self._absences) > MAX_ABSENT:
            self._absences.popitem(last=False)

    def kept(self, colony: str, identity: str) -> T | None:
        """The copy, if there is a good one. Nobody is asked."""
        entry = self._entries.get((colony, identity))
        if entry is None or not self._good(entry):
            return None
        self._entries.move_to_end((colony, identity))
        return entry.value

    def _good(self, entry: _Entry[T]) -> bool:
        if self._live and entry.ends_ns == math.inf:
            return True
        now_ns = self._clock.now_ns()
        if now_ns >= entry.ends_ns:
            return False
        return self._live or now_ns - max(entry.fetched_ns, self._lost_ns) < STALE_AFTER_NS

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
                # Of a change meanwhile nobody would hear.
                self._fetches.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _apply(self, event: Event) -> None:
        # Whoever asks from here on is not given what was asked for before.
        if not isinstance(event, Change):
            self._live = True
            self._fetches.clear()
            self._entries.clear()
            self._absences.clear()
            self._wake(list(self._watchers))
            return
        if event.colony_removed:
            for kept in (self._entries, self._fetches):
                for key in [key for key in kept if key[0] == event.colony]:
                    del kept[key]
            self._wake([key for key in self._watchers if key[0] == event.colony])
            for callback in self._on_colony_removed:
                callback(event.colony)
            return
        self._fetches.pop((event.colony, event.identity), None)
        self._entries.pop((event.colony, event.identity), None)
        self._absences.pop((event.colony, event.identity), None)
        self._wake([(event.colony, event.identity)])

    def _wake(self, keys: list[Key]) -> None:
        for key in keys:
            for watcher in self._watchers.get(key, ()):
                watcher.set()
