"""`colonies cron`: workflows that are submitted again and again."""

import asyncio
import uuid
from pathlib import Path
from typing import Annotated

import typer

from colonies.cli import workflow_file
from colonies.cli.arguments import duration_ms
from colonies.cli.connection import connected
from colonies.cli.failure import usage
from colonies.cli.moments import local_if_set, span_ms
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain
from colonies.cli.views import call_text
from colonies.cron.v1 import cron_service_pb2 as cron

app = group("cron", "Crons: workflows that are submitted again and again, on the account of whoever set them up.")

Name = Annotated[str, typer.Argument(metavar="CRON", help="The cron's name.")]


@app.command("add")
def add(
    ctx: typer.Context,
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A workflow as JSON (see: colonies workflow submit); - reads stdin.")
    ],
    expression: Annotated[
        str | None,
        typer.Option(help='When, in UTC: six fields, seconds first, or five; or @hourly and the like. "0 30 4 * * *"'),
    ] = None,
    every: Annotated[str | None, typer.Option(help="Or how often: 30s, 10m, 2h, 1d.")] = None,
) -> None:
    """Add a cron. Its workflow is checked now. Repeating it with the same content changes nothing."""
    options = options_of(ctx)
    if (expression is None) == (every is None):
        msg = "give either --expression or --every"
        raise usage(msg)
    if every is not None:
        schedule = cron.Schedule(interval_ms=duration_ms(every, "--every"))
    else:
        schedule = cron.Schedule(expression=expression or "")
    workflow = workflow_file.read(file)

    async def call() -> cron.Cron:
        async with connected(options) as here:
            request = cron.AddCronRequest(colony_name=here.colony, name=name, schedule=schedule, workflow=workflow)
            added: cron.Cron = (await here.call(here.cron.AddCron, request)).cron
            return added

    _show(options, asyncio.run(call()))


@app.command("list")
def list_crons(ctx: typer.Context, limit: Limit = DEFAULT_LIMIT) -> None:
    """List the colony's crons."""
    options = options_of(ctx)

    async def call() -> list[cron.Cron]:
        async with connected(options) as here:
            request = cron.ListCronsRequest(colony_name=here.colony)
            return await collected(here, here.cron.ListCrons, request, "crons", limit=limit)

    crons = asyncio.run(call())
    if options.as_json:
        print_json([plain(each) for each in crons])
        return
    rows = [
        (
            each.name,
            _when(each.schedule),
            local_if_set(each, "next_fire_time") or "never",
            local_if_set(each, "last_fire_time"),
            each.initiator_name or each.initiator,
            each.last_error,
        )
        for each in crons
    ]
    print_table(("Cron", "When", "Next", "Last", "For", "Last error"), rows, empty="no crons")


@app.command("get")
def get(ctx: typer.Context, name: Name) -> None:
    """Show one cron with its workflow."""
    options = options_of(ctx)

    async def call() -> cron.Cron:
        async with connected(options) as here:
            request = cron.GetCronRequest(colony_name=here.colony, name=name)
            found: cron.Cron = (await here.call(here.cron.GetCron, request)).cron
            return found

    _show(options, asyncio.run(call()))


@app.command("run")
def run(ctx: typer.Context, name: Name) -> None:
    """Submit a cron's workflow now; its schedule stays as it is."""
    options = options_of(ctx)

    async def call() -> str:
        async with connected(options) as here:
            request = cron.RunCronRequest(colony_name=here.colony, name=name, request_id=str(uuid.uuid4()))
            workflow_id: str = (await here.call(here.cron.RunCron, request)).workflow_id
            return workflow_id

    workflow_id = asyncio.run(call())
    if options.as_json:
        print_json({"workflow_id": workflow_id})
    else:
        say(f"submitted workflow {workflow_id}")


@app.command("remove")
def remove(ctx: typer.Context, name: Name) -> None:
    """Remove a cron. Workflows that it submitted go on."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options) as here:
            await here.call(
                here.cron.RemoveCron,
                cron.RemoveCronRequest(colony_name=here.colony, name=name),
                gone=cron.RemoveCronResponse(),
            )

    asyncio.run(call())
    if options.as_json:
        print_json({"removed": name})
    else:
        say(f"removed cron {name}")


def _when(schedule: cron.Schedule) -> str:
    if schedule.WhichOneof("when") == "interval_ms":
        return f"every {span_ms(schedule.interval_ms)}"
    return schedule.expression


def _show(options: Options, each: cron.Cron) -> None:
    if options.as_json:
        print_json(plain(each))
        return
    print_fields(
        [
            ("Cron", each.name),
            ("Id", each.cron_id),
            ("When", _when(each.schedule)),
            ("Next", local_if_set(each, "next_fire_time") or "never"),
            ("Last", local_if_set(each, "last_fire_time")),
            ("Last workflow", each.last_workflow_id),
            ("Last error", each.last_error),
            ("For", each.initiator_name or each.initiator),
            ("Added", local_if_set(each, "created_time")),
            ("Workflow", "\n".join(f"{node.node_name}: {call_text(node)}" for node in each.workflow.nodes)),
        ]
    )
