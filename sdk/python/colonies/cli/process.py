"""`colonies process`: submitted function calls and what became of them."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from colonies.cli.arguments import choice
from colonies.cli.connection import connected
from colonies.cli.failure import usage
from colonies.cli.moments import local, local_if_set, run_time
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain, strict
from colonies.cli.views import (
    PROCESS_COLUMNS,
    STATES,
    coloured,
    data_text,
    process_fields,
    process_row,
    state_word,
)
from colonies.scheduler.v1 import process_pb2, scheduler_service_pb2
from colonies.scheduler.v1.process_pb2 import AttemptOutcome, AttributeKind, Process, ProcessState

app = group("process", "Processes: submitted function calls and what became of them.")

ProcessId = Annotated[str, typer.Argument(metavar="PROCESS", help="The process's id.")]


@app.command("list")
def list_processes(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(help="waiting, running, successful, failed or cancelled; may be repeated."),
    ] = None,
    executor_type: Annotated[str, typer.Option("--type", help="Only of this executor type.")] = "",
    label: Annotated[str, typer.Option(help="Only with exactly this label.")] = "",
    initiator: Annotated[str, typer.Option(help="Only submitted by this member: a name or an identity.")] = "",
    workflow: Annotated[str, typer.Option(help="Only of this workflow.")] = "",
    executor: Annotated[str, typer.Option(help="Only those whose newest attempt is by this executor.")] = "",
    limit: Limit = DEFAULT_LIMIT,
) -> None:
    """List processes, newest first."""
    options = options_of(ctx)
    request = scheduler_service_pb2.ListProcessesRequest(
        states=[ProcessState.Value(f"PROCESS_STATE_{choice(each, STATES, '--state').upper()}") for each in state or ()],
        executor_type=executor_type,
        label=label,
        initiator=initiator,
        workflow_id=workflow,
        executor_name=executor,
    )

    async def call() -> list[Process]:
        async with connected(options) as here:
            request.colony_name = here.colony
            return await collected(here, here.scheduler.ListProcesses, request, "processes", limit=limit)

    processes = asyncio.run(call())
    if options.as_json:
        print_json([plain(process) for process in processes])
        return
    print_table(PROCESS_COLUMNS, [process_row(process) for process in processes], empty="no processes")


async def _get(options: Options, process_id: str) -> Process:
    async with connected(options) as here:
        request = scheduler_service_pb2.GetProcessRequest(colony_name=here.colony, process_id=process_id)
        found: Process = (await here.call(here.scheduler.GetProcess, request)).process
        return found


@app.command("get")
def get(ctx: typer.Context, process_id: ProcessId) -> None:
    """Show one process whole: its spec, state, inputs, outputs and errors."""
    options = options_of(ctx)
    process = asyncio.run(_get(options, process_id))
    document = plain(process, strict)
    if options.as_json:
        print_json(document)
    else:
        print_fields(process_fields(process))


@app.command("output")
def output(
    ctx: typer.Context,
    process_id: ProcessId,
    raw: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Write the bytes of output N (from 0) as they are, undecoded."),
    ] = None,
) -> None:
    """Print the outputs of a process, one a line; with --json, as one list."""
    options = options_of(ctx)
    process = asyncio.run(_get(options, process_id))
    if raw is not None:
        if raw >= len(process.outputs):
            msg = f"process {process_id} has {len(process.outputs)} outputs; there is no number {raw}"
            raise usage(msg)
        sys.stdout.flush()
        sys.stdout.buffer.write(process.outputs[raw].data)
        return
    outputs = [strict(value, f"outputs[{index}]") for index, value in enumerate(process.outputs)]
    if options.as_json:
        print_json(outputs)
        return
    for each in outputs:
        say(data_text(each))


@app.command("history")
def history(ctx: typer.Context, process_id: ProcessId) -> None:
    """Show every attempt and every state change of a process."""
    options = options_of(ctx)

    async def call() -> Any:
        async with connected(options) as here:
            request = scheduler_service_pb2.GetProcessHistoryRequest(colony_name=here.colony, process_id=process_id)
            return await here.call(here.scheduler.GetProcessHistory, request)

    response = asyncio.run(call())
    if options.as_json:
        print_json(plain(response))
        return
    attempts = [
        (
            str(each.number),
            each.executor_name,
            coloured(_outcome(each)),
            local_if_set(each, "start_time"),
            run_time(each),
            "\n".join(each.errors),
        )
        for each in response.attempts
    ]
    columns = ("Attempt", "Executor", "Outcome", "Started", "Ran", "Errors")
    print_table(columns, attempts, title="Attempts", empty="no attempts yet")
    changes = [
        (
            local(each.time),
            coloured(state_word(each.from_state)) if each.from_state else "",
            coloured(state_word(each.to_state)),
            each.reason,
            str(each.attempt or ""),
            each.actor,
        )
        for each in response.transitions
    ]
    print_table(("Time", "From", "To", "Reason", "Attempt", "By"), changes, title="State changes", empty="no changes")


def _outcome(attempt: process_pb2.Attempt) -> str:
    if attempt.outcome == process_pb2.ATTEMPT_OUTCOME_UNSPECIFIED:
        return "Running"
    name = AttemptOutcome.Name(attempt.outcome).removeprefix("ATTEMPT_OUTCOME_")
    return name.replace("_", " ").capitalize()


@app.command("attributes")
def attributes(ctx: typer.Context, process_id: ProcessId) -> None:
    """List the attributes of a process."""
    options = options_of(ctx)

    async def call() -> Any:
        async with connected(options) as here:
            request = scheduler_service_pb2.ListAttributesRequest(colony_name=here.colony, process_id=process_id)
            return await here.call(here.scheduler.ListAttributes, request)

    response = asyncio.run(call())
    if options.as_json:
        print_json(plain(response)["attributes"])
        return
    rows = [
        (AttributeKind.Name(each.kind).removeprefix("ATTRIBUTE_KIND_"), each.key, each.value) for each in response.attributes
    ]
    print_table(("Kind", "Key", "Value"), rows, empty="no attributes")


@app.command("cancel")
def cancel(ctx: typer.Context, process_id: ProcessId) -> None:
    """Cancel a process, and what depends on it in its workflow."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options) as here:
            request = scheduler_service_pb2.CancelProcessRequest(colony_name=here.colony, process_id=process_id)
            await here.call(here.scheduler.CancelProcess, request)

    asyncio.run(call())
    if options.as_json:
        print_json({"cancelled": process_id})
    else:
        say(f"cancelled process {process_id}")


@app.command("remove")
def remove(ctx: typer.Context, process_id: ProcessId) -> None:
    """Remove a process in a final state, with its history, logs and attributes."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options) as here:
            request = scheduler_service_pb2.RemoveProcessRequest(colony_name=here.colony, process_id=process_id)
            await here.call(here.scheduler.RemoveProcess, request, gone=scheduler_service_pb2.RemoveProcessResponse())

    asyncio.run(call())
    if options.as_json:
        print_json({"removed": process_id})
    else:
        say(f"removed process {process_id}")
