"""The life of a process, event by event: what may follow what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from colonies.audit.records import Record

# Replicas have clocks of their own.
CLOCK_SLACK_US = 120 * 1_000_000
# Submits that come together are entered together, a moment after they were accepted; an outage may make it a long one.
LONGEST_ENTRY_US = 600 * 1_000_000
UNLIMITED = -1


class State(IntEnum):
    """Numbers as in colonies.scheduler.v1.ProcessState; NONE is before the submit."""

    NONE = 0
    WAITING = 1
    RUNNING = 2
    SUCCESSFUL = 3
    FAILED = 4
    CANCELLED = 5


class Outcome(IntEnum):
    """How an attempt ended; numbers as in colonies.scheduler.v1.AttemptOutcome."""

    NONE = 0
    SUCCESSFUL = 1
    FAILED = 2
    TIMED_OUT = 3
    LOST = 4
    CANCELLED = 5
    UNDELIVERED = 6


# Every transition that there is, by reason, and how the attempt ended by it.
TRANSITIONS: Mapping[tuple[str, State, State], Outcome] = {
    ("SUBMITTED", State.NONE, State.WAITING): Outcome.NONE,
    ("ASSIGNED", State.WAITING, State.RUNNING): Outcome.NONE,
    ("CLOSED", State.RUNNING, State.SUCCESSFUL): Outcome.SUCCESSFUL,
    ("CLOSED", State.RUNNING, State.FAILED): Outcome.FAILED,
    ("RETRIED", State.RUNNING, State.WAITING): Outcome.FAILED,
    ("LEASE_EXPIRED", State.RUNNING, State.WAITING): Outcome.LOST,
    ("LEASE_EXPIRED", State.RUNNING, State.FAILED): Outcome.LOST,
    ("MAX_EXEC_TIME", State.RUNNING, State.WAITING): Outcome.TIMED_OUT,
    ("MAX_EXEC_TIME", State.RUNNING, State.FAILED): Outcome.TIMED_OUT,
    ("UNDELIVERED", State.RUNNING, State.WAITING): Outcome.UNDELIVERED,
    ("MAX_WAIT_TIME", State.WAITING, State.FAILED): Outcome.NONE,
    ("CANCELLED", State.WAITING, State.CANCELLED): Outcome.NONE,
    ("CANCELLED", State.RUNNING, State.CANCELLED): Outcome.CANCELLED,
    ("PARENT_FAILED", State.WAITING, State.FAILED): Outcome.NONE,
    ("PARENT_CANCELLED", State.WAITING, State.CANCELLED): Outcome.NONE,
    ("MISSING_OUTPUT", State.WAITING, State.FAILED): Outcome.NONE,
    ("INPUT_TOO_LARGE", State.WAITING, State.FAILED): Outcome.NONE,
    ("RETRY_REQUESTED", State.FAILED, State.WAITING): Outcome.NONE,
    ("RETRY_REQUESTED", State.CANCELLED, State.WAITING): Outcome.NONE,
}
# What somebody asks for by a call; all else comes about by itself, and has neither call nor actor, but for assignments, whose
# actor is the executor.
ASKED_FOR = frozenset({"SUBMITTED", "CLOSED", "RETRIED", "CANCELLED", "RETRY_REQUESTED"})
_WITH_ERRORS = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST, Outcome.UNDELIVERED})
_WORKFLOWS_ONLY = frozenset({"RETRY_REQUESTED", "PARENT_FAILED", "PARENT_CANCELLED", "MISSING_OUTPUT", "INPUT_TOO_LARGE"})
_COUNTED_AS_RETRIES = frozenset({"RETRIED", "LEASE_EXPIRED", "MAX_EXEC_TIME"})
_LAST_IF_EXHAUSTED = frozenset({"LEASE_EXPIRED", "MAX_EXEC_TIME"})


@dataclass(slots=True)
class Attempt:
    """One attempt: whose it was, and when it ran; still, if it has no end."""

    executor: str
    began_us: int
    ended_us: int | None = None


@dataclass(slots=True)
class Life:
    """Where a process is in its life, as far as its events were read. `max_retries` is None where its spec is not known."""

    process: Record
    max_retries: int | None = None
    state: State = State.NONE
    events: int = 0
    # Of the attempt that runs, or ran last.
    attempt: int = 0
    executor_name: str = ""
    at_us: int = 0
    retries: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    # Those that asked for its events.
    calls: set[str] = field(default_factory=set)

    @property
    def may_retry(self) -> bool:
        """Its spec is known, and allows another try."""
        return self.max_retries is not None and (self.max_retries == UNLIMITED or self.retries < self.max_retries)

    def step(self, event: Record) -> list[str]:
        """Takes in the next event; returns what is wrong with it."""
        begin, end = State(event["from"]), State(event["to"])
        reason = event["reason"]
        wrong = self._transition(event, reason, begin, end)
        wrong += self._attempt(event, reason, begin, end)
        wrong += self._retries(reason, begin, end)
        wrong += self._time(event)
        self._move(event, reason, begin, end)
        return wrong

    def _transition(self, event: Record, reason: str, begin: State, end: State) -> list[str]:
        wrong = []
        if begin is not self.state:
            wrong.append(f"it begins at {begin.name}, and the process is {self.state.name}")
        outcome = TRANSITIONS.get((reason, begin, end))
        if outcome is None:
            return [*wrong, f"no process goes from {begin.name} to {end.name} because it is {reason}"]
        if event["outcome"] != outcome:
            wrong.append(f"its outcome is {Outcome(event['outcome']).name}, and must be {outcome.name}")
        if event["errors"] and outcome not in _WITH_ERRORS:
            wrong.append("it reports errors, and no attempt failed by it")
        if reason in _WORKFLOWS_ONLY and not self.process["workflow_id"]:
            wrong.append("the process is in no workflow")
        has_actor = reason in ASKED_FOR or reason == "ASSIGNED"
        if bool(event["actor"]) is not has_actor:
            wrong.append("it must say who caused it" if has_actor else "it comes about by itself, and names an actor")
        if (begin is State.NONE) is not (event["number"] == 1):
            wrong.append("a process is submitted once, first of all")
        return wrong

    def _attempt(self, event: Record, reason: str, begin: State, end: State) -> list[str]:
        attempt, name = event["attempt"], event["executor_name"]
        if end is State.RUNNING:
            if attempt != self.attempt + 1:
                return [f"attempt {attempt} begins after attempt {self.attempt}"]
            return [] if name else ["the attempt has no executor"]
        if begin is State.RUNNING:
            if (attempt, name) != (self.attempt, self.executor_name):
                return [f"it ends attempt {attempt} of {name!r}, and attempt {self.attempt} of {self.executor_name!r} runs"]
            if reason in {"CLOSED", "RETRIED"} and self.attempts and event["actor"] != self.attempts[-1].executor:
                return [f"it is by {event['actor']}, and the attempt is {self.attempts[-1].executor}'s"]
            return []
        return ["it names an attempt, and none runs"] if attempt or name else []

    def _retries(self, reason: str, begin: State, end: State) -> list[str]:
        limit = self.max_retries
        if limit is None or limit == UNLIMITED or begin is not State.RUNNING:
            return []
        if end is State.WAITING and reason in _COUNTED_AS_RETRIES and self.retries >= limit:
            return [f"its {limit} retries are used up"]
        if end is State.FAILED and reason in _LAST_IF_EXHAUSTED and self.retries < limit:
            return [f"it has had {self.retries} of its {limit} retries, and must be tried again"]
        return []

    def _time(self, event: Record) -> list[str]:
        if event["at_us"] < self.at_us - CLOCK_SLACK_US:
            return ["it is older than the event before"]
        if event["number"] == 1 and not 0 <= event["at_us"] - self.process["submitted_us"] + CLOCK_SLACK_US <= LONGEST_ENTRY_US:
            return ["it has another time than the process's submit"]
        return []

    def _move(self, event: Record, reason: str, begin: State, end: State) -> None:
        self.state = end
        self.events += 1
        self.at_us = event["at_us"]
        if event["call"]:
            self.calls.add(event["call"])
        if begin is State.RUNNING and self.attempts:
            self.attempts[-1].ended_us = event["at_us"]
        if end is State.RUNNING:
            self.attempt, self.executor_name = event["attempt"], event["executor_name"]
            self.attempts.append(Attempt(event["actor"], event["at_us"]))
        elif reason == "RETRY_REQUESTED":
            self.retries = 0
        elif begin is State.RUNNING and end is State.WAITING and reason in _COUNTED_AS_RETRIES:
            self.retries += 1
