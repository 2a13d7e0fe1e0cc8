"""The way to the scheduler, over a real connection to a server that answers as told."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.process_pb2 import PROCESS_STATE_FAILED, PROCESS_STATE_SUCCESSFUL
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec, Value, WorkflowSpec
from servicekit import failures
from services.cron.domain.ports import Launch, Run
from services.cron.scheduler import SchedulerSubmitter
from tests.cron.scripted_scheduler import Scripted, served

pytestmark = pytest.mark.asyncio

WORKFLOW = WorkflowSpec(nodes=[FunctionSpec(node_name="a", func_name="f")])


@pytest_asyncio.fixture
async def served_scheduler() -> AsyncIterator[tuple[Scripted, str]]:
    async with served() as scheduler_and_address:
        yield scheduler_and_address


@pytest.fixture
def scheduler(served_scheduler: tuple[Scripted, str]) -> Scripted:
    return served_scheduler[0]


@pytest_asyncio.fixture
async def submitter(served_scheduler: tuple[Scripted, str]) -> AsyncIterator[SchedulerSubmitter]:
    async with grpc.aio.insecure_channel(served_scheduler[1]) as channel:
        yield SchedulerSubmitter(channel, timeout_s=5)


LAUNCH = Launch("r", UUID(int=7), WORKFLOW.SerializeToString())


async def submit(submitter: SchedulerSubmitter, *launches: Launch) -> None:
    await submitter.submit_all(colony="dev", account="ab" * 32, launches=launches or [LAUNCH])


async def test_a_submit_says_on_whose_behalf_and_which_ids(submitter: SchedulerSubmitter, scheduler: Scripted) -> None:
    await submit(submitter, LAUNCH, replace(LAUNCH, request_id="s", workflow_id=UUID(int=8)))
    (request,) = scheduler.batches
    assert (request.colony_name, request.on_behalf_of) == ("dev", "ab" * 32)
    assert [(each.request_id, each.workflow_id) for each in request.submissions] == [
        ("r", str(UUID(int=7))),
        ("s", str(UUID(int=8))),
    ]
    assert all(each.workflow == WORKFLOW for each in request.submissions)


async def test_arguments_follow_those_of_each_root(submitter: SchedulerSubmitter, scheduler: Scripted) -> None:
    one, two = Value(data=b"1"), Value(data=b"two", media_type="text/plain")
    root = FunctionSpec(node_name="a", func_name="f", args=[Value(data=b"0")])
    child = FunctionSpec(node_name="b", conditions=Conditions(dependencies=[Dependency(node_name="a")]))
    workflow = WorkflowSpec(nodes=[root, child, FunctionSpec(node_name="c")])
    launch = Launch("r", UUID(int=7), workflow.SerializeToString(), [one.SerializeToString(), two.SerializeToString()])
    await submit(submitter, launch)
    nodes = scheduler.batches[0].submissions[0].workflow.nodes
    assert [list(node.args) for node in nodes] == [[Value(data=b"0"), one, two], [], [one, two]]


async def test_what_has_become_of_workflows(submitter: SchedulerSubmitter, scheduler: Scripted) -> None:
    outputs = [
        pb.NodeOutputs(node_name="a", outputs=[Value(data=b"1")]),
        pb.NodeOutputs(node_name="b", outputs=[Value(data=b"2")]),
    ]
    ids = [UUID(int=n) for n in range(3)]
    scheduler.results = {
        str(ids[0]): pb.WorkflowResult(workflow_id=str(ids[0]), state=PROCESS_STATE_SUCCESSFUL, outputs=outputs),
        str(ids[1]): pb.WorkflowResult(workflow_id=str(ids[1]), state=PROCESS_STATE_FAILED, open=True),
    }
    runs = await submitter.runs(colony="dev", workflow_ids=ids, outputs=True)
    values = [Value(data=b"1").SerializeToString(), Value(data=b"2").SerializeToString()]
    assert runs == {
        ids[0]: Run(is_open=False, succeeded=True, outputs=values),
        ids[1]: Run(is_open=True, succeeded=False, outputs=[]),
    }


async def test_a_cancel_is_on_the_members_account_and_does_not_mind_what_is_gone(
    submitter: SchedulerSubmitter, scheduler: Scripted
) -> None:
    scheduler.failure = failures.NotFound("no such workflow", reason="WORKFLOW_NOT_FOUND")
    await submitter.cancel(colony="dev", account="ab" * 32, workflow_id=UUID(int=7))
    (request,) = scheduler.cancelled
    assert (request.colony_name, request.workflow_id, request.on_behalf_of) == ("dev", str(UUID(int=7)), "ab" * 32)
    scheduler.failure = failures.PermissionDenied("no", reason="ON_BEHALF_REVOKED")
    with pytest.raises(failures.PermissionDenied):
        await submitter.cancel(colony="dev", account="ab" * 32, workflow_id=UUID(int=7))


async def test_a_check_only_checks(submitter: SchedulerSubmitter, scheduler: Scripted) -> None:
    await submitter.check(colony="dev", workflow=WORKFLOW.SerializeToString(), account="ab" * 32)
    (request,) = scheduler.requests
    assert request.validate_only
    assert (request.colony_name, request.on_behalf_of, request.workflow) == ("dev", "ab" * 32, WORKFLOW)
    assert request.request_id


async def test_violations_keep_their_paths(submitter: SchedulerSubmitter, scheduler: Scripted) -> None:
    violation = failures.Violation("workflow.nodes[3].conditions.executor_type", "must be a Name")
    scheduler.failure = failures.InvalidArgument([violation])
    with pytest.raises(failures.InvalidArgument) as caught:
        await submitter.check(colony="dev", workflow=WORKFLOW.SerializeToString(), account="ab" * 32)
    assert caught.value.violations == (violation,)


async def test_a_revoked_account_can_be_told_from_other_refusals(submitter: SchedulerSubmitter, scheduler: Scripted) -> None:
    scheduler.failure = failures.PermissionDenied("no", reason="ON_BEHALF_REVOKED")
    with pytest.raises(failures.PermissionDenied) as caught:
        await submit(submitter)
    assert caught.value.reason == "ON_BEHALF_REVOKED"


async def test_the_scheduler_says_how_long_to_wait(submitter: SchedulerSubmitter, scheduler: Scripted) -> None:
    scheduler.failure = failures.ResourceExhausted("full", reason="QUEUE_FULL", retry_delay_s=7.5)
    with pytest.raises(failures.ResourceExhausted) as caught:
        await submit(submitter)
    assert caught.value.retry_delay_s == 7.5


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
    ],
)
async def test_whatever_is_no_answer_is_an_outage(
    submitter: SchedulerSubmitter, scheduler: Scripted, code: grpc.StatusCode
) -> None:
    scheduler.code = code
    with pytest.raises(failures.Unavailable):
        await submit(submitter)


async def test_a_scheduler_that_is_not_there_is_an_outage() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(failures.Unavailable):
            await submit(SchedulerSubmitter(channel, timeout_s=2))


async def test_arguments_that_would_not_fit_into_all_roots_are_refused_before_they_are_copied(
    submitter: SchedulerSubmitter, scheduler: Scripted
) -> None:
    workflow = WorkflowSpec(nodes=[FunctionSpec(node_name=f"n{n}", func_name="f") for n in range(5_000)])
    large = Value(data=b"x" * (1 << 20)).SerializeToString()
    launch = Launch("r", UUID(int=7), workflow.SerializeToString(), [large] * 15)
    with pytest.raises(failures.FailedPrecondition) as caught:
        await submit(submitter, launch)
    assert caught.value.reason == "ARGUMENTS_TOO_LARGE"
    # Each by itself fits, both together do not.
    two = [Launch(f"r{n}", UUID(int=n), WORKFLOW.SerializeToString(), [large] * 20) for n in range(2)]
    with pytest.raises(failures.FailedPrecondition):
        await submit(submitter, *two)
    assert not scheduler.batches
