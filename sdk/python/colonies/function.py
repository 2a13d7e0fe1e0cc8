"""Functions: what to run, on whom, and how they hang together.

    numbers >> square1                one child's share of its parent's outputs, in the order drawn
    numbers >> [square1, square2]     every child gets all of them
    numbers[0] >> square1             just the first
    [square1, square2] >> total       outputs of both, in this order

All of it can be chained: a >> [b, c] >> d.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar, overload

from colonies import values
from colonies.errors import WorkflowError
from colonies.labels import Wanted, plain_labels, required
from colonies.retries import Backoff, backoff_message
from colonies.scheduler.v1 import spec_pb2 as spec

MAX_INDEX = 9_999

Made = TypeVar("Made")

# Everything that is drawn gets the next number: it says what was drawn first and what last.
_drawn = itertools.count(1)


def next_stroke() -> int:
    """A number for something drawn now, higher than all before."""
    return next(_drawn)


@dataclass(frozen=True, slots=True)
class Gpu:
    """Accelerators that a function needs: `memory` is of each, such as "80Gi"; `count` on each of `node_count`
    nodes.
    """

    name: str = ""
    memory: str = ""
    count: int = 1
    node_count: int = 0


class Drawn(Enum):
    """How an edge was drawn, which decides what the child gets."""

    SHARE = "one by one"
    ALL = "to a list"
    INDEX = "from one output"


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """An edge between two functions."""

    parent: "Function"
    child: "Function"
    how: Drawn
    index: int
    stroke: int


class Source:
    """What an edge can come from: a function, or one of its outputs."""

    __slots__ = ()

    @overload
    def __rshift__(self, children: "Function") -> "Function": ...
    @overload
    def __rshift__(self, children: Sequence["Function"]) -> "Group": ...
    def __rshift__(self, children: "Function | Sequence[Function]") -> "Function | Group":
        return Group([self]) >> children


class Function(Source):
    """A function to run, by name, and the conditions to run it under.

    The callable itself is not sent: executors have their own functions, this one only says which by its name.
    """

    # Indexing means something here, and without this Python would take it for a way to iterate.
    __iter__ = None

    def __init__(
        self,
        fn: Callable[..., Any] | str,
        colony: str = "",
        executortype: str = "edge",
        *,
        name: str = "",
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        priority: int = 0,
        max_wait_time: float | None = None,
        max_exec_time: float | None = None,
        max_retries: int = 0,
        executor_names: Iterable[str] = (),
        location: str = "",
        nodes: int = 0,
        processes: int = 0,
        processes_per_node: int = 0,
        cpu: str | int = "",
        memory: str | int = "",
        storage: str | int = "",
        gpu: Gpu | Mapping[str, Any] | None = None,
        wall_time: float | None = None,
        require: Wanted | None = None,
        backoff: Backoff | Mapping[str, Any] | float | None = None,
        parents: str = "all_successful",
        env: Mapping[str, str] | None = None,
        label: str = "",
        labels: Mapping[str, str] | None = None,
        filesystem: Any = None,
        channels: Iterable[str] = (),
    ) -> None:
        """Nothing is sent yet.

        Args:
            fn: the function to call, or its name.
            colony: its colony; empty = that of the workflow or client.
            executortype: the type of executor to run it.
            name: its name in the workflow; default the function's name, made unique there with -2, -3.
            args: positional arguments; the outputs of its parents follow them.
            kwargs: keyword arguments.
            priority: days of head start over others, -50 000 to 50 000.
            max_wait_time: seconds it may wait in the queue before it fails; None = for ever.
            max_exec_time: seconds that one attempt may take; None = no limit.
            max_retries: how often it may go back to the queue; -1 = for ever.
            executor_names: only these executors.
            location: only executors there.
            nodes: gang shape, for batch systems: on how many nodes.
            processes: how many processes in all.
            processes_per_node: how many on each node.
            cpu: thousandths of a core as "1000m", or cores.
            memory: such as "10Gi", or bytes.
            storage: as `memory`.
            gpu: accelerators that it needs.
            wall_time: seconds a batch system should reserve.
            require: only executors with such labels: {"arch": "arm64", "zone": ["a", "b"], "gpu": True} asks for one value,
                for one of several, and for any.
            backoff: how long to wait before retries: a Backoff, its parts as a mapping, or the seconds before the first retry.
            parents: when to run in a workflow: "all_successful", "all_done" (however they ended) or "any_done".
            env: environment variables.
            label: to find it by.
            labels: for executors that choose their work by them; each distinct set is a queue of its own.
            filesystem: mounts, carried through to executors that know them.
            channels: names of channels to open.

        Raises:
            WorkflowError: something here makes no sense.
            ValueEncodingError: an argument cannot be sent.
        """
        self.func_name = _function_name(fn)
        self.colony = colony
        self.name = name
        self.incoming: list[Edge] = []
        self.outgoing: list[Edge] = []
        what = self.func_name
        self._spec = spec.FunctionSpec(
            node_name=name,
            func_name=self.func_name,
            args=[values.encode(value) for value in args],
            kwargs={key: values.encode(value) for key, value in (kwargs or {}).items()},
            priority=_int32(priority, f"{what}: priority"),
            max_wait_time_ms=_milliseconds(max_wait_time, f"{what}: max_wait_time"),
            max_exec_time_ms=_milliseconds(max_exec_time, f"{what}: max_exec_time"),
            max_retries=_int32(max_retries, f"{what}: max_retries"),
            backoff=None if backoff is None else backoff_message(backoff, f"{what}: backoff"),
            parent_policy=_policy(parents, f"{what}: parents"),
            env=dict(env or {}),
            label=label,
            labels=_checked(lambda: plain_labels(labels or {}, f"{what}: labels")),
            filesystem=None if filesystem is None else values.encode(filesystem),
            channels=_names(channels, f"{what}: channels"),
            conditions=spec.Conditions(
                colony_name=colony,
                executor_type=executortype,
                executor_names=_names(executor_names, f"{what}: executor_names"),
                location_name=location,
                nodes=_int32(nodes, f"{what}: nodes"),
                processes=_int32(processes, f"{what}: processes"),
                processes_per_node=_int32(processes_per_node, f"{what}: processes_per_node"),
                cpu=str(cpu),
                memory=str(memory),
                storage=str(storage),
                gpu=_gpu(gpu, f"{what}: gpu"),
                wall_time_ms=_milliseconds(wall_time, f"{what}: wall_time"),
                labels=_checked(lambda: required(require or {}, f"{what}: require")),
            ),
        )

    @property
    def own_spec(self) -> spec.FunctionSpec:
        """What is sent outside a workflow: this function's own message, not to be changed."""
        return self._spec

    def to_spec(self, node_name: str = "", dependencies: Sequence[spec.Dependency] = ()) -> spec.FunctionSpec:
        """What is sent; `node_name` and `dependencies` are its place in a workflow."""
        made = spec.FunctionSpec()
        made.CopyFrom(self._spec)
        made.node_name = node_name or self.name
        made.conditions.dependencies.extend(dependencies)
        return made

    def __rrshift__(self, parents: Sequence[Source]) -> "Function":
        return Group(parents) >> self

    def __getitem__(self, index: int) -> "Output":
        """One of this function's outputs, to draw an edge from."""
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= MAX_INDEX:
            msg = f"{self.func_name}[{index!r}]: an output is picked by its number, 0 to {MAX_INDEX}"
            raise WorkflowError(msg)
        return Output(self, index)

    def __repr__(self) -> str:
        return f"Function({self.name or self.func_name!r}, executortype={self._spec.conditions.executor_type!r})"


@dataclass(frozen=True, slots=True)
class Output(Source):
    """One output of a function."""

    function: Function
    index: int


class Group(tuple[Source, ...]):
    """Several functions in a chain, such as the middle of `a >> [b, c] >> d`."""

    __slots__ = ()

    @overload
    def __rshift__(self, children: Function) -> Function: ...
    @overload
    def __rshift__(self, children: Sequence[Function]) -> "Group": ...
    def __rshift__(self, children: Function | Sequence[Function]) -> "Function | Group":
        how = Drawn.SHARE if isinstance(children, Function) else Drawn.ALL
        targets = as_functions(children, "an edge leads to a Function or to a list of them")
        for child in targets:
            for parent in self:
                _draw(parent, child, how)
        return children if isinstance(children, Function) else Group(targets)


def as_functions(given: object, problem: str) -> list[Function]:
    """A Function, or the Functions of a sequence.

    Raises:
        WorkflowError: with `problem`, if it is neither, or empty.
    """
    items = [given] if isinstance(given, Function) else list(given) if isinstance(given, list | tuple) else []
    functions = [item for item in items if isinstance(item, Function)]
    if not functions or len(functions) != len(items):
        msg = f"{problem}, not to {given!r}"
        raise WorkflowError(msg)
    return functions


def _draw(source: Source, child: Function, how: Drawn) -> None:
    index = 0
    if isinstance(source, Output):
        parent, index, how = source.function, source.index, Drawn.INDEX
    elif isinstance(source, Function):
        parent = source
    else:
        msg = f"an edge comes from a Function or one of its outputs, not from {source!r}"
        raise WorkflowError(msg)
    if any(edge.parent is parent for edge in child.incoming):
        msg = f"the edge {_label(parent)} >> {_label(child)} is drawn twice: a function gets the outputs of a parent once"
        raise WorkflowError(msg)
    edge = Edge(parent, child, how, index, next_stroke())
    parent.outgoing.append(edge)
    child.incoming.append(edge)


def _label(function: Function) -> str:
    return function.name or function.func_name


def _function_name(fn: Callable[..., Any] | str) -> str:
    name = fn if isinstance(fn, str) else getattr(fn, "__name__", "")
    if not name or name == "<lambda>":
        msg = f"{fn!r} has no name that an executor could know it by: pass the name of the executor's function"
        raise WorkflowError(msg)
    return str(name)


def _milliseconds(seconds: float | None, what: str) -> int:
    if seconds is None:
        return 0
    if not isinstance(seconds, int | float) or not 0 < seconds <= 2**53 or math.isnan(seconds):
        msg = f"{what} is {seconds!r}: it must be a positive number of seconds, or None for no limit"
        raise WorkflowError(msg)
    return math.ceil(seconds * 1000)


def _int32(number: int, what: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not -(2**31) <= number < 2**31:
        msg = f"{what} is {number!r}: it must be a whole number"
        raise WorkflowError(msg)
    return number


def _policy(parents: str, what: str) -> spec.ParentPolicy.ValueType:
    known = [name.removeprefix("PARENT_POLICY_").lower() for name in spec.ParentPolicy.keys()[1:]]
    if parents not in known:
        msg = f"{what} is {parents!r}: it is one of {', '.join(known)}"
        raise WorkflowError(msg)
    # The usual one goes without saying.
    return spec.ParentPolicy.Value("PARENT_POLICY_" + ("UNSPECIFIED" if parents == known[0] else parents.upper()))


def _checked(make: Callable[[], Made]) -> Made:
    try:
        return make()
    except ValueError as error:
        raise WorkflowError(str(error)) from error


def _names(names: Iterable[str], what: str) -> list[str]:
    if isinstance(names, str):
        msg = f"{what} must be a list of names, not the text {names!r}"
        raise WorkflowError(msg)
    return list(names)


def _gpu(gpu: Gpu | Mapping[str, Any] | None, what: str) -> spec.Gpu | None:
    if gpu is None:
        return None
    try:
        wanted = gpu if isinstance(gpu, Gpu) else Gpu(**gpu)
        return spec.Gpu(name=wanted.name, memory=str(wanted.memory), count=wanted.count, node_count=wanted.node_count)
    except (TypeError, ValueError) as error:
        msg = f"{what} is {gpu!r}: it takes name, memory, count and node_count"
        raise WorkflowError(msg) from error
