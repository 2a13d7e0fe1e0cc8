"""A command group that loads a command's module when the command is run, and reports every failure in one line.

Global options may stand anywhere on the line: they are moved to the front before it is parsed.
"""

import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from colonies.cli.failure import EXIT_CODES_HELP, CliError, ExitCode, one_line, visible

GLOBAL_FLAGS = frozenset({"--json", "--debug", "--tls", "--no-tls"})
GLOBAL_VALUES = frozenset(
    {
        *("--profile", "--host", "--port", "--colony", "--cluster", "--key-file"),
        *("--ca-file", "--cert-file", "--cert-key-file"),
    }
)
OWN_OPTIONS: Mapping[str, frozenset[str]] = {
    "up": frozenset({"--host", "--port", "--tls", "--no-tls"}),
    "demo": frozenset({"--host", "--port"}),
}
"""Commands for which a global option's name means something of their own, when it stands after the command."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a top-level command lives, and its line in the overview."""

    module: str
    attribute: str
    panel: str
    help: str


def hoisted(args: Sequence[str]) -> list[str]:
    """The command line with its global options in front. What follows `--` is left alone."""
    front: list[str] = []
    rest: list[str] = []
    own: frozenset[str] = frozenset()
    pending = iter(args)
    for word in pending:
        if word == "--":
            rest += [word, *pending]
            break
        name, equals, _ = word.partition("=")
        if word in GLOBAL_FLAGS - own:
            front.append(word)
        elif name in GLOBAL_VALUES - own:
            front.append(word)
            if not equals:
                front += [value for value in (next(pending, None),) if value is not None]
        else:
            if not rest and not word.startswith("-"):
                own = OWN_OPTIONS.get(word, own)
            rest.append(word)
    return front + rest


class LazyGroup(TyperGroup):
    """The root of the command line."""

    entries: ClassVar[Mapping[str, Entry]]
    _debug = False

    def list_commands(self, ctx: Any) -> list[str]:
        """All top-level commands, in the order of the table."""
        del ctx
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that knows its line of help: enough for the overview and for completion of names."""
        del ctx
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        return TyperCommand(name=cmd_name, callback=None, help=entry.help, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, its module loaded."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is None or command is None:
            return name, command, rest
        entry = self.entries[name]
        app = cast("typer.Typer", getattr(importlib.import_module(entry.module), entry.attribute))
        loaded = get_command(app)
        loaded.name = name
        if not loaded.epilog:
            loaded.epilog = GLOBALS_HINT
        return name, loaded, rest

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes the global options from wherever they stand."""
        ordered = hoisted(args)
        self._debug = "--debug" in ordered
        with _pipe_guard():
            return super().parse_args(ctx, ordered)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; a reader of the output that went away ends it quietly."""
        with _pipe_guard():
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command and ends the process with an exit code of `ExitCode`; never lets an exception out."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
            with _pipe_guard():
                sys.stdout.flush()
        except typer.Exit as ended:
            sys.exit(ended.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            _report(CliError("interrupted", ExitCode.INTERRUPTED))
        except typer.TyperException as error:
            self._fail(error, CliError(error.format_message() + _where_to_read(error), ExitCode.USAGE))
        except Exception as error:  # noqa: BLE001 - the last place that can turn it into one line
            self._fail(error, _described(error))
        else:
            if code == ExitCode.INTERRUPTED and threading.current_thread() is threading.main_thread():
                # The process is ending: a second Ctrl-C would only make the interpreter complain on its way out.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit(code if isinstance(code, int) else ExitCode.OK)

    def _fail(self, error: BaseException, report: CliError) -> None:
        if self._debug:
            traceback.print_exception(error, file=sys.stderr)
        _report(report)


GLOBALS_HINT = "Global options (see: colonies --help) may stand before or after the command. " + EXIT_CODES_HELP


def _described(error: Exception) -> CliError:
    # Loaded here: it needs gRPC, which usage errors and help must not wait for.
    known = importlib.import_module("colonies.cli.describe").describe(error)
    if known is not None:
        return cast("CliError", known)
    return CliError(f"unexpected {type(error).__name__}: {error} (run again with --debug to see where)")


def _where_to_read(error: typer.TyperException) -> str:
    command = getattr(getattr(error, "ctx", None), "command_path", "")
    return f" (see: {command} --help)" if command else ""


def _report(error: CliError) -> None:
    lines = [f"error: {one_line(error.message)}"]
    # A detail may be what a function reported of its failure, whose lines mean something.
    lines += [f"  {line}" for detail in error.details for line in visible(detail).splitlines()]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.exit(error.code)


@contextmanager
def _pipe_guard() -> Iterator[None]:
    """Turns a broken pipe into the exit code that shells know it by. Typer's own answer is 1, which means something here."""
    try:
        yield
    except BrokenPipeError as error:
        # Python flushes stdout once more at exit, which would complain about the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.BROKEN_PIPE) from error
