"""`colonies workflow`: graphs of function calls."""

import asyncio
import uuid
from pathlib import Path
from typing import Annotated

import typer

from colonies.cli import workflow_file
from colonies.cli.connection import Connection, connected
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import note, print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain
from colonies.cli.views import (
    GRAPH_COLUMNS,
    WORKFLOW_COLUMNS,
    graph_row,
    in_graph_order,
    state,
    workflow_fields,
    workflow_row,
)
from colonies.cli.waiting import wait_for_workflow
from colonies.scheduler.v1 import scheduler_service_pb2
from colonies.scheduler.v1.process_pb2 import Process, Workflow

app = group("workflow", "Workflows: graphs of function calls.")

WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's id.")]


@app.command("submit")
def submit(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A workflow as JSON; - reads the standard input.")],
    label: Annotated[str | None, typer.Option(help="A label, in place of the file's.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only have the server check it; submit nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is over; exit code 1 if it did not succeed.")] = False,
) -> None:
    """Submit a workflow from a JSON file: whole or not at all.

    The file: {"label": ..., "nodes": [{"name": ..., "function": ..., "executor_type": ..., "args": [...], "kwargs": {...},
    "after": ["a", {"node": "b", "output": 0}, {"node": "c", "share": [0, 2]}], "priority": ..., "max_exec_time": ...,
    "max_retries": ..., "parents": "all_done", "require": {"arch": "arm64"}, "backoff": "10s"}]}
    """
    options = options_of(ctx)
    spec = workflow_file.read(file)
    if label is not None:
        spec.label = label
    request = scheduler_service_pb2.SubmitWorkflowRequest(request_id=str(uuid.uuid4()), workflow=spec, validate_only=check)
    asyncio.run(_submit(options, request, wait=wait))


async def _submit(options: Options, request: scheduler_service_pb2.SubmitWorkflowRequest, *, wait: bool) -> None:
    async with connected(options) as here:
        request.colony_name = here.colony
        response = await here.call(here.scheduler.SubmitWorkflow, request)
        if request.validate_only:
            if options.as_json:
                print_json({"valid": True})
            else:
                say("the workflow is valid")
            return
        if not wait:
            _submitted(options, request, response)
            return
        note(f"submitted workflow {response.workflow_id}")
        ended = await wait_for_workflow(here, response.workflow_id)
    _show(options, ended)


def _submitted(options: Options, request: scheduler_service_pb2.SubmitWorkflowRequest, response: object) -> None:
    assert isinstance(response, scheduler_service_pb2.SubmitWorkflowResponse)
    if options.as_json:
        print_json(plain(response))
        return
    print_fields([("Workflow", response.workflow_id)])
    rows = [(node.node_name, process_id) for node, process_id in zip(request.workflow.nodes, response.process_ids, strict=True)]
    print_table(("Name", "Process"), rows, title="Nodes")


@app.command("list")
def list_workflows(
    ctx: typer.Context,
    label: Annotated[str, typer.Option(help="Only with exactly this label.")] = "",
    initiator: Annotated[str, typer.Option(help="Only submitted by this member: a name or an identity.")] = "",
    limit: Limit = DEFAULT_LIMIT,
) -> None:
    """List workflows, newest first."""
    options = options_of(ctx)

    async def call() -> list[Workflow]:
        async with connected(options) as here:
            request = scheduler_service_pb2.ListWorkflowsRequest(colony_name=here.colony, label=label, initiator=initiator)
            return await collected(here, here.scheduler.ListWorkflows, request, "workflows", limit=limit)

    workflows = asyncio.run(call())
    if options.as_json:
        print_json([plain(workflow) for workflow in workflows])
        return
    print_table(WORKFLOW_COLUMNS, [workflow_row(workflow) for workflow in workflows], empty="no workflows")


async def _workflow(here: Connection, workflow_id: str) -> Workflow:
    request = scheduler_service_pb2.GetWorkflowRequest(colony_name=here.colony, workflow_id=workflow_id)
    found: Workflow = (await here.call(here.scheduler.GetWorkflow, request)).workflow
    return found


@app.command("get")
def get(ctx: typer.Context, workflow_id: WorkflowId) -> None:
    """Show one workflow's state and counts."""
    options = options_of(ctx)

    async def call() -> Workflow:
        async with connected(options) as here:
            return await _workflow(here, workflow_id)

    _show(options, asyncio.run(call()))


@app.command("graph")
def graph(ctx: typer.Context, workflow_id: WorkflowId) -> None:
    """Show a workflow's nodes: which waits for which, who runs them, and how far they are."""
    options = options_of(ctx)

    async def call() -> tuple[Workflow, list[Process]]:
        async with connected(options) as here:
            workflow = await _workflow(here, workflow_id)
            request = scheduler_service_pb2.ListProcessesRequest(colony_name=here.colony, workflow_id=workflow_id)
            return workflow, await collected(here, here.scheduler.ListProcesses, request, "processes")

    workflow, processes = asyncio.run(call())
    ordered = in_graph_order(processes)
    if options.as_json:
        print_json({"workflow": plain(workflow), "nodes": [plain(process) for process in ordered]})
        return
    print_fields([("Workflow", workflow.workflow_id), ("State", state(workflow.state)), ("Label", workflow.label)])
    print_table(GRAPH_COLUMNS, [graph_row(process) for process in ordered], title="Nodes")


@app.command("retry")
def retry(ctx: typer.Context, workflow_id: WorkflowId) -> None:
    """Run again what failed or was cancelled in a workflow, and what depends on it; what succeeded stays."""
    options = options_of(ctx)

    async def call() -> int:
        async with connected(options) as here:
            _ = here.colony
            return await here.client.retry_workflow(workflow_id)

    count = asyncio.run(call())
    if options.as_json:
        print_json({"retried": count})
    else:
        say(f"workflow {workflow_id}: {count} processes wait to be tried again" if count else "there is nothing to try again")


@app.command("cancel")
def cancel(ctx: typer.Context, workflow_id: WorkflowId) -> None:
    """Cancel every process of a workflow that is not in a final state."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options) as here:
            request = scheduler_service_pb2.CancelWorkflowRequest(colony_name=here.colony, workflow_id=workflow_id)
            await here.call(here.scheduler.CancelWorkflow, request)

    asyncio.run(call())
    if options.as_json:
        print_json({"cancelled": workflow_id})
    else:
        say(f"cancelled workflow {workflow_id}")


@app.command("remove")
def remove(ctx: typer.Context, workflow_id: WorkflowId) -> None:
    """Remove a workflow whose processes are all in a final state, with their histories, logs and attributes."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options) as here:
            request = scheduler_service_pb2.RemoveWorkflowRequest(colony_name=here.colony, workflow_id=workflow_id)
            await here.call(here.scheduler.RemoveWorkflow, request, gone=scheduler_service_pb2.RemoveWorkflowResponse())

    asyncio.run(call())
    if options.as_json:
        print_json({"removed": workflow_id})
    else:
        say(f"removed workflow {workflow_id}")


def _show(options: Options, workflow: Workflow) -> None:
    if options.as_json:
        print_json(plain(workflow))
    else:
        print_fields(workflow_fields(workflow))
