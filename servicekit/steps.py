"""Steps that must not end half-way because somebody stopped waiting for them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")

# The loop itself holds tasks weakly.
_under_way: set[asyncio.Task[Any]] = set()


async def uninterrupted(step: Coroutine[Any, Any, T]) -> T:
    """Awaits a step. If the caller is cancelled meanwhile (its client has gone), the step still runs to its end."""
    task = asyncio.create_task(step)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            task.add_done_callback(_note_failure)
        raise


def _note_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("a step failed after its caller had gone", error=str(error))
