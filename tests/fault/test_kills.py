"""kill -9 of every part in turn, while a hundred workflows run: all that was acknowledged finishes, on its own."""

import asyncio
import uuid
from collections.abc import Sequence

import pytest

from colonies.client import AsyncClient
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.acceptance.ledger import check_paper_workflow, effects, paper_workflow
from tests.acceptance.world import World, until
from tests.fault.proofs import flaws

pytestmark = [pytest.mark.fault, pytest.mark.asyncio, pytest.mark.timeout(900)]

WORKFLOWS = 100
PARTS = ("auth", "registry", "scheduler", "cron", "valkey", "postgres", "envoy")


async def submit_all(client: AsyncClient, submitted: list[pb.SubmitWorkflowResponse]) -> None:
    """Submits one after the other, so that there is always work under way; each is repeated until it is acknowledged."""
    while len(submitted) < WORKFLOWS:
        submitted.append(await client.submit_workflow(paper_workflow(), request_id=str(uuid.uuid4())))


async def finished(client: AsyncClient, submitted: Sequence[pb.SubmitWorkflowResponse]) -> int:
    """How many of these workflows are over."""
    workflows = await asyncio.gather(*(client.get_workflow(one.workflow_id) for one in submitted))
    return sum(one.HasField("end_time") for one in workflows)


async def test_everything_acknowledged_finishes(installation: World) -> None:
    for number, types in enumerate((["edge", "cloud"], ["cloud", "browser"], ["edge", "browser"], ["cloud"])):
        await installation.start_executor(f"worker-{number}", types, concurrency=2)
    async with installation.client() as client:
        submitted: list[pb.SubmitWorkflowResponse] = []
        submitting = asyncio.create_task(submit_all(client, submitted))
        for number, part in enumerate(PARTS, 1):
            # The kills are spread over the submits: each strikes while work is coming in and being done.
            async def enough(share: int = WORKFLOWS * number // (len(PARTS) + 1)) -> bool:
                return len(submitted) >= share

            await until(enough, f"submits go on until {part} is killed", seconds=120)
            installation.kill(part)
        await submitting

        async def all_finished() -> bool:
            return await finished(client, submitted) == WORKFLOWS

        await until(all_finished, "all workflows finish", seconds=300)
        accounts = [account for one in submitted for account in await check_paper_workflow(client, one)]
        # Nothing that nobody asked for: a submit that was repeated entered once.
        entered = [one.process_id async for one in client.list_processes()]
        assert sorted(entered) == sorted(account.process.process_id for account in accounts)
        found, counts = await flaws(client, installation.data_dir / "keys", installation.effects.with_name("colony.audit"))
        assert not found
        assert counts["processes"] == len(accounts)
    runs = effects(installation.effects.read_text().splitlines())
    # An attempt is run at most once; a process may have several, one after the other (checked above).
    assert max(runs.values()) == 1
    for account in accounts:
        assert account.process.state == process_pb2.PROCESS_STATE_SUCCESSFUL
        assert (account.process.process_id, account.process.attempt) in runs
    retried = sum(account.process.attempt > 1 for account in accounts)
    print(
        f"{WORKFLOWS} workflows, {len(PARTS)} kills: all 13, {retried} of {len(accounts)} processes took more than one attempt"
    )
