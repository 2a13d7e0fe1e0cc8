"""py-spy on the scheduler while a case runs: which functions its time goes to."""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.failure import BenchError

SAMPLES_PER_S = 200
STOP_S = 30.0
_LINE = re.compile(r":\d+\)\Z")


@dataclass(frozen=True, slots=True)
class HotSpot:
    """A function: the share of samples that were in it, and in it or in what it called."""

    function: str
    own: float
    total: float

    @property
    def is_ours(self) -> bool:
        """Whether it is the project's own code."""
        return any(f"({package}/" in self.function for package in ("services", "servicekit", "colonies"))


@contextmanager
def recorded(pid: int, folder: Path, name: str) -> Iterator[Path]:
    """Samples a process until the block ends. Yields the file of collapsed stacks that there is then.

    Any flame graph viewer opens it. Only threads that do something are sampled, so an idle process has no samples.
    Compiled code (gRPC, uvloop, libpq) counts as its caller's own: to look into it, py-spy would have to stop the
    process for each sample, and slows it down tenfold.

    Raises:
        BenchError: py-spy is not installed, or may not look into the process.
    """
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists():
        msg = "py-spy is not installed: make setup"
        raise BenchError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / f"{name}.folded", folder / f"{name}.log"
    file.unlink(missing_ok=True)
    command = [str(program), "record", "--pid", str(pid), "--rate", str(SAMPLES_PER_S), "--format", "raw"]
    command += ["--output", str(file), "--nonblocking"]
    with log.open("wb") as output:
        spy = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield file
    finally:
        # It writes what it has when it is interrupted.
        spy.send_signal(signal.SIGINT)
        try:
            spy.wait(STOP_S)
        except subprocess.TimeoutExpired:
            spy.kill()
            spy.wait()
    if not file.exists():
        msg = f"py-spy has recorded nothing of process {pid}: {log.read_text(errors='replace').strip()[-300:]}"
        raise BenchError(msg)


def hot_spots(file: Path) -> list[HotSpot]:
    """The functions of a recording, those with the most time of their own first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in file.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        # "function (file:line)": lines of one function count together.
        functions = [_LINE.sub(")", frame) for frame in stack.split(";")]
        own[functions[-1]] += int(count)
        for function in set(functions):
            total[function] += int(count)
    samples = sum(own.values()) or 1
    return [HotSpot(function, own[function] / samples, total[function] / samples) for function, _ in own.most_common()]
