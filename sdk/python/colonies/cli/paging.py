"""Lists that come in pages."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from colonies.cli.connection import Connection

_PAGE = 1_000

Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many.")]
DEFAULT_LIMIT = 100


async def pages(here: Connection, method: Any, request: Any, field: str, *, limit: int | None = None) -> AsyncIterator[Any]:
    """The items of a list RPC, page after page, at most `limit`.

    Args:
        here: the connection.
        method: the stub's method.
        request: its first request; changed on the way.
        field: the response's field that holds the items.
        limit: None for all of them.
    """
    left = limit
    while left is None or left > 0:
        request.page_size = _PAGE if left is None else min(_PAGE, left)
        response = await here.call(method, request)
        items = getattr(response, field)
        for item in items if left is None else items[:left]:
            yield item
        if not response.next_cursor:
            return
        request.cursor = response.next_cursor
        if left is not None:
            left -= len(items)


async def collected(here: Connection, method: Any, request: Any, field: str, *, limit: int | None = None) -> list[Any]:
    """The items of `pages` as a list."""
    return [item async for item in pages(here, method, request, field, limit=limit)]
