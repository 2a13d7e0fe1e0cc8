"""A client process: submitter.py PLAN. Submits what the plan says, and notes each acknowledged submit on disk.

A line of the log is written and synced after the acknowledgement, and before the next submit: what stands there was promised.
"""

import asyncio
import json
import os
import random
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TypeAlias

from colonies.client import AsyncClient
from colonies.errors import RpcError
from colonies.keys import PrivateKey
from colonies.scheduler.v1.scheduler_service_pb2 import SubmitProcessesRequest, SubmitWorkflowRequest
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec, Value, WorkflowSpec

Request: TypeAlias = SubmitProcessesRequest | SubmitWorkflowRequest

TYPES = ("red", "green", "blue")
# In one of so many processes, only these executors may run it: lanes of their own.
NAMED = ("e0", "e3")
ONE_IN_NAMED = 12
ONE_IN_SLOW = 50
MAX_BATCH = 200
RIDE_OUT_SECONDS = 300.0
PATIENT_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to submit, how and where."""

    port: int
    cluster: str
    key_file: str
    log: str
    seed: int
    first: int
    processes: int
    workflows: int
    # Spread over so many seconds; 0 = as fast as it goes.
    seconds: float

    @classmethod
    def load(cls, path: Path) -> Self:
        """As it was saved."""
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """For the process that follows it."""
        path.write_text(json.dumps(asdict(self)))


def _spec(rng: random.Random, index: int) -> FunctionSpec:
    executor_type = rng.choice(TYPES)
    names = NAMED if rng.randrange(ONE_IN_NAMED) == 0 else ()
    pause_ms = rng.randrange(100, 3_000) if rng.randrange(ONE_IN_SLOW) == 0 else 0
    return FunctionSpec(
        func_name="twice",
        args=[Value(data=str(index).encode())],
        kwargs={"pause_ms": Value(data=str(pause_ms).encode())},
        priority=rng.randint(-3, 3),
        max_exec_time_ms=rng.choice((0, 60_000)),
        max_retries=-1,
        conditions=Conditions(executor_type=executor_type, executor_names=names),
    )


def _workflow(rng: random.Random, index: int) -> WorkflowSpec:
    priority = rng.randint(-3, 3)

    def node(name: str, function: str, *parents: str, args: tuple[int, ...] = ()) -> FunctionSpec:
        return FunctionSpec(
            node_name=name,
            func_name=function,
            args=[Value(data=str(one).encode()) for one in args],
            priority=priority,
            max_retries=-1,
            conditions=Conditions(
                executor_type=rng.choice(TYPES), dependencies=[Dependency(node_name=parent) for parent in parents]
            ),
        )

    return WorkflowSpec(
        nodes=[
            node("a", "twice", args=(index,)),
            node("b", "twice", "a"),
            node("c", "twice", "a"),
            node("d", "add", "b", "c"),
        ]
    )


def _requests(plan: Plan) -> Iterator[tuple[int, Request, list[int]]]:
    """How many items were submitted before each request, the request, and the outputs that its processes must have."""
    rng = random.Random(plan.seed)
    done = workflows = 0
    while done < plan.processes or workflows < plan.workflows:
        if workflows < plan.workflows and workflows * plan.processes <= done * plan.workflows:
            index = plan.first + workflows
            yield (
                done,
                SubmitWorkflowRequest(colony_name="dev", workflow=_workflow(rng, index)),
                [2 * index, 4 * index, 4 * index, 8 * index],
            )
            workflows += 1
            continue
        count = min(rng.randint(1, MAX_BATCH), plan.processes - done)
        indexes = range(plan.first + done, plan.first + done + count)
        specs = [_spec(rng, index) for index in indexes]
        yield done, SubmitProcessesRequest(colony_name="dev", specs=specs), [2 * index for index in indexes]
        done += count


async def submit(plan: Plan) -> None:
    """Follows the plan to its end."""
    log = os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    key = PrivateKey.load(Path(plan.key_file))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with AsyncClient("127.0.0.1", plan.port, "dev", key, plan.cluster, retry_for=RIDE_OUT_SECONDS) as client:
        for done, request, outputs in _requests(plan):
            due = begun + plan.seconds * done / max(1, plan.processes)
            await asyncio.sleep(max(0.0, due - loop.time()))
            request.request_id = str(uuid.uuid4())
            while True:
                try:
                    line = {**await _entered(client, request), "outputs": outputs}
                except RpcError as error:
                    # Nothing but an outage may come between, and those are ridden out: noted for the accounting, and repeated.
                    line = {"refused": f"{error.code}: {error}"}
                os.write(log, json.dumps(line).encode() + b"\n")
                os.fsync(log)
                if "ids" in line:
                    break


async def _entered(client: AsyncClient, request: Request) -> dict[str, object]:
    if isinstance(request, SubmitWorkflowRequest):
        answer = await client.call(client.scheduler.SubmitWorkflow, request, timeout=PATIENT_SECONDS)
        return {"workflow": answer.workflow_id, "ids": list(answer.process_ids)}
    entered = await client.call(client.scheduler.SubmitProcesses, request, timeout=PATIENT_SECONDS)
    return {"ids": list(entered.process_ids)}


if __name__ == "__main__":
    asyncio.run(submit(Plan.load(Path(sys.argv[1]))))
