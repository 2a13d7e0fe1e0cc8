"""The end of a process, announced: long polls and streams end early, what is in hand is finished."""

import asyncio
from collections.abc import Callable


class Drain:
    """Begins once, when the process has been told to stop."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._calls: list[Callable[[], None]] = []

    def at_start(self, call: Callable[[], None]) -> None:
        """Calls this when it has begun, for those who wait for something else."""
        self._calls.append(call)

    def begin(self) -> None:
        """The process has been told to stop."""
        self.started.set()
        for call in self._calls:
            call()
