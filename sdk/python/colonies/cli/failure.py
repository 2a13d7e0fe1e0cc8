"""How a command ends: exit codes, and the one error that commands raise themselves.

Imports nothing of gRPC: usage errors and help must be quick.
"""

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell gets. Scripts depend on these: they are never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    UNAVAILABLE = 5
    CONFLICT = 6
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXIT_CODES_HELP = """\
Exit codes: 0 done; 1 what was waited for failed; 2 wrong usage or invalid argument; 3 not found; 4 not permitted or not \
authenticated; 5 the server is out of reach, overloaded or broken; 6 exists already, or the state of things does not allow \
it; 130 interrupted."""


class CliError(Exception):
    """A command cannot do what it was asked. `message` is one line; `details` are further lines, each about one thing."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = tuple(details)


def usage(message: str) -> CliError:
    """The error for an argument that cannot be used."""
    return CliError(message, ExitCode.USAGE)


def visible(text: str) -> str:
    """Text that is safe on a terminal: control characters and lone surrogates are spelled out, line ends and tabs are kept.

    What users and executors wrote must not be able to move the cursor, hide lines or retitle the window.
    """
    spelled = "".join(c if c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") else f"\\x{ord(c):02x}" for c in text)
    return spelled.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """The text on one line, safe on a terminal."""
    return visible(" ".join(text.split()))
