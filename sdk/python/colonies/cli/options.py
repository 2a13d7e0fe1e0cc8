"""The options that every command shares, as they were given on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import typer


@dataclass(frozen=True, slots=True)
class Options:
    """Global options; None where nothing was given, and the profile decides."""

    profile: str | None = None
    host: str | None = None
    port: int | None = None
    colony: str | None = None
    cluster: str | None = None
    key_file: Path | None = None
    tls: bool | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    cert_key_file: Path | None = None
    as_json: bool = False
    debug: bool = False


def options_of(ctx: typer.Context) -> Options:
    """The global options of the running command."""
    return cast("Options", ctx.obj)


def single(name: str) -> typer.Typer:
    """An application that is one command."""
    return typer.Typer(name=name, add_completion=False, pretty_exceptions_enable=False)


def group(name: str, help_text: str) -> typer.Typer:
    """An application that is a group of commands; also when it has only one."""
    app = typer.Typer(name=name, help=help_text, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_nothing)
    return app


def _nothing() -> None:
    pass
