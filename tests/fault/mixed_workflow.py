"""A workflow of two hundred nodes, spread over executors of several languages, whose results can be worked out here."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from colonies import values
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec

LAYERS = 10
WIDTH = 10
# In this layer each language has a node that holds until it is released: whoever begins it is killed.
HELD_LAYER = 4
# Enough for every attempt that a kill can cost.
MAX_RETRIES = 10


@dataclass(frozen=True, slots=True)
class Node:
    """A node and what it must put out."""

    name: str
    function: str
    args: tuple[object, ...]
    language: str
    parents: tuple[str, ...]
    output: int

    def to_spec(self) -> FunctionSpec:
        """What is submitted."""
        return FunctionSpec(
            node_name=self.name,
            func_name=self.function,
            args=[values.encode(each) for each in self.args],
            max_retries=MAX_RETRIES,
            conditions=Conditions(
                executor_type=self.language, dependencies=[Dependency(node_name=parent) for parent in self.parents]
            ),
        )


def mixed_workflow(languages: Sequence[str], seed: int) -> list[Node]:
    """Ten layers of ten pairs: a sum of up to three nodes of the layer before, and a node of another language that passes it on,
    with an effect or after it was held.
    """
    rng = random.Random(seed)
    nodes: list[Node] = []
    before: list[Node] = []
    for layer in range(LAYERS):
        passing = []
        for place in range(WIDTH):
            number = layer * WIDTH + place
            parents = rng.sample(before, rng.randint(1, 3)) if before else []
            total = number + sum(parent.output for parent in parents)
            one, other = (languages[(number + layer + shift) % len(languages)] for shift in (0, 1))
            added = Node(f"add-{number}", "add", (number,), one, tuple(parent.name for parent in parents), total)
            name, function = f"pass-{number}", "effect"
            if layer == HELD_LAYER and place < len(languages):
                function, other = "hold", languages[place]
            passing.append(Node(name, function, (name,), other, (added.name,), total))
            nodes += [added, passing[-1]]
        before = passing
    return nodes
