"""Workflows: a directed acyclic graph enters whole or not at all (I8)."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from servicekit.bounds import shown
from servicekit.failures import InvalidArgument, Violation
from services.scheduler.domain.spec import Dependency, Spec

SHOWN_NODES = 10


def parents_of(nodes: Sequence[Spec], *, field: str) -> list[list[int]]:
    """For each node the positions of its parents, in the order of its dependencies.

    Args:
        nodes: the workflow.
        field: path of the nodes in the request, for errors.

    Raises:
        InvalidArgument: a node name twice, an unknown or repeated dependency, or a cycle; the nodes are named.
    """
    violations: list[Violation] = []
    positions = {node.node_name: position for position, node in enumerate(nodes)}
    if len(positions) != len(nodes):
        twice = {name for name, count in Counter(node.node_name for node in nodes).items() if count > 1}
        violations += [
            Violation(f"{field}[{position}].node_name", f"must be unique; {shown(node.node_name)} is there more than once")
            for position, node in enumerate(nodes)
            if node.node_name in twice and positions[node.node_name] != position
        ]
    parents: list[list[int]] = []
    for position, node in enumerate(nodes):
        # A dictionary: tells what is in it at once, and keeps the order.
        mine: dict[int, None] = {}
        for index, dependency in enumerate(node.dependencies):
            path = f"{field}[{position}].conditions.dependencies[{index}].node_name"
            parent = positions.get(dependency.parent)
            if parent is None:
                violations.append(Violation(path, f"there is no node {shown(dependency.parent)}"))
            elif parent in mine:
                violations.append(Violation(path, f"{shown(dependency.parent)} is named twice"))
            else:
                mine[parent] = None
        parents.append(list(mine))
    if violations:
        raise InvalidArgument(violations)
    _refuse_cycles(nodes, parents, field)
    return parents


def _refuse_cycles(nodes: Sequence[Spec], parents: Sequence[Sequence[int]], field: str) -> None:
    """Takes away nodes whose parents are gone (Kahn); what is left leads into a cycle."""
    children: list[list[int]] = [[] for _ in nodes]
    missing = [len(mine) for mine in parents]
    for child, mine in enumerate(parents):
        for parent in mine:
            children[parent].append(child)
    free = deque(position for position, count in enumerate(missing) if count == 0)
    left = len(nodes)
    while free:
        left -= 1
        for child in children[free.popleft()]:
            missing[child] -= 1
            if missing[child] == 0:
                free.append(child)
    if left:
        start = next(position for position, count in enumerate(missing) if count > 0)
        names = [nodes[position].node_name for position in _cycle_from(start, parents, missing)]
        path = " -> ".join(names[:SHOWN_NODES]) + (" -> ..." if len(names) > SHOWN_NODES else f" -> {names[0]}")
        raise InvalidArgument([Violation(field, f"the dependencies form a cycle: {path}")])


def _cycle_from(start: int, parents: Sequence[Sequence[int]], missing: Sequence[int]) -> list[int]:
    """One cycle, from parent to child. Every node that is left has a parent that is left: follow them until one repeats."""
    seen: dict[int, int] = {}
    walk: list[int] = []
    node = start
    while node not in seen:
        seen[node] = len(walk)
        walk.append(node)
        node = next(parent for parent in parents[node] if missing[parent] > 0)
    return walk[seen[node] :][::-1]


@dataclass(frozen=True, slots=True)
class Below:
    """New nodes below a running one. Of each the parents, as positions or None for the running one, with their edges; `lasts`
    are those that no other new node waits for.
    """

    parents: list[list[tuple[int | None, Dependency]]]
    lasts: list[int]


def below(running: str, nodes: Sequence[Spec], *, field: str) -> Below:
    """How new nodes hang together, and which of them hang on the running node.

    Args:
        running: name of the running node.
        nodes: the new ones; one without dependencies depends on the running one.
        field: path of the nodes in the request, for errors.

    Raises:
        InvalidArgument: as parents_of; or a new node has the running one's name.
    """
    named = [
        Violation(f"{field}[{position}].node_name", f"must be unique; {shown(running)} is the running process")
        for position, node in enumerate(nodes)
        if node.node_name == running
    ]
    if named:
        raise InvalidArgument(named)
    root = Spec(func_name="", executor_type="", body=b"", node_name=running)
    rooted = [node if node.dependencies else replace(node, dependencies=(Dependency(running),)) for node in nodes]
    # The running one comes last, so that positions, and with them the paths in errors, stay those of the request.
    parents = parents_of([*rooted, root], field=field)[:-1]
    awaited = {parent for mine in parents for parent in mine}
    return Below(
        [
            [(None if parent == len(nodes) else parent, edge) for parent, edge in zip(mine, node.dependencies, strict=True)]
            for mine, node in zip(parents, rooted, strict=True)
        ],
        [position for position in range(len(nodes)) if position not in awaited],
    )
