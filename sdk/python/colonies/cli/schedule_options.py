"""When a cron fires and what it does then, as it stands on the command line."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import typer

from colonies.cli import arguments
from colonies.cli.failure import usage
from colonies.schedules import MISSED, OVERLAPS, FirePolicy, Schedule

_MAX_RUNS = 1_000_000_000
_MOMENT = "Such as 2026-12-01T08:30; in this machine's zone unless it ends in another (+01:00, Z)."


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """The options of every command that takes a schedule."""

    expression: Annotated[
        str | None,
        typer.Option(help='When: six fields, seconds first, or five; or @hourly and the like. "0 30 4 * * *"'),
    ] = None
    every: Annotated[str | None, typer.Option(help="Or how often: 30s, 10m, 2h, 1d.")] = None
    random_every: Annotated[
        str | None, typer.Option(help="Or once in each interval of this length, at a random moment of it.")
    ] = None
    time_zone: Annotated[str, typer.Option(help="The zone of the expression, such as Europe/Stockholm. Default: UTC.")] = ""
    start: Annotated[str | None, typer.Option(metavar="MOMENT", help=f"No fire before. {_MOMENT}")] = None
    end: Annotated[str | None, typer.Option(metavar="MOMENT", help="No fire then or later.")] = None
    max_runs: Annotated[
        int, typer.Option(min=0, max=_MAX_RUNS, help="The cron ends after this many workflows; 0 is any number.")
    ] = 0
    jitter: Annotated[str, typer.Option(help="Put each fire off by a random time below this: 30s.")] = ""

    def to_schedule(self) -> Schedule:
        """What was asked for.

        Raises:
            CliError: an option cannot be used; names it.
        """
        if [self.expression, self.every, self.random_every].count(None) != 2:
            msg = "give one of --expression, --every and --random-every"
            raise usage(msg)
        if self.time_zone and self.expression is None:
            msg = "--time-zone is for an --expression"
            raise usage(msg)
        if self.expression == "":
            msg = "--expression is empty"
            raise usage(msg)
        return Schedule(
            self.expression or "",
            every=_seconds(self.every, "--every"),
            random_every=_seconds(self.random_every, "--random-every"),
            time_zone=self.time_zone,
            start=_moment(self.start, "--start"),
            end=_moment(self.end, "--end"),
            max_runs=self.max_runs,
            jitter=_seconds(self.jitter or None, "--jitter") or 0.0,
        )


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """The options of every command that takes a policy."""

    overlap: Annotated[
        str,
        typer.Option(
            metavar="|".join(OVERLAPS),
            help="While the last workflow is open: submit beside it, submit nothing, wait for its end, or cancel it first.",
        ),
    ] = "allow"
    missed: Annotated[
        str,
        typer.Option(
            metavar="|".join(MISSED),
            help="For moments that nobody could act on: no fire, one for all of them, or one for each.",
        ),
    ] = "once"
    missed_at_most: Annotated[
        int, typer.Option(min=0, max=1_000, help="For --missed all: only this many, the newest. 0 is 100.")
    ] = 0
    missed_after: Annotated[str, typer.Option(help="A moment this late is missed: 1s to 1d. Default: 10s.")] = ""
    feed_outputs: Annotated[
        bool, typer.Option("--feed-outputs", help="Append the outputs of the last good run to the arguments of each root.")
    ] = False
    max_failures: Annotated[
        int, typer.Option(min=0, max=1_000, help="Pause after this many refused fires in a row. 0 is 10.")
    ] = 0

    def to_policy(self) -> FirePolicy:
        """What was asked for.

        Raises:
            CliError: an option cannot be used; names it.
        """
        return FirePolicy(
            overlap=arguments.choice(self.overlap, tuple(OVERLAPS), "--overlap"),
            missed=arguments.choice(self.missed, tuple(MISSED), "--missed"),
            missed_at_most=self.missed_at_most,
            missed_after=_seconds(self.missed_after or None, "--missed-after") or 0.0,
            feed_outputs=self.feed_outputs,
            max_failures=self.max_failures,
        )


def _seconds(text: str | None, name: str) -> float | None:
    return None if text is None else arguments.duration_ms(text, name) / 1000


def _moment(text: str | None, name: str) -> datetime | None:
    return None if text is None else arguments.moment(text, name)
