"""Threads for functions that are not async."""

import asyncio
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

# How long calls wait for a thread that is busy with others before they get threads of their own. Most functions are over
# sooner, and to wake a thread for each costs more than to run them.
PATIENCE_SECONDS = 0.001

Result = TypeVar("Result")


class DaemonThreads:
    """Runs calls in threads that do not keep the program from ending.

    A function that was dropped cannot be stopped from outside; with the standard pool it would hold up the exit until
    it ends by itself.

    Calls that come together begin in one thread, one after another. What is left after a moment gets more threads:
    however long the calls take, soon all of them run at once.
    """

    def __init__(self, name: str) -> None:
        """Belongs to the event loop that is running."""
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], None]] = deque()
        # Threads that wait for a token, and those that will soon look for calls. What is busy for long is in neither.
        self._tokens: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._idle = 0
        self._looking = 0
        # Rises when the busy ones are counted out; a thread with another number counts itself in again.
        self._count = 0
        self._begun = 0
        # For the event loop's turns of looking after what is left: whether there will be one, how many calls had begun by
        # the last one, and how many threads to add in the next.
        self._tending = False
        self._begun_before = 0
        self._more = 1
        # What is to be done in the event loop. Waking it costs a system call, so those that end together wake it once.
        self._deliveries: deque[Callable[[], None]] = deque()
        self._woken = False

    def run(self, call: Callable[[], Result], done: Callable[[Result], None]) -> None:
        """Starts a call, which must not raise, in a thread; `done` gets its result in the event loop."""
        context = contextvars.copy_context()

        def work() -> None:
            result = context.run(call)
            self._deliver(lambda: done(result))

        with self._lock:
            self._calls.append(work)
            alone = self._looking == 0
        if alone:
            self._add(1)
        if not self._tending:
            self._tending, self._more, self._begun_before = True, 1, self._begun
            self._loop.call_later(PATIENCE_SECONDS, self._tend)

    def _add(self, count: int) -> None:
        """More threads that look for calls: idle ones first."""
        with self._lock:
            idle = min(count, self._idle)
            self._idle -= idle
            self._looking += count
            counted = self._count
        for _ in range(idle):
            self._tokens.put(counted)
        for _ in range(count - idle):
            threading.Thread(target=self._serve, args=(counted,), name=self._name, daemon=True).start()

    def _tend(self) -> None:
        left = len(self._calls)
        if not left:
            self._tending = False
            return
        # Where nothing begins any more, all threads are busy for long. Else they get on, and may be done soon.
        if self._begun == self._begun_before:
            with self._lock:
                self._count += 1
                self._looking = 0
            self._add(left)
        else:
            self._add(min(left, self._more))
        self._begun_before = self._begun
        self._more *= 2
        self._loop.call_later(PATIENCE_SECONDS, self._tend)

    def _serve(self, counted: int) -> None:
        while True:
            with self._lock:
                if counted != self._count:
                    counted = self._count
                    self._looking += 1
                call = self._calls.popleft() if self._calls else None
                if call is None:
                    self._looking -= 1
                    self._idle += 1
                else:
                    self._begun += 1
            if call is None:
                counted = self._tokens.get()
            else:
                call()

    def _deliver(self, delivery: Callable[[], None]) -> None:
        with self._lock:
            self._deliveries.append(delivery)
            wake, self._woken = not self._woken, True
        if wake and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver_all)

    def _deliver_all(self) -> None:
        with self._lock:
            self._woken = False
            ready = list(self._deliveries)
            self._deliveries.clear()
        for delivery in ready:
            delivery()
