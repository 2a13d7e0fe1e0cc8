"""Server streams that are quiet for long: a sign of life now and then keeps proxies from cutting them off."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from servicekit import tasks

SIGN_OF_LIFE_S = 5.0

T = TypeVar("T")


async def with_signs_of_life(items: AsyncIterator[T], *, every_s: float = SIGN_OF_LIFE_S) -> AsyncIterator[T | None]:
    """The items as they come, and None whenever none came for `every_s` seconds. `items` is closed with this one."""
    upcoming: asyncio.Future[T] | None = None
    try:
        while True:
            # The wait for the next item outlives a sign of life: cancelling it would end a generator for good.
            upcoming = upcoming or asyncio.ensure_future(anext(items))
            await asyncio.wait((upcoming,), timeout=every_s)
            if not upcoming.done():
                yield None
                continue
            try:
                item = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            yield item
    finally:
        await tasks.end(upcoming)
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
