"""What a case is given, and what it gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from bench.effort import Effort
from bench.failure import BenchError
from bench.installation import PLAIN, Build, Installation, installation
from bench.loads import Load, LoadProcess, Timed, Window, rate, running, timed

# Repetitions by figure; a case may add limits of its own, whose names begin with `limit_`.
Samples: TypeAlias = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a case. `measuring` is entered after the warm-up and left after the last repetition."""

    stack: Installation
    effort: Effort
    measuring: Callable[[Installation], AbstractContextManager[None]]

    @contextmanager
    def another(self, *, schedulers: int = 1, build: Build = PLAIN) -> Iterator[Installation]:
        """An installation for one case alone, beside the one of all cases.

        Raises:
            BenchError: as `installation`, or a part of it died on the way.
        """
        with installation(schedulers=schedulers, build=build) as stack:
            yield stack
            check_whole(stack)


def check_whole(stack: Installation) -> None:
    """A figure that was taken across a restart is none.

    Raises:
        BenchError: a part of the stack had to be started again.
    """
    if stack.restarts():
        msg = "a part of the stack was restarted meanwhile"
        raise BenchError(msg)


def rates(run: Run, loads: Sequence[Load[Timed, Window]]) -> tuple[list[float], int]:
    """Repetitions of a rate, and how much was done in all, the warm-up included."""
    with running(loads) as processes:
        windows = [timed(processes, run.effort.seconds)]
        with run.measuring(run.stack):
            windows += [timed(processes, run.effort.seconds) for _ in range(run.effort.repetitions)]
    return [rate(repetition) for repetition in windows[1:]], done_in(windows)


def done_in(windows: Sequence[Sequence[Window]]) -> int:
    """How much was done in all of these repetitions."""
    return sum(window.count for repetition in windows for window in repetition)


def once(processes: Sequence[LoadProcess[Timed, Window]], seconds: float, windows: list[list[Window]]) -> float:
    """One repetition, noted in `windows`; returns its rate."""
    windows.append(timed(processes, seconds))
    return rate(windows[-1])


def expect(stack: Installation, colony: str, expected: Mapping[str, int]) -> None:
    """Counts what is in the server.

    Raises:
        BenchError: it is not what was done.
    """
    if (found := stack.processes(colony)) != expected:
        msg = f"colony {colony}: the server has {found}, and what was done is {dict(expected)}"
        raise BenchError(msg)
