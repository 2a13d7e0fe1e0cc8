"""CronService over gRPC, with a real auth service; the scheduler's answers are the test's."""

from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceStub
from colonies.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec, WorkflowSpec
from servicekit import failures
from tests.cron.scripted_scheduler import Scripted, served
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

WORKFLOW = WorkflowSpec(
    nodes=[FunctionSpec(node_name="a", func_name="f", conditions=Conditions(executor_type="cli"))], label="nightly"
)
DAILY = pb.Schedule(expression="@daily")
SECONDLY = pb.Schedule(interval_ms=1_000)


class World:
    """A cluster of auth and cron, and the scheduler's script."""

    def __init__(self, cluster: Cluster, scheduler: Scripted) -> None:
        self.cluster = cluster
        self.scheduler = scheduler
        self.user = cluster.stub(CronServiceStub, cluster.keys.user)
        self.owner = cluster.stub(CronServiceStub, cluster.keys.owner)
        self.stranger = cluster.stub(CronServiceStub, cluster.keys.stranger)

    async def cron(self, name: str = "nightly") -> Any:
        """As the user sees it."""
        return (await self.user.GetCron(pb.GetCronRequest(colony_name=COLONY, name=name))).cron


@pytest_asyncio.fixture
async def world(new_cluster: Callable[..., Any]) -> AsyncIterator[World]:
    async with served() as (scheduler, address):
        cluster = await new_cluster(services=("auth", "cron"), settings={"cron": {"scheduler_address": address}})
        yield World(cluster, scheduler)


def adding(name: str = "nightly", schedule: pb.Schedule = DAILY, colony: str = COLONY) -> pb.AddCronRequest:
    return pb.AddCronRequest(colony_name=colony, name=name, schedule=schedule, workflow=WORKFLOW)


async def test_a_cron_from_its_adding_to_its_removal(world: World) -> None:
    added = (await world.user.AddCron(adding())).cron
    (check,) = world.scheduler.requests
    user = world.cluster.keys.user.identity
    assert (check.validate_only, check.on_behalf_of, check.workflow) == (True, user, WORKFLOW)
    assert (added.initiator, added.initiator_name, added.colony_name) == (user, "alice", COLONY)
    assert added.workflow == WORKFLOW
    assert added.next_fire_time.seconds % 86_400 == 0
    assert (await world.user.AddCron(adding())).cron == added
    assert await world.cron() == added
    (listed,) = (await world.owner.ListCrons(pb.ListCronsRequest(colony_name=COLONY))).crons
    added.ClearField("workflow")
    assert listed == added
    await world.owner.RemoveCron(pb.RemoveCronRequest(colony_name=COLONY, name="nightly"))
    error = await refusal(world.user.GetCron(pb.GetCronRequest(colony_name=COLONY, name="nightly")))
    assert isinstance(error, NotFoundError)


async def test_another_cron_of_the_name(world: World) -> None:
    await world.user.AddCron(adding())
    assert isinstance(await refusal(world.owner.AddCron(adding())), AlreadyExistsError)
    assert isinstance(await refusal(world.user.AddCron(adding(schedule=SECONDLY))), AlreadyExistsError)


async def test_bad_fields_are_named(world: World) -> None:
    for schedule, field in (
        (pb.Schedule(expression="0 0 31 2 *"), "schedule.expression"),
        (pb.Schedule(interval_ms=-1), "schedule.interval_ms"),
        (pb.Schedule(), "schedule"),
    ):
        error = await refusal(world.user.AddCron(adding(schedule=schedule)))
        assert isinstance(error, InvalidArgumentError)
        assert [violation.field for violation in error.violations] == [field]
    assert not world.scheduler.requests


async def test_what_the_scheduler_says_of_the_workflow_reaches_the_caller(world: World) -> None:
    violation = failures.Violation("workflow.nodes[0].func_name", "must be printable")
    world.scheduler.failure = failures.InvalidArgument([violation])
    error = await refusal(world.user.AddCron(adding()))
    assert isinstance(error, InvalidArgumentError)
    assert [(each.field, each.description) for each in error.violations] == [violation]
    world.scheduler.failure = failures.Unavailable("away", reason="X", retry_delay_s=1.5)
    error = await refusal(world.user.AddCron(adding()))
    assert isinstance(error, UnavailableError)
    assert error.retry_delay == 1.5


async def test_strangers_and_other_members(world: World) -> None:
    await world.user.AddCron(adding())
    bob = key_of("bob")
    await world.cluster.add_user(COLONY, world.cluster.keys.owner, "bob", bob)
    other = world.cluster.stub(CronServiceStub, bob)
    assert (await other.GetCron(pb.GetCronRequest(colony_name=COLONY, name="nightly"))).cron.name == "nightly"
    run = pb.RunCronRequest(colony_name=COLONY, name="nightly", request_id="r")
    remove = pb.RemoveCronRequest(colony_name=COLONY, name="nightly")
    for call in (other.RunCron(run), other.RemoveCron(remove)):
        error = await refusal(call)
        assert isinstance(error, PermissionDeniedError)
        assert error.reason == "NOT_THE_INITIATOR"
    for call in (
        world.stranger.AddCron(adding()),
        world.stranger.RunCron(run),
        world.stranger.RemoveCron(remove),
        world.stranger.ListCrons(pb.ListCronsRequest(colony_name=COLONY)),
        world.stranger.GetCron(pb.GetCronRequest(colony_name="no-such-colony", name="nightly")),
    ):
        error = await refusal(call)
        assert isinstance(error, PermissionDeniedError)
        assert error.reason == "NOT_A_MEMBER"


async def test_running_now(world: World) -> None:
    before = (await world.user.AddCron(adding())).cron
    run = pb.RunCronRequest(colony_name=COLONY, name="nightly", request_id="r")
    first = (await world.owner.RunCron(run)).workflow_id
    assert (await world.user.RunCron(run)).workflow_id == first
    assert {request.on_behalf_of for request in world.scheduler.requests} == {world.cluster.keys.user.identity}
    after = await world.cron()
    assert after.last_workflow_id == first
    assert after.next_fire_time == before.next_fire_time
    world.scheduler.failure = failures.PermissionDenied("revoked", reason="ON_BEHALF_REVOKED")
    run.request_id = "r2"
    error = await refusal(world.owner.RunCron(run))
    assert isinstance(error, FailedPreconditionError)
    assert error.reason == "OWNER_REVOKED"


async def test_pages(world: World) -> None:
    names = [f"c{index}" for index in range(7)]
    for name in names:
        await world.user.AddCron(adding(name))
    seen: list[str] = []
    request = pb.ListCronsRequest(colony_name=COLONY, page_size=3)
    while True:
        response = await world.user.ListCrons(request)
        assert len(response.crons) <= 3
        seen += [cron.name for cron in response.crons]
        if not response.next_cursor:
            break
        request.cursor = response.next_cursor
    assert seen == names


async def test_a_cron_fires_every_second_under_a_request_id_for_each_moment(world: World) -> None:
    await world.user.AddCron(adding(schedule=SECONDLY))

    async def three() -> bool:
        return len(world.scheduler.workflows) >= 3

    await eventually(three, seconds=10)
    fires = [request for request in world.scheduler.requests if not request.validate_only]
    assert len({request.request_id for request in fires}) == len(fires)
    moments = [int(request.request_id.rpartition("-")[2]) for request in fires]
    assert [after - before for before, after in pairwise(moments)] == [1_000] * (len(fires) - 1)
    assert (await world.cron()).last_error == ""


async def test_when_a_colony_is_removed_its_crons_are_purged(world: World, database_url: str) -> None:
    await world.user.AddCron(adding())
    other_owner = key_of("owner of other")
    await world.cluster.add_colony("other", other_owner)
    other = world.cluster.stub(CronServiceStub, other_owner)
    await other.AddCron(adding(colony="other"))
    auth = world.cluster.stub(AuthServiceStub, world.cluster.keys.server_owner)
    await auth.RemoveColony(auth_pb.RemoveColonyRequest(name="other"))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:

        async def only_acme() -> bool:
            rows = await (await connection.execute("SELECT DISTINCT colony FROM cron.cron")).fetchall()
            return rows == [(COLONY,)]

        await eventually(only_acme, seconds=10)
