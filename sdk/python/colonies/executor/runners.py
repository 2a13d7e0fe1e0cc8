"""Running async functions: those that end without waiting for anything share a task, for a task of its own costs more than
such a function.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import cast

from colonies.executor.held import Held
from colonies.executor.offers import Offer
from colonies.executor.outcome import Outcome, bound, failure_of, success

Ended = Callable[[Held, Outcome | None], None]


class Runners:
    """Tasks that run functions one after another.

    A function that waits for something keeps its task, and the next one gets another: they all run at once, each in
    a task that is its own to time out or to cancel. A task that a function has left changed is not used again.
    """

    def __init__(self, offers: Mapping[str, Offer], ended: Ended) -> None:
        """`ended` is called for each function that was started; without an outcome for one that was cancelled."""
        self._offers = offers
        self._ended = ended
        self._waiting: deque[Held] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        # The task that has not waited for anything so far.
        self._brisk: asyncio.Task[None] | None = None
        self._tending = False

    def start(self, held: Held) -> None:
        """Starts the function of an attempt, with the next turn of the loop."""
        self._waiting.append(held)
        if not self._tending:
            self._tending = True
            self._tend()

    async def stop(self) -> None:
        """Cancels what runs."""
        rest = list(self._tasks)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _tend(self) -> None:
        """Comes after the turn of the last task: what is left then is left because that task waits for something."""
        self._brisk = None
        if not self._waiting:
            self._tending = False
            return
        self._brisk = asyncio.create_task(self._run())
        self._tasks.add(self._brisk)
        self._brisk.add_done_callback(self._tasks.discard)
        asyncio.get_running_loop().call_soon(self._tend)

    async def _run(self) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        clean = copy_context()
        while self._waiting:
            held = self._waiting.popleft()
            held.task = task
            outcome: Outcome | None = None
            try:
                outcome = await self._outcome(held)
            finally:
                held.task = None
                self._ended(held, outcome)
            # Copies of a context that nobody changed are equal at a glance.
            if self._brisk is not task or task.cancelling() or copy_context() != clean:
                return

    async def _outcome(self, held: Held) -> Outcome | None:
        if held.dropped:
            return None
        offer = self._offers[held.assignment.spec.func_name]
        try:
            return success(await bound(offer, held.assignment, held.context)(), held.context)
        except asyncio.CancelledError as error:
            if held.dropped or held.finished:
                raise
            return failure_of(error, offer)  # the function cancelled itself
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a function raises is its result
            return failure_of(error, offer)
