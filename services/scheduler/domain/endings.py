"""What becomes of a process when something happens to it: pure decisions over its locked row.

Each function returns the Ending to write, or None when what happened is of no consequence any more: the row is the truth, and
timers, repeated calls and late news are only hints to look at it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from servicekit.failures import FailedPrecondition
from services.scheduler.domain.records import Ending, Live, Over
from services.scheduler.domain.states import Outcome, Reason, State

UNLIMITED = -1
# How many attempts of a process may end unconfirmed without counting as retries.
MAX_UNCONFIRMED = 3


@dataclass(frozen=True, slots=True)
class Closing:
    """A close as its executor sends it. `outputs` is None for a failure, and for a success that keeps what was set before."""

    successful: bool
    outputs: list[bytes] | None = None
    errors: tuple[str, ...] = ()
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Prior:
    """The attempt that a call names, as it is recorded."""

    executor_id: str
    outcome: Outcome


def superseded(process_id: object) -> FailedPrecondition:
    """The refusal of everything that does not come from the live attempt (I2)."""
    return FailedPrecondition(
        f"the attempt is not the live one of process {process_id}, or not the caller's",
        reason="ATTEMPT_SUPERSEDED",
        metadata={"process_id": str(process_id)},
    )


def holds(row: Live, number: int, executor_id: str) -> bool:
    """Whether this executor has this live attempt."""
    return row.state is State.RUNNING and row.attempt == number and row.executor_id == executor_id


def over_since(before: Sequence[Live], now: Sequence[Live]) -> list[Over]:
    """The live attempts of `before` that, by the same rows read later, are over."""
    rows = {row.id: row for row in now}
    return [
        Over(one.id, one.attempt, one.executor_id)
        for one in before
        if one.state is State.RUNNING and ((row := rows.get(one.id)) is None or not holds(row, one.attempt, one.executor_id))
    ]


def close(row: Live, number: int, executor_id: str, closing: Closing, prior: Prior | None) -> Ending | None:
    """An executor closes its attempt. None: the same close was made before, and is accepted again.

    Raises:
        FailedPrecondition: the attempt is not the live one, or not this executor's.
    """
    if not holds(row, number, executor_id):
        wanted = Outcome.SUCCESSFUL if closing.successful else Outcome.FAILED
        if prior is not None and prior.executor_id == executor_id and prior.outcome is wanted:
            return None
        raise superseded(row.id)
    if closing.successful:
        return Ending(row.id, State.SUCCESSFUL, Reason.CLOSED, executor_id, outcome=Outcome.SUCCESSFUL, outputs=closing.outputs)
    return _failed_attempt(row, Outcome.FAILED, Reason.CLOSED, executor_id, list(closing.errors), retryable=closing.retryable)


def withdraw_offer(row: Live, number: int) -> Ending | None:
    """The lease of an attempt is over that its executor never confirmed: it may never have got it, so no retry is counted.

    Not for ever: a function that kills its executor at once would look the same.
    """
    if row.state is not State.RUNNING or row.attempt != number:
        return None
    uncounted = row.attempt - 1 - row.retries
    if uncounted >= MAX_UNCONFIRMED:
        return lose(row, number)
    error = f"attempt {number} was not confirmed by executor {row.executor_name}"
    return Ending(row.id, State.WAITING, Reason.UNDELIVERED, "", outcome=Outcome.UNDELIVERED, errors=[error])


def lose(row: Live, number: int) -> Ending | None:
    """The lease of an attempt is over."""
    if row.state is not State.RUNNING or row.attempt != number:
        return None
    error = f"attempt {number} on executor {row.executor_name} was lost: no heartbeat within its lease"
    return _failed_attempt(row, Outcome.LOST, Reason.LEASE_EXPIRED, "", [error], retryable=True)


def time_out(row: Live, number: int, now: datetime) -> Ending | None:
    """The maximum execution time of an attempt may be over."""
    deadline = row.exec_deadline
    if row.state is not State.RUNNING or row.attempt != number or deadline is None or now < deadline:
        return None
    error = f"attempt {number} on executor {row.executor_name} took longer than {row.max_exec_ms / 1000:g} s"
    return _failed_attempt(row, Outcome.TIMED_OUT, Reason.MAX_EXEC_TIME, "", [error], retryable=True)


def wait_out(row: Live, now: datetime) -> Ending | None:
    """The maximum wait time of a process may be over."""
    deadline = row.wait_deadline
    if not row.is_ready or deadline is None or now < deadline:
        return None
    error = f"not assigned within {row.max_wait_ms / 1000:g} s"
    return Ending(row.id, State.FAILED, Reason.MAX_WAIT_TIME, "", errors=[error])


def give_back(row: Live, number: int, executor_id: str) -> Ending | None:
    """An attempt never reached its executor: back to the queue, and no retry counted."""
    if not holds(row, number, executor_id):
        return None
    return Ending(row.id, State.WAITING, Reason.UNDELIVERED, "", outcome=Outcome.UNDELIVERED)


def cancel(row: Live, actor: str) -> Ending | None:
    """Somebody cancels a process. None: it is cancelled already.

    Raises:
        FailedPrecondition: it has ended otherwise.
    """
    if row.state is State.CANCELLED:
        return None
    if row.is_final:
        msg = f"process {row.id} is {row.state.name} already"
        raise FailedPrecondition(msg, reason="PROCESS_FINAL", metadata={"process_id": str(row.id)})
    return cancel_open(row, actor)


def cancel_open(row: Live, actor: str) -> Ending | None:
    """As `cancel`, but what has ended is left alone: for whole workflows."""
    if row.is_final:
        return None
    outcome = Outcome.CANCELLED if row.state is State.RUNNING else Outcome.LIVE
    return Ending(row.id, State.CANCELLED, Reason.CANCELLED, actor, outcome=outcome)


def _failed_attempt(row: Live, outcome: Outcome, reason: Reason, actor: str, errors: list[str], *, retryable: bool) -> Ending:
    if retryable and (row.max_retries == UNLIMITED or row.retries < row.max_retries):
        # The ledger keeps why the attempt ended, not only that there will be another.
        why = Reason.RETRIED if reason is Reason.CLOSED else reason
        return Ending(row.id, State.WAITING, why, actor, outcome=outcome, counts_as_retry=True, errors=errors)
    return Ending(row.id, State.FAILED, reason, actor, outcome=outcome, errors=errors)
