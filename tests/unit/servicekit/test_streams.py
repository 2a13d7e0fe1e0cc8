"""Signs of life come between items and lose none of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from servicekit.streams import with_signs_of_life

pytestmark = pytest.mark.asyncio


async def test_items_come_in_order_between_signs_of_life() -> None:
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    closed = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            while (item := await queue.get()) is not None:
                yield item
        finally:
            closed.set()

    # What is put in after so many signs of life; None ends the items.
    later: dict[int, int | None] = {3: 3, 6: None}
    seen: list[int | None] = []
    for number in (1, 2):
        queue.put_nowait(number)
    async for item in with_signs_of_life(items(), every_s=0.001):
        seen.append(item)
        signs = seen.count(None)
        if item is None and signs in later:
            queue.put_nowait(later[signs])
    assert [item for item in seen if item is not None] == [1, 2, 3]
    assert seen.count(None) >= 6
    assert closed.is_set()


async def test_what_breaks_the_items_breaks_the_stream() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    stream = with_signs_of_life(items(), every_s=5)
    assert await anext(stream) == 1
    with pytest.raises(LookupError):
        await anext(stream)


async def test_closing_it_in_the_middle_of_a_wait_closes_the_items() -> None:
    closed = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.set()

    stream = with_signs_of_life(items(), every_s=0.001)
    assert await anext(stream) is None
    await stream.aclose()  # type: ignore[attr-defined]
    assert closed.is_set()

    closed.clear()
    stream = with_signs_of_life(items(), every_s=60)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert closed.is_set()
