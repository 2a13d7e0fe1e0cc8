"""`colonies cron`: workflows that are submitted again and again."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from colonies.cli import arguments, workflow_file
from colonies.cli.connection import Connection, asked
from colonies.cli.cron_views import (
    CRON_COLUMNS,
    FIRE_COLUMNS,
    cron_fields,
    cron_row,
    fire_row,
    print_moments,
)
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import note, print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit
from colonies.cli.plain import plain
from colonies.cli.schedule_options import PolicyOptions, ScheduleOptions
from colonies.cli.spread import spread
from colonies.cron.v1 import cron_service_pb2 as cron

app = group("cron", "Crons: workflows that are submitted again and again, on the account of whoever set them up.")

Name = Annotated[str, typer.Argument(metavar="CRON", help="The cron's name.")]
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A workflow as JSON (see: colonies workflow submit); - reads stdin.")
]
Count = Annotated[int, typer.Option("--count", "-n", min=1, max=1_000, help="How many moments.")]
After = Annotated[str | None, typer.Option(metavar="MOMENT", help="Only moments after this one. Default: now.")]

OUTCOMES = tuple(name.removeprefix("FIRE_OUTCOME_").lower() for name in cron.FireOutcome.keys()[1:])
_SHOWN = 5


@app.command("add")
@spread(ScheduleOptions, "when")
@spread(PolicyOptions, "policy")
def add(ctx: typer.Context, name: Name, file: File, when: ScheduleOptions, policy: PolicyOptions) -> None:
    """Add a cron. Its workflow is checked now. Repeating it with the same content changes nothing."""
    schedule, rules = when.to_schedule(), policy.to_policy()
    workflow = workflow_file.read(file)
    options = options_of(ctx)
    _show(options, asked(options, lambda here: here.client.add_cron(name, workflow, schedule, rules)))


@app.command("update")
@spread(ScheduleOptions, "when")
@spread(PolicyOptions, "policy")
def update(ctx: typer.Context, name: Name, file: File, when: ScheduleOptions, policy: PolicyOptions) -> None:
    """Replace your own cron's workflow, schedule and policy, from now on. What is not given is as for a new cron.

    What it has done so far stays, and counts.
    """
    schedule, rules = when.to_schedule(), policy.to_policy()
    workflow = workflow_file.read(file)
    options = options_of(ctx)
    _show(options, asked(options, lambda here: here.client.update_cron(name, workflow, schedule, rules)))


@app.command("list")
def list_crons(ctx: typer.Context, limit: Limit = DEFAULT_LIMIT) -> None:
    """List the colony's crons."""
    options = options_of(ctx)

    async def ask(here: Connection) -> list[cron.Cron]:
        return [each async for each in here.client.list_crons(limit=limit)]

    crons = asked(options, ask)
    if options.as_json:
        print_json([plain(each) for each in crons])
        return
    print_table(CRON_COLUMNS, [cron_row(each) for each in crons], empty="no crons")


@app.command("get")
def get(ctx: typer.Context, name: Name) -> None:
    """Show one cron: its state and why it is paused, its policy, its workflow, its next moments and its last fires."""
    options = options_of(ctx)

    async def ask(here: Connection) -> tuple[cron.Cron, cron.PreviewScheduleResponse, list[cron.Fire]]:
        found = await here.client.get_cron(name)
        preview = await here.client.preview_cron(name, count=_SHOWN)
        return found, preview, [fire async for fire in here.client.list_fires(name, limit=_SHOWN)]

    found, preview, fires = asked(options, ask)
    # As long as nobody pauses it, says the preview; here somebody has.
    moments = preview.fire_times if found.state == cron.CRON_STATE_ACTIVE else []
    if options.as_json:
        more = {"next_fire_times": [moment.ToJsonString() for moment in moments], "fires": [plain(fire) for fire in fires]}
        print_json({**plain(found), **more})
        return
    print_fields(cron_fields(found))
    print_moments(moments, found.schedule.time_zone, title="Next moments")
    print_table(FIRE_COLUMNS, [fire_row(fire) for fire in fires], title="Last fires", empty="none")


@app.command("fires")
def fires(
    ctx: typer.Context,
    name: Name,
    outcome: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(OUTCOMES), help="Only fires that this became of. May be repeated."),
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
) -> None:
    """List what became of a cron's fires, newest first: outcome, delay, workflow, error."""
    options = options_of(ctx)
    outcomes = [arguments.choice(each, OUTCOMES, "--outcome") for each in outcome or ()]

    async def ask(here: Connection) -> list[cron.Fire]:
        return [fire async for fire in here.client.list_fires(name, outcomes=outcomes, limit=limit)]

    found = asked(options, ask)
    if options.as_json:
        print_json([plain(fire) for fire in found])
        return
    print_table(FIRE_COLUMNS, [fire_row(fire) for fire in found], empty="no fires")


@app.command("next")
def next_moments(ctx: typer.Context, name: Name, count: Count = 10, after: After = None) -> None:
    """Print the next moments of a cron, before jitter, as long as nobody pauses it."""
    options = options_of(ctx)
    since = _moment(after)

    async def ask(here: Connection) -> tuple[cron.Cron, cron.PreviewScheduleResponse]:
        return await here.client.get_cron(name), await here.client.preview_cron(name, count=count, after=since)

    found, preview = asked(options, ask)
    if found.state == cron.CRON_STATE_PAUSED and not options.as_json:
        note(f"cron {name} is paused: {found.pause_reason}")
    _preview(options, preview, found.schedule.time_zone, count)


@app.command("preview")
@spread(ScheduleOptions, "when")
def preview(ctx: typer.Context, when: ScheduleOptions, count: Count = 10, after: After = None) -> None:
    """Say in words what a schedule is, and print its next moments; nothing is added."""
    options = options_of(ctx)
    schedule, since = when.to_schedule(), _moment(after)
    found = asked(options, lambda here: here.client.preview_schedule(schedule, count=count, after=since))
    _preview(options, found, when.time_zone, count)


@app.command("run")
def run(
    ctx: typer.Context,
    name: Name,
    request_id: Annotated[str | None, typer.Option(help="Repeating it gives the first workflow. Default: a new one.")] = None,
) -> None:
    """Submit a cron's workflow now, even if it is paused; its schedule stays as it is."""
    options = options_of(ctx)
    workflow_id = asked(options, lambda here: here.client.run_cron(name, request_id=request_id))
    if options.as_json:
        print_json({"workflow_id": workflow_id})
    else:
        say(f"submitted workflow {workflow_id}")


@app.command("pause")
def pause(ctx: typer.Context, name: Name) -> None:
    """Stop a cron until it is resumed: no new fire begins once this returns. Workflows that it submitted go on."""
    options = options_of(ctx)
    _changed(options, asked(options, lambda here: here.client.pause_cron(name)), f"paused cron {name}")


@app.command("resume")
def resume(ctx: typer.Context, name: Name) -> None:
    """Let a paused cron go on with its next moment from now; those that passed meanwhile are left out."""
    options = options_of(ctx)
    found = asked(options, lambda here: here.client.resume_cron(name))
    _changed(options, found, f"resumed cron {name}")


@app.command("remove")
def remove(ctx: typer.Context, name: Name) -> None:
    """Remove a cron and the record of its fires. Workflows that it submitted go on."""
    options = options_of(ctx)
    asked(options, lambda here: here.client.remove_cron(name))
    if options.as_json:
        print_json({"removed": name})
    else:
        say(f"removed cron {name}")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else arguments.moment(text, "--after")


def _preview(options: Options, found: cron.PreviewScheduleResponse, time_zone: str, count: int) -> None:
    if options.as_json:
        print_json(plain(found))
        return
    say(found.description)
    print_moments(found.fire_times, time_zone)
    if 0 < len(found.fire_times) < count:
        say("then never again")


def _changed(options: Options, found: cron.Cron, text: str) -> None:
    if options.as_json:
        print_json(plain(found))
    else:
        say(text)


def _show(options: Options, found: cron.Cron) -> None:
    if options.as_json:
        print_json(plain(found))
        return
    print_fields(cron_fields(found))
