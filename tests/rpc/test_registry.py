"""The registry over gRPC: enrolment, what executors announce, locations, pages, bad input."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import psycopg
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.registry.v1 import registry_service_pb2 as pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from tests.harness.calls import eventually, hears, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

pytestmark = pytest.mark.asyncio

CODE = grpc.StatusCode
WORKER = key_of("worker")
PENDING, APPROVED, REJECTED = pb.EXECUTOR_STATE_PENDING, pb.EXECUTOR_STATE_APPROVED, pb.EXECUTOR_STATE_REJECTED


EQUALS, IN, EXISTS = pb.LABEL_OPERATOR_EQUALS, pb.LABEL_OPERATOR_IN, pb.LABEL_OPERATOR_EXISTS


def like(operator: Any, *values: str, key: str = "team") -> pb.LabelRequirement:
    """What a label must be like."""
    return pb.LabelRequirement(key=key, operator=operator, values=values)


def accepting(*requirements: pb.LabelRequirement) -> pb.Capabilities:
    """What an executor offers that takes only such work."""
    return pb.Capabilities(accepts=requirements)


@pytest_asyncio.fixture
async def pair(new_cluster: Callable[..., Awaitable[Cluster]]) -> Cluster:
    """Auth and registry."""
    return await new_cluster(services=("auth", "registry"))


def as_owner(cluster: Cluster) -> Any:
    """The registry, called by the colony's owner."""
    return cluster.stub(RegistryServiceStub, cluster.keys.owner)


def whom(kind: Any, identity: str = WORKER.identity) -> Any:
    """A request about one identity."""
    return kind(colony_name=COLONY, identity=identity)


async def fetched(cluster: Cluster, identity: str = WORKER.identity) -> pb.Executor:
    """An executor as the owner sees it."""
    response = await as_owner(cluster).GetExecutor(whom(pb.GetExecutorRequest, identity))
    return response.executor  # type: ignore[no-any-return]


async def role_of(cluster: Cluster, identity: str = WORKER.identity) -> int:
    """What auth says that an identity is."""
    auth = cluster.stub(AuthServiceStub, cluster.keys.service("cron"))
    response = await auth.ResolveMember(auth_pb.ResolveMemberRequest(colony=COLONY, identity=identity))
    return response.role  # type: ignore[no-any-return]


async def resolved(cluster: Cluster, identity: str = WORKER.identity) -> pb.ResolveExecutorResponse:
    """What services are told of an executor."""
    registry = cluster.stub(RegistryServiceStub, cluster.keys.service("scheduler"))
    return await registry.ResolveExecutor(  # type: ignore[no-any-return]
        pb.ResolveExecutorRequest(colony=COLONY, identity=identity)
    )


async def test_an_executor_comes_in_and_goes_out(pair: Cluster) -> None:
    owner = as_owner(pair)
    answer = await pair.register(COLONY, "worker", WORKER, executor_types=["edge", "cloud"])
    assert (answer.state, list(answer.executor_types)) == (PENDING, ["edge", "cloud"])
    assert await role_of(pair) == auth_pb.MEMBER_ROLE_UNSPECIFIED
    assert not (await resolved(pair)).HasField("executor")

    for _ in range(2):
        response = await owner.ApproveExecutor(whom(pb.ApproveExecutorRequest))
        assert response.executor.state == APPROVED
        assert await role_of(pair) == auth_pb.MEMBER_ROLE_EXECUTOR
        assert (await resolved(pair)).executor == response.executor
    named = await owner.GetExecutor(pb.GetExecutorRequest(colony_name=COLONY, name="worker"))
    assert named.executor == await fetched(pair)

    for _ in range(2):
        response = await owner.RejectExecutor(whom(pb.RejectExecutorRequest))
        assert response.executor.state == REJECTED
        assert await role_of(pair) == auth_pb.MEMBER_ROLE_UNSPECIFIED
        assert not (await resolved(pair)).HasField("executor")
    error = await refusal(pair.register(COLONY, "worker", WORKER))
    assert (error.code, error.reason) == (CODE.FAILED_PRECONDITION, "EXECUTOR_REJECTED")

    await pair.approve(COLONY, pair.keys.owner, WORKER.identity)
    assert await role_of(pair) == auth_pb.MEMBER_ROLE_EXECUTOR
    await owner.RemoveExecutor(whom(pb.RemoveExecutorRequest))
    assert await role_of(pair) == auth_pb.MEMBER_ROLE_UNSPECIFIED
    for request in (pb.ApproveExecutorRequest, pb.RejectExecutorRequest, pb.RemoveExecutorRequest, pb.GetExecutorRequest):
        call = getattr(owner, request.DESCRIPTOR.name.removesuffix("Request"))
        error = await refusal(call(whom(request)))
        assert (error.code, error.reason) == (CODE.NOT_FOUND, "EXECUTOR_NOT_FOUND")
    # Whoever was removed may ask again.
    assert (await pair.register(COLONY, "worker", WORKER)).state == PENDING


async def test_registering_again_keeps_the_state_unless_something_approved_changes(pair: Cluster) -> None:
    claim: dict[str, Any] = {"executor_types": ["edge", "cloud"], "capabilities": pb.Capabilities(cpu="2")}
    await pair.add_executor(COLONY, pair.keys.owner, "worker", WORKER, **claim)
    again = await pair.register(COLONY, "worker", WORKER, **{**claim, "executor_types": ["cloud", "edge"]})
    assert again.state == APPROVED
    more = await pair.register(COLONY, "worker", WORKER, **{**claim, "capabilities": pb.Capabilities(cpu="4")})
    assert (more.state, more.capabilities.cpu) == (APPROVED, "4")
    assert (await resolved(pair)).executor.capabilities.cpu == "4"
    for change in ({"executor_types": ["gpu"]}, {"location_name": "attic"}, {"name": "other"}):
        await pair.register(COLONY, "worker", WORKER, **claim)
        await pair.approve(COLONY, pair.keys.owner, WORKER.identity)
        assert (await pair.register(**{"colony": COLONY, "key": WORKER, "name": "worker", **claim, **change})).state == PENDING
        assert await role_of(pair) == auth_pb.MEMBER_ROLE_UNSPECIFIED
        assert not (await resolved(pair)).HasField("executor")


async def test_a_stranger_learns_nothing_by_registering(pair: Cluster) -> None:
    """First, second and third answers are the same, byte for byte, whether or not the colony is there."""
    answers = [
        [(await pair.register(colony, "worker", WORKER)).SerializeToString() for _ in range(3)]
        for colony in (COLONY, "nowhere")
    ]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 1
    async with await psycopg.AsyncConnection.connect(
        pair.replicas["registry"][0].process.settings.postgres_url.get_secret_value()
    ) as connection:
        row = await (await connection.execute("SELECT count(*) FROM registry.executor WHERE colony = 'nowhere'")).fetchone()
    assert row == (0,)


async def test_a_name_is_one_approved_executors(pair: Cluster) -> None:
    twin = key_of("twin")
    await pair.add_executor(COLONY, pair.keys.owner, "worker", WORKER)
    await pair.register(COLONY, "worker", twin)
    error = await refusal(pair.approve(COLONY, pair.keys.owner, twin.identity))
    assert (error.code, error.reason) == (CODE.ALREADY_EXISTS, "NAME_TAKEN")
    assert await role_of(pair, twin.identity) == auth_pb.MEMBER_ROLE_UNSPECIFIED
    await as_owner(pair).RemoveExecutor(whom(pb.RemoveExecutorRequest))
    await pair.approve(COLONY, pair.keys.owner, twin.identity)
    assert (await fetched(pair, twin.identity)).state == APPROVED


async def test_of_many_that_want_a_name_at_once_one_gets_it_and_auth_agrees(pair: Cluster) -> None:
    keys = [key_of(f"twin {index}") for index in range(8)]
    for key in keys:
        await pair.register(COLONY, "worker", key)
    outcomes = await asyncio.gather(
        *(pair.approve(COLONY, pair.keys.owner, key.identity) for key in keys), return_exceptions=True
    )
    assert outcomes.count(None) == 1
    for key, outcome in zip(keys, outcomes, strict=True):
        won = outcome is None
        assert (await fetched(pair, key.identity)).state == (APPROVED if won else PENDING)
        assert await role_of(pair, key.identity) == (auth_pb.MEMBER_ROLE_EXECUTOR if won else auth_pb.MEMBER_ROLE_UNSPECIFIED)


async def test_whatever_races_auth_and_registry_agree_in_the_end(pair: Cluster) -> None:
    owner = as_owner(pair)
    await pair.register(COLONY, "worker", WORKER)
    calls: list[Awaitable[Any]] = []
    for index in range(10):
        calls.append(pair.register(COLONY, "worker", WORKER, executor_types=[f"type-{index % 3}"]))
        calls.append(owner.ApproveExecutor(whom(pb.ApproveExecutorRequest)))
        if index % 4 == 0:
            calls.append(owner.RejectExecutor(whom(pb.RejectExecutorRequest)))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, grpc.aio.AioRpcError)
            assert outcome.code() is CODE.FAILED_PRECONDITION  # registered while rejected
    approved = (await fetched(pair)).state == APPROVED
    assert (await role_of(pair) == auth_pb.MEMBER_ROLE_EXECUTOR) == approved


async def test_owners_and_users_do_not_become_executors(pair: Cluster) -> None:
    for key in (pair.keys.owner, pair.keys.user):
        await pair.register(COLONY, "worker", key)
        error = await refusal(pair.approve(COLONY, pair.keys.owner, key.identity))
        assert (error.code, error.reason) == (CODE.ALREADY_EXISTS, "IDENTITY_TAKEN")
        assert (await fetched(pair, key.identity)).state == PENDING


async def test_a_member_removes_itself_and_nobody_else(pair: Cluster) -> None:
    executor = pair.stub(RegistryServiceStub, pair.keys.executor)
    user = pair.stub(RegistryServiceStub, pair.keys.user)
    other = pair.keys.executor_2.identity
    for stub in (executor, user):
        error = await refusal(stub.RemoveExecutor(whom(pb.RemoveExecutorRequest, other)))
        assert (error.code, error.reason) == (CODE.PERMISSION_DENIED, "NOT_THE_INITIATOR")
    await executor.RemoveExecutor(whom(pb.RemoveExecutorRequest, pair.keys.executor.identity))
    assert await role_of(pair, pair.keys.executor.identity) == auth_pb.MEMBER_ROLE_UNSPECIFIED
    assert (await fetched(pair, other)).state == APPROVED


async def test_locations_hold_and_are_held(pair: Cluster) -> None:
    owner = as_owner(pair)
    await pair.register(COLONY, "worker", WORKER, location_name="attic")
    error = await refusal(pair.approve(COLONY, pair.keys.owner, WORKER.identity))
    assert (error.code, error.reason) == (CODE.FAILED_PRECONDITION, "LOCATION_UNKNOWN")
    assert await role_of(pair) == auth_pb.MEMBER_ROLE_UNSPECIFIED
    attic = pb.Location(name="attic", description="warm", longitude=20.1, latitude=65.6)
    for place in (pb.Location(name="attic"), attic, attic, pb.Location(name="cellar")):
        await owner.PutLocation(pb.PutLocationRequest(colony_name=COLONY, location=place))
    got = await owner.GetLocation(pb.GetLocationRequest(colony_name=COLONY, name="attic"))
    assert got.location == attic
    page = await owner.ListLocations(pb.ListLocationsRequest(colony_name=COLONY, page_size=1))
    rest = await owner.ListLocations(pb.ListLocationsRequest(colony_name=COLONY, cursor=page.next_cursor))
    assert [place.name for place in [*page.locations, *rest.locations]] == ["attic", "cellar"]

    await pair.approve(COLONY, pair.keys.owner, WORKER.identity)
    error = await refusal(owner.RemoveLocation(pb.RemoveLocationRequest(colony_name=COLONY, name="attic")))
    assert (error.code, error.reason) == (CODE.FAILED_PRECONDITION, "LOCATION_IN_USE")
    await owner.RejectExecutor(whom(pb.RejectExecutorRequest))
    await owner.RemoveLocation(pb.RemoveLocationRequest(colony_name=COLONY, name="attic"))
    for call in (
        owner.RemoveLocation(pb.RemoveLocationRequest(colony_name=COLONY, name="attic")),
        owner.GetLocation(pb.GetLocationRequest(colony_name=COLONY, name="attic")),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (CODE.NOT_FOUND, "LOCATION_NOT_FOUND")


async def test_functions_are_replaced_listed_and_taken_back(pair: Cluster) -> None:
    one = pair.stub(RegistryServiceStub, pair.keys.executor)
    two = pair.stub(RegistryServiceStub, pair.keys.executor_2)

    async def announce(stub: Any, *names: str) -> None:
        functions = [pb.Function(name=name, arguments=[pb.Argument(name="x", type="integer")]) for name in names]
        await stub.AnnounceFunctions(pb.AnnounceFunctionsRequest(colony_name=COLONY, functions=functions))

    async def listed(**changes: Any) -> list[tuple[str, str]]:
        entries: list[tuple[str, str]] = []
        cursor = ""
        while True:
            request = pb.ListFunctionsRequest(**{"colony_name": COLONY, "page_size": 2, "cursor": cursor, **changes})
            page = await as_owner(pair).ListFunctions(request)
            entries += [(entry.function.name, entry.executor_name) for entry in page.entries]
            cursor = page.next_cursor
            if not cursor:
                return entries

    await announce(one, "old", "a function of räksmörgås")
    await announce(one, "square", "sum")
    await announce(two, "square", "cube", "sum")
    assert await listed() == [
        ("cube", "worker-2"), ("square", "worker-1"), ("square", "worker-2"), ("sum", "worker-1"), ("sum", "worker-2"),
    ]  # fmt: skip
    assert await listed(executor_name="worker-1") == [("square", "worker-1"), ("sum", "worker-1")]
    await one.RemoveFunction(pb.RemoveFunctionRequest(colony_name=COLONY, name="sum"))
    error = await refusal(one.RemoveFunction(pb.RemoveFunctionRequest(colony_name=COLONY, name="sum")))
    assert (error.code, error.reason) == (CODE.NOT_FOUND, "FUNCTION_NOT_FOUND")
    # Of executors that are out nobody is told, and those that are removed take their functions along.
    await as_owner(pair).RejectExecutor(whom(pb.RejectExecutorRequest, pair.keys.executor_2.identity))
    assert await listed() == [("square", "worker-1")]
    await announce(one)
    assert await listed() == []


async def test_capabilities_are_kept_as_they_came(pair: Cluster) -> None:
    offer = pb.Capabilities(
        cpu="7500m", memory="32Gi", storage="1Ti", nodes=4, processes=16, labels={"os": "linux", "note": ""},
        gpus=[pb.GpuOffer(name="A100", memory="80Gi", count=8)],
        accepts=[like(EQUALS, "a" * 128), like(IN, *longest(32)), like(EXISTS, key="k" * 128)] + [like(EXISTS)] * 29,
    )  # fmt: skip
    executor = pair.stub(RegistryServiceStub, pair.keys.executor)
    response = await executor.UpdateExecutor(pb.UpdateExecutorRequest(colony_name=COLONY, capabilities=offer))
    assert response.executor.capabilities == offer
    assert (await resolved(pair, pair.keys.executor.identity)).executor.capabilities == offer


async def test_lists_of_executors_are_filtered_and_paged(pair: Cluster) -> None:
    for index in range(5):
        await pair.register(COLONY, "same-name", key_of(f"same {index}"), executor_types=["cli", f"type-{index % 2}"])
    seen: list[tuple[str, str]] = []
    cursor = ""
    while True:
        request = pb.ListExecutorsRequest(colony_name=COLONY, page_size=2, cursor=cursor)
        page = await as_owner(pair).ListExecutors(request)
        seen += [(executor.name, executor.identity) for executor in page.executors]
        cursor = page.next_cursor
        if not cursor:
            break
    assert len(seen) == 7
    assert seen == sorted(set(seen))
    for filters, count in (
        ({"states": [PENDING]}, 5),
        ({"states": [APPROVED]}, 2),
        ({"states": [APPROVED, PENDING]}, 7),
        ({"states": [REJECTED]}, 0),
        ({"executor_type": "type-0"}, 3),
        ({"executor_type": "type-0", "states": [APPROVED]}, 0),
    ):
        page = await as_owner(pair).ListExecutors(pb.ListExecutorsRequest(colony_name=COLONY, **filters))
        assert len(page.executors) == count, filters


async def test_signs_of_life_move_forward_only(pair: Cluster) -> None:
    scheduler = pair.stub(RegistryServiceStub, pair.keys.service("scheduler"))
    identity = pair.keys.executor.identity

    async def report(*seconds: int, who: str = identity) -> int:
        heard = [pb.ReportHeardRequest.Heard(colony=COLONY, identity=who, time=Timestamp(seconds=second)) for second in seconds]
        await scheduler.ReportHeard(pb.ReportHeardRequest(heard=heard))
        return (await fetched(pair, identity)).last_heard_time.seconds

    assert not (await fetched(pair, identity)).HasField("last_heard_time")
    assert await report(100, 300, 200) == 300
    assert await report(299) == 300
    assert await report(301) == 301
    assert await report(999, who="00" * 32) == 301
    assert await report() == 301
    # A sign of life is no change that anybody follows, and a change of anything else does not undo it.
    await pair.stub(RegistryServiceStub, pair.keys.executor).UpdateExecutor(
        pb.UpdateExecutorRequest(colony_name=COLONY, capabilities=pb.Capabilities(cpu="1"))
    )
    assert (await fetched(pair, identity)).last_heard_time.seconds == 301
    for time in (Timestamp(seconds=-1), Timestamp(seconds=2**62), Timestamp(seconds=1, nanos=-1)):
        heard = pb.ReportHeardRequest.Heard(colony=COLONY, identity=identity, time=time)
        error = await refusal(scheduler.ReportHeard(pb.ReportHeardRequest(heard=[heard])))
        assert error.code is CODE.INVALID_ARGUMENT


async def test_batches_of_signs_of_life_at_once(pair: Cluster) -> None:
    scheduler = pair.stub(RegistryServiceStub, pair.keys.service("scheduler"))
    identities = [pair.keys.executor.identity, pair.keys.executor_2.identity]

    def batch(second: int) -> pb.ReportHeardRequest:
        order = identities if second % 2 else identities[::-1]
        heard = [pb.ReportHeardRequest.Heard(colony=COLONY, identity=who, time=Timestamp(seconds=second)) for who in order]
        return pb.ReportHeardRequest(heard=heard)

    await asyncio.gather(*(scheduler.ReportHeard(batch(second)) for second in range(1, 41)))
    for identity in identities:
        assert (await fetched(pair, identity)).last_heard_time.seconds == 40


async def test_followers_hear_of_what_is_or_was_approved(pair: Cluster) -> None:
    stream = pair.stub(RegistryServiceStub, pair.keys.service("scheduler")).WatchExecutors(pb.WatchExecutorsRequest())
    responses = aiter(stream)
    assert await anext(responses) == pb.WatchExecutorsResponse(synced=True)
    settled = {pair.keys.executor.identity, pair.keys.executor_2.identity}
    change = pb.WatchExecutorsResponse(colony=COLONY, identity=WORKER.identity)
    executor = pair.stub(RegistryServiceStub, WORKER)

    async def update() -> None:
        offer = pb.Capabilities(cpu="3")
        await executor.UpdateExecutor(pb.UpdateExecutorRequest(colony_name=COLONY, capabilities=offer))

    # Pending and unknown executors are nobody's business.
    await pair.register(COLONY, "worker", WORKER)
    await pair.register(COLONY, "worker", WORKER, executor_types=["x"])
    await pair.register(COLONY, "quiet", key_of("quiet"))
    for step in (
        lambda: pair.approve(COLONY, pair.keys.owner, WORKER.identity),
        update,
        lambda: pair.register(COLONY, "worker", WORKER, executor_types=["y"]),
        lambda: pair.approve(COLONY, pair.keys.owner, WORKER.identity),
        lambda: as_owner(pair).RejectExecutor(whom(pb.RejectExecutorRequest)),
        lambda: pair.approve(COLONY, pair.keys.owner, WORKER.identity),
        lambda: as_owner(pair).RemoveExecutor(whom(pb.RemoveExecutorRequest)),
    ):
        await step()
        await hears(responses, change, earlier=lambda told: told.identity in settled)
    # Had anything been told twice or needlessly, it would come now.
    await pair.approve(COLONY, pair.keys.owner, key_of("quiet").identity)
    quiet = pb.WatchExecutorsResponse(colony=COLONY, identity=key_of("quiet").identity)
    await hears(responses, quiet, earlier=lambda told: told.identity in settled)
    stream.cancel()


async def test_what_was_kept_of_a_colony_goes_with_it(pair: Cluster) -> None:
    await as_owner(pair).PutLocation(pb.PutLocationRequest(colony_name=COLONY, location=pb.Location(name="attic")))
    await pair.stub(RegistryServiceStub, pair.keys.executor).AnnounceFunctions(
        pb.AnnounceFunctionsRequest(colony_name=COLONY, functions=[pb.Function(name="f")])
    )
    await pair.add_colony("umbrella", key_of("other owner"))
    await pair.add_executor("umbrella", key_of("other owner"), "survivor", key_of("survivor"))
    server = pair.stub(AuthServiceStub, pair.keys.server_owner)
    await server.RemoveColony(auth_pb.RemoveColonyRequest(name=COLONY))
    url = pair.replicas["registry"][0].process.settings.postgres_url.get_secret_value()

    async def gone() -> bool:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            rows = await connection.execute(
                "SELECT colony FROM registry.executor UNION SELECT colony FROM registry.function"
                " UNION SELECT colony FROM registry.location"
            )
            return await rows.fetchall() == [("umbrella",)]

    await eventually(gone)


async def test_a_registry_that_was_away_purges_when_it_is_back(pair: Cluster) -> None:
    await pair.stop_replica(pair.replicas["registry"][0])
    server = pair.stub(AuthServiceStub, pair.keys.server_owner)
    await server.RemoveColony(auth_pb.RemoveColonyRequest(name=COLONY))
    back = await pair.start("registry")
    url = back.process.settings.postgres_url.get_secret_value()

    async def gone() -> bool:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            return await (await connection.execute("SELECT FROM registry.executor")).fetchone() is None

    await eventually(gone)


async def test_without_auth_nothing_is_changed(pair: Cluster) -> None:
    await pair.register(COLONY, "worker", WORKER)
    owner = as_owner(pair)
    assert (await fetched(pair)).state == PENDING
    await pair.stop_replica(pair.replicas["auth"][0])
    error = await refusal(owner.ApproveExecutor(whom(pb.ApproveExecutorRequest)))
    assert error.code is CODE.UNAVAILABLE
    error = await refusal(pair.register(COLONY, "worker", key_of("late")))
    assert error.code is CODE.UNAVAILABLE
    # The owner's membership is remembered for a while: it may still look.
    assert (await fetched(pair)).state == PENDING


def longest(count: int) -> list[str]:
    """Distinct names."""
    return [f"t{index}" for index in range(count)]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("colony", {"colony": "a\x00b"}),
        ("name", {"name": ""}),
        ("name", {"name": "x" * 129}),
        ("executor_types", {"executor_types": []}),
        ("executor_types", {"executor_types": longest(33)}),
        ("executor_types", {"executor_types": ["same", "same"]}),
        ("executor_types[1]", {"executor_types": ["fine", "not fine"]}),
        ("location_name", {"location_name": "no\x00where"}),
        ("capabilities.cpu", {"capabilities": pb.Capabilities(cpu="many")}),
        ("capabilities.memory", {"capabilities": pb.Capabilities(memory="10 GB")}),
        ("capabilities.storage", {"capabilities": pb.Capabilities(storage="-1Gi")}),
        ("capabilities.nodes", {"capabilities": pb.Capabilities(nodes=-1)}),
        ("capabilities.processes", {"capabilities": pb.Capabilities(processes=1_000_001)}),
        ("capabilities.gpus", {"capabilities": pb.Capabilities(gpus=[pb.GpuOffer(name="x", count=1)] * 101)}),
        ("capabilities.gpus[0].count", {"capabilities": pb.Capabilities(gpus=[pb.GpuOffer(name="x")])}),
        ("capabilities.gpus[0].name", {"capabilities": pb.Capabilities(gpus=[pb.GpuOffer(count=1)])}),
        ("capabilities.labels", {"capabilities": pb.Capabilities(labels={"a\x00": "b"})}),
        ("capabilities.labels", {"capabilities": pb.Capabilities(labels={"a": "b" * 257})}),
        ("capabilities.labels", {"capabilities": pb.Capabilities(labels=dict.fromkeys(longest(101), ""))}),
        ("capabilities.accepts", {"capabilities": accepting(*[like(EXISTS)] * 33)}),
        ("capabilities.accepts[0].key", {"capabilities": accepting(like(EXISTS, key=""))}),
        ("capabilities.accepts[1].key", {"capabilities": accepting(like(EXISTS), like(EXISTS, key="a b"))}),
        ("capabilities.accepts[0].operator", {"capabilities": accepting(like(0))}),
        ("capabilities.accepts[0].operator", {"capabilities": accepting(like(4, "v"))}),
        ("capabilities.accepts[0].values", {"capabilities": accepting(like(EQUALS))}),
        ("capabilities.accepts[0].values", {"capabilities": accepting(like(EQUALS, "a", "b"))}),
        ("capabilities.accepts[0].values", {"capabilities": accepting(like(IN))}),
        ("capabilities.accepts[0].values", {"capabilities": accepting(like(IN, *"v" * 33))}),
        ("capabilities.accepts[0].values", {"capabilities": accepting(like(EXISTS, "v"))}),
        ("capabilities.accepts[0].values[0]", {"capabilities": accepting(like(EQUALS, "v" * 129))}),
        ("capabilities.accepts[0].values[1]", {"capabilities": accepting(like(IN, "v", "a\n"))}),
    ],
)
async def test_registrations_out_of_bounds(pair: Cluster, field: str, changes: dict[str, Any]) -> None:
    error = await refusal(pair.register(**{"colony": COLONY, "name": "worker", "key": WORKER, **changes}))
    assert error.code is CODE.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == [field]


async def test_other_requests_out_of_bounds(pair: Cluster) -> None:
    owner = as_owner(pair)
    executor = pair.stub(RegistryServiceStub, pair.keys.executor)
    nan = float("nan")

    def announce(*functions: pb.Function) -> Any:
        return executor.AnnounceFunctions(pb.AnnounceFunctionsRequest(colony_name=COLONY, functions=functions))

    def put(**location: Any) -> Any:
        place = pb.Location(**{"name": "attic", **location})
        return owner.PutLocation(pb.PutLocationRequest(colony_name=COLONY, location=place))

    crowded = pb.Function(name="f", arguments=[pb.Argument(name="x", enum_values=["v"] * 101)])
    calls = [
        ("identity", owner.ApproveExecutor(pb.ApproveExecutorRequest(colony_name=COLONY, identity="A" * 64))),
        ("executor", owner.GetExecutor(pb.GetExecutorRequest(colony_name=COLONY))),
        ("name", owner.GetExecutor(pb.GetExecutorRequest(colony_name=COLONY, name=""))),
        ("identity", owner.GetExecutor(pb.GetExecutorRequest(colony_name=COLONY, identity="x"))),
        ("states[0]", owner.ListExecutors(pb.ListExecutorsRequest(colony_name=COLONY, states=[pb.EXECUTOR_STATE_UNSPECIFIED]))),
        ("page_size", owner.ListExecutors(pb.ListExecutorsRequest(colony_name=COLONY, page_size=1001))),
        ("cursor", owner.ListExecutors(pb.ListExecutorsRequest(colony_name=COLONY, cursor="WyJhIl0"))),
        ("cursor", owner.ListFunctions(pb.ListFunctionsRequest(colony_name=COLONY, cursor="x"))),
        ("cursor", owner.ListLocations(pb.ListLocationsRequest(colony_name=COLONY, cursor="x"))),
        ("functions[0].name", announce(pb.Function(name="a\nb"))),
        ("functions[1].name", announce(pb.Function(name="f"), pb.Function(name="f"))),
        ("functions[0].description", announce(pb.Function(name="f", description="a\x00b"))),
        ("functions[0].description", announce(pb.Function(name="f", description="x" * 4097))),
        ("functions[0].arguments[0].enum_values", announce(crowded)),
        ("functions", announce(*(pb.Function(name=name) for name in longest(1001)))),
        ("location.latitude", put(latitude=90.1)),
        ("location.longitude", put(longitude=nan)),
        ("location.description", put(description="a\x00b")),
        ("name", executor.RemoveFunction(pb.RemoveFunctionRequest(colony_name=COLONY, name=""))),
    ]
    for field, call in calls:
        error = await refusal(call)
        assert error.code is CODE.INVALID_ARGUMENT, field
        assert [violation.field for violation in error.violations] == [field]
