"""Figures with a million waiting processes: what it costs to assign one of them, and to keep them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench import filling
from bench.assigns import Assigns, Side, Took
from bench.installation import Installation
from bench.loads import Load, running
from bench.run import Run, Samples, expect

FEW = 1_000
TARGETS = 1_000
MB = 1_000_000
SHALLOW, DEEP = "shallow", "deep"
# What anybody of the type may run.
ANYBODY: list[list[str]] = [[]]


def depth(run: Run) -> Samples:
    """One process a call, with a thousand waiting and with a million, in turns; and the memory that a million take."""
    with run.another() as stack:
        shallow, deep = (stack.colony(name, workers=1) for name in (SHALLOW, DEEP))
        filling.submit(shallow, ANYBODY * FEW)
        filling.rebuild(stack, {SHALLOW: FEW})
        memory = _Memory(stack, run.effort.waiting, filling.used_bytes(stack))
        empty_rss = [stack.rss_bytes("scheduler") / MB for _ in range(run.effort.repetitions)]
        bare = filling.bare_entry_bytes(stack, run.effort.repetitions)
        filling.submit(deep, ANYBODY * FEW)
        filling.multiply(stack, deep, run.effort.waiting // FEW)
        filling.rebuild(stack, {DEEP: run.effort.waiting, SHALLOW: FEW})
        sides = [Side(colony.door, colony.workers[0].key.hex) for colony in (shallow, deep)]
        ratios = _ratios(run, stack, sides, memory.look)
        _check(run, stack, {SHALLOW: FEW, DEEP: run.effort.waiting})
    return {
        "assign_depth": ratios,
        "rss_1m": memory.rss,
        "redis_bytes": memory.in_queue,
        "limit_rss_0": empty_rss,
        "limit_zset_entry": bare,
    }


def named(run: Run) -> Samples:
    """The same, each executor with a thousand processes that name it; beside one a million that name a thousand others."""
    with run.another() as stack:
        colonies = [stack.colony(name, workers=1) for name in (SHALLOW, DEEP)]
        filling.submit(colonies[1], [[f"target-{number}"] for number in range(TARGETS)])
        filling.multiply(stack, colonies[1], run.effort.waiting // TARGETS)
        sides = []
        for colony in colonies:
            (worker,) = colony.workers
            filling.submit(colony, [[worker.name]] * FEW)
            sides.append(Side(colony.door, worker.key.hex, [worker.name]))
        waiting = {SHALLOW: FEW, DEEP: run.effort.waiting + FEW}
        filling.rebuild(stack, waiting)
        ratios = _ratios(run, stack, sides, lambda: None)
        _check(run, stack, waiting)
    return {"assign_named": ratios}


@dataclass
class _Memory:
    """What so many processes take: looked at after each repetition, while the scheduler that has rebuilt the queue serves."""

    stack: Installation
    waiting: int
    # Used by Valkey before they waited.
    before: int
    rss: list[float] = field(default_factory=list)
    in_queue: list[float] = field(default_factory=list)

    def look(self) -> None:
        """Notes both."""
        self.rss.append(self.stack.rss_bytes("scheduler") / MB)
        self.in_queue.append((filling.used_bytes(self.stack) - self.before) / self.waiting)


def _ratios(run: Run, stack: Installation, sides: Sequence[Side], after_each: Callable[[], None]) -> list[float]:
    """How many times as long the second side takes as the first, by repetition."""
    loads: list[Load[int, Took]] = [Assigns(*sides)]
    ratios = []
    with running(loads) as (load,):
        load.run(run.effort.assigns)
        with run.measuring(stack):
            for _ in range(run.effort.repetitions):
                few, many = load.run(run.effort.assigns)
                ratios.append(median(many) / median(few))
                after_each()
    return ratios


def _check(run: Run, stack: Installation, waiting: Mapping[str, int]) -> None:
    """As many wait as at the beginning, and what was assigned was closed."""
    assigned = run.effort.assigns * (run.effort.repetitions + 1)
    for colony, count in waiting.items():
        expect(stack, colony, {"WAITING": count, "SUCCESSFUL": assigned})
