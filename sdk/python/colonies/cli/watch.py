"""`colonies watch`: state changes as they happen."""

import asyncio
from typing import Annotated

import typer

from colonies.cli.connection import Connection, connected
from colonies.cli.failure import ExitCode
from colonies.cli.options import Options, options_of, single
from colonies.cli.output import print_json_line, print_line
from colonies.cli.plain import plain
from colonies.cli.views import event_text
from colonies.errors import NotFoundError
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1.scheduler_service_pb2 import GetProcessRequest, GetWorkflowRequest

app = single("watch")


@app.command("watch")
def watch(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="PROCESS|WORKFLOW", help="The id of a process or of a workflow.")],
) -> None:
    """Print the state changes of a process or a workflow: those there were, then those to come, until it is over.

    Exit code 1 if it did not succeed.
    """
    state = asyncio.run(_watch(options_of(ctx), target))
    if state != process_pb2.PROCESS_STATE_SUCCESSFUL:
        raise typer.Exit(ExitCode.FAILED)


async def _watch(options: Options, target: str) -> int:
    async with connected(options) as here:
        is_workflow = await _is_workflow(here, target)
        events = here.client.watch(workflow_id=target) if is_workflow else here.client.watch(process_id=target)
        async for event in events:
            if options.as_json:
                print_json_line(plain(event))
            else:
                print_line(event_text(event))
        if is_workflow:
            request = GetWorkflowRequest(colony_name=here.colony, workflow_id=target)
            return int((await here.call(here.scheduler.GetWorkflow, request)).workflow.state)
        one = GetProcessRequest(colony_name=here.colony, process_id=target)
        return int((await here.call(here.scheduler.GetProcess, one)).process.state)


async def _is_workflow(here: Connection, target: str) -> bool:
    """Whether the id is a workflow's; if it is neither's, the error is that of a process that does not exist."""
    request = GetWorkflowRequest(colony_name=here.colony, workflow_id=target)
    try:
        await here.call(here.scheduler.GetWorkflow, request)
    except NotFoundError:
        await here.call(here.scheduler.GetProcess, GetProcessRequest(colony_name=here.colony, process_id=target))
        return False
    return True
