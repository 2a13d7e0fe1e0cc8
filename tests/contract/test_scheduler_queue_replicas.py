"""Signs of life, and who looks through what a lost replica left."""

import asyncio

import pytest

from services.scheduler.domain.ports import Lost
from services.scheduler.queue import keys
from services.scheduler.queue.replicas import HANDED_AGAIN_MS, LOST_AFTER_MS, SECOND_PASS_MS

from .scheduler_line import START_MS, Line

pytestmark = pytest.mark.asyncio


def after(line: Line, milliseconds: int) -> None:
    line.clock.advance(ns=milliseconds * 1_000_000)


async def test_who_beats_is_not_lost_and_who_is_silent_is(line: Line) -> None:
    assert await line.queue.beat("b|1", START_MS - 70) == []
    for _ in range(3):
        assert await line.queue.beat("a", START_MS) == []
        after(line, LOST_AFTER_MS // 3)
    assert await line.queue.beat("a", START_MS) == [Lost("b|1", START_MS - 70, 0)]


async def test_a_lost_replica_is_handed_to_one_at_a_time_and_again_if_that_one_dies_too(line: Line) -> None:
    await line.queue.beat("dead", 7)
    after(line, LOST_AFTER_MS)
    answers = await asyncio.gather(*(line.queue.beat(name, 1) for name in "abcdef"))
    assert [lost for answer in answers for lost in answer] == [Lost("dead", 7, 0)]
    for _ in range(HANDED_AGAIN_MS // 1_000 - 1):
        after(line, 1_000)
        assert [await line.queue.beat(name, 1) for name in "abcdef"] == [[]] * 6
    after(line, 1_000)
    assert await line.queue.beat("a", 1) == [Lost("dead", 7, 0)]


async def passes(line: Line, milliseconds: int) -> list[Lost]:
    """Time goes by while another replica beats; what it was handed."""
    found = []
    for _ in range(milliseconds // 1_000):
        after(line, 1_000)
        found += await line.queue.beat("living", 1)
    return found


async def test_it_is_looked_through_twice_and_then_forgotten(line: Line) -> None:
    await line.queue.beat("dead", 7)
    (lost,) = await passes(line, LOST_AFTER_MS)
    for _ in range(2):
        # The second time is nothing new, and does not count as the second pass.
        await line.queue.recovered(lost)
    assert await passes(line, SECOND_PASS_MS - 1_000) == []
    (again,) = await passes(line, 1_000)
    assert again == Lost("dead", 7, 1)
    await line.queue.recovered(again)
    await line.queue.recovered(again)
    assert await passes(line, 60_000) == []
    assert await line.redis.zrange(keys.REPLICAS, 0, -1) == ["living"]
    assert set(await line.redis.hgetall(keys.WATERMARKS)) == {"mark:living"}


async def test_one_that_lives_again_is_left_alone(line: Line) -> None:
    await line.queue.beat("slow", 7)
    (lost,) = await passes(line, LOST_AFTER_MS)
    await line.queue.beat("slow", 7)
    await line.queue.recovered(lost)
    after(line, LOST_AFTER_MS - 1)
    assert await line.queue.beat("living", 1) == []
    after(line, 1)
    # Silent again, it is lost anew, from its first pass on.
    assert await line.queue.beat("living", 1) == [Lost("slow", 7, 0)]
    await line.queue.recovered(Lost("slow", 7, 0))
    await line.queue.beat("slow", 9)
    await line.queue.recovered(Lost("slow", 7, 1))
    assert "slow" in await line.redis.zrange(keys.REPLICAS, 0, -1)


async def test_a_clean_end_leaves_nothing(line: Line) -> None:
    await line.queue.beat("a", 1)
    await line.queue.leave("a")
    await line.queue.leave("a")
    assert await passes(line, 60_000) == []
    await line.queue.leave("living")
    assert not await line.redis.exists(keys.REPLICAS, keys.WATERMARKS)


async def test_what_was_recovered_when_the_server_lost_all_is_nothing(line: Line) -> None:
    await line.queue.beat("dead", 7)
    (lost,) = await passes(line, LOST_AFTER_MS)
    await line.redis.flushall()
    await line.queue.recovered(lost)
    assert not await line.redis.exists(keys.REPLICAS, keys.WATERMARKS)
