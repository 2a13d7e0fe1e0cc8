"""The paper's four tables, filled in from what the server said."""

from collections.abc import Iterable, Sequence
from typing import Any

from colonies.cli.demo.paper import Seen
from colonies.cli.output import Cell, print_table, say
from colonies.cli.plain import lenient, plain
from colonies.cli.views import call_text, data_text, state
from colonies.scheduler.v1.process_pb2 import Process
from colonies.scheduler.v1.spec_pb2 import Value

# The label by which browsers say what they are.
USER_AGENT = "user_agent"


def print_tables(seen: Seen) -> None:
    """Prints the four tables."""
    numbered = list(enumerate(seen.end, 1))
    print_table(
        ("Spec", "Function", "Executor type", "Priority", "Max exec time", "Max retries"),
        [(f"F{number}", *_spec(process)) for number, process in numbered],
        title="Table 1: function specifications",
    )
    print_table(
        ("Process", "Spec", "Wait for parents", "Assigned executor", "State", "Priority time"),
        [(f"P{number}", f"F{number}", *_snapshot(process)) for number, process in enumerate(seen.middle, 1)],
        title="Table 2: the processes in the middle of the run",
    )
    print_table(
        ("Process", "Name", "Dependencies"),
        [(f"P{number}", process.spec.node_name, _dependencies(process)) for number, process in numbered],
        title="Table 3: dependencies",
    )
    print_table(
        ("Process", "Input", "Output"),
        [(f"P{number}", _values(process.inputs), _values(process.outputs)) for number, process in numbered],
        title="Table 4: inputs and outputs",
        nothing="",
    )
    if agent := seen.adder.capabilities.labels.get(USER_AGENT):
        say(f"\nP4's executor {seen.adder.name} is a browser: {agent}")


def document(seen: Seen) -> dict[str, Any]:
    """The same for programs: the processes as the server gave them, in the middle and at the end."""
    return {
        "workflow_id": seen.workflow_id,
        "middle": [plain(process) for process in seen.middle],
        "end": [plain(process) for process in seen.end],
        "result": seen.result,
        "adder": plain(seen.adder),
    }


def _spec(process: Process) -> Sequence[Cell]:
    spec = process.spec
    return (
        call_text(spec),
        spec.conditions.executor_type,
        str(spec.priority),
        f"{spec.max_exec_time_ms / 1000:g} s",
        str(spec.max_retries),
    )


def _snapshot(process: Process) -> Sequence[Cell]:
    return (
        str(process.wait_for_parents),
        process.executor_name,
        state(process.state),
        str(process.priority_time),
    )


def _dependencies(process: Process) -> str:
    return ", ".join(dependency.node_name for dependency in process.spec.conditions.dependencies)


def _values(values: Iterable[Value]) -> str:
    decoded = [lenient(value, "") for value in values]
    if not decoded:
        return ""
    return data_text(decoded[0] if len(decoded) == 1 else decoded)
