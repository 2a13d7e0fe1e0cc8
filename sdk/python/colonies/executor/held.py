"""Attempts that an executor has in hand: from assignment until the server has the result, or does not want it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from colonies.executor.context import Context
from colonies.executor.outbox import Outbox
from colonies.scheduler.v1.scheduler_service_pb2 import Assignment, AttemptRef

Key = tuple[str, int]


@dataclass(slots=True, eq=False)
class Held:
    """One attempt in hand."""

    assignment: Assignment
    # Process id and attempt: its name here.
    key: Key
    # When it came, by the event loop's clock.
    taken_at: float = 0.0
    # Only for functions that ask for one: most do not, and pay for none.
    context: Context | None = None
    outbox: Outbox | None = None
    # What runs the function, if it can be cancelled: a thread can only be told.
    task: asyncio.Task[None] | None = None
    # Ends the attempt when its time is over.
    timer: asyncio.TimerHandle | None = None
    # A heartbeat has told the server that it arrived.
    confirmed: bool = False
    # The result is on its way, or another one stands in for it.
    finished: bool = False
    # Nobody wants the result any more.
    dropped: bool = False

    @property
    def ref(self) -> AttemptRef:
        """Its name on the wire."""
        process_id, attempt = self.key
        return AttemptRef(process_id=process_id, attempt=attempt)

    def cancel(self) -> None:
        """Tells the function to stop; cancels it if it is async."""
        if self.context is not None:
            self.context.cancelled.set()
        if self.task is not None:
            self.task.cancel()

    def __str__(self) -> str:
        spec, (process_id, attempt) = self.assignment.spec, self.key
        return f"{spec.node_name or spec.func_name} (process {process_id}, attempt {attempt})"


@dataclass(slots=True)
class Hand:
    """All attempts in hand."""

    # Seconds between heartbeats, for the lease that the server gave last.
    beat_seconds: float = 1.0
    any_held: asyncio.Event = field(default_factory=asyncio.Event)
    none_held: asyncio.Event = field(default_factory=asyncio.Event)
    _held: dict[Key, Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.none_held.set()

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def take(self, held: Held) -> None:
        """An attempt was assigned."""
        self._held[held.key] = held
        self.set_lease(held.assignment.lease_ms)
        self.any_held.set()
        self.none_held.clear()

    def set_lease(self, lease_ms: int) -> None:
        """The server said how long leases are: three heartbeats fit, so that one may be lost."""
        if lease_ms > 0:
            self.beat_seconds = lease_ms / 3000

    def release(self, held: Held) -> None:
        """The server has the result, or does not want it."""
        if held.timer is not None:
            held.timer.cancel()
        if self._held.get(held.key) is held:
            del self._held[held.key]
        if not self._held:
            self.any_held.clear()
            self.none_held.set()

    def find(self, ref: AttemptRef) -> Held | None:
        """The attempt of this name, if it is in hand."""
        return self._held.get((ref.process_id, ref.attempt))

    def drop(self, held: Held) -> None:
        """Nobody wants the result any more: the function is told, and cancelled if it is async."""
        if held.dropped:
            return
        held.dropped = True
        held.cancel()
        if held.outbox is not None:
            held.outbox.abandon()
        self.release(held)
