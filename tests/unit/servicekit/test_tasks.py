"""Tasks that end with their owner."""

import asyncio
import gc
from typing import Any

import pytest

from servicekit import tasks

pytestmark = pytest.mark.asyncio


async def failing(then: asyncio.Event) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await then.wait()
        msg = "nobody asked"
        raise RuntimeError(msg)


async def test_all_are_over() -> None:
    now = asyncio.Event()
    now.set()
    mine = [asyncio.ensure_future(asyncio.Event().wait()), asyncio.ensure_future(failing(now))]
    await asyncio.sleep(0)
    await tasks.end(mine[0], None, mine[1])
    assert mine[0].cancelled()
    assert isinstance(mine[1].exception(), RuntimeError)


async def interrupted() -> None:
    later, at_once = asyncio.Event(), asyncio.Event()
    at_once.set()
    mine = [asyncio.ensure_future(failing(later)), asyncio.ensure_future(failing(at_once))]
    await asyncio.sleep(0)
    owner = asyncio.ensure_future(tasks.end(*mine))
    while not mine[1].done():
        await asyncio.sleep(0)
    owner.cancel()
    await asyncio.sleep(0)
    later.set()
    await asyncio.wait([owner])
    assert owner.cancelled()
    assert all(one.done() for one in mine)


async def test_errors_are_fetched_though_whoever_waits_is_cancelled() -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    await interrupted()
    gc.collect()
    assert told == []
