"""Tasks that are to be over when their owner is."""

import asyncio
from typing import Any


async def end(*tasks: "asyncio.Future[Any] | None") -> None:
    """Cancels tasks (None: there is none), and waits until they are over.

    What they raised is fetched, also if whoever waits here is cancelled meanwhile: an error that nobody fetched would be logged
    as a defect.
    """
    ending = [task for task in tasks if task is not None]
    for task in ending:
        task.cancel()
    # All in one: a wait that is cancelled waits for all of them, and then says so.
    await asyncio.gather(*ending, return_exceptions=True)
