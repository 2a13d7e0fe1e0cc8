"""A hundred workflows of the paper's shape at once, on four executors."""

import asyncio
import uuid

import pytest

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.acceptance.ledger import check_paper_workflow, effects, paper_workflow
from tests.acceptance.world import World

WORKFLOWS = 100


@pytest.mark.asyncio
async def test_all_come_out_and_nothing_runs_twice(installation: World) -> None:
    for number, types in enumerate((["edge", "cloud"], ["cloud", "browser"], ["edge", "browser"], ["cloud"])):
        await installation.start_executor(f"worker-{number}", types, concurrency=2)
    async with installation.client() as client:

        async def submit() -> pb.SubmitWorkflowResponse:
            request = pb.SubmitWorkflowRequest(colony_name="dev", request_id=str(uuid.uuid4()), workflow=paper_workflow())
            return await client.scheduler.SubmitWorkflow(request)

        submitted = await asyncio.gather(*(submit() for _ in range(WORKFLOWS)))
        await asyncio.gather(*(client.wait_workflow(one.workflow_id, timeout=100) for one in submitted))
        accounts = [account for one in submitted for account in await check_paper_workflow(client, one)]
    assert len({account.process.process_id for account in accounts}) == 4 * WORKFLOWS
    # Nothing was killed: every process ran once, in one attempt.
    assert all(account.process.attempt == 1 for account in accounts)
    assert effects(installation.effects.read_text().splitlines()) == {
        (account.process.process_id, 1): 1 for account in accounts
    }
    installation.end_executors()
