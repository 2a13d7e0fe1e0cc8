"""A local copy is good while the push is live, for 30 s after it broke, and never older than what was pushed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from servicekit.changes import SYNCED, Change, Event
from servicekit.clock import ManualClock
from servicekit.directory import ABSENCES, ABSENT_FOR_NS, MAX_ABSENT, MAX_ENTRIES, STALE_AFTER_NS, Directory
from servicekit.failures import Unavailable

pytestmark = pytest.mark.asyncio

STALE_S = STALE_AFTER_NS / 1e9


class FakeSource:
    """Records that a test changes, and a push that a test feeds and breaks."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], str] = {}
        self.fetches = 0
        self.away = False
        # A fetch that has read its record waits here before it answers.
        self.gate = asyncio.Event()
        self.gate.set()
        self.reading = asyncio.Event()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def fetch(self, colony: str, identity: str) -> str | None:
        self.fetches += 1
        if self.away:
            msg = "away"
            raise Unavailable(msg, reason="TEST")
        record = self.records.get((colony, identity))
        self.reading.set()
        await self.gate.wait()
        return record

    async def changes(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event
        msg = "broken"
        raise Unavailable(msg, reason="TEST")

    async def push(self, event: Event | None) -> None:
        """Hands an event to the directory and lets it be taken in; None breaks the push."""
        self._events.put_nowait(event)
        while not self._events.empty():
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)


class World:
    """A directory and what it works with."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.source = FakeSource()
        self.directory: Directory[str] = Directory(self.source, self.clock)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the directory follows its source."""
        task = asyncio.create_task(self.directory.run())
        try:
            yield
        finally:
            task.cancel()

    async def get(self) -> str | None:
        """The record that the tests look at."""
        return await self.directory.get("acme", "a")


@pytest.fixture
def world() -> World:
    """A directory whose source has one record."""
    made = World()
    made.source.records["acme", "a"] = "alice"
    return made


async def test_a_copy_is_good_for_ever_while_the_push_is_live(world: World) -> None:
    with world.running():
        await world.source.push(SYNCED)
        assert await world.get() == "alice"
        world.source.away = True
        world.clock.advance(seconds=10 * 365 * 24 * 3600)
        assert await world.get() == "alice"
        assert world.source.fetches == 1


async def test_absence_is_not_kept_for_it_may_be_over_before_a_change_comes(world: World) -> None:
    with world.running():
        await world.source.push(SYNCED)
        assert await world.directory.get("acme", "b") is None
        assert world.directory.kept("acme", "b") is None
        world.source.records["acme", "b"] = "bob"
        assert await world.directory.get("acme", "b") == "bob"
        assert world.directory.kept("acme", "b") == "bob"


async def test_whoever_asks_for_what_is_not_there_again_and_again_is_answered_from_memory(world: World) -> None:
    with world.running():
        await world.source.push(SYNCED)
        for _ in range(1_000):
            assert await world.directory.get("acme", "b") is None
        assert world.source.fetches == ABSENCES
        # Not for long, and not when somebody says that it changed.
        world.clock.advance(ns=ABSENT_FOR_NS)
        assert await world.directory.get("acme", "b") is None
        assert world.source.fetches == ABSENCES + 1
        for _ in range(1_000):
            assert await world.directory.get("acme", "b") is None
        world.source.records["acme", "b"] = "bob"
        await world.source.push(Change("acme", "b"))
        assert await world.directory.get("acme", "b") == "bob"
        # Others are asked for all the while.
        fetches = world.source.fetches
        assert await world.directory.get("acme", "c") is None
        assert world.source.fetches == fetches + 1


async def test_absence_is_not_believed_while_changes_are_not_heard_of(world: World) -> None:
    with world.running():
        await world.source.push(SYNCED)
        for _ in range(ABSENCES):
            assert await world.directory.get("acme", "b") is None
        await world.source.push(None)
        world.source.away = True
        with pytest.raises(Unavailable):
            await world.directory.get("acme", "b")


async def test_only_so_many_absences_are_remembered(world: World) -> None:
    with world.running():
        await world.source.push(SYNCED)
        for _ in range(ABSENCES):
            assert await world.directory.get("acme", "b") is None
        for number in range(MAX_ABSENT):
            assert await world.directory.get("acme", f"other-{number}") is None
        fetches = world.source.fetches
        assert await world.directory.get("acme", "b") is None
        assert world.source.fetches == fetches + 1


async def test_a_record_that_ends_is_none_from_that_moment_on_without_any_change(world: World) -> None:
    end_ns = world.clock.now_ns() + 60_000_000_000
    directory: Directory[str] = Directory(world.source, world.clock, lambda _: end_ns)
    task = asyncio.create_task(directory.run())
    try:
        await world.source.push(SYNCED)
        assert await directory.get("acme", "a") == "alice"
        world.clock.advance(seconds=60, ns=-1)
        assert await directory.get("acme", "a") == "alice"
        assert world.source.fetches == 1
        world.clock.advance(ns=1)
        assert directory.kept("acme", "a") is None
        assert await directory.get("acme", "a") is None
    finally:
        task.cancel()


async def test_a_change_drops_that_copy_and_no_other(world: World) -> None:
    world.source.records["acme", "b"] = "bob"
    with world.running():
        await world.source.push(SYNCED)
        await world.get()
        await world.directory.get("acme", "b")
        del world.source.records["acme", "a"]
        await world.source.push(Change("acme", "a"))
        assert await world.get() is None
        await world.directory.get("acme", "b")
        assert world.source.fetches == 3


async def test_when_the_push_breaks_copies_serve_for_thirty_seconds_and_then_calls_fail(world: World) -> None:
    with world.running():
        await world.source.push(SYNCED)
        await world.get()
        world.clock.advance(seconds=3600)
        await world.source.push(None)
        world.source.away = True
        world.clock.advance(seconds=STALE_S, ns=-1)
        assert await world.get() == "alice"
        world.clock.advance(ns=1)
        with pytest.raises(Unavailable):
            await world.get()
        # With the source back but not its push, a copy is good for as long.
        world.source.away = False
        assert await world.get() == "alice"
        world.source.away = True
        world.clock.advance(seconds=STALE_S, ns=-1)
        assert await world.get() == "alice"
        world.clock.advance(ns=1)
        with pytest.raises(Unavailable):
            await world.get()


async def test_before_the_first_sync_a_copy_is_good_for_thirty_seconds(world: World) -> None:
    assert await world.get() == "alice"
    world.clock.advance(seconds=STALE_S, ns=-1)
    await world.get()
    assert world.source.fetches == 1
    world.clock.advance(ns=1)
    await world.get()
    assert world.source.fetches == 2


async def test_a_new_sync_forgets_everything_for_changes_may_have_been_missed(world: World) -> None:
    with world.running():
        await world.source.push(SYNCED)
        await world.get()
        del world.source.records["acme", "a"]
        await world.source.push(SYNCED)
        assert await world.get() is None


@pytest.mark.parametrize("event", [Change("acme", "a"), Change("acme", "", colony_removed=True), SYNCED])
async def test_an_answer_that_a_change_overtook_is_not_kept(world: World, event: Event) -> None:
    """The record is read, then changes, then the stale answer arrives: it must not stay."""
    with world.running():
        await world.source.push(SYNCED)
        world.source.gate.clear()
        slow = asyncio.create_task(world.get())
        await world.source.reading.wait()
        del world.source.records["acme", "a"]
        await world.source.push(event)
        world.source.gate.set()
        await slow
        assert await world.get() is None


async def test_a_removed_colony_takes_its_copies_along_and_is_told(world: World) -> None:
    told: list[str] = []
    world.directory.on_colony_removed(told.append)
    world.source.records["umbrella", "a"] = "anna"
    with world.running():
        await world.source.push(SYNCED)
        await world.get()
        await world.directory.get("umbrella", "a")
        world.source.records.clear()
        await world.source.push(Change("acme", "", colony_removed=True))
        assert await world.get() is None
        assert await world.directory.get("umbrella", "a") == "anna"
    assert told == ["acme"]


async def test_watchers_are_woken_by_what_concerns_them(world: World) -> None:
    with world.running(), world.directory.watching("acme", "a") as event:
        await world.source.push(SYNCED)
        assert event.is_set()
        event.clear()
        await world.source.push(Change("acme", "b"))
        await world.source.push(Change("umbrella", "a"))
        await world.source.push(Change("umbrella", "", colony_removed=True))
        assert not event.is_set()
        await world.source.push(Change("acme", "a"))
        assert event.is_set()
        event.clear()
        await world.source.push(Change("acme", "", colony_removed=True))
        assert event.is_set()


async def test_what_was_not_asked_for_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    assert MAX_ENTRIES > 0
    monkeypatch.setattr("servicekit.directory.MAX_ENTRIES", 2)
    with world.running():
        await world.source.push(SYNCED)
        for identity in ("a", "b", "a", "c", "a"):
            await world.directory.get("acme", identity)
        assert world.source.fetches == 3
        await world.directory.get("acme", "b")
        assert world.source.fetches == 4
