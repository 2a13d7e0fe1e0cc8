"""Where output goes: JSON documents on stdout for programs, tables for people."""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from colonies.cli.failure import CliError, visible

Cell = str | Text
NOTHING = "-"
_UNBOUNDED_WIDTH = 100_000


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Writes one JSON document. ASCII only: any locale can carry it, and no control character gets through.

    Raises:
        CliError: a value in it is nested too deeply to be written.
    """
    try:
        text = json.dumps(document, indent=indent)
    except RecursionError as error:
        msg = "the answer holds a value that is nested too deeply to be written as JSON"
        raise CliError(msg) from error
    sys.stdout.write(text + "\n")


def print_json_line(document: Any) -> None:
    """Writes one line of a stream of JSON documents, at once."""
    print_json(document, indent=None)
    sys.stdout.flush()


def _console() -> Console:
    """The terminal; a pipe has no width, so that lines are not cut there."""
    if sys.stdout.isatty():
        return Console(highlight=False, soft_wrap=False)
    return Console(highlight=False, width=_UNBOUNDED_WIDTH)


def say(text: str) -> None:
    """A line for people, control characters spelled out."""
    sys.stdout.write(visible(text) + "\n")


def where_we_are() -> str:
    """How to make the shell find `colonies`, for those who started it by its path; nothing if the shell finds it."""
    own = Path(sys.argv[0])
    found = shutil.which(own.name)
    if found is not None and Path(found).resolve() == own.resolve():
        return ""
    activate = own.with_name("activate")
    first = f"source {activate}" if activate.exists() else f"export PATH={own.parent.absolute()}:$PATH"
    return f"\nFor `colonies` to be found, first: {first}"


def note(text: str) -> None:
    """A line for people beside the output proper: on stderr."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def cell(value: Cell, nothing: str = NOTHING) -> Text:
    """A cell that shows its text as it is: what users wrote is no markup and moves no cursor."""
    if isinstance(value, Text):
        return value
    return Text(visible(value) or nothing)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str = "",
    empty: str = "none",
    nothing: str = NOTHING,
) -> None:
    """A table of equals; `empty` is said when there is no row, and `nothing` stands in cells without a text.

    A title has a blank line above it, which keeps several tables apart.
    """
    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    count = 0
    for row in rows:
        table.add_row(*(cell(value, nothing) for value in row))
        count += 1
    if title:
        say("")
    if count == 0:
        say(f"{title}\n{empty}" if title else empty)
        return
    _print(table)


def print_fields(fields: Iterable[tuple[str, Cell]]) -> None:
    """One thing: its fields, a line each. Fields without a value are left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value:
            table.add_row(name, cell(value))
    _print(table)


def print_line(text: Text) -> None:
    """A line of a stream, at once."""
    _print(text)
    sys.stdout.flush()


def _print(content: Table | Text) -> None:
    terminal = _console()
    # Written by ourselves: Rich ends the process with its own exit code when the reader of a pipe goes away.
    with terminal.capture() as capture:
        terminal.print(content, soft_wrap=isinstance(content, Text))
    # Rich pads every line to the table's width; trailing blanks are noise in files and diffs.
    sys.stdout.write("\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n") + "\n")
