"""The criteria of the chaos test find what they are for."""

import json
import random
from pathlib import Path

import pytest

from tests.fault.accounting import Accounts, Promised, audit_logs
from tests.fault.chaos import Outage, plan
from tests.fault.order import IN_QUEUE_S, SLACK_S, Calendar, Passed, Stay, passed_over


def stay(rank: int, ready: float, assigned: float) -> Stay:
    return Stay(rank, rank, 1, f"p{rank}", ready, assigned)


QUIET = Calendar([])


def test_in_order_nobody_is_passed_over() -> None:
    # All are there from the start, and go one each second, the most urgent first; two at one moment are one batch.
    assert passed_over([stay(rank, 0, 10 + rank // 2) for rank in range(20)], SLACK_S, QUIET) == []


def test_who_was_passed_over_is_found() -> None:
    first, second, third = stay(1, 0, 100), stay(2, 0, 20), stay(3, 0, 30)
    assert passed_over([third, first, second], SLACK_S, QUIET) == [Passed(first, second, 80)]
    assert passed_over([third, first, second], SLACK_S, QUIET, lambda moment: moment > 20) == [Passed(first, third, 70)]
    assert passed_over([third, first, second], SLACK_S, QUIET, lambda moment: moment > 30) == []


@pytest.mark.parametrize(
    ("ready", "assigned"),
    [
        pytest.param(20 - SLACK_S, 90, id="came in the same moment"),
        pytest.param(0, 20 + SLACK_S, id="was taken in the same moment"),
    ],
)
def test_the_slack_of_the_ledgers_times(ready: float, assigned: float) -> None:
    urgent, other = stay(1, ready, assigned), stay(2, 0, 20)
    assert passed_over([urgent, other], SLACK_S, QUIET) == []


def test_who_was_passed_over_is_late_while_it_is_its_turn() -> None:
    late, other = stay(5, 0, 100), stay(6, 0, 20)
    # Who came later and is more urgent goes first: until 90 it is their turn, but for the seconds from 30 to 40.
    urgent = [stay(1, 20, 30), stay(2, 40, 70), stay(3, 50, 90)]
    assert passed_over([late, other, *urgent], SLACK_S, QUIET) == [Passed(late, other, 20)]
    assert passed_over([late, other, *urgent], SLACK_S, Calendar([Outage(35, 98)])) == [Passed(late, other, 7)]


def test_random_order_is_found() -> None:
    rng = random.Random(1)
    ranks = list(range(200))
    rng.shuffle(ranks)
    found = passed_over([stay(rank, 0, 10 + moment / 10) for moment, rank in enumerate(ranks)], SLACK_S, QUIET)
    assert len(found) > 100
    assert sum(one.late_s for one in found) > 10


def test_outages_are_counted_once() -> None:
    calendar = Calendar([Outage(30, 40), Outage(10, 20), Outage(15, 25), Outage(16, 17)])
    assert calendar.away() == 25
    assert calendar.clean(0, 10) == 10
    assert calendar.clean(0, 50) == 25
    assert calendar.clean(12, 18) == 0
    assert calendar.clean(22, 35) == 5
    assert calendar.clean(26, 29) == 3
    assert calendar.clean(29, 26) == 0


def test_a_queue_that_was_lost_is_filled_for_a_while() -> None:
    calendar = Calendar([Outage(10, 20), Outage(40, 41, emptied=True)])
    filling = [moment for moment in (15, 21, 39, 40, 41 + IN_QUEUE_S, 42 + IN_QUEUE_S) if calendar.is_filling(moment)]
    assert filling == [40, 41 + IN_QUEUE_S]
    # Nor is it filled while something else that it rests on is away.
    calendar = Calendar([Outage(40, 41, emptied=True), Outage(43, 60)])
    assert [calendar.is_filling(moment) for moment in (42, 50, 60, 58 + IN_QUEUE_S, 58.1 + IN_QUEUE_S)] == [*[True] * 4, False]


def test_a_plan_follows_from_its_seed() -> None:
    assert plan(7, 100) == plan(7, 100) != plan(8, 100)
    assert len(plan(7, 100)) == 49
    assert {fault.kind for fault in plan(7, 100)} == {"kill", "pause", "cut"}


def test_errors_in_logs_are_blamed_and_outages_are_not(tmp_path: Path) -> None:
    lines = [
        {"level": "warning", "event": "upkeep waits"},
        {"level": "error", "event": "cannot start", "error": "the database is out of reach"},
        {"level": "error", "event": "ExecuteBatchError raised in core by servicer method [/m]", "exception": "Traceback"},
        {"level": "error", "event": "defect", "method": "/m", "exception": "Traceback\nRuntimeError: one"},
        {"level": "error", "event": "defect", "method": "/m", "exception": "Traceback\nRuntimeError: one"},
    ]
    (tmp_path / "scheduler.log").write_text("not JSON\n" + "".join(json.dumps(line) + "\n" for line in lines))
    accounts = Accounts()
    audit_logs(tmp_path, accounts)
    assert accounts.wrong == ["1 x an error in scheduler's log:\n    2 x defect (/m): RuntimeError: one"]


def test_what_was_promised(tmp_path: Path) -> None:
    log = tmp_path / "acks"
    log.write_text(
        '{"ids": ["a", "b"], "outputs": [1, 2]}\n{"refused": "no"}\n{"workflow": "w", "ids": ["c"], "outputs": [3]}\n'
    )
    promised = Promised.read(log)
    assert promised.outputs == {"a": 1, "b": 2, "c": 3}
    assert (promised.workflows, promised.refused) == ({"w": ["c"]}, ["no"])
