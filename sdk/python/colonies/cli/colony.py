"""`colonies colony`: tenants, and what their owners set for their queues."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration

from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.cli.arguments import duration_ms
from colonies.cli.connection import Role, connected, owner_key_path
from colonies.cli.moments import local, local_if_set, span
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain
from colonies.cli.proofs import Proof, proof_given_or_made
from colonies.scheduler.v1 import controls_pb2 as controls

app = group(
    "colony",
    "Colonies: the tenants of a server. Adding, removing and listing them is for the server's owner; pause, resume and "
    "set-controls are for the colony's.",
)

Name = Annotated[str, typer.Argument(metavar="COLONY", help="The colony's name.")]
OwnName = Annotated[str | None, typer.Argument(metavar="COLONY", help="Default: the profile's.")]
FOR_EVER = "forever"
NOW = ("Type", "Waiting", "Running", "Successful", "Failed", "Cancelled")
STEPS = ("Type", "Submitted", "Assigned", "Successful", "Failed", "Cancelled", "Retried")
TIMES = ("Type", "Waited: half", "90 %", "99 %", "Ran: half", "90 %", "99 %")
Keep = Annotated[str | None, typer.Option(metavar="DURATION", help=f"Such as 12h or 30d; {FOR_EVER} removes nothing.")]


@app.command("add")
def add(
    ctx: typer.Context,
    name: Name,
    owner_key: Annotated[
        Path | None, typer.Option(help="The owner's key file; made if it does not exist. Default: the profile's.")
    ] = None,
    owner_proof: Annotated[
        str | None, typer.Option(help="The owner's join proof, if the key is elsewhere (see: colonies user proof).")
    ] = None,
) -> None:
    """Add a colony, owned by a key. Repeating it with the same owner changes nothing."""
    asyncio.run(_add(options_of(ctx), name, owner_key, owner_proof))


async def _add(options: Options, name: str, owner_key: Path | None, owner_proof: str | None) -> None:
    async with connected(options, Role.SERVER_OWNER) as here:
        proof = proof_given_or_made(
            text=owner_proof,
            key_file=owner_key or owner_key_path(here.profile),
            fallback=f"{name}-owner.key",
            proof=Proof(audience=here.cluster, colony=name, role="colony_owner", name=name),
        )
        response = await here.call(here.auth.AddColony, auth.AddColonyRequest(name=name, owner=proof))
    _show(options, response.colony)


@app.command("remove")
def remove(ctx: typer.Context, name: Name) -> None:
    """Remove a colony and everything in it. Its name is never given out again."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options, Role.SERVER_OWNER) as here:
            await here.call(here.auth.RemoveColony, auth.RemoveColonyRequest(name=name), gone=auth.RemoveColonyResponse())

    asyncio.run(call())
    if options.as_json:
        print_json({"removed": name})
    else:
        say(f"removed colony {name}")


@app.command("list")
def list_colonies(ctx: typer.Context, limit: Limit = DEFAULT_LIMIT) -> None:
    """List the server's colonies."""
    options = options_of(ctx)

    async def call() -> list[auth.Colony]:
        async with connected(options, Role.SERVER_OWNER) as here:
            return await collected(here, here.auth.ListColonies, auth.ListColoniesRequest(), "colonies", limit=limit)

    colonies = asyncio.run(call())
    if options.as_json:
        print_json([plain(colony) for colony in colonies])
        return
    rows = [(colony.name, colony.owner, local_if_set(colony, "created_time")) for colony in colonies]
    print_table(("Colony", "Owner", "Added"), rows, empty="no colonies")


@app.command("get")
def get(
    ctx: typer.Context,
    name: OwnName = None,
) -> None:
    """Show one colony."""
    options = options_of(ctx)

    async def call() -> auth.Colony:
        async with connected(options) as here:
            request = auth.GetColonyRequest(colony_name=name or here.colony)
            found: auth.Colony = (await here.call(here.auth.GetColony, request)).colony
            return found

    _show(options, asyncio.run(call()))


def _show(options: Options, colony: auth.Colony) -> None:
    if options.as_json:
        print_json(plain(colony))
        return
    print_fields([("Colony", colony.name), ("Owner", colony.owner), ("Added", local_if_set(colony, "created_time"))])


@app.command("pause")
def pause(ctx: typer.Context, name: OwnName = None) -> None:
    """Assign nothing from here on. Submits, running attempts and deadlines go on."""
    _update(options_of(ctx), name, controls.UpdateControlsRequest(paused=True))


@app.command("resume")
def resume(ctx: typer.Context, name: OwnName = None) -> None:
    """End a pause."""
    _update(options_of(ctx), name, controls.UpdateControlsRequest(paused=False))


@app.command("controls")
def get_controls(ctx: typer.Context, name: OwnName = None) -> None:
    """Show what the colony's owner has set for its queue."""
    options = options_of(ctx)

    async def call() -> controls.Controls:
        async with connected(options) as here:
            request = controls.GetControlsRequest(colony_name=name or here.colony)
            found: controls.Controls = (await here.call(here.scheduler.GetControls, request)).controls
            return found

    _show_controls(options, asyncio.run(call()))


@app.command("set-controls")
def set_controls(
    ctx: typer.Context,
    name: OwnName = None,
    max_waiting: Annotated[
        int | None, typer.Option(min=0, help="How many processes may wait, for parents or in the queue; 0 is no limit.")
    ] = None,
    keep_successful: Keep = None,
    keep_failed: Keep = None,
    keep_cancelled: Keep = None,
) -> None:
    """Set a limit, and how long what has ended is kept. What is not given stays as it is."""
    request = controls.UpdateControlsRequest(
        max_waiting=max_waiting,
        keep_successful=_keep(keep_successful, "--keep-successful"),
        keep_failed=_keep(keep_failed, "--keep-failed"),
        keep_cancelled=_keep(keep_cancelled, "--keep-cancelled"),
    )
    _update(options_of(ctx), name, request)


def _keep(text: str | None, option: str) -> Duration | None:
    if text is None:
        return None
    milliseconds = 0 if text == FOR_EVER else duration_ms(text, option)
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def _update(options: Options, name: str | None, request: controls.UpdateControlsRequest) -> None:
    async def call() -> controls.Controls:
        async with connected(options, Role.COLONY_OWNER) as here:
            request.colony_name = name or here.colony
            found: controls.Controls = (await here.call(here.scheduler.UpdateControls, request)).controls
            return found

    _show_controls(options, asyncio.run(call()))


def _show_controls(options: Options, found: controls.Controls) -> None:
    if options.as_json:
        print_json(plain(found))
        return

    def kept(time: Duration) -> str:
        return span(time.ToMilliseconds() / 1000) if time.ToMilliseconds() else "for ever"

    print_fields(
        [
            ("Assignments", "paused" if found.paused else "running"),
            ("May wait", str(found.max_waiting) if found.max_waiting else "any number"),
            ("Keep successful", kept(found.keep_successful)),
            ("Keep failed", kept(found.keep_failed)),
            ("Keep cancelled", kept(found.keep_cancelled)),
        ]
    )


@app.command("statistics")
def statistics(ctx: typer.Context, name: OwnName = None) -> None:
    """Show counts, rates, wait and run times by executor type."""
    options = options_of(ctx)

    async def call() -> controls.GetStatisticsResponse:
        async with connected(options) as here:
            request = controls.GetStatisticsRequest(colony_name=name or here.colony)
            found: controls.GetStatisticsResponse = await here.call(here.scheduler.GetStatistics, request)
            return found

    found = asyncio.run(call())
    if options.as_json:
        print_json(plain(found))
        return
    now = [(t.executor_type, *map(str, (t.waiting, t.running, t.successful, t.failed, t.cancelled))) for t in found.types]
    print_table(NOW, now, title=f"Now ({local(found.time)})", empty="no processes")
    if found.types:
        print_table(STEPS, [_rates(t.executor_type, t.last_minute) for t in found.types], title="Last minute")
        print_table(STEPS, [_rates(t.executor_type, t.last_hour) for t in found.types], title="Last hour")
        times = [(t.executor_type, *_times(t.wait_ms), *_times(t.run_ms)) for t in found.types]
        print_table(TIMES, times, title="Times in the last hour, at most")


def _rates(executor_type: str, rates: controls.Rates) -> tuple[str, ...]:
    steps = (rates.submitted, rates.assigned, rates.successful, rates.failed, rates.cancelled, rates.retried)
    return executor_type, *map(str, steps)


def _times(quantiles: controls.Quantiles) -> tuple[str, ...]:
    if not quantiles.count:
        return "", "", ""
    return span(quantiles.p50 / 1000), span(quantiles.p90 / 1000), span(quantiles.p99 / 1000)
