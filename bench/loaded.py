"""The cases that one installation carries after one another: what is run, and what is checked afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench import graphs
from bench.calls import Submits, UnaryCycles
from bench.failure import BenchError
from bench.figures import percentile
from bench.idle import IdleExecutor, IdleSubmits
from bench.installation import Colony
from bench.loads import Load, running
from bench.run import Run, Samples, expect, rates
from bench.sdk import SdkExecutors, SdkSubmits, Workflows

EXECUTORS = 8
# Functions that each SDK executor runs at a time: enough that its stream never runs dry while closes are under way.
SDK_CONCURRENCY = 32
WORKFLOW_CONCURRENCY = 8
BATCH = 100
BATCH_CLIENTS = 4
FAN = 1_000
CHAIN = 100
DAG_LAYERS = 10
DAG_WIDTH = 1_000


def cycle_unary(run: Run) -> Samples:
    """Submit, assign, close: one process a call, plain stubs, 8 executors at a time in two processes."""
    colony = run.stack.colony("cycle-unary", workers=EXECUTORS)
    keys = [worker.key.hex for worker in colony.workers]
    loads = [UnaryCycles(colony.door, keys[half::2]) for half in range(2)]
    samples, done = rates(run, loads)
    expect(run.stack, colony.door.colony, {"SUCCESSFUL": done})
    return {"cycle_unary": samples}


def cycle_sdk(run: Run) -> Samples:
    """The same through the SDK: a client that submits concurrently, 8 Executor objects that run 32 functions at once."""
    colony = run.stack.colony("cycle-sdk", workers=EXECUTORS)
    functions = run.effort.sdk_functions
    loads: list[Load[int, float]] = [SdkSubmits(colony.door, colony.user.hex)]
    with _executors(colony, SDK_CONCURRENCY), running(loads) as (client,):
        client.run(functions)
        with run.measuring(run.stack):
            samples = [functions / client.run(functions) for _ in range(run.effort.repetitions)]
    expect(run.stack, colony.door.colony, {"SUCCESSFUL": functions * (run.effort.repetitions + 1)})
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
    """Begin of a submit until an executor with an open stream has the process, nothing else going on."""
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
        with run.measuring(run.stack):
            for _ in range(repetitions):
                took = latencies()
                p50.append(percentile(took, 50))
                p99.append(percentile(took, 99))
    expect(run.stack, colony.door.colony, {"SUCCESSFUL": count * (repetitions + 1)})
    return {"idle_p50": p50, "idle_p99": p99}


def fan_1000(run: Run) -> Samples:
    """A workflow 1 → 1 000 → 1 of no-ops, 8 Executor objects that run 8 functions at a time."""
    return {"fan_1000": _workflow(run, "fan-1000", graphs.fan(FAN), run_it=True)}


def chain_100(run: Run) -> Samples:
    """A workflow of 100 no-ops in a row, the same executors."""
    return {"chain_100": _workflow(run, "chain-100", graphs.chain(CHAIN), run_it=True)}


def submit_dag_10k(run: Run) -> Samples:
    """Submitting a workflow of 10 000 functions in 10 layers, each with two parents."""
    spec = graphs.layers(DAG_LAYERS, DAG_WIDTH)
    return {"submit_dag_10k": _workflow(run, "submit-dag-10k", spec, run_it=False)}


def _submits(run: Run, colony_name: str, *, clients: Sequence[int], batch: int) -> list[float]:
    """Rates of submitting; `clients` says how many there are in each process."""
    colony = run.stack.colony(colony_name)
    samples, done = rates(run, [Submits(colony.door, [colony.user.hex] * count, batch) for count in clients])
    expect(run.stack, colony.door.colony, {"WAITING": done})
    return samples


def _workflow(run: Run, colony_name: str, spec: bytes, *, run_it: bool) -> list[float]:
    colony = run.stack.colony(colony_name, workers=EXECUTORS if run_it else 0)
    loads: list[Load[bool, float]] = [Workflows(colony.door, colony.user.hex, spec)]
    with _executors(colony, WORKFLOW_CONCURRENCY), running(loads) as (client,):
        client.run(run_it)
        with run.measuring(run.stack):
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
