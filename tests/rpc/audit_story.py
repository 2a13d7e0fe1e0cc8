"""Workflows with a history of every kind, for the audit export to tell of."""

import asyncio
import itertools
import random
import uuid
from collections.abc import Sequence
from typing import Any

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1 import spec_pb2
from tests.harness.cluster import COLONY

from .scheduler_colony import Acme, ref_of, spec, value

# Calls at a time.
CONCURRENT = 16
# Workflows that are submitted by one call.
TOGETHER = 7
AT_MOST = 100
CLOSES = 40


class Story:
    """Diamonds of four, submitted one by one and several at a time, by the user and by the cron service for the user; run by two
    workers who succeed, fail, try again, set outputs and add children, as chance has it; some workflows are cancelled, some of
    them by the cron service, and some are taken up again.
    """

    def __init__(self, acme: Acme, seed: int) -> None:
        self.acme = acme
        self.workflow_ids: list[str] = []
        self._chance = random.Random(seed)
        self._requests = itertools.count(1)

    async def live(self, workflows: int) -> None:
        """Submits so many workflows and runs them to their ends."""
        gate = asyncio.Semaphore(CONCURRENT)
        cron, alice = self.acme.by(self.acme.keys.service("cron")), self.acme.keys.user.identity

        async def submit(nth: int, many: int) -> None:
            async with gate:
                if nth % 3 == 0:
                    for _ in range(many):
                        workflow_id, _ = await self.acme.submit_workflow(*self._diamond())
                        self.workflow_ids.append(workflow_id)
                elif nth % 3 == 1:
                    await self._submit(self.acme.user, many)
                else:
                    await self._submit(cron, many, alice)

        sizes = [min(TOGETHER, workflows - done) for done in range(0, workflows, TOGETHER)]
        await asyncio.gather(*(submit(nth, many) for nth, many in enumerate(sizes)))
        await self._run()
        cancelled = self._chance.sample(self.workflow_ids, workflows // 20)
        again = self._chance.sample(self.workflow_ids, workflows // 10)
        await self._each(cancelled[1::2], self.acme.user.CancelWorkflow, pb.CancelWorkflowRequest)
        await self._each(cancelled[::2], cron.CancelWorkflow, pb.CancelWorkflowRequest, on_behalf_of=alice)
        await self._each(again, self.acme.user.RetryWorkflow, pb.RetryWorkflowRequest)
        await self._run(fails=0.0)

    def _diamond(self) -> list[Any]:
        return [
            spec("a", max_retries=2),
            spec("b", "a", max_retries=1),
            spec("c", "a"),
            spec("d", "b", "c", priority=self._chance.randrange(-1, 2)),
        ]

    async def _submit(self, stub: Any, many: int, on_behalf_of: str = "") -> None:
        """Several by one call, which is repeated with one more that is new; for a member under ids that were chosen."""
        submissions = [
            pb.WorkflowSubmission(
                request_id=str(uuid.uuid4()),
                workflow=spec_pb2.WorkflowSpec(nodes=self._diamond()),
                workflow_id=str(uuid.uuid4()) if on_behalf_of else "",
            )
            for _ in range(many)
        ]
        for part in (submissions[1:], submissions):
            if part:
                request = pb.SubmitWorkflowsRequest(colony_name=COLONY, submissions=part, on_behalf_of=on_behalf_of)
                answer = await stub.SubmitWorkflows(request)
        self.workflow_ids += [workflow.workflow_id for workflow in answer.workflows]

    async def _each(self, ids: Sequence[str], method: Any, request: type[Any], **fields: str) -> None:
        for one in ids:
            await method(request(colony_name=COLONY, workflow_id=one, **fields))

    async def _run(self, fails: float = 0.15) -> None:
        """Until nothing is ready any more."""
        idle = 0
        while idle < 2:
            counts = await asyncio.gather(*(self._work(stub, fails) for stub in (self.acme.worker, self.acme.worker_2)))
            # What a close made ready is told to the queue after its answer: a long poll waits for that.
            idle = 0 if any(counts) else idle + 1

    async def _work(self, stub: Any, fails: float) -> int:
        assignments = await self.acme.assign(stub, at_most=AT_MOST, wait_ms=500)
        chance = self._chance
        for one in assignments:
            if chance.random() < 0.05:
                outputs = [value(str(chance.randrange(1000)))]
                await stub.SetOutput(pb.SetOutputRequest(colony_name=COLONY, attempt=ref_of(one), outputs=outputs))
            if chance.random() < 0.03:
                await self._add_child(stub, one)
        closes = [self._close(one, fails) for one in assignments]
        for begin in range(0, len(closes), CLOSES):
            batch = closes[begin : begin + CLOSES]
            await stub.CloseProcesses(pb.CloseProcessesRequest(colony_name=COLONY, closes=batch))
        return len(assignments)

    def _close(self, assignment: Any, fails: float) -> pb.Close:
        if self._chance.random() < fails:
            failure = pb.Close.Failure(errors=['said "no"\n\tat line 1 \u00e5\x7f'], retryable=self._chance.random() < 0.7)
            return pb.Close(attempt=ref_of(assignment), failure=failure)
        outputs = [value(str(self._chance.randrange(1000)))] if self._chance.random() < 0.9 else []
        return pb.Close(attempt=ref_of(assignment), success=pb.Close.Success(outputs=outputs))

    async def _add_child(self, stub: Any, assignment: Any) -> None:
        request = pb.AddChildrenRequest(
            colony_name=COLONY,
            request_id=f"child-{next(self._requests)}-{assignment.process_id}",
            attempt=ref_of(assignment),
            nodes=[spec(f"child-{assignment.process_id}-{assignment.attempt}")],
        )
        await stub.AddChildren(request)
