"""The workflows that are measured, serialised."""

from bench.installation import EXECUTOR_TYPE
from colonies.function import Function
from colonies.scheduler.v1.spec_pb2 import Dependency, WorkflowSpec


def fan(width: int) -> bytes:
    """1 → width → 1."""
    middle = [f"middle-{number}" for number in range(width)]
    nodes = {"first": [], **{name: ["first"] for name in middle}, "last": middle}
    return _spec(nodes)


def chain(length: int) -> bytes:
    """One after another."""
    return _spec({f"step-{number}": [f"step-{number - 1}"] if number else [] for number in range(length)})


def layers(count: int, width: int) -> bytes:
    """Layers of functions, each with two parents in the layer before."""
    nodes: dict[str, list[str]] = {}
    for layer in range(count):
        for place in range(width):
            parents = [f"{layer - 1}-{place}", f"{layer - 1}-{(place + 1) % width}"] if layer else []
            nodes[f"{layer}-{place}"] = parents
    return _spec(nodes)


def _spec(parents_of: dict[str, list[str]]) -> bytes:
    noop = Function("noop", executortype=EXECUTOR_TYPE)
    return WorkflowSpec(
        nodes=[noop.to_spec(name, _dependencies(parents)) for name, parents in parents_of.items()],
    ).SerializeToString()


def _dependencies(parents: list[str]) -> list[Dependency]:
    return [Dependency(node_name=parent) for parent in parents]
