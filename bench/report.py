"""What a run leaves: results.json, a table on the terminal, and the table in README.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.failure import BenchError
from bench.figures import Figure
from bench.limits import LIMIT_TEXTS
from bench.profiling import HotSpot

BEGIN = "<!-- figures: begin -->"
END = "<!-- figures: end -->"
HOT_SPOTS = 25
COLUMNS = ("Name", "Value", "Unit", "Spread (IQR)", "Limit", "Ratio", "The limit is")
NUMBERS = frozenset({"Value", "Spread (IQR)", "Limit", "Ratio"})


def save(figures: Mapping[str, Figure], file: Path, *, machine: str, date: str) -> None:
    """Writes name → value, unit, spread, limit, ratio, machine, date. Figures of other names that are there stay."""
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
    file.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def show(figures: Mapping[str, Figure], console: Console, *, machine: str, date: str) -> None:
    """The table on the terminal."""
    table = Table(title=f"{machine}\n{date}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=column != COLUMNS[-1])
    for name, one in figures.items():
        table.add_row(*_cells(name, one), style="dim" if one.limit is None else "")
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


def write_readme(figures: Mapping[str, Figure], file: Path, *, machine: str, date: str) -> None:
    """Puts the table between the markers of a README.

    Raises:
        BenchError: the markers are not there.
    """
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"{file.name} has no lines {BEGIN} and {END} for the table"
        raise BenchError(msg)
    lines = [f"Measured on {machine}, {date}.", "", _row(COLUMNS), "|---|--:|---|--:|--:|--:|---|"]
    lines += [_row([f"`{name}`", *_cells(name, one)[1:]]) for name, one in figures.items()]
    file.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(name: str, one: Figure) -> list[str]:
    return [
        name,
        _shown(one.value),
        one.unit.name,
        _shown(one.spread),
        "" if one.limit is None else _shown(one.limit),
        "" if one.ratio is None else f"{one.ratio:.1f}",
        one.limit_is or LIMIT_TEXTS.get(name, ""),
    ]


def _rounded(value: float) -> float:
    """Four digits that count; more would be noise."""
    return float(f"{value:.4g}")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
