"""What a run leaves: results.json, a table on the terminal, and the table in README.md."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

from bench.failure import BenchError
from bench.figures import UNITS, Figure, Reach
from bench.profiling import HotSpot

BEGIN = "<!-- figures: begin -->"
END = "<!-- figures: end -->"
HOT_SPOTS = 25
COLUMNS = ("Name", "Value", "Unit", "Spread (IQR)", "Reach", "Met", "Limit", "Ratio", "The limit is")
NUMBERS = frozenset({"Value", "Spread (IQR)", "Reach", "Limit", "Ratio"})

# What is said beside a figure: what its limit is, and what it is to reach.
ShownWith: TypeAlias = Callable[[str], tuple[str, Reach | None]]


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with the machine and the moment (ISO 8601) that it belongs to."""

    figure: Figure
    machine: str
    date: str


def save(figures: Mapping[str, Figure], file: Path, names: Sequence[str], *, machine: str, date: str) -> None:
    """Writes name → value, unit, spread, limit, ratio, machine, date.

    Figures that are there and were not measured now stay, if they have one of these names, whose order is the file's.
    """
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name, one in figures.items():
        results[name] = {
            "value": _rounded(one.value),
            "unit": one.unit.name,
            "spread": _rounded(one.spread),
            "limit": None if one.limit is None else _rounded(one.limit),
            "ratio": None if one.ratio is None else _rounded(one.ratio),
            "machine": machine,
            "date": date,
        }
    kept = {name: results[name] for name in names if name in results}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(file: Path, shown_with: ShownWith) -> dict[str, Measured]:
    """What `save` wrote."""
    results = json.loads(file.read_text(encoding="utf-8"))
    measured = {}
    for name, one in results.items():
        limit_is, reach = shown_with(name)
        again = Figure(one["value"], UNITS[one["unit"]], one["spread"], one["limit"], limit_is, reach)
        measured[name] = Measured(again, one["machine"], one["date"])
    return measured


def show(figures: Mapping[str, Figure], console: Console, shown_with: ShownWith, *, machine: str, date: str) -> None:
    """The table on the terminal."""
    table = Table(title=f"{machine}\n{date}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=column != COLUMNS[-1])
    for name, one in figures.items():
        style = {None: "dim" if one.limit is None else "", True: "green", False: "yellow"}[one.met]
        table.add_row(*_cells(name, one, shown_with), style=style)
    console.print(table)


def show_hot_spots(spots: Sequence[HotSpot], console: Console, *, title: str) -> None:
    """Where the scheduler's time went: whatever took most itself, and what of our own called for most."""
    _show_spots(spots[:HOT_SPOTS], console, title)
    ours = sorted((spot for spot in spots if spot.is_ours), key=lambda spot: spot.total, reverse=True)
    _show_spots(ours[:HOT_SPOTS], console, "Of these, our own code, with what it called")


def _show_spots(spots: Sequence[HotSpot], console: Console, title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("Own", justify="right")
    table.add_column("With callees", justify="right")
    table.add_column("Function")
    for spot in spots:
        table.add_row(f"{spot.own:.1%}", f"{spot.total:.1%}", spot.function)
    console.print(table)


def write_readme(measured: Mapping[str, Measured], file: Path, shown_with: ShownWith) -> None:
    """Puts the table between the markers of a README. Each figure is held against the limits of its own run.

    Raises:
        BenchError: the markers are not there.
    """
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"{file.name} has no lines {BEGIN} and {END} for the table"
        raise BenchError(msg)
    runs = sorted({(one.date, one.machine) for one in measured.values()})
    lines = [f"Measured on {machine}, {date}." for date, machine in runs]
    lines += ["", _row(COLUMNS), _row(["--:" if column in NUMBERS else "---" for column in COLUMNS])]
    lines += [_row([f"`{name}`", *_cells(name, one.figure, shown_with)[1:]]) for name, one in measured.items()]
    file.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(name: str, one: Figure, shown_with: ShownWith) -> list[str]:
    text, _ = shown_with(name)
    return [
        name,
        _shown(one.value),
        one.unit.name,
        _shown(one.spread),
        _reach(one),
        {None: "", True: "met", False: "short"}[one.met],
        "" if one.limit is None else _shown(one.limit),
        "" if one.ratio is None else f"{one.ratio:.1f}",
        text,
    ]


def _reach(one: Figure) -> str:
    if one.reach is None:
        return ""
    value = f"{'≥' if one.unit.better == 'more' else '≤'} {_shown(one.reach.value)}"
    return value if one.reach.ratio is None else f"{value}, ratio ≤ {one.reach.ratio:g}"


def _rounded(value: float) -> float:
    """Four digits that count; more would be noise."""
    return float(f"{value:.4g}")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
