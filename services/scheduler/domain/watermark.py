"""Which steps this replica has begun and not finished, so that another can look after them if it dies (I4).

A step changes rows and then tells the queue. If the replica dies in between, the rows say one thing and the queue another. Each
replica therefore says now and then up to when all that it began was told; if it falls silent, another one looks through the
ledger's lines since then.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from servicekit.clock import NS_PER_MS, Clock


class Steps:
    """The steps under way in this replica."""

    def __init__(self, clock: Clock) -> None:
        self.replica = uuid4().hex
        self._clock = clock
        self._begun: dict[object, int] = {}

    def _now_ms(self) -> int:
        return self._clock.now_ns() // NS_PER_MS

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """From before rows are changed until the queue was told, or somebody has noted that it is still to be told."""
        token = self.begin()
        try:
            yield
        finally:
            self.end(token)

    def begin(self) -> object:
        """As `under_way`, for what ends elsewhere."""
        token = object()
        self._begun[token] = self._now_ms()
        return token

    def predate(self, token: object) -> None:
        """From now on this step counts as begun no later than any under way: it is to see to what one of these leaves."""
        self._begun[token] = self.watermark_ms()

    def end(self, token: object) -> None:
        """The queue was told."""
        del self._begun[token]

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return not self._begun

    def watermark_ms(self) -> int:
        """All that was begun before this moment was told (unix ms)."""
        return min([self._now_ms(), *self._begun.values()])
