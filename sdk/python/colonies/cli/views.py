"""What people see of processes and workflows: rows, fields and colours."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from colonies.cli import plain
from colonies.cli.failure import visible
from colonies.cli.moments import local, local_if_set, run_time, span_ms
from colonies.cli.output import Cell
from colonies.registry.v1 import registry_service_pb2
from colonies.scheduler.v1 import process_pb2, spec_pb2
from colonies.scheduler.v1.process_pb2 import Process, ProcessState, Workflow
from colonies.scheduler.v1.spec_pb2 import Dependency, FunctionSpec, Value

_STATE_COLOURS = {
    "waiting": "yellow",
    "pending": "yellow",
    "running": "cyan",
    "successful": "green",
    "healthy": "green",
    "starting": "yellow",
    "active": "green",
    "paused": "yellow",
    "ended": "dim",
    "submitted": "green",
    "skipped": "magenta",
    "missed": "magenta",
    "refused": "red",
    "down": "red",
    "approved": "green",
    "failed": "red",
    "rejected": "red",
    "lost": "red",
    "timed out": "red",
    "cancelled": "magenta",
}

STATES = ("waiting", "running", "successful", "failed", "cancelled")

FINAL_STATES = frozenset(
    {
        process_pb2.PROCESS_STATE_SUCCESSFUL,
        process_pb2.PROCESS_STATE_FAILED,
        process_pb2.PROCESS_STATE_CANCELLED,
    }
)


def coloured(word: str) -> Text:
    """A state's word in its colour."""
    return Text(word, style=_STATE_COLOURS.get(word.lower(), ""))


def state_word(state: int) -> str:
    """The word for a process's state, such as "Running"."""
    if state not in ProcessState.values():
        return f"state {state}"
    return ProcessState.Name(ProcessState.ValueType(state)).removeprefix("PROCESS_STATE_").capitalize()


def state(value: int) -> Text:
    """A process's state in its colour."""
    return coloured(state_word(value))


def value_text(value: Value) -> str:
    """A user value on one line."""
    return data_text(plain.lenient(value, ""))


def data_text(data: Any) -> str:
    """Decoded data on one line, as JSON. What cannot be decoded is shown as the remark that it is."""
    if isinstance(data, str) and data.startswith("<undecodable: "):
        return visible(data)
    try:
        return visible(json.dumps(data, ensure_ascii=False))
    except RecursionError:
        return "<undecodable: nested too deeply>"


def values_text(values: Iterable[Value]) -> str:
    """Several user values, comma-separated."""
    return ", ".join(value_text(value) for value in values)


def call_text(spec: FunctionSpec) -> str:
    """A spec as a call: name, arguments, keyword arguments."""
    arguments = [value_text(value) for value in spec.args]
    arguments += [f"{key}={value_text(spec.kwargs[key])}" for key in sorted(spec.kwargs)]
    return f"{spec.func_name}({', '.join(arguments)})"


PROCESS_COLUMNS = ("Process", "Function", "Type", "State", "Executor", "Submitted", "Ran", "Label")


def process_row(process: Process) -> Sequence[Cell]:
    """A process as a row under PROCESS_COLUMNS."""
    spec = process.spec
    return (
        process.process_id,
        f"{spec.node_name}: {spec.func_name}" if spec.node_name else spec.func_name,
        spec.conditions.executor_type,
        state(process.state),
        process.executor_name,
        local_if_set(process, "submission_time"),
        run_time(process),
        spec.label,
    )


def process_fields(process: Process) -> list[tuple[str, Cell]]:
    """All that there is to say of a process."""
    spec = process.spec
    conditions = spec.conditions
    return [
        ("Process", process.process_id),
        ("Colony", process.colony_name),
        ("State", state(process.state)),
        ("Function", call_text(spec)),
        ("Node", spec.node_name),
        ("Workflow", process.workflow_id),
        ("Executor type", conditions.executor_type),
        ("Only executors", ", ".join(conditions.executor_names)),
        ("Only at", conditions.location_name),
        ("Requires", ", ".join(requirement_text(each) for each in conditions.labels)),
        ("Wait for parents", str(process.wait_for_parents)),
        ("Parents", ", ".join(process.parent_ids)),
        ("Executor", process.executor_name),
        ("Attempt", str(process.attempt) if process.attempt else ""),
        ("Retries", f"{process.retries} of {retries_text(spec.max_retries)}"),
        ("Priority", str(spec.priority)),
        ("Priority time", str(process.priority_time)),
        ("Max wait time", span_ms(spec.max_wait_time_ms)),
        ("Max exec time", span_ms(spec.max_exec_time_ms)),
        ("Backs off until", local_if_set(process, "backoff_until")),
        ("Label", spec.label),
        ("Labels", ", ".join(f"{key}={spec.labels[key]}" for key in sorted(spec.labels))),
        ("Environment", ", ".join(f"{key}={spec.env[key]}" for key in sorted(spec.env))),
        ("Submitted by", process.initiator_name or process.initiator),
        ("Submitted", local_if_set(process, "submission_time")),
        ("Started", local_if_set(process, "start_time")),
        ("Ended", local_if_set(process, "end_time")),
        ("Ran", run_time(process)),
        ("Inputs", values_text(process.inputs)),
        ("Outputs", values_text(process.outputs)),
        ("Errors", "\n".join(process.errors)),
    ]


def requirement_text(wanted: spec_pb2.LabelRequirement | registry_service_pb2.LabelRequirement) -> str:
    """What a label must be like."""
    match list(wanted.values):
        case []:
            return wanted.key
        case [value]:
            return f"{wanted.key}={value}"
        case several:
            return f"{wanted.key} in ({', '.join(several)})"


def retries_text(max_retries: int) -> str:
    """How many retries there may be, in words where it is no number."""
    return "any number" if max_retries < 0 else str(max_retries)


WORKFLOW_COLUMNS = ("Workflow", "State", "Done", "Label", "Submitted by", "Submitted", "Took")


def workflow_row(workflow: Workflow) -> Sequence[Cell]:
    """A workflow as a row under WORKFLOW_COLUMNS."""
    counts = workflow.counts
    done = counts.successful + counts.failed + counts.cancelled
    return (
        workflow.workflow_id,
        state(workflow.state),
        f"{done} of {done + counts.waiting + counts.running}",
        workflow.label,
        workflow.initiator_name or workflow.initiator,
        local_if_set(workflow, "submission_time"),
        run_time(workflow, "submission_time"),
    )


def workflow_fields(workflow: Workflow) -> list[tuple[str, Cell]]:
    """All that there is to say of a workflow as a whole."""
    counts = workflow.counts
    numbers = [
        (counts.waiting, "waiting"),
        (counts.running, "running"),
        (counts.successful, "successful"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
    ]
    return [
        ("Workflow", workflow.workflow_id),
        ("Colony", workflow.colony_name),
        ("State", state(workflow.state)),
        ("Processes", ", ".join(f"{number} {word}" for number, word in numbers if number)),
        ("Label", workflow.label),
        ("Submitted by", workflow.initiator_name or workflow.initiator),
        ("Submitted", local_if_set(workflow, "submission_time")),
        ("Ended", local_if_set(workflow, "end_time")),
        ("Took", run_time(workflow, "submission_time")),
    ]


def dependency_text(dependency: Dependency) -> str:
    """An edge's parent, and which of its outputs is taken where that is not all."""
    match dependency.WhichOneof("selector"):
        case "index":
            return f"{dependency.node_name}[{dependency.index.index}]"
        case "share":
            return f"{dependency.node_name}[{dependency.share.index} of {dependency.share.of}]"
    return dependency.node_name


GRAPH_COLUMNS = (
    "Name",
    "Process",
    "Function",
    "Type",
    "Wait for parents",
    "Executor",
    "State",
    "Priority time",
    "Dependencies",
)


def graph_row(process: Process) -> Sequence[Cell]:
    """A workflow's node as a row under GRAPH_COLUMNS."""
    return (
        process.spec.node_name,
        process.process_id,
        process.spec.func_name,
        process.spec.conditions.executor_type,
        str(process.wait_for_parents),
        process.executor_name,
        state(process.state),
        str(process.priority_time),
        ", ".join(dependency_text(each) for each in process.spec.conditions.dependencies),
    )


def in_graph_order(processes: Sequence[Process]) -> list[Process]:
    """Parents before children; among equals, the more urgent first. Takes the list newest first, as the server gives it."""
    pending = list(reversed(processes))
    # Sorting is stable: what was submitted at one moment stays in the order of the submit.
    pending.sort(key=lambda process: process.priority_time)
    depth: dict[str, int] = {}
    children: dict[str, list[str]] = {}
    missing = {process.process_id: len(process.parent_ids) for process in pending}
    for process in pending:
        for parent in process.parent_ids:
            children.setdefault(parent, []).append(process.process_id)
    ready = [process_id for process_id, count in missing.items() if count == 0]
    for process_id in ready:
        depth.setdefault(process_id, 0)
        for child in children.get(process_id, ()):
            depth[child] = max(depth.get(child, 0), depth[process_id] + 1)
            missing[child] -= 1
            if missing[child] == 0:
                ready.append(child)
    return sorted(pending, key=lambda process: depth.get(process.process_id, 0))


def event_text(event: process_pb2.ProcessEvent) -> Text:
    """A state change on one line."""
    change = event.transition
    who = f"{event.node_name} ({event.func_name})" if event.node_name else event.func_name
    where = f" on {event.executor_name}" if event.executor_name else ""
    return Text.assemble(
        (local(change.time), "dim"),
        f"  {visible(who)}  ",
        state(change.to_state),
        f"{visible(where)}  ",
        (visible(change.reason), "dim"),
        (f"  {event.process_id}", "dim"),
    )
