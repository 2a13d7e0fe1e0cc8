"""How much a replica takes in hand at one time."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge

from services.gateway.problems import full


class Room:
    """Room for so many things of one kind."""

    def __init__(self, what: str, limit: int, taken: Gauge, turned_away: Counter) -> None:
        """`what` is for the message to whom there is no room for; `taken` shows how much is in use."""
        self.taken = 0
        self._what = what
        self._limit = limit
        self._gauge = taken
        self._turned_away = turned_away

    @contextmanager
    def some(self, amount: int) -> Iterator[None]:
        """Room for so much, until the block ends.

        Raises:
            Problem: there is none.
        """
        self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)

    def take(self, amount: int) -> None:
        """Takes room. Errors as above."""
        if self.taken + amount > self._limit:
            self._turned_away.inc()
            raise full(f"this gateway has as many {self._what} in hand as it takes: try again in a moment")
        self.taken += amount
        self._gauge.set(self.taken)

    def give_back(self, amount: int) -> None:
        """Gives back what was taken."""
        self.taken -= amount
        self._gauge.set(self.taken)
