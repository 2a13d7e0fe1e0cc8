"""The limit on waiting processes: what is let in, and what a look changes."""

import asyncio
from datetime import datetime

import pytest

from servicekit.clock import ManualClock, datetime_of
from servicekit.failures import ResourceExhausted
from services.scheduler.domain.limits import Limits, Waiting

CLOCK = ManualClock()


def now() -> datetime:
    """A moment after the last one."""
    CLOCK.advance(seconds=0.001)
    return datetime_of(CLOCK.now_ns())


class Table:
    """What is committed; a look takes as long as a test wants."""

    def __init__(self, max_waiting: int | None) -> None:
        self.max_waiting = max_waiting
        self.waiting = 0
        self.looking = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def limited(self) -> list[Waiting]:
        seen = self.waiting
        self.looking.set()
        await self.go_on.wait()
        return [] if self.max_waiting is None else [Waiting("acme", self.max_waiting, seen)]


def enter(limits: Limits, table: Table, count: int) -> None:
    """A submit from its admission to its commit."""
    with limits.admit("acme", count):
        table.waiting += count


@pytest.mark.asyncio
async def test_without_a_limit_all_enter() -> None:
    table = Table(None)
    limits = Limits(table, CLOCK)
    enter(limits, table, 10**9)
    await limits.refresh()
    enter(limits, table, 10**9)


@pytest.mark.asyncio
async def test_one_replica_never_passes_the_limit() -> None:
    table = Table(10)
    limits = Limits(table, CLOCK)
    await limits.refresh()
    enter(limits, table, 7)
    with pytest.raises(ResourceExhausted) as caught:
        enter(limits, table, 4)
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_delay_s > 0
    enter(limits, table, 3)
    await limits.refresh()
    with pytest.raises(ResourceExhausted, match="no room for 1 more: 10 processes may wait"):
        enter(limits, table, 1)
    table.waiting -= 2
    with pytest.raises(ResourceExhausted):
        enter(limits, table, 2)
    await limits.refresh()
    enter(limits, table, 2)
    assert table.waiting == 10


@pytest.mark.asyncio
async def test_what_this_replica_gives_out_makes_room_at_once() -> None:
    table = Table(10)
    limits = Limits(table, CLOCK)
    await limits.refresh()
    for _ in range(50):
        enter(limits, table, 10)
        table.waiting -= 10
        limits.left("acme", 10, now())
    await limits.refresh()
    enter(limits, table, 10)
    with pytest.raises(ResourceExhausted):
        enter(limits, table, 1)


@pytest.mark.asyncio
async def test_more_than_the_limit_is_always_refused() -> None:
    table = Table(10)
    limits = Limits(table, CLOCK)
    await limits.refresh()
    limits.left("acme", 10, now())
    with pytest.raises(ResourceExhausted, match="11 processes are more than may ever wait"):
        enter(limits, table, 11)


@pytest.mark.asyncio
async def test_what_is_under_way_while_a_look_is_is_counted_once_or_twice_but_never_not() -> None:
    table = Table(10)
    limits = Limits(table, CLOCK)
    await limits.refresh()
    table.go_on.clear()
    with limits.admit("acme", 4):
        table.looking.clear()
        look = asyncio.create_task(limits.refresh())
        await table.looking.wait()
        # The look does not see these.
        table.waiting += 4
        enter(limits, table, 3)
        table.go_on.set()
        await look
    with pytest.raises(ResourceExhausted):
        enter(limits, table, 4)
    enter(limits, table, 3)
    await limits.refresh()
    with pytest.raises(ResourceExhausted):
        enter(limits, table, 1)
    table.waiting = 0
    await limits.refresh()
    enter(limits, table, 10)


@pytest.mark.asyncio
async def test_a_limit_that_is_lifted_is_forgotten() -> None:
    table = Table(1)
    limits = Limits(table, CLOCK)
    await limits.refresh()
    enter(limits, table, 1)
    table.max_waiting = None
    await limits.refresh()
    enter(limits, table, 100)
    table.max_waiting = 200
    await limits.refresh()
    with pytest.raises(ResourceExhausted):
        enter(limits, table, 100)


@pytest.mark.asyncio
async def test_what_went_out_while_a_look_was_makes_room_once() -> None:
    table = Table(10)
    limits = Limits(table, CLOCK)
    await limits.refresh()
    enter(limits, table, 10)
    # Begun before a look, committed before it, told after it: the look has seen it.
    began = now()
    table.waiting -= 4
    now()
    await limits.refresh()
    limits.left("acme", 4, began)
    enter(limits, table, 4)
    with pytest.raises(ResourceExhausted):
        enter(limits, table, 1)
    # Told during a look, which may have seen it.
    table.waiting -= 4
    table.go_on.clear()
    table.looking.clear()
    look = asyncio.create_task(limits.refresh())
    await table.looking.wait()
    limits.left("acme", 4, now())
    table.go_on.set()
    await look
    enter(limits, table, 4)
    with pytest.raises(ResourceExhausted):
        enter(limits, table, 1)
    assert table.waiting == 10


@pytest.mark.asyncio
async def test_a_repeated_submit_takes_no_room() -> None:
    table = Table(10)
    limits = Limits(table, CLOCK)
    await limits.refresh()
    for _ in range(50):
        with limits.admit("acme", 6) as room:
            room.keep(0)
    await asyncio.gather(*(limits.refresh() for _ in range(5)))
    enter(limits, table, 10)
    with pytest.raises(ResourceExhausted):
        enter(limits, table, 1)
