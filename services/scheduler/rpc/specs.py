"""Function specs on their way in: every field bounded, user data unopened.

Nearly all specs are small and plainly in bounds, and there are very many of them: what is set is looked at once and cheaply
(PLAIN), and only where that leaves a doubt are all fields looked at one by one, with their paths (spec_bounds).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import Message

from colonies.scheduler.v1 import spec_pb2 as pb
from servicekit.bounds import NAME, QUANTITY_BINARY, QUANTITY_CPU, TEN_YEARS_MS, Bounds
from services.scheduler.domain.matching import (
    EQUALS,
    EXISTS,
    IN,
    GpuNeeds,
    Needs,
    bytes_of,
    cpu_of,
    requirements,
)
from services.scheduler.domain.priority import PRIORITY_MAX, PRIORITY_MIN
from services.scheduler.domain.spec import Dependency, ParentPolicy, Selector, Spec
from services.scheduler.rpc.spec_bounds import (
    MAX_COUNT,
    MAX_DEPENDENCIES,
    MAX_ENTRIES,
    MAX_MEDIA_TYPE,
    MAX_NAMES,
    MAX_OUTPUTS,
    MAX_RETRIES,
    MAX_USER_DATA,
    UNLIMITED,
    check_media_type,
    check_spec,
)

MAX_SPECS = 10_000
MAX_NODES = 100_000
# Up to this many serialised bytes a spec is small: it has no summary, for lists may as well read all of it.
SMALL = 4 * 1024
LONGEST_BACKOFF_MS = 3_600_000
BACKOFF_FACTOR = 2.0
BACKOFF_JITTER = 0.5
# Fields that hold user data: lists leave them out.
USER_DATA: Final = ("args", "kwargs", "env", "filesystem")
# Fields of Conditions that make up a process's needs.
NEEDS: Final = frozenset({"nodes", "processes", "cpu", "memory", "storage", "gpu", "labels"})
OPERATORS: Final = {pb.LABEL_OPERATOR_EQUALS: EQUALS, pb.LABEL_OPERATOR_IN: IN, pb.LABEL_OPERATOR_EXISTS: EXISTS}

Fields = dict[str, Any]
Plain = Callable[[Any], bool]


def specs_of(bounds: Bounds, field: str, colony: str, specs: Sequence[pb.FunctionSpec]) -> list[Spec]:
    """Processes outside a workflow."""
    bounds.count(field, specs, at_least=1, at_most=MAX_SPECS)
    return [spec_of(bounds, field, colony, spec, index) for index, spec in enumerate(specs[:MAX_SPECS])]


def nodes_of(
    bounds: Bounds, field: str, colony: str, nodes: Sequence[pb.FunctionSpec], *, at_most: int = MAX_NODES
) -> list[Spec]:
    """The nodes of a workflow."""
    bounds.count(field, nodes, at_least=1, at_most=at_most)
    return [spec_of(bounds, field, colony, node, index, in_workflow=True) for index, node in enumerate(nodes[:at_most])]


def values_of(bounds: Bounds, field: str, values: Sequence[pb.Value]) -> list[bytes]:
    """Outputs, each serialised as it will be stored."""
    plain = plain_values(values)
    if plain is not None:
        return plain
    bounds.count(field, values, at_most=MAX_OUTPUTS)
    total = 0
    for index, value in enumerate(values[:MAX_OUTPUTS]):
        total += len(value.data)
        check_media_type(bounds, f"{field}[{index}]", value)
    if total > MAX_USER_DATA:
        bounds.refuse(field, f"must be at most {MAX_USER_DATA} bytes together; they have {total}")
    return [value.SerializeToString() for value in values[:MAX_OUTPUTS]]


def plain_values(values: Sequence[pb.Value]) -> list[bytes] | None:
    """Values that are plainly in bounds, each serialised; None if they are to be looked at more closely."""
    if len(values) > MAX_OUTPUTS:
        return None
    serialised = []
    total = 0
    for value in values:
        if not _media_type(value):
            return None
        serialised.append(value.SerializeToString())
        total += len(serialised[-1])
    return serialised if total <= MAX_USER_DATA else None


def spec_of(
    bounds: Bounds,
    field: str,
    colony: str,
    spec: pb.FunctionSpec,
    index: int | None = None,
    *,
    in_workflow: bool = False,
) -> Spec:
    """A spec, its fields named as those of `field`, or of its entry `index`.

    What is out of bounds is noted; what is returned then is not to be used.
    """
    body = spec.SerializeToString()
    fields = _set_fields(spec)
    conditions = _set_fields(fields["conditions"]) if "conditions" in fields else {}
    # In so few bytes no value is too large, and user data is not too much together.
    if len(body) > SMALL or not _is_plain(colony, fields, conditions, in_workflow=in_workflow):
        before = len(bounds.violations)
        check_spec(bounds, field if index is None else f"{field}[{index}]", colony, spec, in_workflow=in_workflow)
        if len(bounds.violations) > before:
            conditions = {name: value for name, value in conditions.items() if name not in NEEDS}
            fields = {name: value for name, value in fields.items() if name not in {"backoff", "parent_policy", "labels"}}
    return Spec(
        func_name=fields.get("func_name", ""),
        executor_type=conditions.get("executor_type", ""),
        body=body,
        summary=_summary_of(spec) if len(body) > SMALL else b"",
        node_name=fields.get("node_name", ""),
        executor_names=tuple(conditions.get("executor_names", ())),
        location=conditions.get("location_name", ""),
        label=fields.get("label", ""),
        priority=fields.get("priority", 0),
        max_wait_ms=fields.get("max_wait_time_ms", 0),
        max_exec_ms=fields.get("max_exec_time_ms", 0),
        max_retries=fields.get("max_retries", 0),
        needs=_needs_text(fields, conditions),
        backoff=_backoff_of(fields["backoff"]) if "backoff" in fields else (),
        parent_policy=ParentPolicy(fields.get("parent_policy", ParentPolicy.ALL_SUCCESSFUL)),
        channels=tuple(fields.get("channels", ())),
        dependencies=[_dependency_of(one) for one in conditions.get("dependencies", ())],
    )


def needs_of(spec: pb.FunctionSpec) -> Needs:
    """The needs of a spec that is in bounds."""
    return Needs.parse(_needs_text(_set_fields(spec), _set_fields(spec.conditions)))


def _set_fields(message: Message) -> Fields:
    return {descriptor.name: value for descriptor, value in message.ListFields()}


def _is_plain(colony: str, fields: Fields, conditions: Fields, *, in_workflow: bool) -> bool:
    """Whether a small spec is in bounds at first sight; if not, it may still be."""
    if "func_name" not in fields or "executor_type" not in conditions:
        return False
    if ("node_name" not in fields) if in_workflow else ("dependencies" in conditions):
        return False
    for name, value in fields.items():
        if not PLAIN[name](value):
            return False
    for name, value in conditions.items():
        if not PLAIN_CONDITIONS[name](value):
            return False
    return bool(conditions.get("colony_name", colony) == colony)


def _summary_of(spec: pb.FunctionSpec) -> bytes:
    """The spec without user data, serialised; empty if there is none."""
    if not (spec.args or spec.kwargs or spec.env or spec.HasField("filesystem")):
        return b""
    # Copied field by field: user data may be megabytes.
    left = {descriptor.name: value for descriptor, value in spec.ListFields() if descriptor.name not in USER_DATA}
    return pb.FunctionSpec(**left).SerializeToString()


def _needs_text(fields: Mapping[str, Any], conditions: Mapping[str, Any]) -> str:
    if NEEDS.isdisjoint(conditions) and "labels" not in fields:
        return ""
    gpu = conditions.get("gpu")
    return _spelled_needs(
        tuple(conditions.get(name, "") for name in ("cpu", "memory", "storage")),
        (conditions.get("nodes", 0), conditions.get("processes", 0)),
        None if gpu is None else (gpu.count, gpu.name, gpu.memory),
        tuple((one.key, OPERATORS[one.operator], tuple(one.values)) for one in conditions.get("labels", ())),
        tuple(sorted(fields["labels"].items())) if "labels" in fields else (),
    )


@lru_cache(maxsize=1_024)
def _spelled_needs(
    quantities: tuple[str, ...],
    counts: tuple[int, int],
    gpu: tuple[int, str, str] | None,
    labels: tuple[tuple[str, str, tuple[str, ...]], ...],
    own: tuple[tuple[str, str], ...],
) -> str:
    cpu, memory, storage = quantities
    nodes, processes = counts
    return Needs(
        cpu=cpu_of(cpu),
        memory=bytes_of(memory),
        storage=bytes_of(storage),
        nodes=nodes,
        processes=max(1, processes),
        gpu=None if gpu is None else GpuNeeds(max(1, gpu[0]), gpu[1], bytes_of(gpu[2])),
        labels=requirements(labels),
        own=dict(own),
    ).text


def _backoff_of(backoff: pb.Backoff) -> tuple[float, float, float, float]:
    first = float(backoff.first_ms)
    return (
        first,
        backoff.factor if backoff.HasField("factor") else BACKOFF_FACTOR,
        float(backoff.longest_ms) or max(LONGEST_BACKOFF_MS, first),
        backoff.jitter if backoff.HasField("jitter") else BACKOFF_JITTER,
    )


def _dependency_of(dependency: pb.Dependency) -> Dependency:
    match dependency.WhichOneof("selector"):
        case "index":
            return Dependency(dependency.node_name, Selector.INDEX, dependency.index.index)
        case "share":
            return Dependency(dependency.node_name, Selector.SHARE, dependency.share.index, dependency.share.of)
        case _:
            return Dependency(dependency.node_name)


def _no(_value: object) -> bool:
    """Seldom set: looked at closely."""
    return False


def _text(value: str) -> bool:
    return len(value) <= 256 and value.isascii() and value.isprintable()


def _small_text(value: str) -> bool:
    return len(value) <= 128 and value.isascii() and value.isprintable()


def _names(values: Sequence[str]) -> bool:
    return len(values) <= MAX_NAMES and len(set(values)) == len(values) and all(map(NAME.match, values))


def _name(value: str) -> bool:
    return NAME.match(value) is not None


def _media_type(value: pb.Value) -> bool:
    media_type = value.media_type
    return not media_type or (len(media_type) <= MAX_MEDIA_TYPE and media_type.isascii() and media_type.isprintable())


def _values(values: Sequence[pb.Value]) -> bool:
    return len(values) <= MAX_ENTRIES and all(map(_media_type, values))


def _keyed_values(values: Mapping[str, pb.Value]) -> bool:
    return len(values) <= MAX_ENTRIES and all(key and _text(key) and _media_type(value) for key, value in values.items())


def _env(values: Mapping[str, str]) -> bool:
    return len(values) <= MAX_ENTRIES and all(key and _text(key) and "\0" not in value for key, value in values.items())


def _labels(values: Mapping[str, str]) -> bool:
    return len(values) <= 32 and all(NAME.match(key) and _small_text(value) for key, value in values.items())


def _requirements(values: Sequence[pb.LabelRequirement]) -> bool:
    return len(values) <= 32 and all(
        one.operator == pb.LABEL_OPERATOR_EQUALS and len(one.values) == 1 and _small_text(one.values[0]) and NAME.match(one.key)
        for one in values
    )


def _dependencies(values: Sequence[pb.Dependency]) -> bool:
    return len(values) <= MAX_DEPENDENCIES and all(one.WhichOneof("selector") in {None, "all"} for one in values)


def _within(at_least: int, at_most: int) -> Plain:
    return lambda value: at_least <= value <= at_most


def _true(_value: object) -> bool:
    return True


PLAIN: Final[dict[str, Plain]] = {
    "node_name": _text,
    "func_name": _text,
    "args": _values,
    "kwargs": _keyed_values,
    "priority": _within(PRIORITY_MIN, PRIORITY_MAX),
    "max_wait_time_ms": _within(0, TEN_YEARS_MS),
    "max_exec_time_ms": _within(0, TEN_YEARS_MS),
    "max_retries": _within(UNLIMITED, MAX_RETRIES),
    # Looked at on its own.
    "conditions": _true,
    "env": _env,
    "label": _text,
    "filesystem": _media_type,
    "channels": _names,
    "backoff": _no,
    "labels": _labels,
    "parent_policy": _within(1, 3),
}
PLAIN_CONDITIONS: Final[dict[str, Plain]] = {
    # Compared with the request's.
    "colony_name": _true,
    "executor_type": _name,
    "executor_names": _names,
    "location_name": _name,
    "dependencies": _dependencies,
    "nodes": _within(0, MAX_COUNT),
    "processes": _within(0, MAX_COUNT),
    "processes_per_node": _within(0, MAX_COUNT),
    "cpu": lambda value: QUANTITY_CPU.match(value) is not None,
    "memory": lambda value: QUANTITY_BINARY.match(value) is not None,
    "storage": lambda value: QUANTITY_BINARY.match(value) is not None,
    "gpu": _no,
    "wall_time_ms": _within(0, TEN_YEARS_MS),
    "labels": _requirements,
}
