"""`colonies watch`: state changes as they happen."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from colonies.cli.arguments import choice
from colonies.cli.connection import Connection, connected
from colonies.cli.failure import ExitCode, usage
from colonies.cli.options import Options, options_of, single
from colonies.cli.output import print_json_line, print_line
from colonies.cli.plain import plain
from colonies.cli.views import STATES, event_text
from colonies.errors import NotFoundError
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1.scheduler_service_pb2 import GetProcessRequest, GetWorkflowRequest

app = single("watch")


@app.command("watch")
def watch(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="[PROCESS|WORKFLOW]", help="The id of a process or of a workflow. Default: the whole colony."),
    ] = "",
    executor_type: Annotated[
        list[str] | None, typer.Option("--type", help="In the colony: of processes for this executor type. May be repeated.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="In the colony: of processes with exactly this label. May be repeated.")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help="In the colony: into this state, as for `process list`. May be repeated."),
    ] = None,
    cursor: Annotated[str, typer.Option(help="Go on after this event's cursor, which --json shows.")] = "",
) -> None:
    """Print the state changes of a process or a workflow: those there were, then those to come, until it is over.

    Exit code 1 if it did not succeed. Without an id: the changes in the whole colony from now on, until it is interrupted.
    """
    options = options_of(ctx)
    if not target:
        states = [choice(each, STATES, "--state") for each in state or ()]
        asyncio.run(_watch_colony(options, executor_type or [], label or [], states, cursor))
        return
    if executor_type or label or state:
        msg = "--type, --label and --state are for the whole colony: leave out the id"
        raise usage(msg)
    ended = asyncio.run(_watch(options, target, cursor))
    if ended != process_pb2.PROCESS_STATE_SUCCESSFUL:
        raise typer.Exit(ExitCode.FAILED)


async def _watch_colony(
    options: Options, executor_types: Sequence[str], labels: Sequence[str], states: Sequence[str], cursor: str
) -> None:
    async with connected(options) as here:
        _ = here.colony
        async for event in here.client.watch_colony(executor_types=executor_types, labels=labels, states=states, cursor=cursor):
            _show(options, event)


def _show(options: Options, event: process_pb2.ProcessEvent) -> None:
    if options.as_json:
        print_json_line(plain(event))
    else:
        print_line(event_text(event))


async def _watch(options: Options, target: str, cursor: str) -> int:
    async with connected(options) as here:
        is_workflow = await _is_workflow(here, target)
        which = {"workflow_id": target} if is_workflow else {"process_id": target}
        async for event in here.client.watch(**which, cursor=cursor):
            _show(options, event)
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
