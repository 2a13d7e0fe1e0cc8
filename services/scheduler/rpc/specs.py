"""Function specs on their way in: every field bounded, user data unopened."""

from collections.abc import Sequence

from colonies.scheduler.v1 import spec_pb2 as pb
from servicekit.bounds import CONTROL, TEN_YEARS_MS, Bounds
from services.scheduler.domain.priority import PRIORITY_MAX, PRIORITY_MIN
from services.scheduler.domain.spec import Dependency, Selector, Spec

MAX_SPECS = 10_000
MAX_NODES = 100_000
MAX_USER_DATA = 4 * 1024 * 1024
MAX_ENTRIES = 1_000
MAX_NAMES = 100
MAX_DEPENDENCIES = 10_000
MAX_COUNT = 1_000_000
MAX_RETRIES = 1_000_000
MAX_MEDIA_TYPE = 255
MAX_OUTPUTS = 10_000
UNLIMITED = -1


def specs_of(bounds: Bounds, field: str, colony: str, specs: Sequence[pb.FunctionSpec]) -> list[Spec]:
    """Processes outside a workflow."""
    bounds.count(field, specs, at_least=1, at_most=MAX_SPECS)
    for index, spec in enumerate(specs[:MAX_SPECS]):
        if spec.conditions.dependencies:
            bounds.refuse(f"{field}[{index}].conditions.dependencies", "must be empty outside a workflow")
        bounds.printable(f"{field}[{index}].node_name", spec.node_name, optional=True)
    return [_spec_of(bounds, f"{field}[{index}]", colony, spec) for index, spec in enumerate(specs[:MAX_SPECS])]


def nodes_of(bounds: Bounds, field: str, colony: str, nodes: Sequence[pb.FunctionSpec]) -> list[Spec]:
    """The nodes of a workflow."""
    bounds.count(field, nodes, at_least=1, at_most=MAX_NODES)
    for index, node in enumerate(nodes[:MAX_NODES]):
        bounds.printable(f"{field}[{index}].node_name", node.node_name)
    return [_spec_of(bounds, f"{field}[{index}]", colony, node) for index, node in enumerate(nodes[:MAX_NODES])]


def values_of(bounds: Bounds, field: str, values: Sequence[pb.Value]) -> list[bytes]:
    """Outputs, each serialised as it will be stored."""
    bounds.count(field, values, at_most=MAX_OUTPUTS)
    total = 0
    for index, value in enumerate(values[:MAX_OUTPUTS]):
        total += len(value.data)
        _check_media_type(bounds, f"{field}[{index}]", value)
    if total > MAX_USER_DATA:
        bounds.refuse(field, f"must be at most {MAX_USER_DATA} bytes together; they have {total}")
    return [value.SerializeToString() for value in values[:MAX_OUTPUTS]]


def _spec_of(bounds: Bounds, field: str, colony: str, spec: pb.FunctionSpec) -> Spec:
    _check_call(bounds, field, spec)
    _check_user_data(bounds, field, spec)
    _check_limits(bounds, field, spec)
    if not spec.HasField("conditions"):
        bounds.refuse(f"{field}.conditions", "is required")
    conditions = spec.conditions
    _check_conditions(bounds, f"{field}.conditions", colony, conditions)
    return Spec(
        func_name=spec.func_name,
        executor_type=conditions.executor_type,
        body=spec.SerializeToString(),
        summary=_summary_of(spec),
        node_name=spec.node_name,
        executor_names=tuple(conditions.executor_names),
        location=conditions.location_name,
        label=spec.label,
        priority=spec.priority,
        max_wait_ms=spec.max_wait_time_ms,
        max_exec_ms=spec.max_exec_time_ms,
        max_retries=spec.max_retries,
        dependencies=[_dependency_of(one) for one in conditions.dependencies],
    )


def _summary_of(spec: pb.FunctionSpec) -> bytes:
    """The spec without user data, serialised; empty if there is none."""
    if not (spec.args or spec.kwargs or spec.env or spec.HasField("filesystem")):
        return b""
    return pb.FunctionSpec(
        node_name=spec.node_name,
        func_name=spec.func_name,
        priority=spec.priority,
        max_wait_time_ms=spec.max_wait_time_ms,
        max_exec_time_ms=spec.max_exec_time_ms,
        max_retries=spec.max_retries,
        conditions=spec.conditions,
        label=spec.label,
        channels=spec.channels,
    ).SerializeToString()


def _check_call(bounds: Bounds, field: str, spec: pb.FunctionSpec) -> None:
    bounds.printable(f"{field}.func_name", spec.func_name)
    bounds.printable(f"{field}.label", spec.label, optional=True)
    bounds.count(f"{field}.args", spec.args, at_most=MAX_ENTRIES)
    bounds.count(f"{field}.kwargs", spec.kwargs, at_most=MAX_ENTRIES)
    bounds.count(f"{field}.env", spec.env, at_most=MAX_ENTRIES)
    if bounds.violations:
        # A map may be so large that to walk it would be the attack.
        return
    for key in spec.kwargs:
        bounds.printable(f"{field}.kwargs (a key)", key)
    for key, value in spec.env.items():
        bounds.printable(f"{field}.env (a key)", key)
        bounds.text(f"{field}.env", value, at_most=64 * 1024)
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
        _check_media_type(bounds, f"{field}.args[{index}]", value)
    for value in spec.kwargs.values():
        _check_media_type(bounds, f"{field}.kwargs (a value)", value)
    _check_media_type(bounds, f"{field}.filesystem", spec.filesystem)


def _check_media_type(bounds: Bounds, field: str, value: pb.Value) -> None:
    media_type = value.media_type
    if media_type and (len(media_type) > MAX_MEDIA_TYPE or not media_type.isascii() or CONTROL.search(media_type)):
        bounds.refuse(f"{field}.media_type", f"must be at most {MAX_MEDIA_TYPE} printable ASCII characters")


def _check_limits(bounds: Bounds, field: str, spec: pb.FunctionSpec) -> None:
    bounds.number(f"{field}.priority", spec.priority, at_least=PRIORITY_MIN, at_most=PRIORITY_MAX)
    bounds.number(f"{field}.max_wait_time_ms", spec.max_wait_time_ms, at_least=0, at_most=TEN_YEARS_MS)
    bounds.number(f"{field}.max_exec_time_ms", spec.max_exec_time_ms, at_least=0, at_most=TEN_YEARS_MS)
    bounds.number(f"{field}.max_retries", spec.max_retries, at_least=UNLIMITED, at_most=MAX_RETRIES)


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
        gpu = conditions.gpu
        bounds.printable(f"{field}.gpu.name", gpu.name, at_most=128, optional=True)
        bounds.quantity(f"{field}.gpu.memory", gpu.memory)
        bounds.number(f"{field}.gpu.count", gpu.count, at_least=0, at_most=MAX_COUNT)
        bounds.number(f"{field}.gpu.node_count", gpu.node_count, at_least=0, at_most=MAX_COUNT)
    bounds.count(f"{field}.dependencies", conditions.dependencies, at_most=MAX_DEPENDENCIES)
    for index, dependency in enumerate(conditions.dependencies[:MAX_DEPENDENCIES]):
        _check_selector(bounds, f"{field}.dependencies[{index}]", dependency)


def _check_selector(bounds: Bounds, field: str, dependency: pb.Dependency) -> None:
    if dependency.HasField("index"):
        bounds.number(f"{field}.index.index", dependency.index.index, at_least=0, at_most=MAX_OUTPUTS - 1)
    elif dependency.HasField("share"):
        share = dependency.share
        bounds.number(f"{field}.share.of", share.of, at_least=1, at_most=MAX_OUTPUTS)
        bounds.number(f"{field}.share.index", share.index, at_least=0, at_most=max(share.of, 1) - 1)


def _dependency_of(dependency: pb.Dependency) -> Dependency:
    if dependency.HasField("index"):
        return Dependency(dependency.node_name, Selector.INDEX, dependency.index.index)
    if dependency.HasField("share"):
        return Dependency(dependency.node_name, Selector.SHARE, dependency.share.index, dependency.share.of)
    return Dependency(dependency.node_name)
