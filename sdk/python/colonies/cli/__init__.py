"""The `colonies` command.

Only what a command needs is imported, when it is needed: gRPC alone takes a tenth of a second, and `colonies --help` or
the shell's completion should not wait for it. `app` holds the table of commands and which module each one lives in.
"""

from colonies.cli.app import main

__all__ = ["main"]
