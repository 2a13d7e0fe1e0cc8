"""What a second replica of the scheduler brings."""

from bench.calls import UnaryCycles
from bench.installation import Installation
from bench.loads import Load, Timed, Window, running
from bench.run import Run, Samples, done_in, expect, once

# More at a time than one scheduler can serve.
EXECUTORS = 32
COLONY = "replicas"


def replicas_2(run: Run) -> Samples:
    """Cycles of 32 executors with two schedulers over those with one: two installations in turns, so that noise hits both."""
    with run.another(schedulers=1) as one, run.another(schedulers=2) as two:
        with running(_loads(one)) as single, running(_loads(two)) as double:
            windows: tuple[list[list[Window]], list[list[Window]]] = ([], [])

            def speed_up() -> float:
                alone = once(single, run.effort.seconds, windows[0])
                return once(double, run.effort.seconds, windows[1]) / alone

            speed_up()
            with run.measuring(two):
                speed_ups = [speed_up() for _ in range(run.effort.repetitions)]
        for stack, done in zip((one, two), windows, strict=True):
            expect(stack, COLONY, {"SUCCESSFUL": done_in(done)})
    return {"replicas_2": speed_ups}


def _loads(stack: Installation) -> list[Load[Timed, Window]]:
    colony = stack.colony(COLONY, workers=EXECUTORS)
    keys = [worker.key.hex for worker in colony.workers]
    return [UnaryCycles(colony.door, keys[half::2]) for half in range(2)]
