"""The way to the scheduler, over a real connection to a server that answers as told."""

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import FunctionSpec, WorkflowSpec
from servicekit import failures
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


async def submit(submitter: SchedulerSubmitter) -> str:
    return await submitter.submit(colony="dev", request_id="r", workflow=WORKFLOW.SerializeToString(), account="ab" * 32)


async def test_a_submit_says_on_whose_behalf(submitter: SchedulerSubmitter, scheduler: Scripted) -> None:
    workflow_id = await submit(submitter)
    assert workflow_id == scheduler.workflows["r"]
    assert scheduler.requests == [
        pb.SubmitWorkflowRequest(colony_name="dev", request_id="r", workflow=WORKFLOW, on_behalf_of="ab" * 32)
    ]


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
        await submit(submitter)
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
