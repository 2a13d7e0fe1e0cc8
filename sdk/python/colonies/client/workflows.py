"""Methods about workflows."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import cached_property

from colonies.client.batches import CallBatcher
from colonies.client.calls import Backoff, in_time
from colonies.client.pages import every
from colonies.client.processes import (
    BYTES_IN_CALL,
    FINAL_STATES,
    SUBMITS_IN_CALL,
    ProcessCalls,
    attempt_ref,
    failure_of,
)
from colonies.errors import ProcessFailedError
from colonies.function import Function
from colonies.graph import child_specs
from colonies.scheduler.v1 import process_pb2 as process
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.spec_pb2 import FunctionSpec, WorkflowSpec

# Bytes of one that others don't wait for: to enter it takes a while.
LARGE_WORKFLOW = 1 << 18
# A process with this reason failed only because another one did.
PARENT_FAILED = "PARENT_FAILED"

BAD_ENDS = (process.PROCESS_STATE_FAILED, process.PROCESS_STATE_CANCELLED)


def is_first_cause(event: process.ProcessEvent) -> bool:
    """Whether a state change makes its workflow fail by itself, and not in consequence of another process."""
    change = event.transition
    if change.to_state == process.PROCESS_STATE_FAILED:
        return change.reason != PARENT_FAILED
    return change.to_state == process.PROCESS_STATE_CANCELLED


class WorkflowCalls(ProcessCalls):
    """What can be done with workflows."""

    @cached_property
    def _workflow_submits(self) -> CallBatcher[scheduler.WorkflowSubmission, scheduler.SubmitWorkflowResponse]:
        def weigh(submission: scheduler.WorkflowSubmission) -> tuple[int, int]:
            return 1, submission.ByteSize()

        return CallBatcher(
            self._submit_workflows, weigh, max_count=SUBMITS_IN_CALL, max_bytes=BYTES_IN_CALL, divide_if_full=True
        )

    async def submit_workflow(
        self, workflow: WorkflowSpec, *, request_id: str | None = None
    ) -> scheduler.SubmitWorkflowResponse:
        """Submits a workflow, whole or not at all; gives its id and its process ids in the order of its nodes.

        As with `submit`, workflows that are submitted at the same time travel together, except large ones.

        Args:
            workflow: what to run.
            request_id: 1-128 ASCII characters; repeating one gives the first answer and enters nothing. Default: a
                new one.
        """
        submission = scheduler.WorkflowSubmission(request_id=request_id or str(uuid.uuid4()), workflow=workflow)
        if submission.ByteSize() > LARGE_WORKFLOW:
            return (await self._submit_workflows([submission]))[0]
        return await self._workflow_submits.put(submission)

    async def _submit_workflows(
        self, submissions: Sequence[scheduler.WorkflowSubmission]
    ) -> Sequence[scheduler.SubmitWorkflowResponse]:
        # Errors then name a workflow's fields as its own.
        if len(submissions) == 1:
            request = scheduler.SubmitWorkflowRequest(
                colony_name=self.colony, request_id=submissions[0].request_id, workflow=submissions[0].workflow
            )
            return [await self.call(self.scheduler.SubmitWorkflow, request, wait_if_full=True)]
        several = scheduler.SubmitWorkflowsRequest(colony_name=self.colony, submissions=submissions)
        return (await self.call(self.scheduler.SubmitWorkflows, several)).workflows

    async def check_workflow(self, workflow: WorkflowSpec) -> None:
        """Raises what submitting the workflow would raise; enters nothing."""
        request = scheduler.SubmitWorkflowRequest(
            colony_name=self.colony, request_id=str(uuid.uuid4()), workflow=workflow, validate_only=True
        )
        await self.call(self.scheduler.SubmitWorkflow, request)

    async def get_workflow(self, workflow_id: str) -> process.Workflow:
        """One workflow's state and counts."""
        request = scheduler.GetWorkflowRequest(colony_name=self.colony, workflow_id=workflow_id)
        return (await self.call(self.scheduler.GetWorkflow, request)).workflow

    async def list_workflows(
        self, *, label: str = "", initiator: str = "", limit: int | None = None
    ) -> AsyncGenerator[process.Workflow]:
        """Workflows, newest first. Filters that are not set pass everything."""
        request = scheduler.ListWorkflowsRequest(colony_name=self.colony, label=label, initiator=initiator)

        async def page(cursor: str, size: int) -> tuple[Sequence[process.Workflow], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.scheduler.ListWorkflows, request)
            return response.workflows, response.next_cursor

        async for found in every(page, limit):
            yield found

    async def add_children(
        self,
        process_id: str,
        attempt: int,
        nodes: Iterable[Function | FunctionSpec],
        *,
        insert: bool = False,
        request_id: str | None = None,
    ) -> Sequence[str]:
        """Adds 1 to 10 000 processes to the workflow of the caller's running attempt, all or none; gives their process ids
        in order.

        They wait for the running process. In a function, `Context.add_children` knows the attempt.

        Args:
            process_id: the running process.
            attempt: number of its running attempt.
            nodes: what to add. Edges drawn among Functions are kept; one without a name gets one that is unique.
            insert: put them between the running process and the children that it has now.
            request_id: as for `submit_workflow`.

        Raises:
            WorkflowError: an edge leads out of `nodes`, a name is taken twice, or there is a cycle.
        """
        request = scheduler.AddChildrenRequest(
            colony_name=self.colony,
            request_id=request_id or str(uuid.uuid4()),
            attempt=attempt_ref(process_id, attempt),
            nodes=child_specs(nodes),
            insert=insert,
        )
        return (await self.call(self.scheduler.AddChildren, request, wait_if_full=True)).process_ids

    async def retry_workflow(self, workflow_id: str) -> int:
        """Takes every failed and cancelled process of a workflow back to waiting; gives how many those were.

        What succeeded stays. After an answer that was lost in an outage the call finds less to do, and gives 0.
        """
        request = scheduler.RetryWorkflowRequest(colony_name=self.colony, workflow_id=workflow_id)
        return (await self.call(self.scheduler.RetryWorkflow, request)).count

    async def cancel_workflow(self, workflow_id: str) -> None:
        """Cancels every process of a workflow that is not over."""
        request = scheduler.CancelWorkflowRequest(colony_name=self.colony, workflow_id=workflow_id)
        await self.call(self.scheduler.CancelWorkflow, request)

    async def remove_workflow(self, workflow_id: str) -> None:
        """Removes a workflow that is over, with the histories, logs and attributes of its processes."""
        request = scheduler.RemoveWorkflowRequest(colony_name=self.colony, workflow_id=workflow_id)
        await self.call(self.scheduler.RemoveWorkflow, request, gone=scheduler.RemoveWorkflowResponse())

    async def wait_workflow(
        self,
        workflow_id: str,
        timeout: float | None = None,  # noqa: ASYNC109 - a limit that the caller sets, with a text of its own
        on_event: Callable[[process.ProcessEvent], None] | None = None,
    ) -> process.Workflow:
        """Waits until a workflow has succeeded, or one of its processes has failed or was cancelled.

        Args:
            workflow_id: which.
            timeout: seconds; None = for ever.
            on_event: called with every state change.

        Raises:
            ProcessFailedError: names the process that failed first, not one that failed because of it. What does not
                depend on it goes on.
            TimeoutError: it was not over in time. It goes on.
        """
        backoff = Backoff()
        async with in_time(timeout, f"workflow {workflow_id}"):
            while True:
                async with aclosing(self.watch(workflow_id=workflow_id)) as events:
                    async for event in events:
                        if on_event is not None:
                            on_event(event)
                        if is_first_cause(event):
                            failed = await self.get_process(event.process_id)
                            if failed.state in BAD_ENDS:  # else it was taken back since, by a retry of the workflow
                                raise failure_of(failed)
                ended = await self.get_workflow(workflow_id)
                if ended.state == process.PROCESS_STATE_SUCCESSFUL:
                    return ended
                if ended.state in FINAL_STATES:
                    raise await self._unwitnessed_failure(workflow_id)
                await asyncio.sleep(backoff.next_seconds())  # the stream was ended early; watch again

    async def _unwitnessed_failure(self, workflow_id: str) -> ProcessFailedError:
        """The error for a workflow that ended badly without an event that says where."""
        last: process.Process | None = None
        async for found in self.list_processes(workflow_id=workflow_id, states=BAD_ENDS):
            last = found  # newest first, so the last one is the nearest to the roots
        if last is None:
            return ProcessFailedError(process_id="", node_name="", func_name=workflow_id, state="FAILED", messages=())
        return failure_of(await self.get_process(last.process_id))
