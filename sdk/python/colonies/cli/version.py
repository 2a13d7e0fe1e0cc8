"""`colonies version`. Imports nothing else, so that it answers at once."""

import platform

import typer

from colonies import __version__
from colonies.cli.options import options_of, single
from colonies.cli.output import print_json, say

app = single("version")


@app.command("version")
def version(ctx: typer.Context) -> None:
    """Print the version of this program."""
    if options_of(ctx).as_json:
        print_json({"version": __version__, "python": platform.python_version()})
    else:
        say(f"colonies {__version__}")
