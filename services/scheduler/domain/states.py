"""The states of a process, how an attempt ends, and the one table of legal transitions (I6)."""

from enum import IntEnum, StrEnum
from typing import Final


class State(IntEnum):
    """Numbers as in the tables and in the protos."""

    NONE = 0
    WAITING = 1
    RUNNING = 2
    SUCCESSFUL = 3
    FAILED = 4
    CANCELLED = 5


FINAL: Final = frozenset({State.SUCCESSFUL, State.FAILED, State.CANCELLED})

LEGAL: Final = frozenset(
    {
        (State.NONE, State.WAITING),
        (State.WAITING, State.RUNNING),
        (State.WAITING, State.FAILED),
        (State.WAITING, State.CANCELLED),
        (State.RUNNING, State.WAITING),
        (State.RUNNING, State.SUCCESSFUL),
        (State.RUNNING, State.FAILED),
        (State.RUNNING, State.CANCELLED),
        # Only when a whole workflow is taken up again.
        (State.FAILED, State.WAITING),
        (State.CANCELLED, State.WAITING),
    }
)


class Outcome(IntEnum):
    """How an attempt ended; numbers as in the tables and in the protos."""

    LIVE = 0
    SUCCESSFUL = 1
    FAILED = 2
    TIMED_OUT = 3
    LOST = 4
    CANCELLED = 5
    UNDELIVERED = 6


class Reason(StrEnum):
    """Why a transition was made, as the ledger has it."""

    SUBMITTED = "SUBMITTED"
    ASSIGNED = "ASSIGNED"
    CLOSED = "CLOSED"
    RETRIED = "RETRIED"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    MAX_EXEC_TIME = "MAX_EXEC_TIME"
    MAX_WAIT_TIME = "MAX_WAIT_TIME"
    UNDELIVERED = "UNDELIVERED"
    CANCELLED = "CANCELLED"
    RETRY_REQUESTED = "RETRY_REQUESTED"
    PARENT_FAILED = "PARENT_FAILED"
    PARENT_CANCELLED = "PARENT_CANCELLED"
    MISSING_OUTPUT = "MISSING_OUTPUT"
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"
