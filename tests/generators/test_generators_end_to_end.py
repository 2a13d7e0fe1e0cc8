"""Generators with all the real services: what is packed arrives in the scheduler as the arguments of workflows."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.cron.v1 import generator_service_pb2 as pb
from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceStub
from colonies.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec, Value, WorkflowSpec
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
    label="gathered",
    nodes=[
        FunctionSpec(node_name="left", func_name="f", conditions=CONDITIONS, args=[Value(data=b'"own"')]),
        FunctionSpec(node_name="right", func_name="f", conditions=CONDITIONS),
        FunctionSpec(
            node_name="after",
            func_name="g",
            conditions=Conditions(executor_type=EXECUTOR_TYPES[0], dependencies=[Dependency(node_name="left")]),
        ),
    ],
)
NAMED: dict[str, Any] = {"colony_name": COLONY, "name": "gather"}


class World:
    """A cluster with two replicas of cron."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.user = cluster.stub(GeneratorServiceStub, cluster.keys.user)
        self.owner = cluster.stub(GeneratorServiceStub, cluster.keys.owner)
        self.executor = cluster.stub(GeneratorServiceStub, cluster.keys.executor)
        self._scheduler = cluster.stub(SchedulerServiceStub, cluster.keys.owner)

    async def workflows(self) -> list[Any]:
        """All workflows of the colony, the oldest first."""
        request = scheduler_pb.ListWorkflowsRequest(colony_name=COLONY, page_size=1_000)
        return list((await self._scheduler.ListWorkflows(request)).workflows)[::-1]

    async def arguments(self, workflow_id: str) -> dict[str, list[Value]]:
        """What each node of a workflow is called with."""
        request = scheduler_pb.ListProcessesRequest(colony_name=COLONY, workflow_id=workflow_id, page_size=100)
        arguments = {}
        for process in (await self._scheduler.ListProcesses(request)).processes:
            asked = scheduler_pb.GetProcessRequest(colony_name=COLONY, process_id=process.process_id)
            spec = (await self._scheduler.GetProcess(asked)).process.spec
            arguments[spec.node_name] = list(spec.args)
        return arguments

    async def generator(self) -> Any:
        """As the owner sees it."""
        return (await self.owner.GetGenerator(pb.GetGeneratorRequest(**NAMED))).generator

    async def until_submitted(self, batches: int) -> None:
        """Waits for this many batches."""

        async def enough() -> bool:
            return bool((await self.generator()).batches >= batches)

        await eventually(enough, seconds=30)


@pytest_asyncio.fixture
async def world(new_cluster: Callable[..., Any]) -> World:
    cluster = await new_cluster()
    await cluster.start("cron")
    return World(cluster)


def adding(max_count: int, *, timeout_ms: int = 0, workflow: WorkflowSpec = WORKFLOW) -> pb.AddGeneratorRequest:
    return pb.AddGeneratorRequest(**NAMED, trigger=pb.Trigger(max_count=max_count, timeout_ms=timeout_ms), workflow=workflow)


def packing(request_id: str, *texts: str, key: str = "") -> pb.PackRequest:
    arguments = [pb.Argument(key=key, value=Value(data=f'"{text}"'.encode())) for text in texts]
    return pb.PackRequest(**NAMED, request_id=request_id, arguments=arguments)


def values(*texts: str) -> list[Value]:
    return [Value(data=f'"{text}"'.encode()) for text in texts]


async def test_a_full_batch_becomes_a_workflow_on_its_initiators_account(world: World) -> None:
    added = (await world.user.AddGenerator(adding(3))).generator
    assert (await world.executor.Pack(packing("1", "a", "b"))).first_sequence == 1
    assert (await world.owner.Pack(packing("2", "c", "d"))).first_sequence == 3
    assert (await world.owner.Pack(packing("2", "c", "d"))).first_sequence == 3
    await world.until_submitted(1)
    (workflow,) = await world.workflows()
    assert (workflow.initiator, workflow.initiator_name, workflow.label) == (added.initiator, USER, "gathered")
    assert await world.arguments(workflow.workflow_id) == {
        "left": values("own", "a", "b", "c"),
        "right": values("a", "b", "c"),
        "after": [],
    }
    (batch,) = (await world.user.ListBatches(pb.ListBatchesRequest(**NAMED))).batches
    assert (batch.workflow_id, batch.reason, batch.count) == (workflow.workflow_id, pb.BATCH_REASON_COUNT, 3)
    generator = await world.generator()
    assert (generator.waiting, generator.last_workflow_id) == (1, workflow.workflow_id)


async def test_what_waits_is_submitted_after_its_timeout(world: World) -> None:
    await world.user.AddGenerator(adding(100, timeout_ms=300))
    for number in range(3):
        await world.user.Pack(packing(str(number), f"v{number}", key=f"k{number}"))
    await world.until_submitted(3)
    batches = (await world.user.ListBatches(pb.ListBatchesRequest(**NAMED))).batches
    packed = [(await world.arguments(batch.workflow_id))["right"] for batch in batches]
    assert packed == [values("v2"), values("v1"), values("v0")]
    assert [(batch.key, batch.reason) for batch in batches] == [(f"k{n}", pb.BATCH_REASON_TIMEOUT) for n in (2, 1, 0)]
    assert all(batch.created_time.ToMilliseconds() - batch.oldest_time.ToMilliseconds() >= 300 for batch in batches)


async def test_packers_at_both_replicas_keep_their_order(world: World) -> None:
    await world.user.AddGenerator(adding(7, timeout_ms=500))
    packers, calls = 6, 20

    async def pack(sender: int) -> None:
        stub = (world.user, world.owner, world.executor)[sender % 3]
        for call in range(calls):
            await stub.Pack(packing(f"{sender}-{call}", f"{sender}:{2 * call}", f"{sender}:{2 * call + 1}"))

    await asyncio.gather(*map(pack, range(packers)))

    async def all_gone() -> bool:
        generator = await world.generator()
        return bool(generator.waiting == generator.unsubmitted_batches == 0)

    await eventually(all_gone, seconds=30)
    seen: list[str] = []
    for batch in list((await world.user.ListBatches(pb.ListBatchesRequest(**NAMED, page_size=1_000))).batches)[::-1]:
        arguments = (await world.arguments(batch.workflow_id))["right"]
        assert len(arguments) == batch.count <= 7
        seen += [value.data.decode().strip('"') for value in arguments]
    for sender in range(packers):
        own = [int(text.partition(":")[2]) for text in seen if text.startswith(f"{sender}:")]
        assert own == list(range(2 * calls))
    assert len(seen) == 2 * calls * packers


async def test_a_removed_member_pauses_its_generator_and_nothing_is_lost(world: World) -> None:
    await world.user.AddGenerator(adding(2))
    auth = world.cluster.stub(AuthServiceStub, world.cluster.keys.owner)
    await auth.RemoveUser(auth_pb.RemoveUserRequest(colony_name=COLONY, name=USER))
    await world.owner.Pack(packing("1", "a", "b", "c"))

    async def paused() -> bool:
        return bool((await world.generator()).state == pb.GENERATOR_STATE_PAUSED)

    await eventually(paused, seconds=15)
    generator = await world.generator()
    assert "none any more" in generator.pause_reason
    assert (generator.waiting, generator.unsubmitted_batches, generator.batches) == (1, 1, 0)
    error = await refusal(world.owner.RemoveGenerator(pb.RemoveGeneratorRequest(**NAMED)))
    assert isinstance(error, FailedPreconditionError)
    assert error.reason == "ARGUMENTS_WAITING"
    await world.owner.RemoveGenerator(pb.RemoveGeneratorRequest(**NAMED, force=True))
    assert isinstance(await refusal(world.owner.Pack(packing("2", "d"))), NotFoundError)
    assert not await world.workflows()


async def test_a_workflow_that_could_not_be_submitted_is_refused_when_the_generator_is_added(world: World) -> None:
    broken = WorkflowSpec()
    broken.CopyFrom(WORKFLOW)
    broken.nodes[1].func_name = ""
    error = await refusal(world.user.AddGenerator(adding(3, workflow=broken)))
    assert isinstance(error, InvalidArgumentError)
    assert [violation.field for violation in error.violations] == ["workflow.nodes[1].func_name"]
    error = await refusal(world.user.AddGenerator(adding(3, workflow=WorkflowSpec())))
    assert isinstance(error, InvalidArgumentError)
    assert isinstance(await refusal(world.user.GetGenerator(pb.GetGeneratorRequest(**NAMED))), NotFoundError)


async def test_the_largest_batches_are_taken_by_the_scheduler(world: World) -> None:
    """What is allowed when the generator is added is never too large when it is submitted."""
    workflow = WorkflowSpec(
        nodes=[FunctionSpec(node_name=f"n{index}", func_name="f", conditions=CONDITIONS) for index in range(9)]
    )
    error = await refusal(world.user.AddGenerator(largest(workflow, 3 * 1024 * 1024)))
    assert isinstance(error, InvalidArgumentError)
    ((field, description),) = [(each.field, each.description) for each in error.violations]
    assert field == "trigger.max_bytes"
    at_most = int(description.split(";")[0].split()[-1])
    await world.user.AddGenerator(largest(workflow, at_most))
    # As many as there may be, each with a media type, so that what is around them weighs most.
    size, rest = divmod(at_most, 1_000)
    sizes = [size + 1] * rest + [size] * (1_000 - rest)
    arguments = [pb.Argument(value=Value(media_type="a/b", data=bytes(size - 3))) for size in sizes]
    await world.user.Pack(pb.PackRequest(**NAMED, request_id="1", arguments=arguments))
    await world.until_submitted(1)
    (batch,) = (await world.user.ListBatches(pb.ListBatchesRequest(**NAMED))).batches
    assert (batch.count, batch.bytes, batch.error) == (1_000, at_most, "")
    error = await refusal(world.user.Pack(packing("1", "something else")))
    assert isinstance(error, AlreadyExistsError)


def largest(workflow: WorkflowSpec, max_bytes: int) -> pb.AddGeneratorRequest:
    return pb.AddGeneratorRequest(**NAMED, trigger=pb.Trigger(max_count=1_000, max_bytes=max_bytes), workflow=workflow)


async def test_what_members_see_and_do(world: World) -> None:
    user, owner = world.user, world.owner
    added = (await user.AddGenerator(adding(3, timeout_ms=60_000))).generator
    assert (added.trigger.max_count, added.trigger.timeout_ms, added.trigger.max_bytes) == (3, 60_000, 1024 * 1024)
    assert added.workflow == WORKFLOW
    assert (await user.AddGenerator(adding(3, timeout_ms=60_000))).generator == added
    assert isinstance(await refusal(user.AddGenerator(adding(4))), AlreadyExistsError)
    assert isinstance(await refusal(owner.AddGenerator(adding(3, timeout_ms=60_000))), AlreadyExistsError)
    paused = (await user.PauseGenerator(pb.PauseGeneratorRequest(**NAMED))).generator
    assert (paused.state, paused.pause_reason) == (pb.GENERATOR_STATE_PAUSED, f"by {USER}")
    await user.Pack(packing("1", "a", "b", "c", "d", key="k"))
    await user.Pack(packing("2", "e"))
    bins = (await user.ListBins(pb.ListBinsRequest(**NAMED))).bins
    assert [(bin_.key, bin_.waiting, bin_.waiting_bytes, bin_.HasField("deadline_time")) for bin_ in bins] == [
        ("", 1, 3, False), ("k", 4, 12, False),
    ]  # fmt: skip
    listed = (await world.executor.ListGenerators(pb.ListGeneratorsRequest(colony_name=COLONY))).generators[0]
    assert (listed.waiting, listed.waiting_bytes, listed.bins, len(listed.workflow.nodes)) == (5, 15, 2, 0)
    assert listed.oldest_time == bins[1].oldest_time
    assert (await owner.DropArguments(pb.DropArgumentsRequest(**NAMED, key=""))).arguments == 1
    flushed = await owner.FlushGenerator(pb.FlushGeneratorRequest(**NAMED))
    assert (flushed.batches, flushed.arguments) == (2, 4)
    await world.until_submitted(2)
    await user.Pack(packing("3", "f"))
    resumed = (await user.ResumeGenerator(pb.ResumeGeneratorRequest(**NAMED))).generator
    assert (resumed.state, resumed.pause_reason) == (pb.GENERATOR_STATE_ACTIVE, "")
    deadline = resumed.next_deadline_time.ToMilliseconds()
    assert deadline == resumed.oldest_time.ToMilliseconds() + 60_000
    page = await user.ListBatches(pb.ListBatchesRequest(**NAMED, page_size=1))
    rest = await user.ListBatches(pb.ListBatchesRequest(**NAMED, page_size=1, cursor=page.next_cursor))
    assert [(each.number, each.count, each.reason) for each in (*page.batches, *rest.batches)] == [
        (2, 1, pb.BATCH_REASON_FLUSH), (1, 3, pb.BATCH_REASON_FLUSH),
    ]  # fmt: skip
    assert rest.next_cursor == ""
    assert not (await user.ListBatches(pb.ListBatchesRequest(**NAMED, unsubmitted_only=True))).batches
    for call in (
        world.executor.FlushGenerator(pb.FlushGeneratorRequest(**NAMED)),
        world.executor.RemoveGenerator(pb.RemoveGeneratorRequest(**NAMED, force=True)),
    ):
        assert isinstance(await refusal(call), PermissionDeniedError)
    assert isinstance(await refusal(owner.RemoveGenerator(pb.RemoveGeneratorRequest(**NAMED))), FailedPreconditionError)
    await owner.DropArguments(pb.DropArgumentsRequest(**NAMED))
    await owner.RemoveGenerator(pb.RemoveGeneratorRequest(**NAMED))
    assert not (await user.ListGenerators(pb.ListGeneratorsRequest(colony_name=COLONY))).generators
    assert len(await world.workflows()) == 2


async def test_refused_packs_name_the_field_and_change_nothing(world: World) -> None:
    await world.user.AddGenerator(
        pb.AddGeneratorRequest(**NAMED, trigger=pb.Trigger(max_count=10, max_bytes=2_000), workflow=WORKFLOW)
    )
    for size, bound in (
        (1_000_000, "must be at most 262144 bytes; it has 1000000"),
        (2_001, "2000 bytes, the generator's; it has 2001"),
    ):
        large = pb.Argument(value=Value(data=bytes(size)))
        arguments = [*packing("", "a", "b", "c").arguments, large]
        error = await refusal(world.user.Pack(pb.PackRequest(**NAMED, request_id="large", arguments=arguments)))
        assert isinstance(error, InvalidArgumentError)
        ((field, description),) = [(each.field, each.description) for each in error.violations]
        assert (field, bound in description) == ("arguments[3].value", True)
    assert (await world.generator()).waiting == 0
    # The request id is still free.
    assert (await world.user.Pack(packing("large", "a"))).first_sequence == 1


async def test_a_colony_that_is_removed_takes_its_generators_with_it(world: World) -> None:
    await world.user.AddGenerator(adding(3))
    await world.user.Pack(packing("1", "a", "b"))
    servers = world.cluster.stub(AuthServiceStub, world.cluster.keys.server_owner)
    await servers.RemoveColony(auth_pb.RemoveColonyRequest(name=COLONY))

    async def gone() -> bool:
        async with await psycopg.AsyncConnection.connect(world.cluster._database_url) as connection:
            counts = "SELECT (SELECT count(*) FROM cron.generator) + (SELECT count(*) FROM cron.argument)"
            row = await (await connection.execute(counts)).fetchone()
        assert row is not None
        return bool(row[0] == 0)

    await eventually(gone, seconds=20)
