"""Changes told by Postgres: none missed after SYNCED, and a break is told to every follower."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from servicekit.changes import MAX_BACKLOG, SYNCED, Change, ChangeFeed
from servicekit.failures import Unavailable

CHANNEL = "test_changes"


@pytest_asyncio.fixture
async def feed(empty_database_url: str) -> AsyncIterator[ChangeFeed]:
    """A feed that listens."""
    made = ChangeFeed(empty_database_url, CHANNEL)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def tell(url: str, *changes: Change) -> None:
    """Notifies, each change in a transaction of its own."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for change in changes:
            await connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, change.payload()])


async def cut(url: str) -> None:
    """Ends the feed's connection, as a restart of Postgres would."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE {}")
            .format(sql.Literal("LISTEN %"))
        )  # fmt: skip


@given(st.builds(Change, st.text(), st.text(), st.booleans()))
def test_payloads_come_back(change: Change) -> None:
    assert Change.parse(change.payload()) == change
    assert change.payload().isascii()


@pytest.mark.asyncio
async def test_every_follower_hears_every_change_after_synced(empty_database_url: str, feed: ChangeFeed) -> None:
    followers = [feed.follow() for _ in range(3)]
    for follower in followers:
        assert await anext(follower) is SYNCED
    changes = [Change("acme", f"{index}") for index in range(50)]
    await tell(empty_database_url, *changes)
    for follower in followers:
        assert [await anext(follower) for _ in changes] == changes


@pytest.mark.asyncio
async def test_a_break_ends_every_follower_and_then_they_can_follow_anew(empty_database_url: str, feed: ChangeFeed) -> None:
    followers = [feed.follow() for _ in range(2)]
    for follower in followers:
        assert await anext(follower) is SYNCED
    await cut(empty_database_url)
    for follower in followers:
        with pytest.raises(Unavailable) as caught:
            await anext(follower)
        assert caught.value.reason == "FEED_INTERRUPTED"
    anew = feed.follow()
    assert await anext(anew) is SYNCED
    await tell(empty_database_url, Change("acme", "a"))
    assert await anext(anew) == Change("acme", "a")


@pytest.mark.asyncio
async def test_a_follower_that_is_too_slow_is_cut_off_and_the_others_go_on(
    empty_database_url: str, feed: ChangeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_BACKLOG > 0
    monkeypatch.setattr("servicekit.changes.MAX_BACKLOG", 3)
    slow, quick = feed.follow(), feed.follow()
    assert [await anext(slow), await anext(quick)] == [SYNCED, SYNCED]
    changes = [Change("acme", f"{index}") for index in range(5)]
    for change in changes:
        await tell(empty_database_url, change)
        assert await anext(quick) == change
    heard: list[Change] = []
    with pytest.raises(Unavailable):
        async for event in slow:
            assert isinstance(event, Change)
            heard.append(event)
    assert heard == changes[:3]
