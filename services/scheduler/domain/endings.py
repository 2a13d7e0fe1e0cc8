"""What becomes of a process when something happens to it: pure decisions over its locked row.

Each function returns the Ending to write, or None when what happened is of no consequence any more: the row is the truth, and
timers, repeated calls and late news are only hints to look at it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.failures import FailedPrecondition
from services.scheduler.domain.records import AttemptRef, Ending, Live, Over, Receipt
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

    @property
    def output_bytes(self) -> int:
        """Of its outputs together."""
        return sum(map(len, self.outputs)) if self.outputs else 0


@dataclass(frozen=True, slots=True)
class CloseCall:
    """One call's closes, all or none."""

    colony: str
    executor_id: str
    closes: Mapping[AttemptRef, Closing]
    receipt: Receipt | None = None

    @property
    def is_plain(self) -> bool:
        """Nothing but successes."""
        return all(closing.successful for closing in self.closes.values())


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


def close(row: Live, number: int, executor_id: str, closing: Closing, prior: Prior | None, now: datetime) -> Ending | None:
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
    return _failed_attempt(row, Outcome.FAILED, executor_id, list(closing.errors), now, retryable=closing.retryable)


def require_same(before: Ending, ref: AttemptRef, row: Live, executor_id: str, closing: Closing) -> None:
    """A close after another of the same process, made in the same moment, must be the same.

    Raises:
        FailedPrecondition: it is not.
    """
    wanted = Outcome.SUCCESSFUL if closing.successful else Outcome.FAILED
    if not holds(row, ref.number, executor_id) or before.outcome is not wanted:
        raise superseded(row.id)


def withdraw_offer(row: Live, number: int, now: datetime) -> Ending | None:
    """The lease of an attempt is over that its executor never confirmed: it may never have got it, so no retry is counted.

    Not for ever: a function that kills its executor at once would look the same.
    """
    if row.state is not State.RUNNING or row.attempt != number:
        return None
    if row.undelivered >= MAX_UNCONFIRMED:
        return lose(row, number, now)
    error = f"attempt {number} was not confirmed by executor {row.executor_name}"
    return Ending(row.id, State.WAITING, Reason.UNDELIVERED, "", outcome=Outcome.UNDELIVERED, errors=[error])


def lose(row: Live, number: int, now: datetime) -> Ending | None:
    """The lease of an attempt is over."""
    if row.state is not State.RUNNING or row.attempt != number:
        return None
    error = f"attempt {number} on executor {row.executor_name} was lost: no heartbeat within its lease"
    return _failed_attempt(row, Outcome.LOST, "", [error], now, retryable=True)


def time_out(row: Live, number: int, now: datetime) -> Ending | None:
    """The maximum execution time of an attempt may be over."""
    deadline = row.exec_deadline
    if row.state is not State.RUNNING or row.attempt != number or deadline is None or now < deadline:
        return None
    error = f"attempt {number} on executor {row.executor_name} took longer than {row.max_exec_ms / 1000:g} s"
    return _failed_attempt(row, Outcome.TIMED_OUT, "", [error], now, retryable=True)


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


def cancel(row: Live, actor: str, receipt: Receipt | None = None) -> Ending | None:
    """Somebody cancels a process. None: it is cancelled already.

    Raises:
        FailedPrecondition: it has ended otherwise.
    """
    if row.state is State.CANCELLED:
        return None
    if row.is_final:
        msg = f"process {row.id} is {row.state.name} already"
        raise FailedPrecondition(msg, reason="PROCESS_FINAL", metadata={"process_id": str(row.id)})
    return cancel_open(row, actor, receipt)


def cancel_open(row: Live, actor: str, receipt: Receipt | None = None) -> Ending | None:
    """As `cancel`, but what has ended is left alone: for whole workflows."""
    if row.is_final:
        return None
    outcome = Outcome.CANCELLED if row.state is State.RUNNING else Outcome.LIVE
    return Ending(row.id, State.CANCELLED, Reason.CANCELLED, actor, outcome=outcome, receipt=receipt)


_REASONS = {
    Outcome.FAILED: Reason.CLOSED,
    Outcome.LOST: Reason.LEASE_EXPIRED,
    Outcome.TIMED_OUT: Reason.MAX_EXEC_TIME,
}


def _failed_attempt(row: Live, outcome: Outcome, actor: str, errors: list[str], now: datetime, *, retryable: bool) -> Ending:
    reason = _REASONS[outcome]
    if not retryable or (row.max_retries != UNLIMITED and row.retries >= row.max_retries):
        return Ending(row.id, State.FAILED, reason, actor, outcome=outcome, errors=errors)
    return Ending(
        row.id,
        State.WAITING,
        # The ledger keeps why the attempt ended, not only that there will be another.
        Reason.RETRIED if reason is Reason.CLOSED else reason,
        actor,
        outcome=outcome,
        counts_as_retry=True,
        backoff_until=backoff_until(row, now),
        errors=errors,
    )


def backoff_until(row: Live, now: datetime) -> datetime | None:
    """When a process that is retried comes back into the queue; None for at once.

    The n-th retry waits `first * factor^(n-1)`, at most `longest`, less a random part of up to `jitter`: so that what failed
    together does not come back together.
    """
    if not row.backoff:
        return None
    first_ms, factor, longest_ms, jitter = row.backoff
    # Beyond this no factor above 1 has not reached the longest wait, and floats would overflow.
    steps = min(row.retries, 1_000)
    try:
        wait_ms = min(first_ms * factor**steps, longest_ms)
    except OverflowError:
        wait_ms = longest_ms
    wait_ms *= 1 - jitter * random.random()  # noqa: S311 - spreads, and hides nothing
    return now + timedelta(milliseconds=wait_ms)
