"""Who asks the source, when, and what of its answers is kept, in every order in which answers and changes can come."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.changes import SYNCED, Change, Event
from servicekit.clock import ManualClock
from servicekit.directory import MAX_FETCHES, Directory
from servicekit.failures import Unavailable

Key = tuple[str, str]
KEYS: list[Key] = [("acme", "a"), ("acme", "b"), ("umbrella", "a")]


@dataclass
class Asked:
    """One fetch: it reads the record at a moment, and answers at another."""

    key: Key
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)


class Source:
    """Records are versions, which grow; the test says when each fetch reads and answers, and what is pushed."""

    def __init__(self) -> None:
        self.versions = dict.fromkeys(KEYS, 1)
        self.asked: list[Asked] = []
        self.fetches = 0
        self.at_once = 0
        self.most_at_once = 0
        self.away = False
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def fetch(self, colony: str, identity: str) -> int | None:
        asked = Asked((colony, identity))
        self.asked.append(asked)
        self.fetches += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asked.may_read.wait()
            if self.away:
                raise Unavailable("away", reason="TEST")
            version = self.versions.get(asked.key)
            await asked.may_answer.wait()
            return version
        finally:
            self.at_once -= 1
            self.asked.remove(asked)

    async def changes(self) -> AsyncIterator[Event]:
        while (event := await self.events.get()) is not None:
            yield event
        raise Unavailable("broken", reason="TEST")


async def settled() -> None:
    """Lets everything that can go on go on."""
    for _ in range(12):
        await asyncio.sleep(0)


class World:
    """A directory that follows a source, and what has been asked of it."""

    def __init__(self) -> None:
        self.source = Source()
        self.directory: Directory[int] = Directory(self.source, ManualClock())
        self.applied = dict.fromkeys(KEYS, 1)
        self.gets: list[tuple[Key, int, asyncio.Task[int | None]]] = []
        self.following = asyncio.create_task(self.directory.run())

    async def push(self, event: Event | None) -> None:
        """Has an event taken in; None breaks the push."""
        self.source.events.put_nowait(event)
        await settled()

    async def get(self, key: Key) -> "asyncio.Task[int | None]":
        """Begins to ask."""
        task = asyncio.create_task(self.directory.get(*key))
        self.gets.append((key, self.applied[key], task))
        await settled()
        return task

    def answer(self) -> None:
        """Has all fetches read and answer."""
        for asked in self.source.asked:
            asked.may_read.set()
            asked.may_answer.set()

    def check(self) -> None:
        """Nothing that is kept, and nothing that was given, is older than what had been pushed (when it was asked for)."""
        for key in KEYS:
            kept = self.directory.kept(*key)
            assert kept is None or kept >= self.applied[key]
        for _, applied, task in self.gets:
            if task.done() and not task.cancelled():
                assert (task.result() or 0) >= applied

    async def end(self) -> None:
        for task in (self.following, *(task for _, _, task in self.gets)):
            task.cancel()
        await asyncio.gather(self.following, *(task for _, _, task in self.gets), return_exceptions=True)
        await settled()
        assert self.source.at_once == 0, "a fetch that nobody waits for goes on"


def run(story: Coroutine[Any, Any, None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # A push that broke is there again at once.
        patch.setattr("servicekit.directory.FIRST_PAUSE_S", 0.0)
        asyncio.run(story)


# Mostly one record, and mostly the oldest fetch: else hardly anything meets anything.
STEPS = st.one_of(
    st.tuples(st.sampled_from(["get", "ask", "change", "push", "tell"]), st.sampled_from([0, 0, 0, 1, 2])),
    st.tuples(st.sampled_from(["read", "answer", "cancel"]), st.sampled_from([0, 0, 0, 1, 2])),
    st.tuples(st.sampled_from(["sync", "break", "remove"]), st.just(0)),
)


async def step(world: World, what: str, which: int) -> None:
    source = world.source
    if what in ("get", "ask"):
        await world.get(KEYS[which])
        # What is asked is read at once, and answered later.
        for asked in source.asked if what == "ask" else ():
            asked.may_read.set()
    elif what == "change":
        source.versions[KEYS[which]] += 1
    elif what in ("push", "tell"):
        source.versions[KEYS[which]] += what == "tell"
        version = source.versions[KEYS[which]]
        await world.push(Change(*KEYS[which]))
        world.applied[KEYS[which]] = version
    elif what in ("read", "answer") and which < len(source.asked):
        source.asked[which].may_read.set()
        if what == "answer":
            source.asked[which].may_answer.set()
    elif what == "cancel" and which < len(world.gets):
        world.gets[which][2].cancel()
    elif what == "sync":
        await world.push(SYNCED)
        world.applied = dict(source.versions)
    elif what == "break":
        await world.push(None)
    elif what == "remove":
        for key in KEYS[:2]:
            source.versions[key] += 1
        await world.push(Change("acme", "", colony_removed=True))
        world.applied |= {key: source.versions[key] for key in KEYS[:2]}
    await settled()
    world.check()


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_in_no_order_is_an_older_answer_kept_or_given(steps: list[tuple[str, int]]) -> None:
    async def story() -> None:
        world = World()
        await world.push(SYNCED)
        for what, which in steps:
            await step(world, what, which)
        # All that is left is answered, and what is asked for then is what there is now, and is kept.
        world.answer()
        await settled()
        world.check()
        await world.push(SYNCED)
        for key in KEYS:
            task = await world.get(key)
            world.answer()
            await settled()
            assert await task == world.directory.kept(*key) == world.source.versions[key]
        await world.end()

    run(story())


@pytest.mark.parametrize("push", ["push", "remove", "sync", "break"])
@pytest.mark.parametrize("answered", ["while the other is under way", "after the other"])
def test_an_answer_from_before_a_change_is_not_kept_and_not_given_to_who_asks_after_it(push: str, answered: str) -> None:
    async def story() -> None:
        world = World()
        await world.push(SYNCED)
        early = await world.get(KEYS[0])
        await step(world, "read", 0)
        await step(world, "change", 0)
        await step(world, push, 0)
        late = await world.get(KEYS[0])
        assert world.source.fetches == 2
        for which in (0, 0) if answered == "while the other is under way" else (1, 0):
            await step(world, "answer", which)
        assert (await early, await late) == (1, world.source.versions[KEYS[0]])
        assert world.directory.kept(*KEYS[0]) == world.source.versions[KEYS[0]]
        await world.end()

    run(story())


def test_a_change_of_another_record_keeps_no_answer_from_being_kept() -> None:
    async def story() -> None:
        world = World()
        await world.push(SYNCED)
        await world.get(("acme", "a"))
        await world.push(Change("acme", "b"))
        await world.push(Change("umbrella", "a"))
        await world.push(Change("umbrella", "", colony_removed=True))
        world.answer()
        await settled()
        assert world.directory.kept("acme", "a") == 1
        await world.end()

    run(story())


def test_all_who_ask_at_once_share_one_answer_and_whoever_gives_up_takes_it_from_nobody() -> None:
    async def story() -> None:
        world = World()
        await world.push(SYNCED)
        tasks = [await world.get(("acme", "a")) for _ in range(5)]
        tasks[0].cancel()
        tasks[3].cancel()
        await settled()
        world.answer()
        await asyncio.wait(tasks)
        assert [None if task.cancelled() else task.result() for task in tasks] == [None, 1, 1, None, 1]
        assert world.source.fetches == 1
        await world.end()

    run(story())


def test_an_outage_is_told_to_all_who_ask_and_the_next_asks_anew() -> None:
    async def story() -> None:
        world = World()
        await world.push(SYNCED)
        tasks = [await world.get(("acme", "a")) for _ in range(3)]
        world.source.away = True
        world.answer()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [Unavailable] * 3
        world.source.away = False
        world.gets.clear()
        again = await world.get(("acme", "a"))
        world.answer()
        assert await again == 1
        assert world.source.fetches == 2
        await world.end()

    run(story())


def test_a_fetch_that_nobody_waits_for_any_more_ends_and_the_next_asks_anew() -> None:
    async def story() -> None:
        world = World()
        await world.push(SYNCED)
        for _ in range(2):
            task = await world.get(("acme", "a"))
            task.cancel()
            # Somebody who asks in the same moment is not given the end of what was given up.
            other = await world.get(("acme", "a"))
            assert world.source.at_once == 1
            other.cancel()
            await settled()
            assert world.source.at_once == 0
        await world.end()

    run(story())


def test_strangers_are_asked_for_some_at_a_time_in_turn_and_nobody_who_is_known_waits() -> None:
    async def story() -> None:
        world = World()
        await world.push(SYNCED)
        member = await world.get(("acme", "a"))
        world.answer()
        await member
        strangers = [asyncio.create_task(world.directory.get("acme", f"{n:064x}")) for n in range(3 * MAX_FETCHES)]
        await settled()
        assert world.source.at_once == MAX_FETCHES
        assert await world.directory.get("acme", "a") == 1
        # In turn: who came first is asked for first.
        assert [asked.key[1] for asked in world.source.asked] == [f"{n:064x}" for n in range(MAX_FETCHES)]
        while not all(task.done() for task in strangers):
            world.answer()
            await settled()
        assert [task.result() for task in strangers] == [None] * len(strangers)
        assert world.source.most_at_once == MAX_FETCHES
        await world.end()

    run(story())


def test_who_finds_no_place_for_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.directory.LONGEST_WAIT_S", 0.05)

    async def story() -> None:
        world = World()
        await world.push(SYNCED)
        strangers = [asyncio.create_task(world.directory.get("acme", f"{n:064x}")) for n in range(MAX_FETCHES)]
        await settled()
        with pytest.raises(Unavailable) as caught:
            await world.directory.get("acme", "a")
        assert caught.value.reason == "DIRECTORY_BUSY"
        world.answer()
        await asyncio.gather(*strangers)
        # The place that was waited for in vain is not lost.
        task = await world.get(("acme", "a"))
        world.answer()
        assert await task == 1
        await world.end()

    run(story())
