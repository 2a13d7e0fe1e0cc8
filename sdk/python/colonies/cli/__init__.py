"""The `colonies` command.

Only what a command needs is imported, when it is needed: gRPC alone takes a tenth of a second, and `colonies --help` or
the shell's completion should not wait for it. `app` holds the table of commands and which module each one lives in.
"""

import sys

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> None:
    """The entry point of the `colonies` command."""
    try:
        from colonies.cli.app import run

        run()
    except KeyboardInterrupt:
        # While modules were being loaded, or while an earlier interruption was being dealt with.
        sys.exit(_INTERRUPTED)
