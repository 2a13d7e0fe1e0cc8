"""Lists that come in pages."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")

PAGE_SIZE = 100


async def every(
    page: Callable[[str, int], Awaitable[tuple[Sequence[Item], str]]], limit: int | None = None
) -> AsyncGenerator[Item]:
    """The items of all pages, each page fetched when it is needed.

    Args:
        page: takes a cursor (empty for the first page) and a page size, gives the items and the next cursor (empty on
            the last).
        limit: stop after this many; None = all.
    """
    cursor = ""
    left = limit
    while left is None or left > 0:
        items, cursor = await page(cursor, PAGE_SIZE if left is None else min(PAGE_SIZE, left))
        for item in items[:left]:
            yield item
        if left is not None:
            left -= len(items)
        if not cursor:
            return
