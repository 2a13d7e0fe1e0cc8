"""Whether executors got the most urgent first, told from the ledger alone.

A process stands in its lane from the moment it became ready until it was assigned. It was passed over if meanwhile a less urgent
one of its lane was assigned. Two things explain that: the ledger's times are taken before the commit, so that they are a little
off (SLACK_S, and less in the calm); and a part that the queue rests on was away, so that the process was not in its lane yet, or
not again: a queue that was lost is filled in the order of the submits. What is held against the scheduler is that a process still
stands there, outside every outage, more than the allowed time after it was passed over.
"""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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
        """Seconds between two moments that no outage covers."""
        first, last = bisect_right(self._ends, begin), bisect_left(self._begins, end)
        away = sum(min(end, self._ends[i]) - max(begin, self._begins[i]) for i in range(first, last))
        return end - begin - away

    def is_filling(self, moment: float) -> bool:
        """Whether the queue may still be filled after it was lost."""
        return any(begin <= moment <= end + IN_QUEUE_S for begin, end in self._emptied)

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


def passed_over(
    stays: Sequence[Stay], slack: float, counts: Callable[[Stay, float], bool] = lambda *_: True
) -> Iterator[tuple[Stay, Stay]]:
    """Each stay during which a less urgent process was assigned, beyond the slack, with the last such that `counts`: it is asked
    with the stay and the moment.
    """
    # In the order of time: a stay begins, or a stay ends with its assignment.
    events = sorted([(one.ready, 0, one) for one in stays] + [(one.assigned, 1, one) for one in stays])
    waiting: list[Stay] = []
    worst: dict[Stay, Stay] = {}
    for moment, assigned, stay in events:
        if not assigned:
            insort(waiting, stay)
            continue
        place = bisect_left(waiting, stay)
        if place < len(waiting) and waiting[place] == stay:
            del waiting[place]
        for other in waiting[: min(place, MOST_REPORTED)]:
            if other.ready + slack < moment < other.assigned - slack and counts(other, moment):
                worst[other] = stay
    yield from worst.items()


def out_of_order(url: str, outages: Sequence[Outage], calm_from: float) -> tuple[list[str], list[str]]:
    """Who was passed over for longer than outages explain: at all, and by assignments after `calm_from`, where nothing does."""
    calendar = Calendar(outages)
    stranded, unordered = [], []

    def is_late(victim: Stay, moment: float) -> bool:
        # A claim that died with a server is given back within IN_QUEUE_S; meanwhile others are given what is less urgent.
        return calendar.clean(moment, victim.assigned) > IN_QUEUE_S + SLACK_S and not calendar.is_filling(moment)

    for lane, stays in lanes(url).items():
        for victim, other in passed_over(stays, SLACK_S, is_late):
            stranded.append(_told(lane, victim, other, calendar))
        for victim, other in passed_over(stays, CALM_SLACK_S, lambda _, moment: moment > calm_from):
            unordered.append(_told(lane, victim, other, calendar))
    return stranded, unordered


def _told(lane: Any, victim: Stay, other: Stay, calendar: Calendar) -> str:
    clean = calendar.clean(other.assigned, victim.assigned)
    return (
        f"lane {lane}: {victim.id} ready at {victim.ready:.3f}, assigned at {victim.assigned:.3f}; "
        f"before, at {other.assigned:.3f}, less urgent {other.id} ({clean:.3f} s outside outages)"
    )
