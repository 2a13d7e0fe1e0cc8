"""`colonies up`, `down` and `status`: a whole server on this machine."""

import asyncio
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from colonies.cli import bootstrap
from colonies.cli.arguments import pairs
from colonies.cli.connection import connected
from colonies.cli.failure import CliError, ExitCode, usage
from colonies.cli.local_stack import LocalStack
from colonies.cli.options import Options, options_of, single
from colonies.cli.output import note, print_fields, print_json, print_table, say, where_we_are
from colonies.cli.plain import plain
from colonies.cli.views import coloured
from colonies.errors import ColoniesError, ProfileError

up_app = single("up")
down_app = single("down")
status_app = single("status")

DataDir = Annotated[
    Path | None,
    typer.Option(envvar="COLONIES_DATA_DIR", help="Holds everything: keys, databases, logs.", show_default=False),
]


@up_app.command("up")
def up(
    ctx: typer.Context,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port. Default: 50080.")] = None,
    postgres_url: Annotated[str | None, typer.Option(help="A Postgres to use in place of the embedded one.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="A Redis or Valkey to use in place of the embedded one.")] = None,
    replicas: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE=COUNT", help="Processes of a service, 1 to 64, such as scheduler=2. Repeatable."),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option("--tls/--no-tls", help="Speak TLS, with certificates of the server's own. Default: as the last time."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Pages of this origin, such as https://tools.example, may call too. Repeatable."),
    ] = None,
    allow_plaintext: Annotated[
        bool, typer.Option("--allow-plaintext", help="Without TLS, take clients of other machines all the same.")
    ] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until interrupted; the stack ends with this command.")
    ] = False,
) -> None:
    """Start a whole server on this machine, with a colony "dev" and a profile "local" to use it.

    A server that runs already is left as it is.
    """
    options = options_of(ctx)
    stack = LocalStack(data_dir)
    settings: dict[str, Any] = {
        "host": host or options.host,
        "port": port or options.port,
        "postgres_url": postgres_url,
        "redis_url": redis_url,
        "tls": options.tls if tls is None else tls,
        "allow_plaintext": allow_plaintext,
        "allowed_origins": tuple(allow_origin) if allow_origin else None,
        "replicas": _replicas(replicas or ()),
    }
    if foreground:
        _in_foreground(stack, options, settings)
        return
    state = stack.up(detach=True, on_progress=note, **settings)
    asyncio.run(bootstrap.make_usable(bootstrap.Address.of(state), stack.data_dir))
    _tell_up(options, state)


def _replicas(texts: Iterable[str]) -> dict[str, int]:
    """How many processes of which service; which there are, and how many of each, the stack itself knows."""
    counts = {}
    for service, count in pairs(texts, "--replicas").items():
        if not re.fullmatch(r"[0-9]{1,4}", count):
            msg = f"--replicas: {service}={count} is not of the form SERVICE=COUNT, such as scheduler=2"
            raise usage(msg)
        counts[service] = int(count)
    return counts


def _in_foreground(stack: LocalStack, options: Options, settings: dict[str, Any]) -> None:
    """Runs the stack in this process; beside it, a thread makes it usable once it is up."""

    def set_up() -> None:
        try:
            # The stack is coming up in this process: this waits for it, and says where it is.
            state = stack.up(detach=True, on_progress=lambda _: None, **settings)
        except CliError:
            return  # the call below fails for the same reason, and reports it
        try:
            asyncio.run(bootstrap.make_usable(bootstrap.Address.of(state), stack.data_dir))
        except (ColoniesError, CliError) as error:
            # The stack is up, which is what was asked for; another `colonies up` can finish this.
            note(f"warning: the colony {bootstrap.DEV_COLONY!r} is not set up: {error}")
        else:
            _tell_up(options, state)

    helper = threading.Thread(target=set_up, daemon=True)

    def on_progress(line: str) -> None:
        note(line)
        # There is news only from a stack that holds its lock, which the thread then finds taken.
        if helper.ident is None:
            helper.start()

    stack.up(detach=False, on_progress=on_progress, **settings)
    note("the server has ended")


def _tell_up(options: Options, state: Any) -> None:
    if options.as_json:
        print_json(_state_document(state))
        return
    say(
        f"\nThe server is up at {state.address}{' with TLS' if state.ca_file else ''}; its data is in {state.data_dir}.\n"
        f"Pages for browsers, and the description of every call, are at {state.url}\n"
        f'The profile "{bootstrap.LOCAL_PROFILE}" (colony "{bootstrap.DEV_COLONY}") is saved and is the default.\n\n'
        "What to do next:\n"
        "  colonies demo                 see the example of the Colonies paper run\n"
        "  colonies status               see what runs\n"
        "  colonies executor list        see who has come to work; approve them: colonies executor approve NAME\n"
        "  colonies exec FUNCTION ARG... call a function on an executor\n"
        "  colonies down                 stop the server; its data stays" + where_we_are()
    )


def _state_document(state: Any) -> dict[str, Any]:
    return {
        "address": state.address,
        "url": state.url,
        "cluster": state.cluster_id,
        "data_dir": state.data_dir,
        "pid": state.pid,
        "already_running": state.already_running,
        "tls": bool(state.ca_file),
        "profile": bootstrap.LOCAL_PROFILE,
        "colony": bootstrap.DEV_COLONY,
    }


@down_app.command("down")
def down(ctx: typer.Context, data_dir: DataDir = None) -> None:
    """Stop the server on this machine. Its data stays; `colonies up` goes on with it."""
    stack = LocalStack(data_dir)
    stopped = stack.down(on_progress=note)
    if options_of(ctx).as_json:
        print_json({"stopped": stopped, "data_dir": str(stack.data_dir)})
    else:
        say("the server is stopped" if stopped else f"no server runs in {stack.data_dir}")


@status_app.command("status")
def status(ctx: typer.Context, data_dir: DataDir = None) -> None:
    """Show the processes of the server on this machine, and which server the profile leads to.

    Exit code 0 if the profile's server answers, or, without a profile, if the local one is healthy; 5 if there is none.
    """
    options = options_of(ctx)
    local = None
    # Without the server part there is no local stack to speak of, and the profile may lead elsewhere.
    with suppress(CliError):
        local = LocalStack(data_dir).status()
    server, problem = _server(options)
    if options.as_json:
        print_json({"local": _local_document(local), "server": server, "error": str(problem) if problem else None})
    else:
        _show_local(local)
        if server:
            print_fields([(key.capitalize(), str(value)) for key, value in server.items()])
    if isinstance(problem, ProfileError):
        if local is None or not local.healthy:
            raise CliError(str(problem), ExitCode.UNAVAILABLE)
    elif problem is not None:
        raise problem


def _server(options: Options) -> tuple[dict[str, Any] | None, ColoniesError | None]:
    """What the profile's server says of itself, or why it says nothing."""

    async def call() -> dict[str, Any]:
        async with connected(options) as here:
            info = await here.client.server_info()
        return {
            "profile": here.profile.name,
            "server": f"{here.profile.host}:{here.profile.port}",
            "colony": here.profile.colony,
            **plain(info),
        }

    try:
        return asyncio.run(call()), None
    except ColoniesError as error:
        return None, error


def _local_document(local: Any) -> dict[str, Any] | None:
    if local is None or local.state is None:
        return None
    return {
        "running": local.running,
        "healthy": local.healthy,
        "address": local.state.address,
        "cluster": local.state.cluster_id,
        "data_dir": local.state.data_dir,
        "tls": bool(local.state.ca_file),
        "pid": local.state.pid,
        "identities": local.state.identities,
        "processes": [
            {
                "name": each.name,
                "pid": each.pid,
                "alive": each.alive,
                "healthy": each.healthy,
                "restarts": each.restarts,
                "port": each.port,
            }
            for each in local.processes
        ],
    }


def _show_local(local: Any) -> None:
    if local is None or not local.running:
        say("no server runs on this machine (start one: colonies up)")
        return
    rows = [
        (
            each.name,
            coloured("healthy" if each.healthy else "starting" if each.alive else "down"),
            str(each.pid or ""),
            str(each.port or ""),
            str(each.restarts),
        )
        for each in local.processes
    ]
    print_table(("Process", "State", "Pid", "Port", "Restarts"), rows, title=f"Stack in {local.state.data_dir}")
    trusting = f"on; clients trust {local.state.ca_file}" if local.state.ca_file else "off"
    print_fields([("TLS", trusting)])
