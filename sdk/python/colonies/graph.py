"""From functions that hang together to the spec of a workflow."""

import secrets
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, cast

from colonies.errors import WorkflowError
from colonies.function import Drawn, Edge, Function, as_functions, next_stroke
from colonies.scheduler.v1 import spec_pb2 as spec


class Graph:
    """The functions of a workflow at one moment: in the order drawn, named, and free of cycles.

    It holds everything that is connected, up and down, to the roots that it is made from.
    """

    def __init__(self, roots: Mapping[Function, int], colony: str) -> None:
        """`roots` says for each root when it was drawn.

        Raises:
            WorkflowError: nothing was drawn, a function is for another colony, a name is taken twice, or there is a
                cycle.
        """
        if not roots:
            msg = "the workflow is empty: add its first functions with `workflow >> function`"
            raise WorkflowError(msg)
        strokes = {function: _strokes(function, roots) for function in _connected(roots)}
        self.functions: tuple[Function, ...] = tuple(sorted(strokes, key=lambda function: strokes[function][0]))
        self._last_stroke = {function: both[1] for function, both in strokes.items()}
        for function in self.functions:
            if function.colony and function.colony != colony:
                msg = f"{function!r} is for the colony {function.colony!r}, the workflow for {colony!r}"
                raise WorkflowError(msg)
        self.names = _names(self.functions)
        _refuse_cycles(self.functions, self.names)

    @property
    def last_sink(self) -> Function:
        """Of the functions without children, the one drawn last: its output is the workflow's."""
        sinks = (function for function in self.functions if not function.outgoing)
        return max(sinks, key=lambda function: self._last_stroke[function])

    def to_spec(self, label: str = "") -> spec.WorkflowSpec:
        """What is sent."""
        shares = _shares(self.functions)
        nodes = [
            function.to_spec(self.names[function], [_dependency(edge, self.names, shares) for edge in function.incoming])
            for function in self.functions
        ]
        return spec.WorkflowSpec(nodes=nodes, label=label)


class DrawnWorkflow(Protocol):
    """A ColoniesWorkflow, as far as it matters here."""

    colony: str

    def to_spec(self) -> spec.WorkflowSpec: ...


Workflow = DrawnWorkflow | Function | Sequence[Function] | spec.WorkflowSpec
"""What can be submitted as a workflow: one that was drawn, functions with all that is connected to them, or a message."""


def workflow_spec(given: Workflow, colony: str) -> spec.WorkflowSpec:
    """What is sent of it.

    Raises:
        WorkflowError: it is for another colony, it cannot be a workflow, or as for Graph.
    """
    if isinstance(given, spec.WorkflowSpec):
        return given
    if isinstance(given, Function | list | tuple):
        functions = as_functions(given, "a workflow is made of a Function or of a list of them")
        return Graph({function: next_stroke() for function in functions}, colony).to_spec()
    if not hasattr(given, "to_spec"):
        msg = f"{given!r} is no workflow: give a ColoniesWorkflow, a Function, a list of them, or a WorkflowSpec"
        raise WorkflowError(msg)
    drawn = cast("DrawnWorkflow", given)
    if drawn.colony != colony:
        msg = f"the workflow is for the colony {drawn.colony!r}, the client for {colony!r}"
        raise WorkflowError(msg)
    return drawn.to_spec()


def child_specs(nodes: Iterable[Function | spec.FunctionSpec]) -> list[spec.FunctionSpec]:
    """What is sent of functions that are added to a workflow that runs, in their order.

    Specs go as they are. Functions depend on each other as drawn; one without a name gets its function's with a random
    ending, for what other names the workflow has by then, nobody here knows.

    Raises:
        WorkflowError: an edge leads out of the given functions, a name is taken twice, or there is a cycle.
    """
    given = list(nodes)
    functions = [node for node in given if isinstance(node, Function)]
    names = {each: each.name or f"{each.func_name}-{secrets.token_hex(4)}" for each in functions}
    taken = [names[node] if isinstance(node, Function) else node.node_name for node in given]
    for name, count in Counter(taken).items():
        if count > 1:
            msg = f"two of the new functions have the name {name!r}"
            raise WorkflowError(msg)
    for function in functions:
        for other in (*(edge.parent for edge in function.incoming), *(edge.child for edge in function.outgoing)):
            if other not in names:
                msg = f"an edge leads between {function!r} and {other!r}, which is not among the new functions"
                raise WorkflowError(msg)
    _refuse_cycles(functions, names)
    shares = _shares(functions)
    return [
        node.to_spec(names[node], [_dependency(edge, names, shares) for edge in node.incoming])
        if isinstance(node, Function)
        else node
        for node in given
    ]


def _dependency(edge: Edge, names: Mapping[Function, str], shares: Mapping[Edge, spec.Dependency.Share]) -> spec.Dependency:
    parent = names[edge.parent]
    match edge.how:
        case Drawn.INDEX:
            return spec.Dependency(node_name=parent, index=spec.Dependency.Index(index=edge.index))
        case Drawn.ALL:
            return spec.Dependency(node_name=parent, all=spec.Dependency.All())
        case Drawn.SHARE:
            return spec.Dependency(node_name=parent, share=shares[edge])


def _connected(roots: Iterable[Function]) -> list[Function]:
    found = dict.fromkeys(roots)
    waiting = deque(found)
    while waiting:
        function = waiting.popleft()
        neighbours = [*(edge.parent for edge in function.incoming), *(edge.child for edge in function.outgoing)]
        for neighbour in neighbours:
            if neighbour not in found:
                found[neighbour] = None
                waiting.append(neighbour)
    return list(found)


def _strokes(function: Function, roots: Mapping[Function, int]) -> tuple[tuple[int, bool], int]:
    """When a function was drawn first, parents before the children of the same edge; and when last."""
    strokes = [(edge.stroke, False) for edge in function.outgoing]
    strokes += [(edge.stroke, True) for edge in function.incoming]
    if function in roots:
        strokes.append((roots[function], False))
    return min(strokes), max(strokes)[0]


def _names(functions: Sequence[Function]) -> dict[Function, str]:
    names: dict[Function, str] = {}
    taken: set[str] = set()
    for function in functions:
        if not function.name:
            continue
        if function.name in taken:
            msg = f"two functions of the workflow have the name {function.name!r}"
            raise WorkflowError(msg)
        taken.add(function.name)
        names[function] = function.name
    numbers: dict[str, int] = {}
    for function in functions:
        if function.name:
            continue
        base = name = function.func_name
        while name in taken:
            numbers[base] = numbers.get(base, 1) + 1
            name = f"{base}-{numbers[base]}"
        taken.add(name)
        names[function] = name
    return names


def _refuse_cycles(functions: Sequence[Function], names: Mapping[Function, str]) -> None:
    parents_left = {function: len(function.incoming) for function in functions}
    ready = deque(function for function, left in parents_left.items() if left == 0)
    while ready:
        function = ready.popleft()
        del parents_left[function]
        for edge in function.outgoing:
            parents_left[edge.child] -= 1
            if parents_left[edge.child] == 0:
                ready.append(edge.child)
    if parents_left:
        cycle = " >> ".join(names[function] for function in _a_cycle(parents_left))
        msg = f"the workflow goes round in a circle: {cycle}"
        raise WorkflowError(msg)


def _a_cycle(blocked: Mapping[Function, int]) -> list[Function]:
    """One cycle, its first function repeated at the end. Every blocked function has a blocked parent: walk up until
    one repeats.
    """
    path = [next(iter(blocked))]
    seen: dict[Function, int] = {}
    while path[-1] not in seen:
        seen[path[-1]] = len(path) - 1
        path.append(next(edge.parent for edge in path[-1].incoming if edge.parent in blocked))
    return path[seen[path[-1]] :][::-1]


def _shares(functions: Iterable[Function]) -> dict[Edge, spec.Dependency.Share]:
    """For each edge that was drawn one by one: which share of its parent it is, and of how many."""
    shares: dict[Edge, spec.Dependency.Share] = {}
    for function in functions:
        edges = [edge for edge in function.outgoing if edge.how is Drawn.SHARE]
        shares.update({edge: spec.Dependency.Share(index=k, of=len(edges)) for k, edge in enumerate(edges)})
    return shares
