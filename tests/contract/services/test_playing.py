"""The runner sees what is not as expected, and stand-ins answer nothing that was not promised."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import from_rpc_error
from tests.contract.services.expectations import Expectation, Expectations, all_expectations
from tests.contract.services.matching import MismatchError, Names, key_named
from tests.contract.services.playing import provider_alone
from tests.contract.services.standins import standing_in

RESOLVE = "/colonies.auth.v1.AuthService/ResolveMember"
PUT = "/colonies.auth.v1.AuthService/PutExecutor"
ALICE = {"colony": "acme", "identity": "${identity:alice}"}
AS_ALICE = {**ALICE, "name": "alice"}
RIGHT = {"role": "MEMBER_ROLE_USER", "name": "alice"}


def of_auth(*steps: Any) -> Expectations:
    """Expectations, each of one step."""
    made = tuple(Expectation(str(number), (step,)) for number, step in enumerate(steps))
    return Expectations("registry", "auth", "service registry", made)


@pytest.mark.asyncio
async def test_whatever_is_not_as_expected_is_seen(database_url: str, redis_url: str, tmp_path: Path) -> None:
    taken = {"code": "ALREADY_EXISTS", "reason": "IDENTITY_TAKEN"}
    wrong = of_auth(
        {"call": RESOLVE, "request": ALICE, "response": {**RIGHT, "name": "bob"}},
        {"call": RESOLVE, "request": ALICE, "response": {**RIGHT, "validUntil": {"$like": "2026-01-01T00:00:00Z"}}},
        {"call": RESOLVE, "request": ALICE, "response": {**RIGHT, "name": None}},
        {"call": RESOLVE, "request": ALICE, "error": {"code": "NOT_FOUND"}},
        {"call": PUT, "request": AS_ALICE, "response": {}},
        {"call": PUT, "request": AS_ALICE, "error": {**taken, "reason": "NAME_TAKEN"}},
        {"call": PUT, "request": AS_ALICE, "error": {**taken, "code": "NOT_FOUND"}},
        {"call": PUT, "as": "service cron", "request": AS_ALICE, "error": taken},
        {"watch": "/colonies.auth.v1.AuthService/WatchMembers", "request": {}, "begins": {"synced": None}},
        {"watch": "/colonies.auth.v1.AuthService/WatchMembers", "request": {}, "begins": {}, "alive_within_s": 0.5},
    )
    right = of_auth(
        {"call": RESOLVE, "request": ALICE, "response": RIGHT},
        {"call": PUT, "request": AS_ALICE, "error": taken},
    )
    async with provider_alone("auth", database_url, redis_url, tmp_path) as player:
        assert await player.failures(right) == []
        assert [failure.split(":")[0] for failure in await player.failures(wrong)] == [one.name for one in wrong.all]


@pytest.mark.asyncio
async def test_a_service_that_asks_for_what_was_not_promised_is_seen(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Without what every service expects of auth, a registry can let nobody in."""
    promises = [each for each in all_expectations() if each.consumer == "registry"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with provider_alone("registry", database_url, redis_url, tmp_path, promises):
            pass
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.asyncio
async def test_a_stand_in_answers_what_was_promised_and_nothing_else() -> None:
    promises = of_auth(
        {"call": RESOLVE, "request": ALICE, "response": RIGHT},
        {"call": PUT, "request": AS_ALICE, "error": {"code": "ALREADY_EXISTS", "reason": "IDENTITY_TAKEN"}},
    )
    async with standing_in([promises]) as (stand_in, address), grpc.aio.insecure_channel(address) as channel:
        stub: Any = AuthServiceStub(channel)
        alice = key_named("alice").identity
        answer = await stub.ResolveMember(auth_pb.ResolveMemberRequest(colony="acme", identity=alice))
        assert (answer.role, answer.name) == (auth_pb.MEMBER_ROLE_USER, "alice")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PutExecutor(auth_pb.PutExecutorRequest(colony="acme", identity=alice, name="alice"))
        assert from_rpc_error(caught.value).reason == "IDENTITY_TAKEN"
        assert stand_in.unpromised == []
        for call in (
            stub.ResolveMember(auth_pb.ResolveMemberRequest(colony="acme", identity=alice, known_as=True)),
            stub.ResolveMember(auth_pb.ResolveMemberRequest(colony="acme")),
            stub.ListUsers(auth_pb.ListUsersRequest(colony_name="acme")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert len(stand_in.unpromised) == 3


@pytest.mark.parametrize(
    ("template", "actual"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {"a": "x"}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"a": {"$like": "x"}}, {"a": ""}),
        ({"a": {"$like": "x"}}, {"a": 1}),
        ({"a": "${one}", "b": "${one}"}, {"a": "1", "b": "2"}),
        ({"a": "${one}"}, {}),
        ({"a": {"$signed": {"method": "m"}}}, {"a": {"method": "n"}}),
    ],
)
def test_what_does_not_match(template: Any, actual: Any) -> None:
    with pytest.raises(MismatchError, match=r"^response\.[ab]"):
        Names().match(template, actual)


def test_what_matches() -> None:
    names = Names()
    names.match(
        {"a": 1, "b": None, "c": [{"d": "${one}"}], "e": {"$like": "x"}},
        {"a": 1, "c": [{"d": "7", "more": 1}], "e": "y", "more": 2},
    )
    assert names.filled({"x": "${one}-${one}", "y": None}) == {"x": "7-7"}
    with pytest.raises(MismatchError):
        names.match({"a": 1}, {"a": 1, "more": 2}, whole=True)


def test_a_name_that_is_sent_first_is_a_new_uuid_and_stays_it() -> None:
    names = Names()
    sent = names.filled({"id": "${w}"})
    names.match({"id": "${w}"}, sent)
    assert Names().filled("${w}") != sent["id"]
