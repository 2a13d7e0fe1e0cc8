"""Rows of processes, and closes of them, for decisions to be tried on."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from services.scheduler.domain.endings import Closing
from services.scheduler.domain.records import Ending, Live
from services.scheduler.domain.states import State

NOW = datetime(2023, 3, 27, 8, 45, 15, tzinfo=UTC)
ME, OTHER = "11" * 32, "22" * 32
SUCCESS = Closing(successful=True, outputs=[b"4"])
FAILURE = Closing(successful=False, errors=("broken",))
RETRYABLE = Closing(successful=False, errors=("try again",), retryable=True)

closings = st.builds(Closing, successful=st.booleans(), outputs=st.none(), errors=st.just(("broken",)), retryable=st.booleans())


def live(**changes: Any) -> Live:
    """A process that runs, unless `changes` say otherwise."""
    row = Live(
        id=uuid.UUID(int=7),
        colony="acme",
        workflow_id=None,
        node_name="",
        func_name="f",
        sequence=1,
        executor_type="cli",
        executor_names=(),
        location="",
        needs="",
        priority_time=0,
        state=State.RUNNING,
        pending_parents=0,
        attempt=1,
        retries=0,
        undelivered=0,
        backoff=(),
        backoff_until=None,
        max_retries=0,
        max_wait_ms=0,
        max_exec_ms=0,
        executor_id=ME,
        executor_name="worker-1",
        initiator="33" * 32,
        ready_at=NOW,
        started_at=NOW,
    )
    return replace(row, **changes)


def ending(decided: Ending | None) -> Ending:
    """What was decided. Fails the test if it was nothing."""
    assert decided is not None
    return decided
