"""Why something waits: the decision alone, on made-up colonies."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.domain.explaining import (
    Colony,
    Explanation,
    Registered,
    Standing,
    WaitReason,
    Wanted,
    explain,
    usage_of,
)
from services.scheduler.domain.matching import ConditionKind, GpuKind, GpuNeeds, Needs, Offer, meets, requirements
from services.scheduler.domain.records import ExecutorProfile
from services.scheduler.domain.states import State

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ANY = Needs()
BUSY = {"p": 1}


def wanted(needs: Needs = ANY, *names: str, executor_type: str = "cli", location: str = "", **words: str) -> Wanted:
    said = {ConditionKind[kind.upper()]: text for kind, text in words.items()}
    said = {ConditionKind.EXECUTOR_TYPE: executor_type, ConditionKind.ACCEPTS: "no labels"} | said
    if names:
        said[ConditionKind.EXECUTOR_NAMES] = " or ".join(names)
    return Wanted(executor_type, names, location, needs, said)


def executor(name: str, *types: str, heard: float | None = 1, **offer: Any) -> Registered:
    found = Offer(**offer)
    profile = ExecutorProfile(
        identity=f"id-{name}", name=name, executor_types=types or ("cli",), location=found.location, offer=found.text
    )
    return Registered(profile, None if heard is None else NOW - timedelta(seconds=heard))


def colony(*executors: Registered, paused: bool = False, **loads: Any) -> Colony:
    return Colony(executors, {f"id-{name}": (load, 1) for name, load in loads.items()}, paused)


def counts(found: Explanation) -> tuple[int, ...]:
    return found.executors, found.matching, found.offline, found.full, found.free


# From the first thing in the way to the last: each is told although all that come after it are there too.
EVERYTHING: dict[str, Any] = {"held": True, "parents": ("a",), "parent_count": 1, "backoff_until": NOW + timedelta(1)}
LIMITED = Needs(cpu=1)
SITUATIONS: list[tuple[Standing, Colony, WaitReason]] = [
    (Standing(State.RUNNING, **EVERYTHING), colony(paused=True), WaitReason.NOT_WAITING),
    (Standing(State.CANCELLED, **EVERYTHING), colony(paused=True), WaitReason.NOT_WAITING),
    (Standing(**EVERYTHING), colony(paused=True), WaitReason.PARENTS),
    (Standing(backoff_until=NOW + timedelta(1)), colony(paused=True), WaitReason.BACKOFF),
    (Standing(backoff_until=NOW), colony(paused=True), WaitReason.PAUSED),
    (Standing(), colony(paused=True), WaitReason.PAUSED),
    (Standing(), colony(), WaitReason.NO_EXECUTORS),
    (Standing(), colony(executor("a", heard=None)), WaitReason.NO_MATCH),
    (Standing(), colony(executor("a", heard=60.001, cpu=1)), WaitReason.OFFLINE),
    (Standing(), colony(executor("a", heard=None, cpu=1)), WaitReason.OFFLINE),
    (Standing(), colony(executor("a", heard=60, cpu=1), a={"c": 1}), WaitReason.FULL),
    (Standing(), colony(executor("a", heard=60, cpu=1), a={"c": 0}), WaitReason.QUEUED),
    (Standing(), colony(executor("a", heard=-5, cpu=2), a={"c": 1}), WaitReason.QUEUED),
]


@pytest.mark.parametrize(("standing", "there", "reason"), SITUATIONS)
def test_the_first_thing_in_the_way(standing: Standing, there: Colony, reason: WaitReason) -> None:
    found = explain(wanted(LIMITED, cpu="1m"), standing, there, NOW)
    assert found.reason is reason
    assert found.summary.endswith(".")
    assert found.paused == there.paused


def test_executors_are_counted_in_one_way_each() -> None:
    there = colony(
        executor("away", heard=61, cpu=8),
        executor("busy", cpu=8),
        executor("free", cpu=8),
        executor("never", heard=None, cpu=8),
        executor("small", cpu=1),
        executor("other", "web", cpu=8),
        busy={"c": 7},
        free={"c": 6},
        away={"c": 8},
    )
    found = explain(wanted(Needs(cpu=2), cpu="2m"), Standing(rank=2, lane_length=5), there, NOW)
    assert counts(found) == (6, 4, 2, 1, 1)
    assert [(one.kind, one.failing, one.failing_names) for one in found.conditions] == [
        (ConditionKind.EXECUTOR_TYPE, 1, ("other",)),
        (ConditionKind.CPU, 1, ("small",)),
    ]
    assert (found.place, found.standing.lane_length) == (3, 5)
    assert found.summary == "1 executor could take it now; 2 with the same needs come before it."


@pytest.mark.parametrize(("count", "named"), [(10, 10), (11, 0)])
def test_no_more_than_ten_are_named(count: int, named: int) -> None:
    there = colony(*(executor(f"w{index:02}", "web") for index in reversed(range(count))))
    found = explain(wanted(), Standing(), there, NOW)
    assert found.conditions[0].failing == count
    assert list(found.conditions[0].failing_names) == [f"w{index:02}" for index in range(named)]
    assert found.summary == f"No approved executor meets all conditions (executor_type cli: {count} not)."


def test_what_executors_accept_is_told_where_one_of_them_says_so() -> None:
    picky = executor("picky", accepts=requirements([("team", "=", ["x"])]))
    plain = explain(wanted(), Standing(), colony(executor("a")), NOW)
    assert [one.kind for one in plain.conditions] == [ConditionKind.EXECUTOR_TYPE]
    found = explain(wanted(), Standing(), colony(executor("a"), picky), NOW)
    assert [(one.kind, one.wanted, one.failing_names) for one in found.conditions[1:]] == [
        (ConditionKind.ACCEPTS, "no labels", ("picky",))
    ]
    assert counts(found) == (2, 1, 0, 0, 1)
    matched = explain(wanted(Needs(own={"team": "x"}), accepts="team = x"), Standing(), colony(picky), NOW)
    assert (matched.reason, matched.conditions[-1].failing) == (WaitReason.QUEUED, 0)


@pytest.mark.parametrize("standing", [Standing(State.RUNNING, rank=0), Standing(held=True, rank=0)])
def test_what_is_not_in_the_queue_has_no_place(standing: Standing) -> None:
    """A member that was left behind in a lane says nothing."""
    assert explain(wanted(), standing, colony(), NOW).place == 0


def test_backing_off_has_a_time_and_no_place() -> None:
    until = NOW + timedelta(seconds=5)
    found = explain(wanted(), Standing(backoff_until=until, rank=0), colony(), NOW)
    assert (found.backoff_until, found.place) == (until, 0)
    assert found.summary == "It backs off until 2026-05-04T12:00:05.000+00:00."
    for standing in (
        Standing(State.RUNNING, backoff_until=until),
        Standing(held=True, backoff_until=until),
        Standing(backoff_until=NOW),
    ):
        assert explain(wanted(), standing, colony(), NOW).backoff_until is None


def test_parents_in_a_sentence() -> None:
    names = [f"n{index}" for index in range(100)]
    found = explain(wanted(), Standing(held=True, parents=names, parent_count=107), colony(), NOW)
    assert found.summary == "It waits for parents that have not ended: n0, n1, n2, n3, n4 and 102 more."


def test_what_the_queue_counts_is_read_as_the_claim_script_writes_it() -> None:
    offer = Offer(gpus=(GpuKind(4, 40, "a"), GpuKind(4, 80, "b:c")))
    usage = usage_of(offer, {"c": 1, "m": 2, "s": 3, "d": 4, "p": 5, "g:40:a": 3, "g:80:b:c": 1, "w": 1})
    assert (usage.cpu, usage.memory, usage.storage, usage.nodes, usage.processes) == (1, 2, 3, 4, 5)
    assert usage.gpus == {("a", 40): 3, ("b:c", 80): 1}
    assert usage_of(offer, {"g?:0:": 5}).gpus == {("a", 40): 4, ("b:c", 80): 1}
    assert usage_of(offer, {"g?:80:": 5, "g:80:b:c": 1}).gpus == {("b:c", 80): 4}
    assert usage_of(offer, {"g?:0:a": 1}).gpus == {("a", 40): 1}
    assert usage_of(offer, {}).gpus == {}
    assert not meets(offer, Needs(gpu=GpuNeeds(2, "a")), usage_of(offer, {"g?:0:a": 3}))


heard = st.one_of(st.none(), st.floats(0, 120))
someone = st.builds(
    lambda name, kind, heard_s, cpu, limit: executor(name, kind, heard=heard_s, cpu=cpu, processes=limit),
    st.text("abc", min_size=1, max_size=3),
    st.sampled_from(["cli", "web"]),
    heard,
    st.integers(0, 4),
    st.integers(0, 2),
)


@given(st.lists(someone, max_size=8, unique_by=lambda one: one.profile.name), st.integers(0, 4), st.integers(0, 3))
def test_counts_add_up_and_agree_with_the_reason(executors: list[Registered], cpu: int, used: int) -> None:
    loads = {one.profile.identity: ({"c": used, "p": used}, used) for one in executors}
    found = explain(wanted(Needs(cpu=cpu), cpu="x"), Standing(), Colony(executors, loads, paused=False), NOW)
    assert found.offline + found.full + found.free == found.matching <= found.executors == len(executors)
    assert (found.free > 0) == (found.reason is WaitReason.QUEUED)
    for report in found.conditions:
        assert len(report.failing_names) == report.failing <= found.executors - found.matching
    idle = explain(wanted(Needs(cpu=cpu), cpu="x"), Standing(), Colony(executors, {}, paused=False), NOW)
    assert (idle.matching, idle.full) == (found.matching, 0)
