"""`python -m tests.conformance.kit [--languages python,go] [--cases TEXT] [--quick] [--no-kills] [--no-build]`."""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from tests.conformance.kit.cases import Case, cases, known_failures
from tests.conformance.kit.languages import Language, languages
from tests.conformance.kit.runner import Player, play_case
from tests.conformance.kit.stage import stage
from tests.conformance.kit.table import Column, Table


async def hold(chosen: Sequence[Language], played: Sequence[Case], *, kills: bool, build: bool, repeat: int = 1) -> list[str]:
    """Plays the cases in the languages and prints the table; returns what must not be."""
    begun = time.monotonic()
    problems = {language: await language.build() if build else "" for language in chosen}
    built = time.monotonic()
    faults: list[str] = []
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(stage())
        players = []
        for language in chosen:
            if not problems[language]:
                players.append(Player(language, await opened.colony(f"colony-{language.name}"), opened))
                stack.push_async_callback(players[-1].end)
        verdicts = {player.language: player.verdicts for player in players}
        columns = [Column(language, verdicts.get(language), problems[language]) for language in chosen]
        for _ in range(repeat):
            table = Table(columns, played, known_failures())
            print(table.head(), flush=True)
            for case in played:
                await play_case(case, players, opened, kills=kills)
                print(table.row(case), flush=True)
            print(table.foot())
            for line in (*table.known(), *table.faults()):
                print(line)
            faults += table.faults()
        victims = " and ".join(opened.victims)
        killed = f"*: {victims} killed -9 in the middle; {len(opened.kills)} kills in all" if kills else "nothing was killed"
    print(f"{killed}. Built in {built - begun:.0f} s, played in {time.monotonic() - built:.0f} s.", flush=True)
    return faults


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.kit", description="Holds every language to the same cases."
    )
    parser.add_argument("--languages", help="only these, separated by commas")
    parser.add_argument("--cases", help="only those with this in their names; several, separated by commas")
    parser.add_argument("--quick", action="store_true", help="only the small set")
    parser.add_argument("--no-kills", action="store_true", help="kill nothing")
    parser.add_argument("--no-build", action="store_true", help="the drivers are built")
    parser.add_argument("--repeat", type=int, default=1, help="so many times")
    options = parser.parse_args()
    there = {language.name: language for language in languages()}
    names = options.languages.split(",") if options.languages else list(there)
    if unknown := [name for name in names if name not in there]:
        parser.error(f"no driver for {', '.join(unknown)}; there are: {', '.join(there)}")
    played = [case for case in cases() if case.quick or not options.quick]
    if options.cases:
        played = [case for case in played if any(text in str(case) for text in options.cases.split(","))]
    if not played:
        parser.error("there is no such case")
    chosen = [there[name] for name in names]
    faults = asyncio.run(hold(chosen, played, kills=not options.no_kills, build=not options.no_build, repeat=options.repeat))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
