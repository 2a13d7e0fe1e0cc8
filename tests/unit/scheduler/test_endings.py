"""What becomes of a process: decisions over its row, each legal whatever happened before."""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.failures import FailedPrecondition
from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing, Prior
from services.scheduler.domain.records import AttemptRef, Over
from services.scheduler.domain.states import Outcome, Reason, State

from .lives import FAILURE, ME, NOW, OTHER, RETRYABLE, SUCCESS, closings, ending, live


def test_a_success_ends_it_with_its_outputs() -> None:
    end = ending(endings.close(live(), 1, ME, SUCCESS, None, NOW))
    assert (end.to_state, end.reason, end.outcome) == (State.SUCCESSFUL, Reason.CLOSED, Outcome.SUCCESSFUL)
    assert (end.outputs, end.actor, end.counts_as_retry) == ([b"4"], ME, False)


@given(st.integers(0, 50))
def test_it_goes_back_exactly_max_retries_times(max_retries: int) -> None:
    row, times = live(max_retries=max_retries), 0
    while (end := ending(endings.close(row, row.attempt, ME, RETRYABLE, None, NOW))).to_state is State.WAITING:
        assert (end.reason, end.outcome, end.counts_as_retry) == (Reason.RETRIED, Outcome.FAILED, True)
        times += 1
        row = replace(row, retries=row.retries + 1, attempt=row.attempt + 1)
    assert times == max_retries
    assert (end.to_state, end.reason, end.errors) == (State.FAILED, Reason.CLOSED, ["try again"])
    assert not end.counts_as_retry


@pytest.mark.parametrize("retries", [0, 1, 10**6, 2**31 - 1])
def test_for_ever_means_for_ever(retries: int) -> None:
    row = live(max_retries=endings.UNLIMITED, retries=retries)
    assert ending(endings.close(row, 1, ME, RETRYABLE, None, NOW)).to_state is State.WAITING
    assert ending(endings.lose(row, 1, NOW)).to_state is State.WAITING


@given(st.integers(-1, 5), st.integers(0, 5))
def test_a_failure_that_is_not_retryable_is_never_retried(max_retries: int, retries: int) -> None:
    end = ending(endings.close(live(max_retries=max_retries, retries=retries), 1, ME, FAILURE, None, NOW))
    assert (end.to_state, end.outcome, end.counts_as_retry) == (State.FAILED, Outcome.FAILED, False)


def test_the_ledger_keeps_why_an_attempt_ended_though_there_is_another() -> None:
    row = live(max_retries=1, max_exec_ms=1_000)
    assert ending(endings.lose(row, 1, NOW)).reason is Reason.LEASE_EXPIRED
    assert ending(endings.time_out(row, 1, NOW + timedelta(seconds=1))).reason is Reason.MAX_EXEC_TIME


@given(st.sampled_from(State), st.integers(1, 3), st.integers(1, 3), st.sampled_from([ME, OTHER, ""]), closings)
def test_only_the_live_attempt_of_its_executor_closes(
    state: State, attempt: int, number: int, executor: str, closing: Closing
) -> None:
    row = live(state=state, attempt=attempt, executor_id=executor)
    if state is State.RUNNING and attempt == number and executor == ME:
        assert endings.close(row, number, ME, closing, None, NOW) is not None
        return
    with pytest.raises(FailedPrecondition) as caught:
        endings.close(row, number, ME, closing, None, NOW)
    assert caught.value.reason == "ATTEMPT_SUPERSEDED"
    assert caught.value.metadata == {"process_id": str(row.id)}


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED, State.WAITING, State.RUNNING])
@pytest.mark.parametrize(
    ("closing", "outcome"), [(SUCCESS, Outcome.SUCCESSFUL), (FAILURE, Outcome.FAILED), (RETRYABLE, Outcome.FAILED)]
)
def test_the_same_close_again_is_accepted_and_changes_nothing(state: State, closing: Closing, outcome: Outcome) -> None:
    row = live(state=state, attempt=2, executor_id=OTHER)
    assert endings.close(row, 1, ME, closing, Prior(ME, outcome), NOW) is None


@given(st.sampled_from(Outcome), st.sampled_from([ME, OTHER]), closings)
def test_another_close_than_the_one_made_is_refused(outcome: Outcome, executor: str, closing: Closing) -> None:
    wanted = Outcome.SUCCESSFUL if closing.successful else Outcome.FAILED
    row = live(state=State.FAILED)
    if executor == ME and outcome is wanted:
        assert endings.close(row, 1, ME, closing, Prior(executor, outcome), NOW) is None
        return
    with pytest.raises(FailedPrecondition):
        endings.close(row, 1, ME, closing, Prior(executor, outcome), NOW)


def test_a_time_limit_ends_an_attempt_at_its_deadline_and_not_before() -> None:
    row = live(max_exec_ms=1_500)
    assert endings.time_out(row, 1, NOW + timedelta(milliseconds=1_499, microseconds=999)) is None
    end = ending(endings.time_out(row, 1, NOW + timedelta(milliseconds=1_500)))
    assert (end.to_state, end.outcome) == (State.FAILED, Outcome.TIMED_OUT)
    assert end.errors == ["attempt 1 on executor worker-1 took longer than 1.5 s"]


def test_the_wait_in_the_queue_ends_at_its_deadline_and_not_before() -> None:
    row = live(state=State.WAITING, attempt=0, executor_id="", max_wait_ms=2_000)
    assert endings.wait_out(row, NOW + timedelta(milliseconds=1_999)) is None
    end = ending(endings.wait_out(row, NOW + timedelta(milliseconds=2_000)))
    assert (end.to_state, end.reason, end.outcome) == (State.FAILED, Reason.MAX_WAIT_TIME, Outcome.LIVE)


@pytest.mark.parametrize(
    "changes",
    [{"state": State.RUNNING}, {"pending_parents": 1, "ready_at": None}, {"max_wait_ms": 0}, {"state": State.FAILED}],
)
def test_a_wait_timer_is_of_no_consequence_unless_it_waits_in_the_queue(changes: dict[str, Any]) -> None:
    row = live(**{"state": State.WAITING, "max_wait_ms": 1, **changes})
    assert endings.wait_out(row, NOW + timedelta(days=365)) is None


@given(st.sampled_from([one for one in State if one is not State.RUNNING]), st.integers(1, 3), st.integers(1, 3))
def test_timers_of_attempts_that_are_over_are_of_no_consequence(state: State, attempt: int, number: int) -> None:
    late = NOW + timedelta(days=365)
    row = live(state=state, attempt=attempt, max_exec_ms=1)
    assert endings.lose(row, number, NOW) is None
    assert endings.withdraw_offer(row, number, NOW) is None
    assert endings.time_out(row, number, late) is None
    running = live(attempt=attempt, max_exec_ms=1)
    assert (endings.lose(running, number, NOW) is None) == (attempt != number)
    assert (endings.time_out(running, number, late) is None) == (attempt != number)


def test_what_never_reached_its_executor_goes_back_without_counting() -> None:
    end = ending(endings.give_back(live(), 1, ME))
    assert (end.to_state, end.outcome, end.counts_as_retry) == (State.WAITING, Outcome.UNDELIVERED, False)
    assert endings.give_back(live(), 1, OTHER) is None
    assert endings.give_back(live(), 2, ME) is None


@given(st.integers(0, 5), st.integers(0, 6))
def test_an_offer_that_ran_out_costs_a_retry_only_after_three_that_did_not(retries: int, uncounted: int) -> None:
    row = live(retries=retries, undelivered=uncounted, attempt=retries + uncounted + 1, max_retries=endings.UNLIMITED)
    end = ending(endings.withdraw_offer(row, row.attempt, NOW))
    if uncounted < endings.MAX_UNCONFIRMED:
        assert (end.to_state, end.reason, end.outcome) == (State.WAITING, Reason.UNDELIVERED, Outcome.UNDELIVERED)
        assert (end.counts_as_retry, end.errors) == (False, [f"attempt {row.attempt} was not confirmed by executor worker-1"])
    else:
        assert end == endings.lose(row, row.attempt, NOW)
        assert end.counts_as_retry
    # Retries that are not left are not needed while nothing is counted.
    last = endings.withdraw_offer(replace(row, max_retries=retries), row.attempt, NOW)
    assert ending(last).to_state is (State.WAITING if uncounted < endings.MAX_UNCONFIRMED else State.FAILED)


def test_over_since_names_the_attempts_that_ended_and_no_other() -> None:
    rows = [live(id=uuid.UUID(int=n)) for n in range(6)]
    kept, ended, again, gone, elsewhere, waiting = rows
    waiting = replace(waiting, state=State.WAITING)
    now = [
        kept,
        replace(ended, state=State.CANCELLED),
        replace(again, attempt=2),
        replace(elsewhere, executor_id=OTHER),
        replace(waiting, state=State.RUNNING),
    ]
    found = endings.over_since([kept, ended, again, gone, elsewhere, waiting], now)
    assert found == [Over(one.id, 1, ME) for one in (ended, again, gone, elsewhere)]


def test_cancelling() -> None:
    assert ending(endings.cancel(live(), ME)).outcome is Outcome.CANCELLED
    assert ending(endings.cancel(live(state=State.WAITING), ME)).outcome is Outcome.LIVE
    assert endings.cancel(live(state=State.CANCELLED), ME) is None
    for state in (State.SUCCESSFUL, State.FAILED):
        with pytest.raises(FailedPrecondition) as caught:
            endings.cancel(live(state=state), ME)
        assert caught.value.reason == "PROCESS_FINAL"
        assert endings.cancel_open(live(state=state), ME) is None


# As they come in: waits in whole milliseconds up to a week, factors from 1.
backoffs = st.tuples(
    st.integers(1, 604_800_000).map(float), st.floats(1, 100), st.integers(1, 604_800_000).map(float), st.floats(0, 1)
)


@given(backoffs, st.integers(0, 2**31 - 1))
def test_a_back_off_lies_within_its_bounds(backoff: tuple[float, ...], retries: int) -> None:
    """The n-th retry waits first x factor^(n-1), at most the longest wait, less at most the jitter's part."""
    first_ms, factor, longest_ms, jitter = backoff
    until = endings.backoff_until(live(retries=retries, backoff=backoff), NOW)
    assert until is not None
    # So many steps only as make a difference: floats end somewhere.
    wait_ms = first_ms
    for _ in range(min(retries, 200_000)):
        before, wait_ms = wait_ms, min(wait_ms * factor, longest_ms)
        if wait_ms in {before, longest_ms}:
            break
    wait_ms = min(wait_ms, longest_ms)
    found_ms = (until - NOW) / timedelta(milliseconds=1)
    assert wait_ms * (1 - jitter) * (1 - 1e-6) - 0.001 <= found_ms <= wait_ms * (1 + 1e-6) + 0.001


def test_a_back_off_without_jitter_is_exact() -> None:
    waits = [endings.backoff_until(live(retries=n, backoff=(100.0, 3.0, 2_000.0, 0.0)), NOW) for n in range(5)]
    assert waits == [NOW + timedelta(milliseconds=ms) for ms in (100, 300, 900, 2_000, 2_000)]


def test_jitter_spreads() -> None:
    row = live(backoff=(100_000.0, 1.0, 100_000.0, 0.5))
    found = [endings.backoff_until(row, NOW) for _ in range(200)]
    waits = [(until - NOW).total_seconds() for until in found if until is not None]
    assert len(waits) == 200
    assert 50 <= min(waits) < 60
    assert 90 < max(waits) <= 100


def test_without_a_back_off_it_comes_back_at_once() -> None:
    assert endings.backoff_until(live(), NOW) is None
    end = ending(endings.close(live(max_retries=1), 1, ME, RETRYABLE, None, NOW))
    assert (end.to_state, end.backoff_until) == (State.WAITING, None)


@pytest.mark.parametrize("retries", [0, 1, 5, 1_000, 2**31 - 1])
def test_only_what_counts_as_a_retry_backs_off(retries: int) -> None:
    row = live(retries=retries, max_retries=endings.UNLIMITED, max_exec_ms=1, backoff=(4_000.0, 1.0, 4_000.0, 0.0))
    until = NOW + timedelta(seconds=4)
    assert ending(endings.close(row, 1, ME, RETRYABLE, None, NOW)).backoff_until == until
    assert ending(endings.lose(row, 1, NOW)).backoff_until == until
    late = NOW + timedelta(seconds=1)
    assert ending(endings.time_out(row, 1, late)).backoff_until == late + timedelta(seconds=4)
    assert ending(endings.withdraw_offer(row, 1, NOW)).backoff_until is None
    assert ending(endings.give_back(row, 1, ME)).backoff_until is None
    assert ending(endings.close(row, 1, ME, FAILURE, None, NOW)).backoff_until is None
    assert ending(endings.lose(replace(row, max_retries=retries), 1, NOW)).backoff_until is None


@given(st.sampled_from([SUCCESS, FAILURE, RETRYABLE]), st.sampled_from([SUCCESS, FAILURE, RETRYABLE]))
def test_a_second_close_in_the_same_moment_must_be_the_same(first: Closing, second: Closing) -> None:
    row, ref = live(max_retries=1), AttemptRef(uuid.UUID(int=7), 1)
    before = ending(endings.close(row, 1, ME, first, None, NOW))
    if first.successful == second.successful:
        endings.require_same(before, ref, row, ME, second)
    else:
        with pytest.raises(FailedPrecondition):
            endings.require_same(before, ref, row, ME, second)
    for other in ((AttemptRef(row.id, 2), ME), (ref, OTHER)):
        with pytest.raises(FailedPrecondition):
            endings.require_same(before, other[0], row, other[1], second)
