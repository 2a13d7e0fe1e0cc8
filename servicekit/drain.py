"""The end of a process, announced: long polls and streams end early, what is in hand is finished."""

import asyncio


class Drain:
    """Set once, when the process has been told to stop."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
