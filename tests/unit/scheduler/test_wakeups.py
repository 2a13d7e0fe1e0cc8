"""Who is woken for what, and that no wake-up goes away with somebody who vanished."""

import json
import uuid
from typing import Any

import pytest

from servicekit import redis as servicekit_redis
from services.scheduler.domain.records import ExecutorProfile, Place
from services.scheduler.queue.keys import READY_CHANNEL, lane
from services.scheduler.queue.wakeups import Waiter, Wakeups

LANE = "cli|||"
EDGE = "edge|||"
CPU = 'cli|||{"c":1}'
TAKEN_BY_OTHERS: list[Place] = []


def offer(**parts: Any) -> str:
    return json.dumps({"c": 0, "m": 0, "s": 0, "d": 0, "p": 0, "g": [], "l": {}, "a": [], "w": "", **parts})


ROOMY = offer(c=9)


def executor(name: str = "worker-1", *types: str, location: str = "", text: str = ROOMY) -> ExecutorProfile:
    return ExecutorProfile(name, name, types or ("cli",), location, text)


def place(executor_type: str, location: str = "", needs: str = "") -> Place:
    return Place(uuid.UUID(int=7), "acme", 1, executor_type, (), location, needs, 0, 1, None, None)


def awake(*waiters: Waiter) -> list[bool]:
    return [waiter.event.is_set() for waiter in waiters]


def posted(wakeups: Wakeups) -> dict[tuple[str, str], int]:
    """What is to be told to other replicas."""
    return dict(wakeups._outbox._counts)


@pytest.fixture
def wakeups() -> Wakeups:
    """With no server: subscriptions are counted, nothing is heard."""
    return Wakeups(servicekit_redis.connect("redis://127.0.0.1:1"))


pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("name", "serves"),
    [
        ("cli|||", True),
        ("edge|||", True),
        ("cloud|||", False),
        ("cli|worker-1||", True),
        ("cli|worker-1,worker-2||", True),
        ("cli|worker-10||", False),
        ("cli||home|", True),
        ("cli||away|", False),
        ("cli|worker-2|home|", False),
        ('cli|||{"c":9}', True),
        ('cli|||{"c":10}', False),
        ('cli|||{"l":[["a|b","=","x"]]}', True),
        ('cli|||{"l":[["a|b","=","y"]]}', False),
        ("cloud||home|", False),
    ],
)
async def test_which_lanes_an_executor_serves(wakeups: Wakeups, name: str, serves: bool) -> None:
    by = executor("worker-1", "cli", "edge", location="home", text=offer(c=9, l={"a|b": "x"}))
    with wakeups.waiting("acme", by) as waiter:
        assert waiter.may_serve(name) is serves


async def test_as_many_are_woken_as_there_is_work_the_longest_waiting_first(wakeups: Wakeups) -> None:
    with (
        wakeups.waiting("acme", executor("other", "gpu")) as other,
        wakeups.waiting("acme", executor()) as first,
        wakeups.waiting("acme", executor()) as second,
        wakeups.waiting("acme", executor()) as third,
        wakeups.waiting("umbrella", executor()) as foreign,
    ):
        assert wakeups.absorbable("acme", [(LANE, 2), (LANE, 5), ("gpu|||", 1), (EDGE, 1)]) == [2, 1, 1, 0]
        wakeups.wake("acme", LANE, 2, 2)
        assert awake(other, first, second, third, foreign) == [False, True, True, False, False]
        # Who is awake already is not woken for the next.
        wakeups.wake("acme", LANE, 1, 1)
        assert awake(third) == [True]
        first.look()
        wakeups.wake("acme", LANE, 1, 1)
        assert awake(first) == [True]
        assert posted(wakeups) == {}


async def test_what_waiters_who_left_were_to_take_is_told_to_others(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor()):
        assert wakeups.absorbable("acme", [(LANE, 3)]) == [1]
    # Three are new; two were published, for one was here when that was decided.
    wakeups.wake("acme", LANE, 3, 1)
    assert posted(wakeups) == {("acme", LANE): 1}
    wakeups.wake("acme", EDGE, 0, 1)
    assert posted(wakeups) == {("acme", LANE): 1}


async def test_a_wake_up_that_is_not_used_goes_to_the_next(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor("living")) as living:
        with wakeups.waiting("acme", executor("other")) as other, wakeups.waiting("acme", executor("w", "cli", "edge")) as edge:
            wakeups.wake("acme", EDGE, 1, 1)
            assert awake(living, other, edge) == [False, False, True]
        assert awake(living) == [False], "it cannot serve that lane"
        assert posted(wakeups) == {("acme", EDGE): 1}
    with wakeups.waiting("acme", executor()) as dead, wakeups.waiting("acme", executor()) as next_one:
        wakeups.wake("acme", LANE, 1, 1)
        assert awake(dead, next_one) == [True, False]
        dead.gone()
        assert awake(next_one) == [True]


async def test_one_that_vanishes_while_it_looks_passes_on_too(wakeups: Wakeups) -> None:
    with pytest.raises(ConnectionError), wakeups.waiting("acme", executor("gone")) as gone:
        wakeups.wake("acme", LANE, 1, 1)
        gone.look()
        raise ConnectionError
    assert posted(wakeups) == {("acme", LANE): 1}


@pytest.mark.parametrize("got", [TAKEN_BY_OTHERS, [place("cli")], [place("edge"), place("cli")]])
async def test_a_wake_up_that_was_looked_after_is_not_passed_on(wakeups: Wakeups, got: list[Place]) -> None:
    """It found what it was woken for, or that somebody else was faster."""
    with wakeups.waiting("acme", executor("served", "cli", "edge")) as served:
        wakeups.wake("acme", LANE, 1, 1)
        served.look()
        with wakeups.waiting("acme", executor("living", "cli", "edge")) as living:
            served.got(got)
            served.gone()
            assert awake(living) == [False]
    assert posted(wakeups) == {}


@pytest.mark.parametrize(
    "got", [[place("edge")], [place("edge"), place("cli", location="home"), place("cli", needs='{"c":1}')]]
)
async def test_a_wake_up_is_passed_on_when_other_work_was_taken(wakeups: Wakeups, got: list[Place]) -> None:
    """The process that it was woken for is still there, and nobody else knows."""
    with wakeups.waiting("acme", executor("busy", "cli", "edge")) as busy:
        wakeups.wake("acme", LANE, 1, 1)
        busy.look()
        with wakeups.waiting("acme", executor("living", "cli", "edge")) as living:
            busy.got(got)
            assert awake(living) == [False], "it may look again itself"
            busy.gone()
            assert awake(living) == [True]


async def test_a_stream_that_took_other_work_looks_after_its_wake_the_next_time(wakeups: Wakeups) -> None:
    with (
        wakeups.waiting("acme", executor("stream", "cli", "edge")) as stream,
        wakeups.waiting("acme", executor("idle")) as idle,
    ):
        wakeups.wake("acme", LANE, 1, 1)
        stream.look()
        stream.got([place("edge")])
        stream.look()
        stream.got([place("cli")])
        stream.look()
        stream.got([])
        stream.gone()
        assert awake(idle) == [False]
    assert posted(wakeups) == {}


async def test_what_came_while_it_looked_is_passed_on_too(wakeups: Wakeups) -> None:
    """Woken for one lane it looks and takes from another, and meanwhile is woken for a third: it leaves, and owes two."""
    with wakeups.waiting("acme", executor("busy", "cli", "edge", "gpu")) as busy:
        wakeups.wake("acme", LANE, 1, 1)
        busy.look()
        wakeups.wake("acme", EDGE, 1, 1)
        with (
            wakeups.waiting("acme", executor("first", "cli", "edge")) as first,
            wakeups.waiting("acme", executor("second", "cli", "edge")) as second,
        ):
            busy.got([place("gpu")])
            busy.gone()
            assert awake(first, second) == [True, True]


@pytest.mark.parametrize(
    ("name", "text", "in_flight", "passes"),
    [
        (CPU, ROOMY, 0, True),
        (LANE, offer(p=2), 0, True),
        (LANE, ROOMY, 5, True),
        (LANE, ROOMY, 0, False),
        ('cli|||{"t":{"a":"b"}}', ROOMY, 0, False),
    ],
)
async def test_who_may_have_been_turned_away_passes_on_to_each_that_was_not_tried(
    wakeups: Wakeups, name: str, text: str, in_flight: int, passes: bool
) -> None:
    with (
        wakeups.waiting("acme", executor("a", text=text), in_flight) as first,
        wakeups.waiting("acme", executor("b", text=text), in_flight) as second,
    ):
        wakeups.wake("acme", name, 1, 1)
        first.look()
        first.got([])
        assert awake(first, second) == [False, passes]
        if passes:
            second.look()
            second.got([])
            # Both were tried: it ends here, and others are told once.
            assert awake(first, second) == [False, False]
            assert posted(wakeups) == {("acme", name): 1}
    assert posted(wakeups) == ({("acme", name): 1} if passes else {})


async def test_what_another_replica_told_all_of_ends_here(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor("a")) as first:
        wakeups._heard(READY_CHANNEL + "acme", f"elsewhere\n{CPU}\n3")
        assert awake(first) == [True]
        first.look()
        first.got([])
        wakeups._heard(READY_CHANNEL + "acme", f"{wakeups.replica}\n{CPU}\n3")
        assert awake(first) == [False], "its own messages it has acted on already"
    assert posted(wakeups) == {}


async def test_one_that_steps_aside_is_woken_for_room_alone(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor("full"), 3) as full, wakeups.waiting("acme", executor("other")) as other:
        wakeups.wake("acme", LANE, 1, 1)
        full.look()
        full.got([place("edge")])
        full.step_aside()
        assert awake(full, other) == [False, True], "what it owed goes to the next"
        assert wakeups.absorbable("acme", [(LANE, 1)]) == [0]
        assert wakeups.freed("acme", "full")
        assert not wakeups.freed("acme", "nobody")
        assert not wakeups.freed("umbrella", "full")
        assert awake(full) == [True]
        full.look()
        assert wakeups.absorbable("acme", [(LANE, 1)]) == [1]


async def test_room_heard_of_from_elsewhere_wakes_its_executor(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor("full")) as full, wakeups.waiting("acme", executor("other")) as other:
        wakeups._heard(READY_CHANNEL + "acme", "elsewhere\n\nfull")
        assert awake(full, other) == [True, False]
        wakeups._heard(READY_CHANNEL + "acme", "elsewhere\n*\n")
        assert awake(full, other) == [True, True]
        wakeups._heard(READY_CHANNEL + "umbrella", "elsewhere\n*\n")


async def test_nobody_stays_behind(wakeups: Wakeups) -> None:
    with wakeups.waiting("acme", executor()), wakeups.waiting("acme", executor("b")):
        pass
    assert not wakeups._crowds
    assert not wakeups._subscriptions._counts


async def test_lanes_are_named_alike_for_all_who_look() -> None:
    assert lane(place("cli")) == LANE
    assert lane(place("cli", needs='{"c":1}')) == CPU
