"""The bounds of a function spec, field by field. What is plainly in bounds never comes here (specs.py)."""

from colonies.scheduler.v1 import spec_pb2 as pb
from servicekit.bounds import CONTROL, TEN_YEARS_MS, Bounds
from services.scheduler.domain.priority import PRIORITY_MAX, PRIORITY_MIN

MAX_USER_DATA = 4 * 1024 * 1024
MAX_ENTRIES = 1_000
MAX_ENV_VALUE = 64 * 1024
MAX_NAMES = 100
MAX_DEPENDENCIES = 10_000
MAX_COUNT = 1_000_000
MAX_RETRIES = 1_000_000
MAX_MEDIA_TYPE = 255
MAX_OUTPUTS = 10_000
MAX_LABELS = 32
MAX_LABEL_VALUE = 128
MAX_FIRST_MS = 24 * 3_600 * 1_000
MAX_LONGEST_MS = 30 * 24 * 3_600 * 1_000
MAX_FACTOR = 100
UNLIMITED = -1

# How many values each operator takes.
VALUE_COUNTS = {
    pb.LABEL_OPERATOR_EQUALS: (1, 1),
    pb.LABEL_OPERATOR_IN: (1, 32),
    pb.LABEL_OPERATOR_EXISTS: (0, 0),
}


def check_spec(bounds: Bounds, field: str, colony: str, spec: pb.FunctionSpec, *, in_workflow: bool) -> None:
    """Notes all that is out of bounds in a function spec."""
    if not in_workflow and spec.conditions.dependencies:
        bounds.refuse(f"{field}.conditions.dependencies", "must be empty outside a workflow")
    bounds.printable(f"{field}.node_name", spec.node_name, optional=not in_workflow)
    before = len(bounds.violations)
    _check_call(bounds, field, spec)
    if len(bounds.violations) == before:
        # A list or map that is too large isn't walked: that would be the attack.
        _check_entries(bounds, field, spec)
    _check_user_data(bounds, field, spec)
    _check_limits(bounds, field, spec)
    if not spec.HasField("conditions"):
        bounds.refuse(f"{field}.conditions", "is required")
    _check_conditions(bounds, f"{field}.conditions", colony, spec.conditions)


def check_media_type(bounds: Bounds, field: str, value: pb.Value) -> None:
    """Notes a media type that is out of bounds."""
    media_type = value.media_type
    if media_type and (len(media_type) > MAX_MEDIA_TYPE or not media_type.isascii() or CONTROL.search(media_type)):
        bounds.refuse(f"{field}.media_type", f"must be at most {MAX_MEDIA_TYPE} printable ASCII characters")


def _check_call(bounds: Bounds, field: str, spec: pb.FunctionSpec) -> None:
    bounds.printable(f"{field}.func_name", spec.func_name)
    bounds.printable(f"{field}.label", spec.label, optional=True)
    bounds.count(f"{field}.args", spec.args, at_most=MAX_ENTRIES)
    bounds.count(f"{field}.kwargs", spec.kwargs, at_most=MAX_ENTRIES)
    bounds.count(f"{field}.env", spec.env, at_most=MAX_ENTRIES)
    bounds.count(f"{field}.labels", spec.labels, at_most=MAX_LABELS)


def _check_entries(bounds: Bounds, field: str, spec: pb.FunctionSpec) -> None:
    for key in spec.kwargs:
        bounds.printable(f"{field}.kwargs (a key)", key)
    for key, value in spec.env.items():
        bounds.printable(f"{field}.env (a key)", key)
        bounds.text(f"{field}.env", value, at_most=MAX_ENV_VALUE)
    for key, value in spec.labels.items():
        bounds.name(f"{field}.labels (a key)", key)
        bounds.printable(f"{field}.labels (a value)", value, at_most=MAX_LABEL_VALUE, optional=True)
    if spec.channels:
        bounds.names(f"{field}.channels", spec.channels, at_least=0, at_most=MAX_NAMES)


def _check_user_data(bounds: Bounds, field: str, spec: pb.FunctionSpec) -> None:
    sizes = {
        "args": sum(len(value.data) for value in spec.args),
        "kwargs": sum(len(value.data) for value in spec.kwargs.values()),
        "env": sum(len(value) for value in spec.env.values()),
        "filesystem": len(spec.filesystem.data),
    }
    total = sum(sizes.values())
    if total > MAX_USER_DATA:
        largest = max(sizes, key=lambda name: sizes[name])
        bounds.refuse(
            f"{field}.{largest}",
            f"args, kwargs, env and filesystem must be at most {MAX_USER_DATA} bytes together; they have {total}",
        )
    for index, value in enumerate(spec.args):
        check_media_type(bounds, f"{field}.args[{index}]", value)
    for value in spec.kwargs.values():
        check_media_type(bounds, f"{field}.kwargs (a value)", value)
    check_media_type(bounds, f"{field}.filesystem", spec.filesystem)


def _check_limits(bounds: Bounds, field: str, spec: pb.FunctionSpec) -> None:
    bounds.number(f"{field}.priority", spec.priority, at_least=PRIORITY_MIN, at_most=PRIORITY_MAX)
    bounds.number(f"{field}.max_wait_time_ms", spec.max_wait_time_ms, at_least=0, at_most=TEN_YEARS_MS)
    bounds.number(f"{field}.max_exec_time_ms", spec.max_exec_time_ms, at_least=0, at_most=TEN_YEARS_MS)
    bounds.number(f"{field}.max_retries", spec.max_retries, at_least=UNLIMITED, at_most=MAX_RETRIES)
    if spec.parent_policy not in pb.ParentPolicy.values():
        bounds.refuse(
            f"{field}.parent_policy", f"must be unset, ALL_SUCCESSFUL, ALL_DONE or ANY_DONE; got {int(spec.parent_policy)}"
        )
    if spec.HasField("backoff"):
        _check_backoff(bounds, f"{field}.backoff", spec.backoff)


def _check_backoff(bounds: Bounds, field: str, backoff: pb.Backoff) -> None:
    bounds.number(f"{field}.first_ms", backoff.first_ms, at_least=1, at_most=MAX_FIRST_MS)
    if backoff.HasField("factor"):
        bounds.number(f"{field}.factor", backoff.factor, at_least=1, at_most=MAX_FACTOR)
    if backoff.longest_ms:
        at_least = min(max(backoff.first_ms, 1), MAX_FIRST_MS)
        bounds.number(f"{field}.longest_ms", backoff.longest_ms, at_least=at_least, at_most=MAX_LONGEST_MS)
    if backoff.HasField("jitter"):
        bounds.number(f"{field}.jitter", backoff.jitter, at_least=0, at_most=1)


def _check_conditions(bounds: Bounds, field: str, colony: str, conditions: pb.Conditions) -> None:
    if conditions.colony_name not in {"", colony}:
        bounds.refuse(f"{field}.colony_name", "must be empty or the colony of the request")
    bounds.name(f"{field}.executor_type", conditions.executor_type)
    bounds.name(f"{field}.location_name", conditions.location_name, optional=True)
    if conditions.executor_names:
        bounds.names(f"{field}.executor_names", conditions.executor_names, at_least=0, at_most=MAX_NAMES)
    for name in ("nodes", "processes", "processes_per_node"):
        bounds.number(f"{field}.{name}", getattr(conditions, name), at_least=0, at_most=MAX_COUNT)
    bounds.number(f"{field}.wall_time_ms", conditions.wall_time_ms, at_least=0, at_most=TEN_YEARS_MS)
    bounds.cpu(f"{field}.cpu", conditions.cpu)
    bounds.quantity(f"{field}.memory", conditions.memory)
    bounds.quantity(f"{field}.storage", conditions.storage)
    if conditions.HasField("gpu"):
        _check_gpu(bounds, f"{field}.gpu", conditions.gpu)
    bounds.count(f"{field}.labels", conditions.labels, at_most=MAX_LABELS)
    for index, requirement in enumerate(conditions.labels[:MAX_LABELS]):
        _check_requirement(bounds, f"{field}.labels[{index}]", requirement)
    bounds.count(f"{field}.dependencies", conditions.dependencies, at_most=MAX_DEPENDENCIES)
    for index, dependency in enumerate(conditions.dependencies[:MAX_DEPENDENCIES]):
        _check_selector(bounds, f"{field}.dependencies[{index}]", dependency)


def _check_gpu(bounds: Bounds, field: str, gpu: pb.Gpu) -> None:
    bounds.printable(f"{field}.name", gpu.name, at_most=128, optional=True)
    bounds.quantity(f"{field}.memory", gpu.memory)
    bounds.number(f"{field}.count", gpu.count, at_least=0, at_most=MAX_COUNT)
    bounds.number(f"{field}.node_count", gpu.node_count, at_least=0, at_most=MAX_COUNT)


def _check_requirement(bounds: Bounds, field: str, requirement: pb.LabelRequirement) -> None:
    bounds.name(f"{field}.key", requirement.key)
    if requirement.operator not in VALUE_COUNTS:
        bounds.refuse(f"{field}.operator", f"must be EQUALS, IN or EXISTS; got {int(requirement.operator)}")
        return
    at_least, at_most = VALUE_COUNTS[requirement.operator]
    bounds.count(f"{field}.values", requirement.values, at_least=at_least, at_most=at_most)
    for index, value in enumerate(requirement.values[:at_most]):
        bounds.printable(f"{field}.values[{index}]", value, at_most=MAX_LABEL_VALUE, optional=True)


def _check_selector(bounds: Bounds, field: str, dependency: pb.Dependency) -> None:
    if dependency.HasField("index"):
        bounds.number(f"{field}.index.index", dependency.index.index, at_least=0, at_most=MAX_OUTPUTS - 1)
    elif dependency.HasField("share"):
        share = dependency.share
        bounds.number(f"{field}.share.of", share.of, at_least=1, at_most=MAX_OUTPUTS)
        bounds.number(f"{field}.share.index", share.index, at_least=0, at_most=max(share.of, 1) - 1)
