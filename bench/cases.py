"""The figures: what is run, what is checked afterwards, and which limit each is held against."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from bench import graphs
from bench.calls import Submits, UnaryCycles
from bench.effort import Effort
from bench.failure import BenchError
from bench.figures import CYCLES_PER_S, MS, PROCESSES_PER_S, Figure, Unit, figure, percentile
from bench.idle import IdleExecutor, IdleSubmits
from bench.installation import Colony, Installation
from bench.limits import Limits
from bench.loads import Load, Timed, Window, rate, running, timed
from bench.sdk import SdkExecutors, SdkSubmits, Workflows
from colonies.client.processes import state_name

EXECUTORS = 8
SDK_CONCURRENCY = 8
BATCH = 100
BATCH_CLIENTS = 4
FAN = 100
CHAIN = 50

Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a case. `measuring` is entered after the warm-up and left after the last repetition."""

    stack: Installation
    effort: Effort
    measuring: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Held:
    """A figure's unit and its limit: how the limit comes about, in numbers and in words."""

    unit: Unit
    limit: Callable[[Limits], float]
    limit_is: str


def cycle_unary(run: Run) -> Samples:
    """Submit, assign, close: one process a call, plain stubs, 8 executors at a time in two processes."""
    colony = run.stack.colony("cycle-unary", workers=EXECUTORS)
    keys = [worker.key.hex for worker in colony.workers]
    loads = [UnaryCycles(colony.door, keys[half::2]) for half in range(2)]
    samples, done = _rates(run, loads)
    _expect(colony, {"SUCCESSFUL": done})
    return {"cycle_unary": samples}


def cycle_sdk(run: Run) -> Samples:
    """The same through the SDK: a client that submits concurrently, 8 Executor objects that run 8 functions at once."""
    colony = run.stack.colony("cycle-sdk", workers=EXECUTORS)
    functions = run.effort.sdk_functions
    loads: list[Load[int, float]] = [SdkSubmits(colony.door, colony.user.hex)]
    with _executors(colony, SDK_CONCURRENCY), running(loads) as (client,):
        client.run(functions)
        with run.measuring():
            samples = [functions / client.run(functions) for _ in range(run.effort.repetitions)]
    _expect(colony, {"SUCCESSFUL": functions * (run.effort.repetitions + 1)})
    return {"cycle_sdk": samples}


def submit_1(run: Run) -> Samples:
    """One client, one process a call, one call after another."""
    return {"submit_1": _submits(run, "submit-1", clients=[1], batch=1)}


def submit_32(run: Run) -> Samples:
    """32 clients, each as submit_1, in two processes."""
    return {"submit_32": _submits(run, "submit-32", clients=[16, 16], batch=1)}


def submit_batch(run: Run) -> Samples:
    """Four clients, 100 processes a call."""
    return {"submit_batch": _submits(run, "submit-batch", clients=[BATCH_CLIENTS], batch=BATCH)}


def idle(run: Run) -> Samples:
    """Begin of a submit until an executor that waited in a long poll has the process, nothing else going on."""
    colony = run.stack.colony("idle", workers=1)
    count, repetitions = run.effort.idle_submits, run.effort.repetitions
    waiting: list[Load[int, dict[str, float]]] = [IdleExecutor(colony.door, colony.workers[0].key.hex)]
    submitting: list[Load[int, dict[str, float]]] = [IdleSubmits(colony.door, colony.user.hex)]
    p50, p99 = [], []
    with running(waiting) as (executor,), running(submitting) as (client,):

        def latencies() -> list[float]:
            executor.tell(count)
            begun = client.run(count)
            arrived = executor.answer()
            if begun.keys() != arrived.keys():
                msg = "what arrived is not what was submitted"
                raise BenchError(msg)
            return [(arrived[one] - begun[one]) * 1000 for one in begun]

        latencies()
        with run.measuring():
            for _ in range(repetitions):
                took = latencies()
                p50.append(percentile(took, 50))
                p99.append(percentile(took, 99))
    _expect(colony, {"SUCCESSFUL": count * (repetitions + 1)})
    return {"idle_p50": p50, "idle_p99": p99}


def fan_100(run: Run) -> Samples:
    """A workflow 1 → 100 → 1 of no-ops, 8 Executor objects that run one function at a time."""
    return {"fan_100": _workflow(run, "fan-100", graphs.fan(FAN), run_it=True)}


def chain_50(run: Run) -> Samples:
    """A workflow of 50 no-ops in a row, the same executors."""
    return {"chain_50": _workflow(run, "chain-50", graphs.chain(CHAIN), run_it=True)}


def submit_dag_1k(run: Run) -> Samples:
    """Submitting a workflow of 1 000 functions in 10 layers, each with two parents."""
    return {"submit_dag_1k": _workflow(run, "submit-dag-1k", graphs.layers(10, 100), run_it=False)}


# The order matters: what needs quiet comes first, what leaves tens of thousands of rows comes last.
CASES: Mapping[Callable[[Run], Samples], Mapping[str, Held]] = {
    idle: {
        "idle_p50": Held(MS, lambda limits: limits.signed_commit_ms, "one signed call and one commit"),
        "idle_p99": Held(
            MS,
            lambda limits: limits.ms("limit_grpc_1_p99") + limits.ms("limit_ed25519") + limits.ms("limit_commit_1_p99"),
            "the same, 99th percentiles",
        ),
    },
    chain_50: {
        "chain_50": Held(MS, lambda limits: CHAIN * limits.signed_commit_ms, "one signed call and one commit a step"),
    },
    fan_100: {
        "fan_100": Held(
            MS,
            lambda limits: 1000 * 2 * (FAN + 2) / limits.per_s("limit_grpc_8"),
            "two empty calls a process, 8 callers",
        ),
    },
    cycle_unary: {
        "cycle_unary": Held(
            CYCLES_PER_S, lambda limits: limits.per_s("limit_grpc_8") / 3, "three empty calls a cycle, 8 callers"
        ),
    },
    cycle_sdk: {
        "cycle_sdk": Held(
            CYCLES_PER_S,
            lambda limits: 1000 * 100 / limits.ms("limit_commit_100") / 3,
            "three rows a cycle, 100 rows a commit",
        ),
    },
    submit_1: {
        "submit_1": Held(
            PROCESSES_PER_S,
            lambda limits: 1000 / limits.signed_commit_ms,
            "one signed call and one commit each",
        ),
    },
    submit_32: {
        "submit_32": Held(PROCESSES_PER_S, lambda limits: limits.per_s("limit_grpc_32"), "empty calls, 32 callers"),
    },
    submit_dag_1k: {
        "submit_dag_1k": Held(
            MS,
            lambda limits: limits.ms("limit_grpc_1") + limits.ms("limit_ed25519") + limits.ms("limit_commit_1000"),
            "one signed call and one commit of 1 000 rows",
        ),
    },
    submit_batch: {
        "submit_batch": Held(
            PROCESSES_PER_S,
            lambda limits: 1000 * BATCH / limits.ms("limit_commit_100"),
            "100 rows a commit",
        ),
    },
}

NAMES = [name for held in CASES.values() for name in held]


def measure(run: Run, names: Sequence[str], limits: Limits) -> Iterator[tuple[str, Figure]]:
    """The figures of these names, as they come.

    Raises:
        BenchError: the work was not done as it should be, or a part of the stack died on the way.
    """
    for case, held in CASES.items():
        if not any(name in names for name in held):
            continue
        samples = case(run)
        if run.stack.restarts():
            msg = f"a part of the stack was restarted during {case.__name__}"
            raise BenchError(msg)
        for name, against in held.items():
            yield name, figure(samples[name], against.unit, against.limit(limits), against.limit_is)


def _rates(run: Run, loads: Sequence[Load[Timed, Window]]) -> tuple[list[float], int]:
    """Repetitions of a rate, and how much was done in all, the warm-up included."""
    with running(loads) as processes:
        windows = [timed(processes, run.effort.seconds)]
        with run.measuring():
            windows += [timed(processes, run.effort.seconds) for _ in range(run.effort.repetitions)]
    done = sum(window.count for repetition in windows for window in repetition)
    return [rate(repetition) for repetition in windows[1:]], done


def _submits(run: Run, colony_name: str, *, clients: Sequence[int], batch: int) -> list[float]:
    """Rates of submitting; `clients` says how many there are in each process."""
    colony = run.stack.colony(colony_name)
    samples, done = _rates(run, [Submits(colony.door, [colony.user.hex] * count, batch) for count in clients])
    _expect(colony, {"WAITING": done})
    return samples


def _workflow(run: Run, colony_name: str, spec: bytes, *, run_it: bool) -> list[float]:
    colony = run.stack.colony(colony_name, workers=EXECUTORS if run_it else 0)
    loads: list[Load[bool, float]] = [Workflows(colony.door, colony.user.hex, spec)]
    with _executors(colony, 1), running(loads) as (client,):
        client.run(run_it)
        with run.measuring():
            samples = [client.run(run_it) for _ in range(run.effort.repetitions)]
    return samples


@contextmanager
def _executors(colony: Colony, concurrency: int) -> Iterator[None]:
    """All of a colony's executors at work, in one process."""
    if not colony.workers:
        yield
        return
    workers = [(worker.name, worker.key.hex) for worker in colony.workers]
    loads: list[Load[None, None]] = [SdkExecutors(colony.door, workers, concurrency)]
    with running(loads) as (executors,):
        yield
        executors.run(None)


def _expect(colony: Colony, expected: Mapping[str, int]) -> None:
    """Counts what is in the server.

    Raises:
        BenchError: it is not what was done.
    """

    async def count() -> Counter[str]:
        async with colony.door.client(colony.user) as client:
            return Counter([state_name(one.state) async for one in client.list_processes()])

    if (found := asyncio.run(count())) != Counter(expected):
        msg = f"colony {colony.door.colony}: the server has {dict(found)}, and what was done is {dict(expected)}"
        raise BenchError(msg)
