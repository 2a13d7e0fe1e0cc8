"""The accounting after a story: every acknowledged item, against what the system itself recorded."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from colonies.client import AsyncClient
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec, WorkflowSpec
from colonies.values import decode_all

LEGAL = {
    (0, 1), (1, 2), (1, 4), (1, 5), (2, 1), (2, 3), (2, 4), (2, 5),
}  # fmt: skip


def paper_workflow() -> WorkflowSpec:
    """The paper's example."""

    def node(name: str, function: str, executor_type: str, *parents: Dependency) -> FunctionSpec:
        return FunctionSpec(
            node_name=name,
            func_name=function,
            priority=1,
            max_exec_time_ms=200_000,
            max_retries=5,
            conditions=Conditions(executor_type=executor_type, dependencies=parents),
        )

    def share(parent: str, index: int, of: int) -> Dependency:
        return Dependency(node_name=parent, share=Dependency.Share(index=index, of=of))

    return WorkflowSpec(
        nodes=[
            node("Task1", "gen_nums", "edge"),
            node("Task2", "square", "cloud", share("Task1", 0, 2)),
            node("Task3", "square", "cloud", share("Task1", 1, 2)),
            node("Task4", "sum", "browser", share("Task2", 0, 1), share("Task3", 0, 1)),
        ]
    )


@dataclass(frozen=True)
class Account:
    """What came of one process."""

    process: process_pb2.Process
    attempts: Sequence[process_pb2.Attempt]


async def check_process(client: AsyncClient, process_id: str) -> Account:
    """Checks the record of one process: legal steps, attempts one after the other, the last one's outcome in effect."""
    process = await client.get_process(process_id)
    history = await client.get_history(process_id)
    state = 0
    for step in history.transitions:
        assert step.from_state == state, (process_id, history)
        assert (step.from_state, step.to_state) in LEGAL, (process_id, history)
        state = step.to_state
    assert state == process.state, (process_id, history)
    assert [attempt.number for attempt in history.attempts] == list(range(1, process.attempt + 1))
    for earlier, later in zip(history.attempts, history.attempts[1:], strict=False):
        # I2: never two live attempts at one instant.
        assert earlier.HasField("end_time"), (process_id, history)
        assert earlier.end_time.ToNanoseconds() <= later.start_time.ToNanoseconds(), (process_id, history)
    outcomes = Counter(attempt.outcome for attempt in history.attempts)
    expected = 1 if process.state == process_pb2.PROCESS_STATE_SUCCESSFUL else 0
    assert outcomes[process_pb2.ATTEMPT_OUTCOME_SUCCESSFUL] == expected, (process_id, history)
    return Account(process, history.attempts)


async def check_paper_workflow(client: AsyncClient, submitted: pb.SubmitWorkflowResponse) -> list[Account]:
    """Checks that a workflow of the paper's shape came out as the paper says."""
    workflow = await client.get_workflow(submitted.workflow_id)
    assert workflow.state == process_pb2.PROCESS_STATE_SUCCESSFUL, workflow
    accounts = [await check_process(client, process_id) for process_id in submitted.process_ids]
    outputs = [decode_all(account.process.outputs) for account in accounts]
    assert outputs == [[2, 3], [4], [9], [13]], outputs
    return accounts


def effects(lines: Iterable[str]) -> Counter[tuple[str, int]]:
    """How often each attempt of each process was really run."""
    return Counter((process, int(attempt)) for process, attempt, *_ in (line.split() for line in lines))
