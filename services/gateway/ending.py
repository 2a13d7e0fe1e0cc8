"""The end of a replica: first it is taken off the front door's list, then its streams are told, then what is in hand ends."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

# The front door asks once a second whether this replica is well.
TOLD_SECONDS = 2.5
# Its workers hear of it a moment later.
HEARD_SECONDS = 0.2


class Ending:
    """Where in its end the replica is."""

    def __init__(self) -> None:
        # No longer well: new calls are to go elsewhere.
        self.begun = False
        self._seen = asyncio.Event()
        self._streams = _Waiting()
        self._requests = _Waiting()

    def seen(self) -> None:
        """The front door has been told that this replica is not well any more."""
        self._seen.set()

    async def begin(self) -> None:
        """Returns when new calls go elsewhere, as far as that can be known."""
        self.begun = True
        try:
            async with asyncio.timeout(TOLD_SECONDS):
                await self._seen.wait()
                await asyncio.sleep(HEARD_SECONDS)
        except TimeoutError:
            return

    def end_streams(self) -> None:
        """Ends streams."""
        self._streams.end()

    def end_requests(self) -> None:
        """Ends what is still in hand."""
        self._requests.end()

    @contextmanager
    def waiting(self, *, stream: bool) -> Iterator["asyncio.Future[None]"]:
        """A future that is done when a stream, or another request, is to end."""
        calls = self._streams if stream else self._requests
        mine = calls.one_more()
        try:
            yield mine
        finally:
            calls.leave(mine)


class _Waiting:
    """Those who wait for the end. Each has a future of its own: thousands would make a shared one slow."""

    def __init__(self) -> None:
        self._over = False
        self._calls: set[asyncio.Future[None]] = set()

    def one_more(self) -> "asyncio.Future[None]":
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._over:
            call.set_result(None)
        self._calls.add(call)
        return call

    def leave(self, call: "asyncio.Future[None]") -> None:
        self._calls.discard(call)
        call.cancel()

    def end(self) -> None:
        self._over = True
        for call in self._calls:
            if not call.done():
                call.set_result(None)
