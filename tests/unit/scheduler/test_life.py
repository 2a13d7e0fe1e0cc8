"""A process to which anything happens at any time, in any order: every step is legal, and counted right."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from servicekit.failures import FailedPrecondition
from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing, Prior
from services.scheduler.domain.records import Ending
from services.scheduler.domain.states import FINAL, LEGAL, Outcome, State

from .lives import ME, NOW, OTHER, closings, live


class Life(RuleBasedStateMachine):
    """A process to which anything happens at any time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.row = live(state=State.WAITING, attempt=0, executor_id="", max_exec_ms=5_000, max_wait_ms=5_000)
        # Attempts before the workflow was last taken up again do not count any more.
        self.uncounted = 0
        self.outcomes: dict[int, Prior] = {}

    @rule(max_retries=st.integers(-1, 3), backoff=st.sampled_from([(), (1_000.0, 2.0, 4_000.0, 0.5)]))
    def submit_with(self, max_retries: int, backoff: tuple[float, ...]) -> None:
        if self.row.attempt == 0:
            self.row = replace(self.row, max_retries=max_retries, backoff=backoff)

    @rule(seconds=st.integers(0, 6))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(executor=st.sampled_from([ME, OTHER]))
    def assign(self, executor: str) -> None:
        if self.row.is_ready and (self.row.backoff_until is None or self.row.backoff_until <= self.now):
            self.row = replace(
                self.row,
                state=State.RUNNING,
                attempt=self.row.attempt + 1,
                executor_id=executor,
                started_at=self.now,
                backoff_until=None,
            )

    @rule()
    def taken_up_again(self) -> None:
        """With its whole workflow."""
        if self.row.state in {State.FAILED, State.CANCELLED}:
            assert (self.row.state, State.WAITING) in LEGAL
            self.uncounted = self.row.attempt
            self.row = replace(
                self.row,
                state=State.WAITING,
                retries=0,
                undelivered=0,
                executor_id="",
                ready_at=self.now,
                backoff_until=None,
            )

    @rule(number=st.integers(1, 4), executor=st.sampled_from([ME, OTHER]), closing=closings)
    def close(self, number: int, executor: str, closing: Closing) -> None:
        before, prior = self.row, self.outcomes.get(number)
        try:
            end = endings.close(self.row, number, executor, closing, prior, self.now)
        except FailedPrecondition:
            assert not endings.holds(before, number, executor)
        else:
            assert (end is not None) == endings.holds(before, number, executor)
            self.becomes(end)

    @rule(number=st.integers(1, 4))
    def lease_ends(self, number: int) -> None:
        self.becomes(endings.lose(self.row, number, self.now))

    @rule(number=st.integers(1, 4))
    def offer_ends(self, number: int) -> None:
        self.becomes(endings.withdraw_offer(self.row, number, self.now))

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
        assert (end.backoff_until is not None) == (end.counts_as_retry and bool(row.backoff))
        assert end.backoff_until is None or self.now <= end.backoff_until <= self.now + timedelta(seconds=4)
        self.row = replace(
            row,
            state=end.to_state,
            retries=row.retries + end.counts_as_retry,
            undelivered=row.undelivered + (end.outcome is Outcome.UNDELIVERED),
            executor_id="" if again else row.executor_id,
            ready_at=(end.backoff_until or self.now) if again else row.ready_at,
            backoff_until=end.backoff_until,
        )

    @invariant()
    def retries_stay_within_their_bound(self) -> None:
        assert self.row.max_retries == endings.UNLIMITED or self.row.retries <= self.row.max_retries

    @invariant()
    def whatever_ended_its_attempts_is_counted(self) -> None:
        back = [prior.outcome for number, prior in self.outcomes.items() if number > self.uncounted]
        undelivered = back.count(Outcome.UNDELIVERED)
        assert self.row.undelivered == undelivered
        last_was_final = self.row.is_final and bool(back) and self.row.retries < len(back) - undelivered
        assert self.row.retries == len(back) - undelivered - last_was_final

    @invariant()
    def every_attempt_but_the_live_one_has_an_outcome(self) -> None:
        over = self.row.attempt - (self.row.state is State.RUNNING)
        assert set(self.outcomes) == set(range(1, over + 1))


TestLife = Life.TestCase


def test_only_taking_a_workflow_up_again_leads_out_of_a_final_state() -> None:
    assert {step for step in LEGAL if step[0] in FINAL} == {(State.FAILED, State.WAITING), (State.CANCELLED, State.WAITING)}
    assert {to for _, to in LEGAL} == set(State) - {State.NONE}
