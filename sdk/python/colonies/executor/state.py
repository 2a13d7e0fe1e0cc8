"""What an executor is at, for whoever wants to show it."""

from collections.abc import Callable
from typing import Literal

ExecutorState = Literal["joining", "waiting_for_approval", "ready", "reconnecting", "draining"]
OnState = Callable[[ExecutorState], None]


class States:
    """Tells each change once. Belongs to the event loop's thread."""

    def __init__(self, tell: OnState | None) -> None:
        self._tell = tell
        self._now: ExecutorState | None = None

    def enter(self, state: ExecutorState) -> None:
        """It is in this state now. Nothing follows `draining`."""
        if self._now in {state, "draining"}:
            return
        self._now = state
        if self._tell is not None:
            self._tell(state)
