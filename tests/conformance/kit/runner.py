"""Plays the cases: all languages play one case at a time, side by side, and in its middle the services are killed once for all."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.conformance.kit.cases import Case
from tests.conformance.kit.driver import Driver, DriverFailedError
from tests.conformance.kit.languages import Language
from tests.conformance.kit.matching import fill
from tests.conformance.kit.play import Play
from tests.conformance.kit.stage import Colony, Stage
from tests.conformance.kit.steps import play_step

# A case that takes longer than this has had a kill.
LONG_SECONDS = 1.0
# When one that does not say where its middle is has it.
MIDDLE_SECONDS = 0.5
CASE_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a case in one language; `failure` is empty if it passed."""

    seconds: float
    failure: str = ""
    killed: bool = False


class Meeting:
    """Where those who play a case meet; what is done there is done once, when all have come that still play."""

    def __init__(self, players: int, act: Callable[[], Awaitable[None]]) -> None:
        self._playing = players
        self._act = act
        self._waiting: list[asyncio.Future[None]] = []
        self._acting: asyncio.Task[None] | None = None

    async def arrive(self) -> None:
        """Returns when it was done."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._look()
        await turn

    def leave(self) -> None:
        """One has played to its end, or failed."""
        self._playing -= 1
        self._look()

    def _look(self) -> None:
        waiting = [turn for turn in self._waiting if not turn.done()]
        if waiting and len(waiting) >= self._playing:
            self._waiting = []
            self._acting = asyncio.create_task(self._release(waiting))

    async def _release(self, waiting: list[asyncio.Future[None]]) -> None:
        try:
            await self._act()
        except Exception as error:  # noqa: BLE001 - each that waits has failed by it
            for turn in waiting:
                if not turn.done():
                    turn.set_exception(error)
            return
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)


@dataclass(frozen=True, slots=True)
class Meetings:
    """What is done to what all languages share, and so only when none of them is half-way through a step of its own."""

    kill: Meeting
    flush: Meeting

    def leave(self) -> None:
        """One has played to its end, or failed."""
        self.kill.leave()
        self.flush.leave()


@dataclass
class Player:
    """A language with its colony and its driver, which is started again after it has failed."""

    language: Language
    colony: Colony
    stage: Stage
    driver: Driver | None = None
    verdicts: dict[Case, Verdict] = field(default_factory=dict)

    async def play(self, case: Case, meetings: Meetings) -> Verdict:
        """One case, with all its rows."""
        begun = time.time()
        playing = [self._play_row(case, row, meetings) for row in case.rows or ({},)]
        failures = await asyncio.gather(*playing) if case.at_once else [await row for row in playing]
        failures = [failure for failure in failures if failure]
        seconds = time.time() - begun
        killed = any(begun <= at <= begun + seconds for at, _ in self.stage.kills)
        if len(failures) > 1:
            failures = [f"{len(failures)} of {len(case.rows)} rows; {failures[0]}"]
        return Verdict(seconds, "".join(failures), killed)

    async def _play_row(self, case: Case, row: dict[str, object], meetings: Meetings) -> str:
        play = None
        try:
            play = Play(self.stage, self.colony, await self.ready_driver(), meetings.kill.arrive, meetings.flush.arrive)
            play.begin(row)
            play.scope.update({name: fill(value, play.scope) for name, value in row.items()})
            async with asyncio.timeout(CASE_SECONDS):
                for step in case.steps:
                    await play_step(play, step)
                await play.finish()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a case is its verdict, and the next one begins anew
            if play is not None:
                with suppress(OSError):
                    await play.restore()
            words = f"\n    its last words: {self.driver.last_words()}" if self.driver is not None else ""
            await self.end(orderly=False)
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            return f"{row.get('row', '')}: {kind}{error}{words}".removeprefix(": ")
        return ""

    async def ready_driver(self) -> Driver:
        """The driver, started if there is none.

        Raises:
            DriverFailedError: it does not start.
        """
        if self.driver is None or not self.driver.alive:
            self.driver = Driver(self.language, self.stage.root / f"driver-{self.language.name}.log")
            await self.driver.start()
            answer = await self.driver.tell({"do": "hello"})
            if "result" not in answer:
                msg = f"hello was answered with {answer}"
                raise DriverFailedError(msg)
        return self.driver

    async def end(self, *, orderly: bool = True) -> None:
        """Ends the driver."""
        driver, self.driver = self.driver, None
        if driver is not None:
            await (driver.end() if orderly else driver.kill())


async def play_case(case: Case, players: Sequence[Player], stage: Stage, *, kills: bool) -> None:
    """One case in all languages; the verdicts are noted at the players.

    With `kills` the services are killed (-9) in the middle, and a case that took longer than a second without it has failed.
    """

    async def kill() -> None:
        if kills:
            await stage.kill()

    meetings = Meetings(Meeting(len(players), kill), Meeting(len(players), stage.flush_redis))

    async def play(player: Player) -> None:
        try:
            verdict = await player.play(case, meetings)
        finally:
            meetings.leave()
        if kills and not verdict.failure and not verdict.killed and verdict.seconds > LONG_SECONDS:
            verdict = Verdict(verdict.seconds, f"it took {verdict.seconds:.1f} s, and nothing was killed in its middle")
        player.verdicts[case] = verdict

    if kills:
        await stage.recovered()
    for player in players:
        # What a start takes is no part of the case. If it fails, the case says so.
        with suppress(DriverFailedError, OSError):
            await player.ready_driver()
    playing = asyncio.gather(*(play(player) for player in players))
    if kills and not case.has_middle:
        await asyncio.wait([playing], timeout=MIDDLE_SECONDS)
        if not playing.done():
            await kill()
    await playing
