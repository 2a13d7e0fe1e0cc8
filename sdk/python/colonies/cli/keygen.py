"""`colonies keygen` and `colonies key`: private keys. Only to rotate one a server is needed."""

from pathlib import Path
from typing import Annotated

import typer

from colonies.cli.failure import CliError, ExitCode
from colonies.cli.options import group, options_of, single
from colonies.cli.output import print_json, say
from colonies.cli.rotate import rotate
from colonies.keys import PrivateKey

keygen_app = single("keygen")
key_app = group("key", "Private keys. They never leave the machine of their owner; servers know identities only.")

DEFAULT_KEY_FILE = Path("colonies.key")

key_app.command("rotate")(rotate)


@keygen_app.command("keygen")
def keygen(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The file to write; it must not exist.")] = DEFAULT_KEY_FILE,
    show_identity: Annotated[bool, typer.Option("--show-identity", help="Print the identity and nothing else.")] = False,
) -> None:
    """Make a private key in a file that only you can read, and print its identity."""
    options = options_of(ctx)
    key = PrivateKey.generate()
    try:
        key.save(path)
    except FileExistsError as error:
        msg = f"{path} exists already; a key is never overwritten"
        raise CliError(msg, ExitCode.CONFLICT) from error
    if options.as_json:
        print_json({"key_file": str(path), "identity": key.identity})
    elif show_identity:
        say(key.identity)
    else:
        say(f"wrote {path}: keep it secret, and do not lose it\nidentity: {key.identity}")


@key_app.command("identity")
def identity(ctx: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE", help="A private key file.")]) -> None:
    """Print the identity of a private key."""
    key = PrivateKey.load(file)
    if options_of(ctx).as_json:
        print_json({"key_file": str(file), "identity": key.identity})
    else:
        say(key.identity)
