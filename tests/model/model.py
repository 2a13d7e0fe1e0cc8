"""What the scheduler promises, in plain Python: no network, no tables, no queue. Times are unix nanoseconds unless named _ms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from services.scheduler.domain.states import Outcome, State

# In the place of texts that are the scheduler's own: one, or none or any.
SOME_TEXT = [""]
ANY_TEXTS = ["", ""]
DAY_NS = 86_400_000_000_000
UNCONFIRMED_AT_MOST = 3
FINAL = (State.SUCCESSFUL, State.FAILED, State.CANCELLED)


@dataclass
class Wanted:
    """What a submit asks for; times in ms, 0 = no limit. `parents` are positions in the same submit."""

    executor_type: str = "cpu"
    names: tuple[str, ...] = ()
    priority: int = 0
    max_wait_ms: int = 0
    max_exec_ms: int = 0
    max_retries: int = 0
    parents: tuple[int, ...] = ()


@dataclass
class Attempt:
    """One assignment."""

    executor: str
    lease_ms: int
    exec_ms: int | None
    confirmed: bool = False
    outcome: Outcome = Outcome.LIVE
    errors: list[str] = field(default_factory=list)


@dataclass
class Job:
    """One process."""

    id: str
    wanted: Wanted
    rank: tuple[int, int]
    parents: list["Job"]
    workflow: str = ""
    state: State = State.WAITING
    executor: str = ""
    retries: int = 0
    # Attempts that ended unconfirmed, which are not counted as retries.
    undelivered: int = 0
    wait_ms: int | None = None
    attempts: list[Attempt] = field(default_factory=list)
    steps: list[tuple[int, int, int, str]] = field(default_factory=list)
    output: str = ""
    errors: list[str] = field(default_factory=list)

    @property
    def blocked(self) -> bool:
        """Waits for parents."""
        return any(parent.state is not State.SUCCESSFUL for parent in self.parents)

    @property
    def needs_success(self) -> bool:
        """Ends with a parent that ends without success."""
        return True

    @property
    def ready(self) -> bool:
        """In the queue."""
        return self.state is State.WAITING and not self.blocked

    def live(self, number: int, executor: str) -> bool:
        """Whether this is its live attempt, and this executor's."""
        return self.state is State.RUNNING and number == len(self.attempts) and self.executor == executor


def _deadline_ms(since_ns: int, limit_ms: int) -> int | None:
    """The first millisecond after a limit that counts from a moment in microseconds; a timer never fires early."""
    return (since_ns // 1000 + limit_ms * 1000) // 1000 + 1 if limit_ms else None


class Model:
    """A colony's processes."""

    job_type: ClassVar[type[Job]] = Job

    def __init__(self, lease_ms: int) -> None:
        self.lease_ms = lease_ms
        self.now_ns = 0
        self.jobs: dict[str, Job] = {}
        # Submitted or changed since somebody last took them.
        self.touched: dict[str, Job] = {}

    @property
    def _now_ms(self) -> int:
        return self.now_ns // 1_000_000

    def _step(self, job: Job, to: State, attempt: int, reason: str) -> None:
        before = State.NONE if not job.steps else job.state
        job.steps.append((before, to, attempt, reason))
        job.state = to
        self.touched[job.id] = job

    def _enqueue(self, job: Job) -> None:
        job.wait_ms = _deadline_ms(self.now_ns, job.wanted.max_wait_ms)

    def submit(self, ids: Sequence[str], wanted: Sequence[Wanted], workflow: str = "") -> None:
        """Enters a batch, or a workflow."""
        jobs: list[Job] = []
        for order, (one, want) in enumerate(zip(ids, wanted, strict=True)):
            rank = (self.now_ns + order - want.priority * DAY_NS, len(self.jobs))
            job = self.job_type(one, want, rank, [jobs[parent] for parent in want.parents], workflow)
            jobs.append(job)
            self.jobs[one] = job
            self._step(job, State.WAITING, 0, "SUBMITTED")
            if job.ready:
                self._enqueue(job)

    def eligible(self, executor: str, types: Iterable[str]) -> list[Job]:
        """What this executor may run, the most urgent first."""
        ready = (job for job in self.jobs.values() if job.ready and job.wanted.executor_type in types)
        return sorted((job for job in ready if not job.wanted.names or executor in job.wanted.names), key=lambda job: job.rank)

    def assign(self, executor: str, jobs: Sequence[Job]) -> None:
        """Begins attempts."""
        for job in jobs:
            exec_ms = _deadline_ms(self.now_ns, job.wanted.max_exec_ms)
            job.attempts.append(Attempt(executor, self._now_ms + self.lease_ms, exec_ms))
            job.executor, job.errors, job.wait_ms = executor, [], None
            self._step(job, State.RUNNING, len(job.attempts), "ASSIGNED")

    def heartbeat(self, executor: str, refs: Iterable[tuple[str, int]]) -> list[tuple[str, int, bool]]:
        """Extends leases; what is to be dropped, and whether because it was cancelled."""
        drops = []
        for one, number in refs:
            job = self.jobs[one]
            if job.live(number, executor):
                job.attempts[-1].confirmed = True
                job.attempts[-1].lease_ms = self._now_ms + self.lease_ms
            else:
                drops.append((one, number, job.state is State.CANCELLED))
        return drops

    def may_close(self, executor: str, one: str, number: int, outcome: Outcome) -> bool:
        """Whether a close is accepted: it is of the live attempt, or repeats what was said before."""
        job = self.jobs[one]
        past = job.attempts[number - 1]
        return job.live(number, executor) or (past.executor == executor and past.outcome is outcome)

    def close(self, executor: str, one: str, number: int, output: str) -> None:
        """Closes as successful; of a repeated one nothing comes."""
        job = self.jobs[one]
        if job.live(number, executor):
            job.output = output
            self._end(job, State.SUCCESSFUL, "CLOSED", Outcome.SUCCESSFUL)

    def fail(self, executor: str, one: str, number: int, error: str, *, retryable: bool) -> None:
        """Closes as failed; of a repeated one nothing comes."""
        job = self.jobs[one]
        if job.live(number, executor):
            self._fail(job, "CLOSED", Outcome.FAILED, [error], retryable=retryable)

    def _fail(self, job: Job, reason: str, outcome: Outcome, errors: list[str], *, retryable: bool) -> None:
        job.attempts[-1].errors = job.errors = errors
        if retryable and (job.wanted.max_retries == -1 or job.retries < job.wanted.max_retries):
            job.retries += 1
            self._end(job, State.WAITING, "RETRIED" if reason == "CLOSED" else reason, outcome)
        else:
            self._end(job, State.FAILED, reason, outcome)

    def _end(self, job: Job, to: State, reason: str, outcome: Outcome = Outcome.LIVE) -> None:
        was_ready = {child.id for child in self.jobs.values() if child.ready and child is not job}
        if job.attempts and outcome is not Outcome.LIVE:
            job.attempts[-1].outcome = outcome
        self._step(job, to, len(job.attempts) if outcome is not Outcome.LIVE else 0, reason)
        if to is State.WAITING:
            job.executor = ""
        elif to is not State.SUCCESSFUL:
            self._end_descendants(job, to)
        for child in self.jobs.values():
            if child.ready and child.id not in was_ready:
                self._enqueue(child)

    def _end_descendants(self, root: Job, to: State) -> None:
        for child in self.jobs.values():
            if root in child.parents and child.state is State.WAITING and child.needs_success:
                child.errors = SOME_TEXT
                self._step(child, to, 0, "PARENT_FAILED" if to is State.FAILED else "PARENT_CANCELLED")
                self._end_descendants(child, to)

    def cancel(self, one: str) -> bool:
        """Cancels a process; false when it has ended otherwise."""
        job = self.jobs[one]
        if job.state in {State.SUCCESSFUL, State.FAILED}:
            return False
        if job.state is not State.CANCELLED:
            self._end(job, State.CANCELLED, "CANCELLED", Outcome.CANCELLED if job.state is State.RUNNING else Outcome.LIVE)
        return True

    def cancel_workflow(self, workflow: str) -> None:
        """Cancels what is open of a workflow."""
        for job in self.jobs.values():
            if job.workflow == workflow and job.state not in FINAL:
                running = job.state is State.RUNNING
                if running:
                    job.attempts[-1].outcome = Outcome.CANCELLED
                self._step(job, State.CANCELLED, len(job.attempts) if running else 0, "CANCELLED")

    def tick(self) -> None:
        """Deadlines fire. The end of a lease comes before that of the time limit, and both before that of the wait."""
        now = self._now_ms
        jobs = list(self.jobs.values())
        waiting = [job for job in jobs if job.ready and job.wait_ms is not None and job.wait_ms <= now]
        for job in jobs:
            if job.state is not State.RUNNING:
                continue
            attempt = job.attempts[-1]
            if attempt.lease_ms <= now:
                if attempt.confirmed or job.undelivered >= UNCONFIRMED_AT_MOST:
                    self._fail(job, "LEASE_EXPIRED", Outcome.LOST, SOME_TEXT, retryable=True)
                else:
                    attempt.errors = job.errors = SOME_TEXT
                    job.undelivered += 1
                    self._end(job, State.WAITING, "UNDELIVERED", Outcome.UNDELIVERED)
            elif attempt.exec_ms is not None and attempt.exec_ms <= now:
                self._fail(job, "MAX_EXEC_TIME", Outcome.TIMED_OUT, SOME_TEXT, retryable=True)
        for job in waiting:
            job.errors = SOME_TEXT
            self._end(job, State.FAILED, "MAX_WAIT_TIME")

    def accorded(self) -> None:
        """The queue was told again what the rows say."""

    def rebuilt(self) -> None:
        """The queue was lost and filled again: of attempts it is not known any more whether they were confirmed."""
        for job in self.jobs.values():
            if job.state is State.RUNNING:
                job.attempts[-1].confirmed = False
                job.attempts[-1].lease_ms = self._now_ms + self.lease_ms

    def workflows(self) -> list[str]:
        """All workflows in the order of their submits: their ids, which are random, must decide nothing."""
        return list(dict.fromkeys(job.workflow for job in self.jobs.values() if job.workflow))

    def workflow_state(self, workflow: str) -> tuple[State, list[int]]:
        """A workflow's state, and how many of its processes are in each."""
        jobs = [job for job in self.jobs.values() if job.workflow == workflow]
        counts = [sum(job.state is state for job in jobs) for state in State if state is not State.NONE]
        for state in (State.FAILED, State.CANCELLED):
            if any(job.state is state for job in jobs):
                return state, counts
        if all(job.state is State.SUCCESSFUL for job in jobs):
            return State.SUCCESSFUL, counts
        return State.RUNNING if any(job.attempts for job in jobs) else State.WAITING, counts
