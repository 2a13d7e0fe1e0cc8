"""Whose tokens a call takes, and how open streams are counted."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.caller import Caller, Member, Role
from servicekit.failures import ResourceExhausted
from servicekit.limits import LONG_POLLS, Limits, Rate, Streams
from servicekit.policy import Policy
from servicekit.settings import ServiceSettings
from tests.harness.nonces import ME, OTHER, signed

BOTH = Limits(identity=Rate(500, 2_000), colony=Rate(3, 10))


def caller(role: Role, *, identity: str = ME, colony: str = "acme") -> Caller:
    return Caller(identity, colony, role, "name", Member(identity, role, "name"), True, signed(key=OTHER))


@pytest.mark.parametrize(
    ("role", "of"),
    [
        (Role.COLONY_OWNER, f"member:acme:{ME}"),
        (Role.USER, f"member:acme:{ME}"),
        (Role.EXECUTOR, f"member:acme:{ME}"),
        (Role.SERVER_OWNER, f"server_owner:{ME}"),
    ],
)
def test_a_call_counts_for_its_caller_and_its_colony(role: Role, of: str) -> None:
    # By what the member is known by, and not by the key that signed: a new key is no new allowance.
    assert [(one.limit, one.of) for one in BOTH.buckets(caller(role))] == [("identity", of), ("colony", "acme")]
    assert [one.limit for one in BOTH.buckets(caller(role, colony=""))] == ["identity"]


def test_no_two_callers_of_one_identity_count_for_each_other() -> None:
    """A key that was rotated away still has the identity that its member is known by; and so has it in other colonies."""
    callers = [
        caller(Role.USER),
        caller(Role.USER, colony="other"),
        caller(Role.USER, colony="stranger"),
        caller(Role.SERVER_OWNER),
        Caller(ME, "acme", Role.ANYONE, "", Member(ME, Role.ANYONE, ""), True, signed(key=ME)),
    ]
    assert len({one.of for who in callers for one in BOTH.buckets(who) if one.limit == "identity"}) == len(callers)
    streams = Streams(1)
    with ExitStack() as stack:
        for who in callers:
            stack.enter_context(streams.one_of(who))


def test_strangers_take_nothing_of_a_colony_and_services_have_no_rate_of_their_own() -> None:
    assert [one.limit for one in BOTH.buckets(caller(Role.ANYONE))] == ["identity"]
    assert [one.limit for one in BOTH.buckets(caller(Role.SERVICE))] == ["colony"]
    assert BOTH.buckets(caller(Role.SERVICE, colony="no name" * 1_000)) == []


def test_a_rate_is_told_in_milliseconds() -> None:
    assert (Rate(500, 2_000).gap_ms, Rate(500, 2_000).depth_ms) == ("2.000000", "4000.000000")
    # The fastest that settings allow is still more than what a moment in a double can tell apart.
    assert float(Rate(100_000, 1).gap_ms) == 0.01


def settings(**given: object) -> ServiceSettings:
    return ServiceSettings.model_validate(
        {
            "cluster": "c",
            "listen": "127.0.0.1:0",
            "postgres_url": "postgresql://x",
            "redis_url": "redis://x",
            "server_owner": ME,
            "service_key_file": "x",
            "service_identities": {},
            **given,
        }
    )


def test_settings_say_the_limits_and_0_is_none() -> None:
    assert Limits.of(settings()) == Limits(Rate(1_000, 4_000), Rate(5_000, 20_000), 1_000)
    assert Limits.of(settings(identity_rate=0, colony_rate=0, streams_per_identity=0)) == Limits()
    for wrong in ({"identity_rate": -1}, {"identity_rate": 100_001}, {"identity_burst": 0}, {"streams_per_identity": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            settings(**wrong)


def test_long_polls_are_methods_of_the_policy() -> None:
    assert set(Policy.load().rules) >= LONG_POLLS


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans())))
def test_never_more_than_the_most_are_open_and_every_end_makes_room(steps: list[tuple[str, bool, bool]]) -> None:
    streams, most = Streams(3), 3
    held: dict[str, list[ExitStack]] = {"a": [], "b": []}
    for who, opens, fails in steps:
        mine = held[who]
        if opens:
            stack = ExitStack()
            if len(mine) < most:
                stack.enter_context(streams.one_of(caller(Role.USER, identity=who)))
                mine.append(stack)
            else:
                with pytest.raises(ResourceExhausted) as caught:
                    stack.enter_context(streams.one_of(caller(Role.USER, identity=who)))
                assert caught.value.reason == "TOO_MANY_STREAMS"
                # In another role the same member is the same.
                with pytest.raises(ResourceExhausted):
                    stack.enter_context(streams.one_of(caller(Role.COLONY_OWNER, identity=who)))
        elif mine and fails:
            with pytest.raises(ZeroDivisionError), mine.pop():
                raise ZeroDivisionError
        elif mine:
            mine.pop().close()
    for mine in held.values():
        for stack in mine:
            stack.close()
    # What is not open takes no memory.
    assert not streams._open


def test_services_may_have_any_number_of_streams_and_without_a_limit_everybody() -> None:
    with ExitStack() as stack:
        one, none = Streams(1), Streams(0)
        for _ in range(10):
            stack.enter_context(one.one_of(caller(Role.SERVICE)))
            stack.enter_context(none.one_of(caller(Role.USER)))
