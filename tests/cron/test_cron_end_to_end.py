"""Crons with all the real services: what fires arrives in the scheduler, on the member's account, and stops with the member."""

from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceStub
from colonies.errors import FailedPreconditionError, InvalidArgumentError
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec, WorkflowSpec
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, EXECUTOR_TYPES, USER, Cluster
from tests.harness.servers import present_services

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(90),
    pytest.mark.skipif("scheduler" not in present_services(), reason="needs the scheduler service"),
]

CONDITIONS = Conditions(executor_type=EXECUTOR_TYPES[0])
WORKFLOW = WorkflowSpec(
    label="ticking",
    nodes=[
        FunctionSpec(node_name="first", func_name="f", conditions=CONDITIONS),
        FunctionSpec(
            node_name="second",
            func_name="g",
            conditions=Conditions(executor_type=EXECUTOR_TYPES[0], dependencies=[Dependency(node_name="first")]),
        ),
    ],
)


class World:
    """A cluster with two replicas of cron."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.user = cluster.stub(CronServiceStub, cluster.keys.user)
        self.owner = cluster.stub(CronServiceStub, cluster.keys.owner)
        self._scheduler = cluster.stub(SchedulerServiceStub, cluster.keys.owner)

    async def workflows(self) -> list[Any]:
        """All workflows of the colony, newest first."""
        request = scheduler_pb.ListWorkflowsRequest(colony_name=COLONY, page_size=1_000)
        return list((await self._scheduler.ListWorkflows(request)).workflows)

    async def labels(self) -> list[str]:
        """The labels of all workflows."""
        return [workflow.label for workflow in await self.workflows()]

    async def cron(self) -> Any:
        """As the owner sees it."""
        return (await self.owner.GetCron(pb.GetCronRequest(colony_name=COLONY, name="tick"))).cron

    async def until(self, workflows: int) -> None:
        """Waits for this many workflows."""

        async def enough() -> bool:
            return len(await self.workflows()) >= workflows

        await eventually(enough, seconds=30)


@pytest_asyncio.fixture
async def world(new_cluster: Callable[..., Any]) -> World:
    cluster = await new_cluster()
    await cluster.start("cron")
    return World(cluster)


def adding(workflow: WorkflowSpec = WORKFLOW, *, interval_ms: int = 1_000) -> pb.AddCronRequest:
    schedule = pb.Schedule(interval_ms=interval_ms)
    return pb.AddCronRequest(colony_name=COLONY, name="tick", schedule=schedule, workflow=workflow)


async def test_a_cron_fires_on_its_members_account_once_a_second_and_stops_with_the_member(world: World) -> None:
    added = (await world.user.AddCron(adding())).cron
    await world.until(3)
    cron = await world.cron()
    workflows = await world.workflows()
    assert {(w.initiator, w.initiator_name, w.label) for w in workflows} == {(added.initiator, USER, "ticking")}
    seconds = cron.last_fire_time.ToMilliseconds() - added.created_time.ToMilliseconds()
    assert seconds % 1_000 == 0
    # Two replicas, and yet one workflow a moment; the listing may have been a moment behind or ahead of the cron.
    assert abs(len(workflows) - seconds // 1_000) <= 1
    auth = world.cluster.stub(AuthServiceStub, world.cluster.keys.owner)
    await auth.RemoveUser(auth_pb.RemoveUserRequest(colony_name=COLONY, name=USER))

    async def stopped() -> bool:
        return bool((await world.cron()).state == pb.CRON_STATE_PAUSED)

    await eventually(stopped, seconds=15)
    paused = await world.cron()
    assert paused.pause_reason == "the member on whose account it runs is none any more"
    assert not paused.HasField("next_fire_time")
    run = pb.RunCronRequest(colony_name=COLONY, name="tick", request_id="r")
    error = await refusal(world.owner.RunCron(run))
    assert isinstance(error, FailedPreconditionError)
    assert error.reason == "OWNER_REVOKED"


async def test_running_now_is_once_for_each_request_id(world: World) -> None:
    await world.user.AddCron(adding(interval_ms=86_400_000))
    run = pb.RunCronRequest(colony_name=COLONY, name="tick", request_id="r")
    first = (await world.user.RunCron(run)).workflow_id
    assert (await world.owner.RunCron(run)).workflow_id == first
    assert [w.workflow_id for w in await world.workflows()] == [first]
    assert (await world.cron()).last_workflow_id == first


async def test_a_workflow_that_could_not_be_submitted_is_refused_when_the_cron_is_added(world: World) -> None:
    broken = WorkflowSpec()
    broken.CopyFrom(WORKFLOW)
    broken.nodes[1].func_name = ""
    error = await refusal(world.user.AddCron(adding(broken)))
    assert isinstance(error, InvalidArgumentError)
    assert [violation.field for violation in error.violations] == ["workflow.nodes[1].func_name"]
    error = await refusal(world.user.AddCron(adding(WorkflowSpec())))
    assert isinstance(error, InvalidArgumentError)
    assert all(violation.field.startswith("workflow") for violation in error.violations)
    assert not await world.workflows()


async def test_a_workflow_that_could_not_be_submitted_is_refused_when_the_cron_is_updated(world: World) -> None:
    added = (await world.user.AddCron(adding(interval_ms=86_400_000))).cron
    broken = WorkflowSpec()
    broken.CopyFrom(WORKFLOW)
    broken.nodes[1].conditions.dependencies[0].node_name = "nobody"
    updating = pb.UpdateCronRequest(colony_name=COLONY, name="tick", schedule=pb.Schedule(interval_ms=1_000), workflow=broken)
    error = await refusal(world.user.UpdateCron(updating))
    assert isinstance(error, InvalidArgumentError)
    assert all(violation.field.startswith("workflow.nodes[1]") for violation in error.violations)
    assert await world.cron() == added


async def test_removing_the_cron_ends_it(world: World) -> None:
    await world.user.AddCron(adding())
    await world.until(1)
    await world.user.RemoveCron(pb.RemoveCronRequest(colony_name=COLONY, name="tick"))
    # Once it is removed no fire is under way, so what is there now stays all there is; another cron shows that time passes.
    before = await world.labels()
    other = adding()
    other.name = other.workflow.label = "other"
    await world.user.AddCron(other)
    await world.until(len(before) + 2)
    after = await world.labels()
    assert after.count("ticking") == before.count("ticking")
    assert after.count("other") >= 2
