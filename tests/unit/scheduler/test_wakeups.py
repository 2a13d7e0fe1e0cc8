"""Who is woken for what, and that no wake-up goes away with somebody who vanished."""

import uuid
from typing import Any

import pytest

from services.scheduler.domain.records import ExecutorProfile, Place
from services.scheduler.queue.wakeups import Waiter, Wakeups

ANY_LANE = "cli||"


def executor(name: str = "worker-1", *types: str, location: str = "") -> ExecutorProfile:
    return ExecutorProfile("11" * 32, name, types or ("cli",), location)


def place(executor_type: str, location: str = "") -> Place:
    return Place(uuid.UUID(int=7), "acme", 1, executor_type, (), location, 0, None)


def is_awake(*waiters: Waiter) -> None:
    """So that others are woken before these."""
    for waiter in waiters:
        waiter.lane = ANY_LANE


def waits(*waiters: Waiter) -> None:
    """These wait again."""
    for waiter in waiters:
        waiter.lane = None
        assert not waiter.event.is_set()


@pytest.fixture
def wakeups() -> Wakeups:
    unused: Any = None
    return Wakeups(unused)


@pytest.mark.parametrize(
    ("lane", "serves"),
    [
        ("cli||", True),
        ("edge||", True),
        ("cloud||", False),
        ("cli|worker-1|", True),
        ("cli|worker-2,worker-1|", True),
        ("cli|worker-10|", False),
        ("cli||home", True),
        ("cli||away", False),
        ("cli|worker-2|home", False),
    ],
)
def test_which_lanes_an_executor_serves(lane: str, serves: bool) -> None:
    assert Waiter(executor("worker-1", "cli", "edge", location="home")).may_serve(lane) is serves


def test_as_many_are_woken_as_there_is_work_the_longest_waiting_first(wakeups: Wakeups) -> None:
    with (
        wakeups.waiting("acme", executor("other", "gpu")) as other,
        wakeups.waiting("acme", executor()) as first,
        wakeups.waiting("acme", executor()) as second,
        wakeups.waiting("acme", executor()) as third,
        wakeups.waiting("umbrella", executor()) as foreign,
    ):
        wakeups.wake("acme", ANY_LANE, 2)
        woken = [one.event.is_set() for one in (other, first, second, third, foreign)]
        assert woken == [False, True, True, False, False]
        # Who is awake already is not woken for the next.
        wakeups.wake("acme", ANY_LANE, 1)
        assert third.event.is_set()
        first.look()
        wakeups.wake("acme", ANY_LANE, 1)
        assert first.event.is_set()


def test_a_wake_up_that_is_not_used_goes_to_the_next(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor()) as living:
        with wakeups.waiting("acme", executor()) as other, wakeups.waiting("acme", executor("w", "cli", "edge")) as edge:
            wakeups.wake("acme", "edge||", 1)
            assert (living.event.is_set(), other.event.is_set(), edge.event.is_set()) == (False, False, True)
        assert not living.event.is_set(), "it cannot serve that lane"
    with wakeups.waiting("acme", executor()) as dead, wakeups.waiting("acme", executor()) as next_one:
        wakeups.wake("acme", ANY_LANE, 1)
        assert (dead.event.is_set(), next_one.event.is_set()) == (True, False)
    with wakeups.waiting("acme", executor()) as living:
        with pytest.raises(ConnectionError), wakeups.waiting("acme", executor()) as gone:
            living.lane = "held awake"
            wakeups.wake("acme", ANY_LANE, 1)
            assert gone.event.is_set()
            living.look()
            raise ConnectionError
        assert living.event.is_set()


@pytest.mark.parametrize("got", [[], [place("cli")], [place("edge"), place("cli")]])
def test_a_wake_up_that_was_looked_after_is_not_passed_on(wakeups: Wakeups, got: list[Place]) -> None:
    """It found what it was woken for, or that there was nothing."""
    with wakeups.waiting("acme", executor("living", "cli", "edge")) as living:
        is_awake(living)
        with wakeups.waiting("acme", executor("served", "cli", "edge")) as served:
            wakeups.wake("acme", ANY_LANE, 1)
            served.look()
            served.got(got)
            waits(living)
        assert not living.event.is_set()


@pytest.mark.parametrize("got", [[place("edge")], [place("edge"), place("cli", location="home")]])
def test_a_wake_up_is_passed_on_when_other_work_was_taken(wakeups: Wakeups, got: list[Place]) -> None:
    """The process that it was woken for is still there, and nobody else knows."""
    with wakeups.waiting("acme", executor("living", "cli", "edge")) as living:
        is_awake(living)
        with wakeups.waiting("acme", executor("busy", "cli", "edge")) as busy:
            wakeups.wake("acme", ANY_LANE, 1)
            busy.look()
            busy.got(got)
            waits(living)
        assert (living.event.is_set(), living.lane) == (True, ANY_LANE)


def test_what_came_while_it_looked_is_passed_on_too(wakeups: Wakeups) -> None:
    """Woken for one lane it looks and takes from another, and meanwhile is woken for a third: it leaves, and owes two."""
    with (
        wakeups.waiting("acme", executor("first", "cli", "edge")) as first,
        wakeups.waiting("acme", executor("second", "cli", "edge")) as second,
    ):
        is_awake(first, second)
        with wakeups.waiting("acme", executor("busy", "cli", "edge", "gpu")) as busy:
            wakeups.wake("acme", "cli||", 1)
            busy.look()
            wakeups.wake("acme", "edge||", 1)
            busy.got([place("gpu")])
            waits(first, second)
        assert {first.lane, second.lane} == {"cli||", "edge||"}
        assert first.event.is_set()
        assert second.event.is_set()


def test_looking_twice_owes_only_what_the_last_wake_up_was_for(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor()) as living:
        is_awake(living)
        with wakeups.waiting("acme", executor()) as waiter:
            wakeups.wake("acme", ANY_LANE, 1)
            waiter.look()
            waiter.got([])
            # Nobody woke it: it looks again by itself, and finds something.
            waiter.look()
            waiter.got([place("cli")])
            waits(living)
        assert not living.event.is_set()


def test_nobody_stays_behind(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor()), wakeups.following("one"), wakeups.following("one"):
        pass
    assert not wakeups._waiters
    assert not wakeups._followers
