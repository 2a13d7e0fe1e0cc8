"""Workflows as JSON files.

    {
      "label": "nightly",
      "nodes": [
        {"name": "a", "function": "gen_nums", "executor_type": "edge"},
        {"name": "b", "function": "square", "executor_type": "cloud", "after": [{"node": "a", "output": 0}]},
        {"name": "c", "function": "square", "executor_type": "cloud", "after": [{"node": "a", "share": [1, 2]}]},
        {"name": "d", "function": "sum", "executor_type": "browser", "after": ["b", "c"], "max_exec_time": "10m"}
      ]
    }

An edge is a parent's name (all of its outputs), a parent and the number of one output, or a parent and a share [k, n] (output
k if the parent puts out exactly n, else all). Times are seconds, or texts such as "10m". Further keys of a node are those of
Function: "require": {"arch": "arm64", "zone": ["a", "b"], "gpu": true}, "backoff": "10s" or {"first": "10s", "factor": 3,
"longest": "1h", "jitter": 0.5}, "parents": "all_done", "labels": {"team": "x"}, and so on.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from colonies import values
from colonies.cli.arguments import choice, duration_ms, json_file
from colonies.cli.failure import usage
from colonies.errors import ValueEncodingError, WorkflowError
from colonies.labels import required
from colonies.retries import backoff_message
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec, Gpu, ParentPolicy, WorkflowSpec

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_WORKFLOW_KEYS = ("label", "nodes")
_SHARE_PARTS = 2
_POLICIES = ("all_successful", "all_done", "any_done")


def read(path: Path) -> WorkflowSpec:
    """The workflow in a JSON file; `-` is the standard input.

    Raises:
        CliError: the file cannot be read, is not JSON, or says something that is no workflow; names the node and the key.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"cannot read the workflow file {path}: {error.strerror}"
        raise usage(msg) from error
    except UnicodeDecodeError as error:
        msg = f"the workflow file {path} is not UTF-8"
        raise usage(msg) from error
    return parse(json_file(text, str(path)), str(path))


def parse(document: Any, where: str) -> WorkflowSpec:
    """The workflow in a document. Errors as for `read`; `where` names the document in them."""
    if not isinstance(document, dict):
        msg = f"{where}: a workflow is an object with `nodes`, not {_kind(document)}"
        raise usage(msg)
    _refuse_unknown(document, _WORKFLOW_KEYS, where)
    nodes = document.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        msg = f"{where}: `nodes` must be a list of at least one node"
        raise usage(msg)
    label = _text(document.get("label", ""), f"{where}: `label`")
    specs = [_node(node, f"{where}: node {_name_of(node, index)}") for index, node in enumerate(nodes)]
    return WorkflowSpec(nodes=specs, label=label)


def _name_of(node: Any, index: int) -> str:
    name = node.get("name") if isinstance(node, dict) else None
    return repr(name) if isinstance(name, str) and name else f"number {index + 1}"


def _node(node: Any, where: str) -> FunctionSpec:
    if not isinstance(node, dict):
        msg = f"{where}: a node is an object, not {_kind(node)}"
        raise usage(msg)
    _refuse_unknown(node, tuple(_NODE_KEYS), where)
    for key in ("name", "function", "executor_type"):
        if key not in node:
            msg = f"{where}: `{key}` is missing"
            raise usage(msg)
    spec = FunctionSpec(conditions=Conditions())
    for key, value in node.items():
        _NODE_KEYS[key](spec, value, f"{where}: `{key}`")
    return spec


def _refuse_unknown(document: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in document:
        if key not in known:
            msg = f"{where}: unknown key {key!r} (known: {', '.join(known)})"
            raise usage(msg)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        msg = f"{where} must be a text, not {_kind(value)}"
        raise usage(msg)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        msg = f"{where} holds half of a surrogate pair, which is no text"
        raise usage(msg) from error
    return value


def _integer(value: Any, where: str, allowed: range = _INT32) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        msg = f"{where} must be a whole number, not {_kind(value)}"
        raise usage(msg)
    if value not in allowed:
        msg = f"{where} is out of range"
        raise usage(msg)
    return value


def _milliseconds(value: Any, where: str) -> int:
    if isinstance(value, str):
        return duration_ms(value, where)
    if not isinstance(value, int | float) or isinstance(value, bool):
        msg = f'{where} must be seconds or a text such as "10m", not {_kind(value)}'
        raise usage(msg)
    if abs(value) > _INT64.stop // 1_000_000:
        msg = f"{where} is out of range"
        raise usage(msg)
    return round(value * 1000)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        msg = f"{where} must be a list, not {_kind(value)}"
        raise usage(msg)
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        msg = f"{where} must be an object, not {_kind(value)}"
        raise usage(msg)
    return value


def _encoded(value: Any, where: str) -> Any:
    try:
        return values.encode(value)
    except (ValueEncodingError, UnicodeEncodeError) as error:
        msg = f"{where}: {error}"
        raise usage(msg) from error


Setter = Callable[[FunctionSpec, Any, str], None]


def _spec_text(field: str) -> Setter:
    return lambda spec, value, where: setattr(spec, field, _text(value, where))


def _spec_integer(field: str) -> Setter:
    return lambda spec, value, where: setattr(spec, field, _integer(value, where))


def _spec_time(field: str) -> Setter:
    return lambda spec, value, where: setattr(spec, field, _milliseconds(value, where))


def _condition_text(field: str) -> Setter:
    return lambda spec, value, where: setattr(spec.conditions, field, _text(value, where))


def _condition_integer(field: str) -> Setter:
    return lambda spec, value, where: setattr(spec.conditions, field, _integer(value, where))


def _args(spec: FunctionSpec, value: Any, where: str) -> None:
    spec.args.extend(_encoded(each, f"{where}[{index}]") for index, each in enumerate(_list(value, where)))


def _kwargs(spec: FunctionSpec, value: Any, where: str) -> None:
    for key, each in _object(value, where).items():
        spec.kwargs[_text(key, where)].CopyFrom(_encoded(each, f"{where}[{key!r}]"))


def _env(spec: FunctionSpec, value: Any, where: str) -> None:
    for key, each in _object(value, where).items():
        spec.env[_text(key, where)] = _text(each, f"{where}[{key!r}]")


def _labels(spec: FunctionSpec, value: Any, where: str) -> None:
    for key, each in _object(value, where).items():
        spec.labels[_text(key, where)] = _text(each, f"{where}[{key!r}]")


def _require(spec: FunctionSpec, value: Any, where: str) -> None:
    try:
        spec.conditions.labels.extend(required(_object(value, where), where))
    except UnicodeEncodeError as error:
        msg = f"{where} holds half of a surrogate pair, which is no text"
        raise usage(msg) from error
    except ValueError as error:
        raise usage(str(error)) from error


def _backoff(spec: FunctionSpec, value: Any, where: str) -> None:
    parts = dict(value) if isinstance(value, dict) else {"first": value}
    for key in ("first", "longest"):
        if parts.get(key) is not None:
            parts[key] = _milliseconds(parts[key], f"{where}.{key}") / 1000
    try:
        spec.backoff.MergeFrom(backoff_message(parts, where))
    except WorkflowError as error:
        raise usage(str(error)) from error


def _parents(spec: FunctionSpec, value: Any, where: str) -> None:
    policy = choice(_text(value, where), _POLICIES, where)
    spec.parent_policy = ParentPolicy.Value(f"PARENT_POLICY_{policy.upper()}")


def _filesystem(spec: FunctionSpec, value: Any, where: str) -> None:
    spec.filesystem.CopyFrom(_encoded(value, where))


def _channels(spec: FunctionSpec, value: Any, where: str) -> None:
    spec.channels.extend(_text(each, f"{where}[{index}]") for index, each in enumerate(_list(value, where)))


def _executors(spec: FunctionSpec, value: Any, where: str) -> None:
    names = [_text(each, f"{where}[{index}]") for index, each in enumerate(_list(value, where))]
    spec.conditions.executor_names.extend(names)


def _wall_time(spec: FunctionSpec, value: Any, where: str) -> None:
    spec.conditions.wall_time_ms = _milliseconds(value, where)


def _gpu(spec: FunctionSpec, value: Any, where: str) -> None:
    gpu = _object(value, where)
    _refuse_unknown(gpu, ("name", "memory", "count", "node_count"), where)
    spec.conditions.gpu.CopyFrom(
        Gpu(
            name=_text(gpu.get("name", ""), f"{where}.name"),
            memory=_text(gpu.get("memory", ""), f"{where}.memory"),
            count=_integer(gpu.get("count", 0), f"{where}.count"),
            node_count=_integer(gpu.get("node_count", 0), f"{where}.node_count"),
        )
    )


def _after(spec: FunctionSpec, value: Any, where: str) -> None:
    for index, each in enumerate(_list(value, where)):
        spec.conditions.dependencies.append(_edge(each, f"{where}[{index}]"))


def _edge(value: Any, where: str) -> Dependency:
    if isinstance(value, str):
        return Dependency(node_name=_text(value, where), all=Dependency.All())
    edge = _object(value, where)
    _refuse_unknown(edge, ("node", "output", "share"), where)
    if "node" not in edge:
        msg = f"{where}: `node` is missing"
        raise usage(msg)
    name = _text(edge["node"], f"{where}.node")
    if "output" in edge and "share" in edge:
        msg = f"{where}: `output` and `share` exclude each other"
        raise usage(msg)
    if "output" in edge:
        return Dependency(node_name=name, index=Dependency.Index(index=_integer(edge["output"], f"{where}.output")))
    if "share" in edge:
        share = _list(edge["share"], f"{where}.share")
        if len(share) != _SHARE_PARTS:
            msg = f"{where}.share must be [k, n]: output k of n"
            raise usage(msg)
        of_which = [_integer(part, f"{where}.share[{index}]") for index, part in enumerate(share)]
        selected = Dependency(node_name=name)
        selected.share.CopyFrom(Dependency.Share(index=of_which[0], of=of_which[1]))
        return selected
    return Dependency(node_name=name, all=Dependency.All())


_NODE_KEYS: Mapping[str, Setter] = {
    "name": _spec_text("node_name"),
    "function": _spec_text("func_name"),
    "executor_type": _condition_text("executor_type"),
    "args": _args,
    "kwargs": _kwargs,
    "after": _after,
    "priority": _spec_integer("priority"),
    "max_wait_time": _spec_time("max_wait_time_ms"),
    "max_exec_time": _spec_time("max_exec_time_ms"),
    "max_retries": _spec_integer("max_retries"),
    "backoff": _backoff,
    "parents": _parents,
    "label": _spec_text("label"),
    "labels": _labels,
    "env": _env,
    "executors": _executors,
    "location": _condition_text("location_name"),
    "require": _require,
    "cpu": _condition_text("cpu"),
    "memory": _condition_text("memory"),
    "storage": _condition_text("storage"),
    "gpu": _gpu,
    "nodes": _condition_integer("nodes"),
    "processes": _condition_integer("processes"),
    "processes_per_node": _condition_integer("processes_per_node"),
    "wall_time": _wall_time,
    "filesystem": _filesystem,
    "channels": _channels,
}
