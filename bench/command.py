"""The command line: measures, shows, and writes results.json and the table in README.md."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from bench import report
from bench.cases import NAMES, QUICK_NAMES, measure, shown_with
from bench.effort import FULL, QUICK
from bench.failure import BenchError
from bench.figures import Figure, machine, now
from bench.installation import Installation, installation
from bench.limits import LIMIT_TEXTS, measure_limits
from bench.profiling import hot_spots, recorded
from bench.run import Run

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
README = HERE / "README.md"
PROFILES = HERE / "profiles"
PIPED_COLUMNS = 140
TERMINATED = 128 + signal.SIGTERM
# A processor that others use takes from every figure.
QUIET_LOAD = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    # Into a file or a pipe the table goes whole.
    console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS)
    unknown = sorted({*options.names, *([options.profile] if options.profile else [])} - set(NAMES))
    if unknown:
        sys.stderr.write(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}\n")
        return 2
    _tell_if_busy(console)
    # An end on demand takes the installations down too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        with installation() as stack:
            if options.profile:
                _profile(stack, options.profile, console, quick=options.quick)
            else:
                _measure(
                    stack,
                    options.names or (QUICK_NAMES if options.quick else NAMES),
                    console,
                    quick=options.quick,
                    keep=not options.dry_run,
                )
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted\n")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure this machine's Colonies.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"what to measure; default all: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="about two minutes: shorter repetitions, wider spread, no million")
    parser.add_argument("--dry-run", action="store_true", help="show the figures, and write no file")
    parser.add_argument(
        "--profile", metavar="NAME", help="run one benchmark with py-spy on the scheduler; writes to bench/profiles/"
    )
    return parser


def _measure(stack: Installation, names: Sequence[str], console: Console, *, quick: bool, keep: bool) -> None:
    date, host = now(), machine()
    effort = QUICK if quick else FULL
    with console.status("limits") as status:
        limits = measure_limits(stack, effort)
        figures: dict[str, Figure] = {}
        for name, one in measure(Run(stack, effort, lambda _stack: nullcontext()), names, limits):
            figures[name] = one
            status.update(f"{name}: {one.value:.4g} {one.unit.name}")
    everything = (*NAMES, *LIMIT_TEXTS)
    measured = figures | limits.figures
    ordered = {name: measured[name] for name in everything if name in measured}
    report.show(ordered, console, shown_with, machine=host, date=date)
    if keep:
        report.save(ordered, RESULTS, everything, machine=host, date=date)
        report.write_readme(report.load(RESULTS, shown_with), README, shown_with)


def _profile(stack: Installation, name: str, console: Console, *, quick: bool) -> None:
    files: list[Path] = []

    @contextmanager
    def recording(watched: Installation) -> Iterator[None]:
        with recorded(watched.pid_of("scheduler"), PROFILES, name) as file:
            yield
        files.append(file)

    effort = QUICK if quick else FULL
    limits = measure_limits(stack, QUICK)
    for measured, one in measure(Run(stack, effort, recording), [name], limits):
        console.print(f"{measured}: {one.value:.4g} {one.unit.name} while it was watched")
    for file in files:
        report.show_hot_spots(hot_spots(file), console, title=f"The scheduler during {name} ({file.name})")


def _tell_if_busy(console: Console) -> None:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > QUIET_LOAD * cores:
        console.print(f"[yellow]load average {load:.1f} on {cores} processors: others are at work here, and it shows")
