"""The accounting of crons: what fired, told by the tables of the cron service, against what is in those of the scheduler.

Every cron here is due once a second, and nobody works off what it submits.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString, NamedTuple

import psycopg

from colonies.cron.v1 import cron_service_pb2 as pb
from tests.fault.accounting import Accounts

SECOND_MS = 1_000
SUBMITTED = int(pb.FIRE_OUTCOME_SUBMITTED)
SKIPPED = int(pb.FIRE_OUTCOME_SKIPPED)
# Policies under which every moment submits.
EVERY_MOMENT = frozenset({pb.OVERLAP_POLICY_ALLOW, pb.OVERLAP_POLICY_CANCEL_PREVIOUS})


@dataclass(frozen=True, slots=True)
class Added:
    """A cron, as it was answered when it was added. Its workflows have its name as their label."""

    cron_id: str
    name: str
    overlap: int
    created_ms: int
    by_expression: bool

    @property
    def first_ms(self) -> int:
        """Its first moment: the next whole second, or one second after it was added."""
        if self.by_expression:
            return (self.created_ms // SECOND_MS + 1) * SECOND_MS
        return self.created_ms + SECOND_MS


class Fire(NamedTuple):
    """A row of the cron service."""

    cron_id: str
    fire_id: str
    due_ms: int
    outcome: int
    moments: int
    tries: int
    ended_ms: int | None


class Entered(NamedTuple):
    """A workflow in the scheduler, and how many of its processes wait."""

    workflow_id: str
    label: str
    sequence: int
    processes: int
    waiting: int


class Submission(NamedTuple):
    """What the scheduler remembers of a request id."""

    request_id: str
    workflow_id: str


@dataclass(slots=True)
class Books:
    """Both services' tables."""

    fires: list[Fire] = field(default_factory=list)
    entered: list[Entered] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)

    @classmethod
    def read(cls, url: str) -> "Books":
        """As they are now."""
        with psycopg.connect(url, autocommit=True) as connection:
            return cls(*([row(*each) for each in connection.execute(query)] for row, query in TABLES.items()))


TABLES: Mapping[Any, LiteralString] = {
    Fire: """
        SELECT
          cron_id::text, id::text, (extract(epoch FROM due_at) * 1000)::bigint, outcome, moments, tries,
          (extract(epoch FROM fired_at) * 1000)::bigint
        FROM cron.fire
        ORDER BY due_at, id""",
    Entered: """
        SELECT w.id::text, w.label, w.sequence, count(p.id), count(p.id) FILTER (WHERE p.state = 1)
        FROM scheduler.workflow AS w
        LEFT JOIN scheduler.process AS p ON p.workflow_id = w.id
        GROUP BY w.id""",
    Submission: "SELECT request_id, workflow_id::text FROM scheduler.submission",
}


# The place of the fire that tells of all moments that passed while another waited.
TOGETHER = 2


def account(crons: Sequence[Added], books: Books, until_ms: int, accounts: Accounts) -> None:
    """Checks that each cron has acted on each of its moments, up to `until_ms` at least, once and as its policy says."""
    fires: dict[str, list[Fire]] = defaultdict(list)
    for fire in books.fires:
        fires[fire.cron_id].append(fire)
    wrong: dict[str, list[Any]] = defaultdict(list)
    for cron in crons:
        for what, case in _flaws_of(cron, fires.pop(cron.cron_id, []), until_ms):
            wrong[what].append(case)
    wrong["a fire of no cron"] = list(fires)
    for what, case in _flaws_between(crons, books):
        wrong[what].append(case)
    for what, cases in wrong.items():
        accounts.blame(what, cases)
    outcomes = Counter(fire.outcome for fire in books.fires)
    accounts.facts |= {
        "crons": len(crons),
        "fires": len(books.fires),
        "submitted": outcomes[SUBMITTED],
        "skipped": outcomes[SKIPPED],
        "workflows": len(books.entered),
        "fires tried more than once": sum(fire.tries > 1 for fire in books.fires),
    }


def _flaws_of(cron: Added, fires: Sequence[Fire], until_ms: int) -> Iterator[tuple[str, Any]]:
    if not fires:
        yield "a cron that has never fired", cron.name
        return
    due = Counter(fire.due_ms + place * SECOND_MS for fire in fires for place in range(fire.moments))
    last_ms = max(due)
    if last_ms < until_ms:
        yield "a cron that has stopped", (cron.name, last_ms, until_ms)
    expected = range(cron.first_ms, last_ms + 1, SECOND_MS)
    for moment in expected:
        if due[moment] == 0:
            yield "a moment that was missed", (cron.name, moment)
    for moment, count in due.items():
        if count > 1:
            yield "a moment that has fired twice", (cron.name, moment)
        if moment not in expected:
            yield "a fire at no moment of its cron", (cron.name, moment)
    for number, fire in enumerate(fires):
        wanted = SUBMITTED if number == 0 or cron.overlap in EVERY_MOMENT else SKIPPED
        # The second waits for the first, which nobody works off; no other may wait, and all others are told together.
        together = cron.overlap == pb.OVERLAP_POLICY_QUEUE_ONE and number == TOGETHER
        if fire.outcome != wanted or (fire.moments != 1 and not together):
            yield "a fire that did not end as its cron's policy says", (cron.name, fire)


def _flaws_between(crons: Sequence[Added], books: Books) -> Iterator[tuple[str, Any]]:
    """What one service has and the other lacks, or has otherwise."""
    names = {cron.cron_id: cron.name for cron in crons}
    submitted = {fire.fire_id: fire for fire in books.fires if fire.outcome == SUBMITTED}
    entered = {each.workflow_id: each for each in books.entered}
    for missing in submitted.keys() - entered.keys():
        yield "a fire whose workflow is not in the scheduler", submitted[missing]
    for strange in entered.keys() - submitted.keys():
        yield "a workflow in the scheduler that no fire has submitted", entered[strange]
    requests = Counter(books.submissions)
    for fire_id in submitted:
        if (count := requests.pop(Submission(f"cron-{fire_id}", fire_id), 0)) != 1:
            yield "a fire that the scheduler has not taken exactly once", (fire_id, count)
    for request in requests:
        yield "a submit in the scheduler that is of no fire", request
    both = [(entered[fire_id], fire) for fire_id, fire in submitted.items() if fire_id in entered]
    for workflow, fire in both:
        if (workflow.label, workflow.processes) != (names.get(fire.cron_id), 1):
            yield "a workflow that is not its cron's", (workflow, fire)
    yield from _disorder(both)
    waiting = Counter({each.label: 0 for each in books.entered})
    for each in books.entered:
        waiting[each.label] += each.waiting
    runs = Counter(names.get(fire.cron_id) for fire in submitted.values())
    for cron in crons:
        wanted = runs[cron.name] if cron.overlap == pb.OVERLAP_POLICY_ALLOW else 1
        if waiting[cron.name] != wanted:
            yield "a cron with more or fewer open workflows than its policy says", (cron.name, waiting[cron.name], wanted)


def _disorder(both: Sequence[tuple[Entered, Fire]]) -> Iterator[tuple[str, Any]]:
    before: dict[str, int] = {}
    for workflow, fire in both:
        if workflow.sequence < before.get(fire.cron_id, 0):
            yield "a workflow that overtook an earlier one of its cron", (workflow, fire)
        before[fire.cron_id] = workflow.sequence


def delays(crons: Sequence[Added], books: Books, near_a_kill: Callable[[float], bool]) -> list[str]:
    """How late fires came to their ends, in lines to print; those that waited for the run before them are left out."""
    waiting = {cron.cron_id for cron in crons if cron.overlap == pb.OVERLAP_POLICY_QUEUE_ONE}
    near: list[int] = []
    far: list[int] = []
    for fire in books.fires:
        if fire.ended_ms is None or (fire.cron_id in waiting and fire.outcome == SKIPPED):
            continue
        (near if near_a_kill(fire.due_ms / 1000) else far).append(fire.ended_ms - fire.due_ms)
    shown = {"all": near + far, "not near a kill": far, "near a kill": near}
    return [f"{name}: {_spread(found)}" for name, found in shown.items() if len(found) > 1]


def _spread(found: Sequence[int]) -> str:
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    return f"{len(found)} fires, p50 {cuts[49]:.0f} ms, p90 {cuts[89]:.0f} ms, p99 {cuts[98]:.0f} ms, max {max(found)} ms"
