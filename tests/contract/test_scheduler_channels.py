"""Channels in Postgres: one order without gaps, nothing twice, nothing from who may not, bounds, and all gone with the process."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from servicekit.failures import FailedPrecondition, Failure, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from services.scheduler.domain import channelling
from services.scheduler.domain.channelling import Appending, ChannelRef, ChannelRow, Kind, Message, MessageView, Sent, accepted
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.states import State
from services.scheduler.store import channels as store
from services.scheduler.store.channels import ChannelTables

from .scheduler_records import ALICE, COLONY, NO_PROCESS, WORKER, WORKER_2, World, at, spec, success

pytestmark = pytest.mark.asyncio

RETRYABLE = Closing(successful=False, errors=("again",), retryable=True)
# More often with COLONIES_TEST_REPEATS, when a race is being looked for.
REPEATS = int(os.environ.get("COLONIES_TEST_REPEATS", "5"))


def data(*texts: str) -> list[Message]:
    return [Message(Kind.DATA, text.encode()) for text in texts]


END = Message(Kind.END, b"")


class Channel:
    """A channel, its members' words in short."""

    def __init__(self, world: World, process_id: UUID, name: str = "chat", colony: str = COLONY) -> None:
        self.tables = ChannelTables(world.database)
        self.ref = ChannelRef(colony, process_id, name)

    async def append(self, who: Any, attempt: int, first: int, messages: Sequence[Message]) -> int:
        appending = Appending(who.identity, who.name, attempt, first, messages)
        return await self.tables.append(
            self.ref, appending, lambda row: accepted(row, self.ref.process_id, appending), at(seconds=5)
        )

    async def submitter(self, first: int, *texts: str) -> int:
        return await self.append(ALICE, 0, first, data(*texts))

    async def worker(self, first: int, *texts: str, attempt: int = 1) -> int:
        return await self.append(WORKER, attempt, first, data(*texts))

    async def page(self, after: int = 0, limit: int = 1_000) -> channelling.Page:
        return await self.tables.messages_after(self.ref, ALICE.identity, lambda _row: None, after, limit)

    async def texts(self) -> list[str]:
        return [view.value.decode() for view in (await self.page()).messages]


async def opened(world: World, *, running: bool = True, **fields: Any) -> Channel:
    (one,) = (await world.enter(spec(channels=("chat", "other"), **fields), workflow=False)).process_ids
    if running:
        await world.assign(one)
    return Channel(world, one)


async def refused(call: Any, kind: type[Failure], reason: str) -> Failure:
    with pytest.raises(kind) as caught:
        await call
    assert caught.value.reason == reason
    return caught.value


async def test_both_sides_in_one_order_with_who_and_when(world: World) -> None:
    channel = await opened(world)
    await channel.submitter(1, "a", "b")
    await channel.worker(1, "c")
    await channel.submitter(3, "d")
    await channel.append(WORKER, 1, 2, [*data("e"), END])
    page = await channel.page()
    assert page.messages == [
        MessageView(1, 0, "alice", at(5), Kind.DATA, b"a"),
        MessageView(2, 0, "alice", at(5), Kind.DATA, b"b"),
        MessageView(3, 1, "worker-1", at(5), Kind.DATA, b"c"),
        MessageView(4, 0, "alice", at(5), Kind.DATA, b"d"),
        MessageView(5, 1, "worker-1", at(5), Kind.DATA, b"e"),
        MessageView(6, 1, "worker-1", at(5), Kind.END, b""),
    ]
    assert (page.more, page.over) == (False, False)
    for after in range(8):
        assert (await channel.page(after)).messages == (page.messages[after:] or ())
    assert (await Channel(world, channel.ref.process_id, "other").page()).messages == ()


async def test_a_call_that_comes_again_adds_what_is_not_there(world: World) -> None:
    channel = await opened(world)
    assert await channel.submitter(1, "a", "b") == 2
    assert await channel.submitter(1, "a", "b") == 0
    assert await channel.submitter(2, "b", "c") == 1
    assert await channel.worker(1, "x") == 1
    assert await channel.worker(1, "x", "y") == 1
    assert await channel.texts() == ["a", "b", "c", "x", "y"]
    failure = await refused(channel.submitter(5, "e"), InvalidArgument, "INVALID_FIELD")
    assert "first_number: must be at most 4" in failure.message
    assert await channel.texts() == ["a", "b", "c", "x", "y"]


async def test_a_repeated_call_is_accepted_after_the_end_marker_and_after_the_process(world: World) -> None:
    channel = await opened(world)
    await channel.append(ALICE, 0, 1, [*data("a"), END])
    await channel.append(WORKER, 1, 1, [*data("b"), Message(Kind.ERROR, b"no")])
    assert (await channel.page()).over
    for _ in range(2):
        assert await channel.append(ALICE, 0, 1, [*data("a"), END]) == 0
        assert await channel.append(WORKER, 1, 1, data("b")) == 0
        await refused(channel.submitter(3, "late"), FailedPrecondition, "CHANNEL_ENDED")
        await refused(channel.worker(3, "late"), FailedPrecondition, "CHANNEL_ENDED")
        if (await world.states())[channel.ref.process_id] is State.RUNNING:
            await world.close(channel.ref.process_id, success(b"1"))
    assert len((await channel.page()).messages) == 4


async def test_a_channel_ends_with_its_process(world: World) -> None:
    channel = await opened(world)
    await channel.submitter(1, "a")
    await world.close(channel.ref.process_id, success(b"1"))
    page = await channel.page()
    assert (len(page.messages), page.over) == (1, True)
    await refused(channel.submitter(2, "b"), FailedPrecondition, "CHANNEL_ENDED")
    await refused(channel.worker(1, "b"), FailedPrecondition, "CHANNEL_ENDED")


async def test_the_submitter_may_speak_before_the_executor_is_there(world: World) -> None:
    channel = await opened(world, running=False)
    await channel.submitter(1, "early")
    await refused(channel.worker(1, "x"), PermissionDenied, "NOT_A_PARTY")
    await world.assign(channel.ref.process_id)
    await channel.worker(1, "x")
    assert await channel.texts() == ["early", "x"]


async def test_a_superseded_attempt_is_refused_and_the_next_counts_anew(world: World) -> None:
    channel = await opened(world, max_retries=5)
    one = channel.ref.process_id
    await channel.append(WORKER, 1, 1, [*data("first"), END])
    await channel.append(ALICE, 0, 1, [END])
    await world.close(one, RETRYABLE)
    # Both sides have ended, but the next attempt may speak.
    assert not (await channel.page()).over
    await refused(channel.worker(1, "first"), FailedPrecondition, "ATTEMPT_SUPERSEDED")
    await world.assign(one, executor=WORKER_2)
    assert not (await channel.page()).over
    for attempt in (1, 2, 3):
        await refused(channel.worker(1, "late", attempt=attempt), FailedPrecondition, "ATTEMPT_SUPERSEDED")
    await channel.append(WORKER_2, 2, 1, data("second"))
    await channel.append(WORKER_2, 2, 2, [END])
    assert (await channel.page()).over
    await refused(channel.append(WORKER_2, 2, 3, data("more")), FailedPrecondition, "CHANNEL_ENDED")
    assert await channel.texts() == ["first", "", "", "second", ""]
    assert [view.attempt for view in (await channel.page()).messages] == [1, 1, 0, 2, 2]


async def test_who_is_no_party(world: World) -> None:
    channel = await opened(world)
    await refused(channel.append(WORKER, 0, 1, data("x")), PermissionDenied, "NOT_A_PARTY")
    await refused(channel.append(WORKER_2, 0, 1, data("x")), PermissionDenied, "NOT_A_PARTY")
    await refused(channel.append(WORKER_2, 1, 1, data("x")), PermissionDenied, "NOT_A_PARTY")
    await refused(channel.append(ALICE, 1, 1, data("x")), FailedPrecondition, "ATTEMPT_SUPERSEDED")
    assert await channel.texts() == []
    for identity, owner, lets_in in (
        (ALICE.identity, False, True),
        (WORKER.identity, False, True),
        (WORKER_2.identity, False, False),
        (WORKER_2.identity, True, True),
    ):
        seen: list[ChannelRow] = []
        await channel.tables.messages_after(channel.ref, identity, seen.append, 0, 1)
        try:
            channelling.require_reader(seen[0], identity, owner=owner)
        except PermissionDenied as failure:
            assert not lets_in
            assert failure.reason == "NOT_A_PARTY"
        else:
            assert lets_in


async def test_what_is_not_there(world: World) -> None:
    channel = await opened(world)
    one = channel.ref.process_id
    for missing, reason in (
        (Channel(world, one, "ghost"), "CHANNEL_NOT_FOUND"),
        (Channel(world, NO_PROCESS), "PROCESS_NOT_FOUND"),
        (Channel(world, one, colony="umbrella"), "PROCESS_NOT_FOUND"),
    ):
        await refused(missing.submitter(1, "x"), NotFound, reason)
        await refused(missing.page(), NotFound, reason)


async def test_bounds_of_a_channel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channelling, "MAX_MESSAGES", 4)
    monkeypatch.setattr(channelling, "MAX_BYTES", 10)
    channel = await opened(world)
    await channel.submitter(1, "12345", "678")
    await refused(channel.worker(1, "abc"), ResourceExhausted, "CHANNEL_FULL")
    await channel.worker(1, "a", "b")
    await refused(channel.submitter(3, ""), ResourceExhausted, "CHANNEL_FULL")
    assert await channel.submitter(1, "12345", "678") == 0
    assert await channel.texts() == ["12345", "678", "a", "b"]
    other = Channel(world, channel.ref.process_id, "other")
    await other.submitter(1, "not full")


async def test_pages_hold_a_bounded_number_of_bytes_and_at_least_one_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_PAGE_BYTES", 100)
    channel = await opened(world)
    await channel.submitter(1, "x" * 60, "y" * 60, "z" * 500, "a", "b")
    sizes, after = [], 0
    while True:
        page = await channel.page(after)
        sizes.append([len(view.value) for view in page.messages])
        if not page.more:
            break
        after = page.messages[-1].number
    assert sizes == [[60, 60], [500], [1, 1]]
    page = await channel.page(0, limit=1)
    assert (len(page.messages), page.more) == (1, True)


async def test_removing_processes_removes_their_channels(world: World) -> None:
    channel, kept = await opened(world), await opened(world)
    for one in (channel, kept):
        await one.submitter(1, "a")
    await world.close(channel.ref.process_id, success(b"1"))
    await world.tables.remove_process(COLONY, channel.ref.process_id, lambda _initiator: None)
    assert {row["process_id"] for row in await world.rows("channel")} == {kept.ref.process_id}
    assert {row["process_id"] for row in await world.rows("channel_message")} == {kept.ref.process_id}
    await world.tables.purge(COLONY)
    assert await world.rows("channel") == await world.rows("channel_message") == []


async def test_channels_of_many_processes_enter_with_them(world: World) -> None:
    specs = [spec("a"), spec("b", channels=("x", "y", "z")), spec("c", "a", channels=("x",))]
    a, b, c = (await world.enter(*specs)).process_ids
    found = sorted((row["process_id"], row["name"]) for row in await world.rows("channel"))
    assert found == sorted([(b, "x"), (b, "y"), (b, "z"), (c, "x")])
    assert a not in {one for one, _ in found}


def row(**fields: Any) -> ChannelRow:
    defaults: dict[str, Any] = {
        "state": State.RUNNING,
        "live_attempt": 1,
        "executor_id": WORKER.identity,
        "initiator": ALICE.identity,
        "took_part": False,
        "messages": 0,
        "bytes": 0,
        "submitter": Sent(),
        "attempt": 0,
        "executor": Sent(),
    }
    return ChannelRow(**{**defaults, **fields})


async def test_the_last_message_that_a_channel_holds() -> None:
    first = Appending(ALICE.identity, "alice", 0, 1, data("x"))
    full, almost = channelling.MAX_MESSAGES, channelling.MAX_BYTES
    assert accepted(row(messages=full - 1, bytes=almost - 1), NO_PROCESS, first)
    for fields in ({"messages": full}, {"bytes": almost}):
        with pytest.raises(ResourceExhausted):
            accepted(row(**fields), NO_PROCESS, first)


WRITERS = 6
CALLS = 10


@pytest.mark.parametrize("_time", range(REPEATS))
async def test_many_who_write_at_once(world: World, _time: int) -> None:
    """Both sides, each call made by several at once as if answers were lost: one order, each sender's own kept, nothing twice."""
    channel = await opened(world)
    followed: list[MessageView] = []
    done = asyncio.Event()

    async def write(who: Any, attempt: int, name: str) -> None:
        for call in range(CALLS):
            texts = [f"{name}{2 * call + 1}", f"{name}{2 * call + 2}"]
            added = await asyncio.gather(
                *(channel.append(who, attempt, 2 * call + 1, data(*texts)) for _ in range(WRITERS // 2))
            )
            assert sorted(added) == [0] * (WRITERS // 2 - 1) + [2]

    async def follow() -> None:
        while True:
            over = done.is_set()
            page = await channel.page(followed[-1].number if followed else 0, limit=3)
            followed.extend(page.messages)
            if over and not page.messages:
                return

    following = asyncio.create_task(follow())
    await asyncio.gather(write(ALICE, 0, "s"), write(WORKER, 1, "e"))
    done.set()
    await following
    assert [view.number for view in followed] == list(range(1, 4 * CALLS + 1))
    for attempt, name in ((0, "s"), (1, "e")):
        mine = [view.value.decode() for view in followed if view.attempt == attempt]
        assert mine == [f"{name}{number}" for number in range(1, 2 * CALLS + 1)]
    (counters,) = [one for one in await world.rows("channel") if one["name"] == "chat"]
    assert (counters["messages"], counters["bytes"]) == (4 * CALLS, sum(len(view.value) for view in followed))


@pytest.mark.parametrize("_time", range(REPEATS))
async def test_the_end_of_a_process_against_those_who_write(world: World, _time: int) -> None:
    """What was acknowledged is there; after the end nothing is added; a follower that sees the end has seen all."""
    channel = await opened(world)
    acknowledged: list[str] = []

    async def write(who: Any, attempt: int, name: str) -> str:
        for number in range(1, 200):
            try:
                await channel.append(who, attempt, number, data(f"{name}{number}"))
            except FailedPrecondition as failure:
                return failure.reason
            acknowledged.append(f"{name}{number}")
        raise AssertionError("the process never ended")

    async def follow() -> list[str]:
        found: list[MessageView] = []
        while True:
            page = await channel.page(found[-1].number if found else 0)
            found += page.messages
            if page.over and not page.more:
                return [view.value.decode() for view in found]

    async def close() -> None:
        while len(acknowledged) < 10:
            await asyncio.sleep(0)
        await world.close(channel.ref.process_id, success(b"1"))

    followed, *reasons, _ = await asyncio.gather(follow(), write(ALICE, 0, "s"), write(WORKER, 1, "e"), close())
    assert reasons == ["CHANNEL_ENDED", "CHANNEL_ENDED"]
    assert sorted(followed) == sorted(acknowledged)
    assert await channel.texts() == followed
