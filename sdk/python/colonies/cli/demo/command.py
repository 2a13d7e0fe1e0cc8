"""`colonies demo`."""

import asyncio
import shlex
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from colonies.cli import bootstrap
from colonies.cli.bootstrap import Address, KeyFiles
from colonies.cli.demo import browser, paper, tables
from colonies.cli.demo.children import Child, Role
from colonies.cli.failure import CliError
from colonies.cli.local_stack import LocalStack
from colonies.cli.options import options_of, single
from colonies.cli.output import note, print_json, say, where_we_are
from colonies.keys import PrivateKey

app = single("demo")

COLONY = "demo"
PROFILE = "demo"


@app.command("demo")
def demo(
    ctx: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="COLONIES_DATA_DIR", help="The server's data directory.", show_default=False),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port. Default: 50080.")] = None,
    in_browser: Annotated[
        bool,
        typer.Option("--browser", help="Run sum in a real browser: a headless Chromium on the server's page /executor."),
    ] = False,
) -> None:
    """Run the worked example of the Colonies paper on a server on this machine, and print the paper's four tables.

    Starts the server if none runs, and leaves it running. Exit code 0 only if the values are the paper's.
    """
    options = options_of(ctx)
    program = browser.chromium() if in_browser else None
    stack = LocalStack(data_dir)
    state = stack.up(detach=True, on_progress=note, host=host or options.host, port=port or options.port)
    address = Address.of(state)
    seen, roles = asyncio.run(_run(stack.data_dir, address, program))
    if options.as_json:
        print_json(tables.document(seen))
    else:
        tables.print_tables(seen)
    if mistakes := paper.mistakes(seen, adder=browser.NAME if in_browser else roles[1].name):
        msg = "the run was not the paper's"
        raise CliError(msg, details=mistakes)
    if not options.as_json:
        _what_next(seen, roles[0].command(address, COLONY), stack.data_dir if data_dir else None)
        if in_browser:
            say(f"Your own browser is an executor as well when you open {browser.page_of(address)}?colony={COLONY}")


async def _run(data_dir: Path, address: Address, program: str | None) -> tuple[paper.Seen, tuple[Role, Role]]:
    # The colony "dev" too, as `colonies up` makes it: its profile becomes the default one.
    await bootstrap.make_usable(address, data_dir)
    dev = KeyFiles.in_data_dir(data_dir)
    files = KeyFiles(dev.server_owner, data_dir / "keys" / "demo-owner.key", dev.user)
    await bootstrap.ensure_colony(address, COLONY, files, user=bootstrap.user_name())
    bootstrap.save_colony_profile(PROFILE, COLONY, address, files, make_default=False)
    roles = (
        Role("E1", ("edge", "cloud"), data_dir / "keys" / "demo-E1.key"),
        # Without a browser, E2 stands in for one.
        Role("E2", ("cloud",) if program else ("cloud", *browser.TYPES), data_dir / "keys" / "demo-E2.key"),
    )
    async with AsyncExitStack() as ending:
        owner = await ending.enter_async_context(address.client(COLONY, PrivateKey.load(files.colony_owner)))
        await paper.cancel_leftovers(owner)
        children: list[Child] = []
        for role in roles:
            child = await Child.start(role, address, COLONY, data_dir / "logs" / f"demo-{role.name}.log")
            ending.push_async_callback(child.stop)
            children.append(child)
        for child in children:
            identity = await child.registered()
            await owner.approve_executor(identity)
            note(f"approved executor {child.role.name} ({', '.join(child.role.executor_types)})")
        if program:
            tab = await ending.enter_async_context(browser.opened(program, address, COLONY, data_dir / "demo-browser"))
            await browser.admit(owner, tab)
            note(f"approved executor {browser.NAME} ({', '.join(browser.TYPES)}): a browser")
        seen = await paper.run(address, COLONY, PrivateKey.load(files.user), (children[0], children[1]), note)
    return seen, roles


def _what_next(seen: paper.Seen, command: Sequence[str], data_dir: Path | None) -> None:
    first = seen.end[0].process_id
    say(
        "\nAll four tables were read from the server, and the values are the paper's.\n\n"
        "What to try next:\n"
        f"  colonies --profile {PROFILE} workflow graph {seen.workflow_id}\n"
        f"  colonies --profile {PROFILE} process history {first}\n"
        f"  colonies --profile {PROFILE} log get {first}\n"
        f"  colonies --profile {PROFILE} executor list\n"
        "Start an executor again, in another terminal, and call a function on it:\n"
        f"  {shlex.join(command)}\n"
        f"  colonies --profile {PROFILE} exec square 12 --type cloud\n\n"
        "The server still runs. Stop it with:\n"
        f"  colonies down{f' --data-dir {shlex.quote(str(data_dir))}' if data_dir else ''}" + where_we_are()
    )
