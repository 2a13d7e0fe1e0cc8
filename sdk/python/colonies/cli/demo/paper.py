"""The paper's worked example, and a run of it that is looked at in its middle."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from colonies.cli.bootstrap import Address
from colonies.cli.demo import functions, gate
from colonies.cli.demo.children import Child
from colonies.cli.failure import CliError
from colonies.cli.plain import lenient
from colonies.client import AsyncClient
from colonies.function import Function
from colonies.keys import PrivateKey
from colonies.registry.v1.registry_service_pb2 import Executor
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1.process_pb2 import Process, ProcessEvent
from colonies.workflow import ColoniesWorkflow

LABEL = "paper-demo"
RUN_SECONDS = 60.0
RESULT = 13

OnProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server said of the four processes, in the order of the paper."""

    workflow_id: str
    middle: Sequence[Process]
    end: Sequence[Process]
    result: object
    # Who added the squares, as it registered.
    adder: Executor


@dataclass(frozen=True, slots=True)
class Drawn:
    """The example, drawn: the workflow, and its functions in the order of the paper."""

    workflow: ColoniesWorkflow
    functions: tuple[Function, Function, Function, Function]


def drawn(address: Address, colony: str, key: PrivateKey, gate_address: str) -> Drawn:
    """The paper's program: two numbers are generated, each is squared, the squares are added."""
    held = {gate.VARIABLE: gate_address}

    def task(
        name: str, function: Callable[..., object] | str, executortype: str, env: Mapping[str, str] | None = None
    ) -> Function:
        return Function(
            function,
            colony,
            executortype=executortype,
            name=name,
            priority=1,
            max_exec_time=200,
            max_retries=5,
            env=env,
        )

    gen_nums = task("Task1", functions.gen_nums, "edge")
    square1 = task("Task2", functions.square, "cloud", held)
    square2 = task("Task3", functions.square, "cloud", held)
    total = task("Task4", "sum", "browser")

    wf = ColoniesWorkflow(address.host, address.port, colony, key, cluster=address.cluster, label=LABEL, tls=address.tls)
    wf >> gen_nums
    gen_nums >> square1
    gen_nums >> square2
    [square1, square2] >> total
    return Drawn(wf, (gen_nums, square1, square2, total))


async def run(address: Address, colony: str, key: PrivateKey, executors: tuple[Child, Child], on_progress: OnProgress) -> Seen:
    """Runs the example: E1 pulls from the start; E2, the late-comer, from when E1 has its hands full with the first square.

    Both squares then wait at a gate until the server has been asked for its picture of the run.

    Raises:
        CliError: something did not happen in time, or a process failed.
    """
    first, second = executors
    async with gate.Gate() as held, address.client(colony, key) as client:
        example = drawn(address, colony, key, held.address)
        try:
            async with asyncio.timeout(RUN_SECONDS), await example.workflow.asubmit() as submitted:
                ids = [submitted.processes[function] for function in example.functions]
                on_progress(f"submitted workflow {submitted.workflow_id}")
                async with aclosing(client.watch(workflow_id=submitted.workflow_id)) as events:
                    await first.begin()
                    await _until_running(events, ids[1:2])
                    await second.begin()
                    await _until_running(events, ids[2:3])
                middle = await _picture(client, ids)
                on_progress("both squares are running: took the picture, opening the gate")
                held.open()
                result = await submitted.wait(progress=False)
                end = await _picture(client, ids)
                return Seen(submitted.workflow_id, middle, end, result, await client.get_executor(end[3].executor_name))
        except TimeoutError as error:
            msg = f"the run is not over after {RUN_SECONDS:.0f} s; look at it with: colonies --profile demo workflow list"
            raise CliError(msg) from error


async def _until_running(events: AsyncIterator[ProcessEvent], process_ids: Sequence[str]) -> None:
    """Returns when each of these processes has been assigned.

    Raises:
        CliError: one of the workflow's processes failed instead.
    """
    missing = set(process_ids)
    async for event in events:
        if event.transition.to_state in (process_pb2.PROCESS_STATE_FAILED, process_pb2.PROCESS_STATE_CANCELLED):
            msg = f"{event.node_name} ({event.func_name}) ended early: {event.transition.reason}"
            raise CliError(msg)
        if event.transition.to_state == process_pb2.PROCESS_STATE_RUNNING:
            missing.discard(event.process_id)
        if not missing:
            return
    msg = "the workflow was over before both squares ran"
    raise CliError(msg)


async def _picture(client: AsyncClient, process_ids: Sequence[str]) -> list[Process]:
    return list(await asyncio.gather(*(client.get_process(process_id) for process_id in process_ids)))


async def cancel_leftovers(client: AsyncClient) -> None:
    """Cancels the runs of demos that were interrupted: their squares would be pulled before this one's."""
    async for workflow in client.list_workflows(label=LABEL):
        if not workflow.HasField("end_time"):
            await client.cancel_workflow(workflow.workflow_id)


def mistakes(seen: Seen, *, adder: str = "E2") -> list[str]:
    """Where the run differs from the paper; empty when nowhere. `adder` is the executor that was to run `sum`."""
    state = process_pb2
    wanted_states = (
        state.PROCESS_STATE_SUCCESSFUL,
        state.PROCESS_STATE_RUNNING,
        state.PROCESS_STATE_RUNNING,
        state.PROCESS_STATE_WAITING,
    )
    wanted_executors = ("E1", "E1", "E2", "")
    wanted_values: tuple[tuple[list[Any], list[Any]], ...] = (([], [2, 3]), ([2], [4]), ([3], [9]), ([4, 9], [RESULT]))
    found = []
    for number, (process, wanted_state, executor) in enumerate(
        zip(seen.middle, wanted_states, wanted_executors, strict=True), 1
    ):
        if process.state != wanted_state or process.executor_name != executor:
            found.append(f"P{number} was in another state or on another executor in the middle of the run")
    for number, (process, wanted) in enumerate(zip(seen.end, wanted_values, strict=True), 1):
        had = ([lenient(each, "") for each in process.inputs], [lenient(each, "") for each in process.outputs])
        if had != wanted:
            found.append(f"P{number} had inputs {had[0]} and outputs {had[1]}, not {wanted[0]} and {wanted[1]}")
    if seen.adder.name != adder:
        found.append(f"P4 ran on {seen.adder.name}, not on {adder}")
    if seen.result != RESULT:
        found.append(f"the workflow gave {seen.result!r}, not {RESULT}")
    return found
