"""Whether executors got the most urgent first, told from the ledger alone.

A process stands in its lane from the moment it became ready until it was assigned. It was passed over if meanwhile a less urgent
one of its lane was assigned. Two things explain that: the ledger's times are taken before the commit, so that they are a little
off (SLACK_S, and less in the calm); and a part that the queue rests on was away, so that the process was not in its lane yet, or
not again: a queue that was lost is filled in the order of the submits. What is held against the scheduler is that a process that
was passed over goes on standing there, outside every outage, longer than allowed, while it is the most urgent of its lane. While
a more urgent one stands there too, it is that one's turn.
"""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fault.accounting import connect
from tests.fault.chaos import Outage

SLACK_S = 1.0
CALM_SLACK_S = 0.5
# I4: a ready process is in the queue within this, whatever died in between.
IN_QUEUE_S = 5.0
MOST_REPORTED = 100

STAYS = """
    WITH parents AS (
      SELECT e.child_id, max(p.ended_at) AS done_at
      FROM edge AS e
      JOIN process AS p ON p.id = e.parent_id
      GROUP BY e.child_id
    )
    SELECT
      p.id::text AS id, p.executor_type, p.executor_names, p.location, p.needs, p.priority_time, p.sequence, a.number,
      extract(epoch FROM coalesce(
        lag(a.ended_at) OVER (PARTITION BY a.process_id ORDER BY a.number), d.done_at, p.submitted_at
      ))::float8 AS ready,
      extract(epoch FROM a.started_at)::float8 AS assigned
    FROM attempt AS a
    JOIN process AS p ON p.id = a.process_id
    LEFT JOIN parents AS d ON d.child_id = p.id"""


@dataclass(frozen=True, slots=True, order=True)
class Stay:
    """One stay of a process in its lane; the most urgent is the least."""

    priority_time: int
    sequence: int
    number: int
    id: str
    ready: float
    assigned: float


class Calendar:
    """How much of a time was outside outages."""

    def __init__(self, outages: Sequence[Outage]) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        self._emptied = [(one.begin, one.end) for one in outages if one.emptied]
        for outage in sorted(outages, key=lambda one: one.begin):
            if self._ends and outage.begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], outage.end)
            else:
                self._begins.append(outage.begin)
                self._ends.append(outage.end)

    def clean(self, begin: float, end: float) -> float:
        """Seconds between two moments that no outage covers; 0 if the second comes first."""
        if end <= begin:
            return 0.0
        first, last = bisect_right(self._ends, begin), bisect_left(self._begins, end)
        away = sum(min(end, self._ends[i]) - max(begin, self._begins[i]) for i in range(first, last))
        return end - begin - away

    def is_filling(self, moment: float) -> bool:
        """Whether the queue may still be filled after it was lost: that takes as long as all that it rests on is there."""
        return any(begin <= moment and self.clean(end, moment) <= IN_QUEUE_S for begin, end in self._emptied)

    def away(self) -> float:
        """Seconds of outage in all."""
        return sum(self._ends) - sum(self._begins)


def lanes(url: str) -> dict[Any, list[Stay]]:
    """Every stay of every process, by lane."""
    found: dict[Any, list[Stay]] = defaultdict(list)
    with connect(url) as connection:
        for row in connection.execute(STAYS):
            lane = (row["executor_type"], tuple(sorted(row["executor_names"])), row["location"], row["needs"])
            stay = Stay(row["priority_time"], row["sequence"], row["number"], row["id"], row["ready"], row["assigned"])
            found[lane].append(stay)
    return found


@dataclass(frozen=True, slots=True)
class Passed:
    """A stay during which a less urgent process was assigned: the first that counts, and how long outside outages it went on, as
    the most urgent of its lane, after that.
    """

    stay: Stay
    before: Stay
    late_s: float


def passed_over(
    stays: Sequence[Stay], slack: float, calendar: Calendar, counts: Callable[[float], bool] = lambda _: True
) -> list[Passed]:
    """The stays of a lane that were passed over, beyond the slack, at a moment that counts."""
    # In the order of time: a stay begins, or a stay ends with its assignment.
    events = sorted([(one.ready, 0, one) for one in stays] + [(one.assigned, 1, one) for one in stays])
    waiting: list[Stay] = []
    first: dict[Stay, Stay] = {}
    late: dict[Stay, float] = defaultdict(float)
    then = 0.0
    for moment, assigned, stay in events:
        if waiting and waiting[0] in first:
            late[waiting[0]] += calendar.clean(then, moment)
        then = moment
        if not assigned:
            insort(waiting, stay)
            continue
        place = bisect_left(waiting, stay)
        if place < len(waiting) and waiting[place] == stay:
            del waiting[place]
        for other in waiting[: min(place, MOST_REPORTED)]:
            if other.ready + slack < moment < other.assigned - slack and other not in first and counts(moment):
                first[other] = stay
    return [Passed(stay, before, late[stay]) for stay, before in first.items()]


def out_of_order(url: str, outages: Sequence[Outage], calm_from: float) -> tuple[list[str], list[str]]:
    """Who was passed over for longer than outages explain; and at all, by assignments after `calm_from`, where nothing does."""
    calendar = Calendar(outages)
    stranded, unordered = [], []
    for lane, stays in lanes(url).items():
        # A claim that died with a server is given back within IN_QUEUE_S; meanwhile others are given what is less urgent.
        for one in passed_over(stays, SLACK_S, calendar, lambda moment: not calendar.is_filling(moment)):
            if one.late_s > IN_QUEUE_S + SLACK_S:
                stranded.append(_told(lane, one))
        unordered += [_told(lane, one) for one in passed_over(stays, CALM_SLACK_S, calendar, lambda moment: moment > calm_from)]
    return stranded, unordered


def _told(lane: Any, one: Passed) -> str:
    return (
        f"lane {lane}: {one.stay.id} ready at {one.stay.ready:.3f}, assigned at {one.stay.assigned:.3f}; before, at "
        f"{one.before.assigned:.3f}, less urgent {one.before.id} ({one.late_s:.3f} s its turn, outside outages)"
    )
