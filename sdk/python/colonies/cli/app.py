"""The root of the command line: global options, and the table of commands."""

import os
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from typer.main import get_command

from colonies.cli.failure import EXIT_CODES_HELP
from colonies.cli.lazy import Entry, LazyGroup
from colonies.cli.options import Options

_SERVER = "This machine"
_WORK = "Work"
_COLONY = "Colony"
_SETUP = "Keys and profiles"


class Root(LazyGroup):
    """All commands of `colonies`."""

    entries: ClassVar = {
        "up": Entry("colonies.cli.stack", "up_app", _SERVER, "Start a whole server on this machine."),
        "down": Entry("colonies.cli.stack", "down_app", _SERVER, "Stop it; its data stays."),
        "status": Entry("colonies.cli.stack", "status_app", _SERVER, "What runs here, and which server is being used."),
        "demo": Entry("colonies.cli.demo.command", "app", _SERVER, "Run the example of the Colonies paper, live."),
        "certificates": Entry("colonies.cli.certificates", "app", _SERVER, "TLS certificates of the server on this machine."),
        "submit": Entry("colonies.cli.submit", "submit_app", _WORK, "Submit a function call."),
        "exec": Entry("colonies.cli.submit", "exec_app", _WORK, "Submit a function call, wait, print what it returns."),
        "watch": Entry("colonies.cli.watch", "app", _WORK, "Follow the states of a process, a workflow or the colony live."),
        "explain": Entry("colonies.cli.explain", "app", _WORK, "Say why a process waits, or would."),
        "process": Entry("colonies.cli.process", "app", _WORK, "List, inspect, cancel and remove processes."),
        "workflow": Entry("colonies.cli.workflow", "app", _WORK, "Submit, inspect, retry, cancel and remove workflows."),
        "log": Entry("colonies.cli.log", "app", _WORK, "Read and follow logs."),
        "channel": Entry("colonies.cli.channel", "app", _WORK, "Send and follow the messages of a running process."),
        "cron": Entry("colonies.cli.cron", "app", _WORK, "Workflows that are submitted again and again."),
        "generator": Entry("colonies.cli.generator", "app", _WORK, "Gather arguments, and submit a workflow for each batch."),
        "audit": Entry("colonies.cli.audit", "app", _WORK, "Export signed records of what was done, and check them offline."),
        "colony": Entry("colonies.cli.colony", "app", _COLONY, "Add, remove and list colonies (server owner)."),
        "user": Entry("colonies.cli.user", "app", _COLONY, "Add, remove and list users (colony owner)."),
        "executor": Entry("colonies.cli.executor", "app", _COLONY, "List, approve, reject and remove executors."),
        "function": Entry("colonies.cli.function", "app", _COLONY, "What functions there are, and who runs them."),
        "location": Entry("colonies.cli.location", "app", _COLONY, "Named sites of executors."),
        "profile": Entry("colonies.cli.profiles", "app", _SETUP, "Which server, colony and keys to use."),
        "sign": Entry("colonies.cli.sign", "app", _SETUP, "Sign one call in JSON, for curl to make."),
        "keygen": Entry("colonies.cli.keygen", "keygen_app", _SETUP, "Make a private key."),
        "key": Entry("colonies.cli.keygen", "key_app", _SETUP, "Look at a private key; put a new one in its place."),
        "version": Entry("colonies.cli.version", "app", _SETUP, "The version of this program."),
    }


app = typer.Typer(
    name="colonies",
    cls=Root,
    help="Colonies: submit functions and workflows, run them on executors anywhere.",
    epilog=EXIT_CODES_HELP,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(
    ctx: typer.Context,
    profile: Annotated[
        str | None, typer.Option(envvar="COLONIES_PROFILE", help="The profile to use; the default one if not given.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="The server's host name or address.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The server's port.")] = None,
    colony: Annotated[str | None, typer.Option(help="The colony.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="The cluster id, which signatures name; `colonies status` tells it.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="The private key to sign with, in place of the profile's.")] = None,
    tls: Annotated[bool | None, typer.Option("--tls/--no-tls", help="TLS, or plaintext, whatever the profile says.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificates (PEM) to trust; implies TLS.")] = None,
    cert_file: Annotated[Path | None, typer.Option(help="Your certificate, for a server that asks for one.")] = None,
    cert_key_file: Annotated[Path | None, typer.Option(help="The certificate's private key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one document, or one a line for streams.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the program an error arose.")] = False,
) -> None:
    """Takes the options that every command shares."""
    ctx.obj = Options(
        profile=profile,
        host=host,
        port=port,
        colony=colony,
        cluster=cluster,
        key_file=key_file,
        tls=tls,
        ca_file=ca_file,
        cert_file=cert_file,
        cert_key_file=cert_key_file,
        as_json=as_json,
        debug=debug,
    )
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run() -> None:
    """Runs the command line of this process, and ends it."""
    # A connection that is refused is reported once, in words of ours. Read when gRPC is loaded, which is later.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A locale that cannot show a character gets its code, and the user the rest of the line.
            stream.reconfigure(errors="backslashreplace")
    get_command(app).main(prog_name="colonies")
