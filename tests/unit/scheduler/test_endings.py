"""What becomes of a process: decisions over its row, each legal whatever happened before."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from servicekit.failures import FailedPrecondition
from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing, Prior
from services.scheduler.domain.records import Ending, Live, Over
from services.scheduler.domain.states import FINAL, LEGAL, Outcome, Reason, State

NOW = datetime(2023, 3, 27, 8, 45, 15, tzinfo=UTC)
ME, OTHER = "11" * 32, "22" * 32
SUCCESS = Closing(successful=True, outputs=[b"4"])
FAILURE = Closing(successful=False, errors=("broken",))
RETRYABLE = Closing(successful=False, errors=("try again",), retryable=True)

closings = st.builds(Closing, successful=st.booleans(), outputs=st.none(), errors=st.just(("broken",)), retryable=st.booleans())


def live(**changes: Any) -> Live:
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
        priority_time=0,
        state=State.RUNNING,
        pending_parents=0,
        attempt=1,
        retries=0,
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
    assert decided is not None
    return decided


def test_a_success_ends_it_with_its_outputs() -> None:
    end = ending(endings.close(live(), 1, ME, SUCCESS, None))
    assert (end.to_state, end.reason, end.outcome) == (State.SUCCESSFUL, Reason.CLOSED, Outcome.SUCCESSFUL)
    assert (end.outputs, end.actor, end.counts_as_retry) == ([b"4"], ME, False)


@given(st.integers(0, 50))
def test_it_goes_back_exactly_max_retries_times(max_retries: int) -> None:
    row, times = live(max_retries=max_retries), 0
    while (end := ending(endings.close(row, row.attempt, ME, RETRYABLE, None))).to_state is State.WAITING:
        assert (end.reason, end.outcome, end.counts_as_retry) == (Reason.RETRIED, Outcome.FAILED, True)
        times += 1
        row = replace(row, retries=row.retries + 1, attempt=row.attempt + 1)
    assert times == max_retries
    assert (end.to_state, end.reason, end.errors) == (State.FAILED, Reason.CLOSED, ["try again"])
    assert not end.counts_as_retry


@pytest.mark.parametrize("retries", [0, 1, 10**6, 2**31 - 1])
def test_for_ever_means_for_ever(retries: int) -> None:
    row = live(max_retries=endings.UNLIMITED, retries=retries)
    assert ending(endings.close(row, 1, ME, RETRYABLE, None)).to_state is State.WAITING
    assert ending(endings.lose(row, 1)).to_state is State.WAITING


@given(st.integers(-1, 5), st.integers(0, 5))
def test_a_failure_that_is_not_retryable_is_never_retried(max_retries: int, retries: int) -> None:
    end = ending(endings.close(live(max_retries=max_retries, retries=retries), 1, ME, FAILURE, None))
    assert (end.to_state, end.outcome, end.counts_as_retry) == (State.FAILED, Outcome.FAILED, False)


def test_the_ledger_keeps_why_an_attempt_ended_though_there_is_another() -> None:
    row = live(max_retries=1, max_exec_ms=1_000)
    assert ending(endings.lose(row, 1)).reason is Reason.LEASE_EXPIRED
    assert ending(endings.time_out(row, 1, NOW + timedelta(seconds=1))).reason is Reason.MAX_EXEC_TIME


@given(st.sampled_from(State), st.integers(1, 3), st.integers(1, 3), st.sampled_from([ME, OTHER, ""]), closings)
def test_only_the_live_attempt_of_its_executor_closes(
    state: State, attempt: int, number: int, executor: str, closing: Closing
) -> None:
    row = live(state=state, attempt=attempt, executor_id=executor)
    if state is State.RUNNING and attempt == number and executor == ME:
        assert endings.close(row, number, ME, closing, None) is not None
        return
    with pytest.raises(FailedPrecondition) as caught:
        endings.close(row, number, ME, closing, None)
    assert caught.value.reason == "ATTEMPT_SUPERSEDED"
    assert caught.value.metadata == {"process_id": str(row.id)}


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED, State.WAITING, State.RUNNING])
@pytest.mark.parametrize(
    ("closing", "outcome"), [(SUCCESS, Outcome.SUCCESSFUL), (FAILURE, Outcome.FAILED), (RETRYABLE, Outcome.FAILED)]
)
def test_the_same_close_again_is_accepted_and_changes_nothing(state: State, closing: Closing, outcome: Outcome) -> None:
    row = live(state=state, attempt=2, executor_id=OTHER)
    assert endings.close(row, 1, ME, closing, Prior(ME, outcome)) is None


@given(st.sampled_from(Outcome), st.sampled_from([ME, OTHER]), closings)
def test_another_close_than_the_one_made_is_refused(outcome: Outcome, executor: str, closing: Closing) -> None:
    wanted = Outcome.SUCCESSFUL if closing.successful else Outcome.FAILED
    row = live(state=State.FAILED)
    if executor == ME and outcome is wanted:
        assert endings.close(row, 1, ME, closing, Prior(executor, outcome)) is None
        return
    with pytest.raises(FailedPrecondition):
        endings.close(row, 1, ME, closing, Prior(executor, outcome))


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
    assert endings.lose(row, number) is None
    assert endings.withdraw_offer(row, number) is None
    assert endings.time_out(row, number, late) is None
    running = live(attempt=attempt, max_exec_ms=1)
    assert (endings.lose(running, number) is None) == (attempt != number)
    assert (endings.time_out(running, number, late) is None) == (attempt != number)


def test_what_never_reached_its_executor_goes_back_without_counting() -> None:
    end = ending(endings.give_back(live(), 1, ME))
    assert (end.to_state, end.outcome, end.counts_as_retry) == (State.WAITING, Outcome.UNDELIVERED, False)
    assert endings.give_back(live(), 1, OTHER) is None
    assert endings.give_back(live(), 2, ME) is None


@given(st.integers(0, 5), st.integers(0, 6))
def test_an_offer_that_ran_out_costs_a_retry_only_after_three_that_did_not(retries: int, uncounted: int) -> None:
    row = live(retries=retries, attempt=retries + uncounted + 1, max_retries=endings.UNLIMITED)
    end = ending(endings.withdraw_offer(row, row.attempt))
    if uncounted < endings.MAX_UNCONFIRMED:
        assert (end.to_state, end.reason, end.outcome) == (State.WAITING, Reason.UNDELIVERED, Outcome.UNDELIVERED)
        assert (end.counts_as_retry, end.errors) == (False, [f"attempt {row.attempt} was not confirmed by executor worker-1"])
    else:
        assert end == endings.lose(row, row.attempt)
        assert end.counts_as_retry
    # Retries that are not left are not needed while nothing is counted.
    last = endings.withdraw_offer(replace(row, max_retries=retries), row.attempt)
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


class Life(RuleBasedStateMachine):
    """A process to which anything happens at any time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.row = live(state=State.WAITING, attempt=0, executor_id="", max_exec_ms=5_000, max_wait_ms=5_000)
        self.outcomes: dict[int, Prior] = {}

    @rule(max_retries=st.integers(-1, 3))
    def submit_with(self, max_retries: int) -> None:
        if self.row.attempt == 0:
            self.row = replace(self.row, max_retries=max_retries)

    @rule(seconds=st.integers(0, 6))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(executor=st.sampled_from([ME, OTHER]))
    def assign(self, executor: str) -> None:
        if self.row.is_ready:
            self.row = replace(
                self.row,
                state=State.RUNNING,
                attempt=self.row.attempt + 1,
                executor_id=executor,
                started_at=self.now,
            )

    @rule(number=st.integers(1, 4), executor=st.sampled_from([ME, OTHER]), closing=closings)
    def close(self, number: int, executor: str, closing: Closing) -> None:
        before, prior = self.row, self.outcomes.get(number)
        try:
            end = endings.close(self.row, number, executor, closing, prior)
        except FailedPrecondition:
            assert not endings.holds(before, number, executor)
        else:
            assert (end is not None) == endings.holds(before, number, executor)
            self.becomes(end)

    @rule(number=st.integers(1, 4))
    def lease_ends(self, number: int) -> None:
        self.becomes(endings.lose(self.row, number))

    @rule(number=st.integers(1, 4))
    def offer_ends(self, number: int) -> None:
        self.becomes(endings.withdraw_offer(self.row, number))

    @rule(number=st.integers(1, 4))
    def time_limit(self, number: int) -> None:
        self.becomes(endings.time_out(self.row, number, self.now))

    @rule()
    def wait_limit(self) -> None:
        self.becomes(endings.wait_out(self.row, self.now))

    @rule(number=st.integers(1, 4), executor=st.sampled_from([ME, OTHER]))
    def undelivered(self, number: int, executor: str) -> None:
        self.becomes(endings.give_back(self.row, number, executor))

    @rule(everything=st.booleans())
    def cancel(self, everything: bool) -> None:
        if everything or not self.row.is_final:
            self.becomes(endings.cancel_open(self.row, ME))

    def becomes(self, end: Ending | None) -> None:
        if end is None:
            return
        row = self.row
        assert end.id == row.id
        assert (row.state, end.to_state) in LEGAL
        assert (end.outcome is not Outcome.LIVE) == (row.state is State.RUNNING)
        assert end.counts_as_retry <= (end.to_state is State.WAITING)
        assert bool(end.errors) or end.to_state is not State.FAILED
        if row.state is State.RUNNING:
            assert row.attempt not in self.outcomes, "an attempt ends once"
            self.outcomes[row.attempt] = Prior(row.executor_id, end.outcome)
        again = end.to_state is State.WAITING
        self.row = replace(
            row,
            state=end.to_state,
            retries=row.retries + end.counts_as_retry,
            executor_id="" if again else row.executor_id,
            ready_at=self.now if again else row.ready_at,
        )

    @invariant()
    def retries_stay_within_their_bound(self) -> None:
        assert self.row.max_retries == endings.UNLIMITED or self.row.retries <= self.row.max_retries

    @invariant()
    def every_attempt_but_the_live_one_has_an_outcome(self) -> None:
        over = self.row.attempt - (self.row.state is State.RUNNING)
        assert set(self.outcomes) == set(range(1, over + 1))


TestLife = Life.TestCase


def test_nothing_leads_out_of_a_final_state() -> None:
    assert not [step for step in LEGAL if step[0] in FINAL]
    assert {to for _, to in LEGAL} == set(State) - {State.NONE}
