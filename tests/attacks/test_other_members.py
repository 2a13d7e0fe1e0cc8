"""Members of one colony against each other: attempts, processes, crons and entries that are not theirs."""

from collections.abc import Mapping
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.cron.v1 import cron_service_pb2 as cron_pb
from colonies.cron.v1 import generator_service_pb2 as generator_pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceStub
from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceStub
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import channel_pb2, process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from servicekit.policy import Policy
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of
from tests.rpc.scheduler_colony import spec, value

from .places import ACME, CHANNEL, Place, furnish
from .tables import contents

pytestmark = pytest.mark.asyncio

NAMED: dict[str, Any] = {"colony_name": COLONY}
SUPERSEDED = (grpc.StatusCode.FAILED_PRECONDITION, "ATTEMPT_SUPERSEDED")
NOT_THE_INITIATOR = (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_INITIATOR")
ROLE_NOT_ALLOWED = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED")


@pytest_asyncio.fixture
async def acme(cluster: Cluster) -> Place:
    return await furnish(cluster, ACME)


def writes(process_id: str, attempt: int) -> Mapping[str, Any]:
    """Everything that an executor sends in the name of an attempt."""
    ref = pb.AttemptRef(process_id=process_id, attempt=attempt)
    message = channel_pb2.NewMessage(kind=channel_pb2.MESSAGE_KIND_DATA, value=value("1"))
    attribute = process_pb2.Attribute(kind=process_pb2.ATTRIBUTE_KIND_OUT, key="key", value="1")
    return {
        "CloseProcesses": pb.CloseProcessesRequest(**NAMED, closes=[pb.Close(attempt=ref, success=pb.Close.Success())]),
        "SetOutput": pb.SetOutputRequest(**NAMED, attempt=ref, outputs=[value("1")]),
        "SetAttributes": pb.SetAttributesRequest(**NAMED, attempt=ref, attributes=[attribute]),
        "AddLogs": pb.AddLogsRequest(**NAMED, attempt=ref, lines=[process_pb2.LogLine(message="x")]),
        "AddChildren": pb.AddChildrenRequest(**NAMED, request_id="children", attempt=ref, nodes=[spec("more")]),
        "AppendMessages": channel_pb2.AppendMessagesRequest(
            **NAMED, process_id=process_id, channel=CHANNEL, attempt=attempt, messages=[message], first_number=1
        ),
    }


async def refused(cluster: Cluster, key: PrivateKey, process_id: str, attempt: int) -> dict[str, tuple[grpc.StatusCode, str]]:
    """How each write in the name of this attempt is refused. Fails the test if one is not."""
    stub = cluster.stub(SchedulerServiceStub, key)
    answers = {}
    for name, request in writes(process_id, attempt).items():
        error = await refusal(getattr(stub, name)(request))
        answers[name] = (error.code, error.reason)
    return answers


async def test_another_executor_writes_nothing_to_an_attempt(cluster: Cluster, acme: Place, database_url: str) -> None:
    before = contents(database_url)
    for attempt in (1, 2, 2**31 - 1):
        answers = await refused(cluster, cluster.keys.executor_2, acme.process_id, attempt)
        # Who never was a party of a channel does not even learn that the attempt is over.
        assert answers.pop("AppendMessages") == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_PARTY")
        assert set(answers.values()) == {SUPERSEDED}
    ref = pb.AttemptRef(process_id=acme.process_id, attempt=1)
    beat = await cluster.stub(SchedulerServiceStub, cluster.keys.executor_2).Heartbeat(
        pb.HeartbeatRequest(**NAMED, attempts=[ref])
    )
    assert [(drop.attempt, drop.reason) for drop in beat.drops] == [(ref, pb.DROP_REASON_SUPERSEDED)]
    assert contents(database_url) == before


async def test_its_executor_writes_nothing_to_other_attempts_of_the_process(
    cluster: Cluster, acme: Place, database_url: str
) -> None:
    before = contents(database_url)
    for attempt in (2, 1_000):
        assert set((await refused(cluster, cluster.keys.executor, acme.process_id, attempt)).values()) == {SUPERSEDED}
    assert contents(database_url) == before


async def test_users_and_owners_write_nothing_as_executors(cluster: Cluster, acme: Place, database_url: str) -> None:
    before = contents(database_url)
    for key in (cluster.keys.user, cluster.keys.owner):
        answers = await refused(cluster, key, acme.process_id, 1)
        # Users may call this for the submitter's side; under an attempt's number it is an executor's.
        del answers["AppendMessages"]
        assert set(answers.values()) == {ROLE_NOT_ALLOWED}
    assert contents(database_url) == before


async def test_one_that_is_not_the_callers_makes_a_whole_batch_fail(cluster: Cluster, acme: Place, database_url: str) -> None:
    """Attempts of two executors closed in one call, by either: neither is closed."""
    user = cluster.stub(SchedulerServiceStub, cluster.keys.user)
    await user.SubmitProcesses(pb.SubmitProcessesRequest(**NAMED, request_id="own", specs=[spec()]))
    other = cluster.stub(SchedulerServiceStub, cluster.keys.executor_2)
    (own,) = (await other.AssignProcesses(pb.AssignProcessesRequest(**NAMED, max_processes=1, wait_ms=20_000))).assignments
    refs = [pb.AttemptRef(process_id=acme.process_id, attempt=1), pb.AttemptRef(process_id=own.process_id, attempt=own.attempt)]
    closes = [pb.Close(attempt=ref, success=pb.Close.Success()) for ref in refs]
    before = contents(database_url)
    for key in (cluster.keys.executor, cluster.keys.executor_2):
        request = pb.CloseProcessesRequest(**NAMED, closes=closes)
        error = await refusal(cluster.stub(SchedulerServiceStub, key).CloseProcesses(request))
        assert (error.code, error.reason) == SUPERSEDED
    assert contents(database_url) == before


async def test_these_are_all_methods_that_go_by_the_initiator() -> None:
    rules = Policy.load().rules
    assert {path.rpartition("/")[2] for path, rule in rules.items() if rule.initiators} == {
        "CancelProcess", "RemoveProcess", "CancelWorkflow", "RetryWorkflow", "RemoveWorkflow", "RemoveExecutor", "UpdateCron",
        "RunCron", "PauseCron", "ResumeCron", "RemoveCron", "FlushGenerator", "DropArguments", "PauseGenerator",
        "ResumeGenerator", "RemoveGenerator",
    }  # fmt: skip


async def test_plain_members_end_and_remove_nothing_of_anothers(cluster: Cluster, acme: Place, database_url: str) -> None:
    await cluster.add_user(COLONY, cluster.keys.owner, "eve", key_of("eve"))
    process, workflow = {**NAMED, "process_id": acme.process_id}, {**NAMED, "workflow_id": acme.workflow_id}
    cron = {**NAMED, "name": acme.names["cron"]}
    gathers = {**NAMED, "name": acme.names["generator"]}
    before = contents(database_url)
    for key in (key_of("eve"), cluster.keys.executor, cluster.keys.executor_2):
        scheduler, crons = cluster.stub(SchedulerServiceStub, key), cluster.stub(CronServiceStub, key)
        generators = cluster.stub(GeneratorServiceStub, key)
        identity = {
            **NAMED,
            "identity": (cluster.keys.executor_2 if key is cluster.keys.executor else cluster.keys.executor).identity,
        }
        for call in (
            scheduler.CancelProcess(pb.CancelProcessRequest(**process)),
            scheduler.RemoveProcess(pb.RemoveProcessRequest(**process)),
            scheduler.CancelWorkflow(pb.CancelWorkflowRequest(**workflow)),
            scheduler.RetryWorkflow(pb.RetryWorkflowRequest(**workflow)),
            scheduler.RemoveWorkflow(pb.RemoveWorkflowRequest(**workflow)),
            crons.UpdateCron(cron_pb.UpdateCronRequest(**cron, schedule=cron_pb.Schedule(interval_ms=1_000))),
            crons.RunCron(cron_pb.RunCronRequest(**cron, request_id="run")),
            crons.PauseCron(cron_pb.PauseCronRequest(**cron)),
            crons.ResumeCron(cron_pb.ResumeCronRequest(**cron)),
            crons.RemoveCron(cron_pb.RemoveCronRequest(**cron)),
            generators.FlushGenerator(generator_pb.FlushGeneratorRequest(**gathers)),
            generators.DropArguments(generator_pb.DropArgumentsRequest(**gathers)),
            generators.PauseGenerator(generator_pb.PauseGeneratorRequest(**gathers)),
            generators.ResumeGenerator(generator_pb.ResumeGeneratorRequest(**gathers)),
            generators.RemoveGenerator(generator_pb.RemoveGeneratorRequest(**gathers, force=True)),
            cluster.stub(RegistryServiceStub, key).RemoveExecutor(registry_pb.RemoveExecutorRequest(**identity)),
        ):
            error = await refusal(call)
            assert (error.code, error.reason) == NOT_THE_INITIATOR
    assert contents(database_url) == before
