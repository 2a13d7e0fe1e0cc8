"""Workflows are directed acyclic graphs, or are refused with the nodes named."""

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.failures import InvalidArgument
from services.scheduler.domain.spec import Dependency, Spec
from services.scheduler.domain.workflow import SHOWN_NODES, below, parents_of

FIELD = "workflow.nodes"


def node(name: str, *parents: str) -> Spec:
    return Spec("f", "cli", b"", node_name=name, dependencies=[Dependency(parent) for parent in parents])


def graph(parents: Sequence[Sequence[int]]) -> list[Spec]:
    return [node(f"n{child}", *(f"n{parent}" for parent in mine)) for child, mine in enumerate(parents)]


def refusal(nodes: Sequence[Spec]) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        parents_of(nodes, field=FIELD)
    return caught.value


@st.composite
def acyclic(draw: st.DrawFn, at_least: int = 1) -> list[list[int]]:
    """Parents by node. The nodes are shuffled, so that parents stand before and after their children."""
    size = draw(st.integers(at_least, 12))
    order = draw(st.permutations(range(size)))
    parents: list[list[int]] = [[] for _ in range(size)]
    for place in range(1, size):
        parents[order[place]] = draw(st.lists(st.sampled_from(order[:place]), unique=True))
    return parents


def ancestors(parents: Sequence[Sequence[int]], start: int) -> set[int]:
    found: set[int] = set()
    ahead = list(parents[start])
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += parents[one]
    return found


@given(acyclic())
def test_any_acyclic_graph_is_accepted_with_its_parents_in_the_order_of_dependencies(parents: list[list[int]]) -> None:
    assert parents_of(graph(parents), field=FIELD) == parents


@given(st.data())
def test_any_edge_back_to_an_ancestor_is_refused_with_a_cycle_that_is_one(data: st.DataObject) -> None:
    parents = data.draw(acyclic(at_least=2).filter(any))
    child = data.draw(st.sampled_from([position for position, mine in enumerate(parents) if mine]))
    ancestor = data.draw(st.sampled_from(sorted(ancestors(parents, child))))
    parents[ancestor].append(child)

    violation = refusal(graph(parents)).violations[0]
    assert violation.field == FIELD
    path = re.fullmatch(r"the dependencies form a cycle: (n\d+(?: -> n\d+)+)( -> \.\.\.)?", violation.description)
    assert path is not None, violation.description
    names = path[1].split(" -> ")
    walk = [int(name[1:]) for name in names]
    for parent, following in pairwise(walk):
        assert parent in parents[following], f"{names} is no path"
    if path[2] is None:
        assert walk[0] == walk[-1]
        assert len(set(walk)) == len(walk) - 1
    else:
        assert len(set(walk)) == SHOWN_NODES


def test_a_long_cycle_is_named_by_its_first_nodes() -> None:
    size = SHOWN_NODES + 5
    description = refusal(graph([[(child - 1) % size] for child in range(size)])).violations[0].description
    assert description.endswith(" -> ...")
    assert description.count("->") == SHOWN_NODES


def test_a_node_that_depends_on_itself() -> None:
    assert refusal([node("a", "a")]).violations[0].description == "the dependencies form a cycle: a -> a"


def test_what_hangs_on_a_cycle_is_not_named_as_part_of_it() -> None:
    nodes = [node("before"), node("a", "b", "before"), node("b", "a"), node("behind", "a")]
    assert set(re.findall(r"\b(a|b|before|behind)\b", refusal(nodes).violations[0].description.split(": ")[1])) == {"a", "b"}


def test_every_second_use_of_a_name_is_refused_where_it_stands() -> None:
    violations = refusal([node("a"), node("b"), node("a"), node("a"), node("b")]).violations
    assert {violation.field for violation in violations} <= {f"{FIELD}[{position}].node_name" for position in range(5)}
    assert len(violations) == 3
    assert all("unique" in violation.description for violation in violations)


def test_every_unknown_dependency_is_named_with_its_place() -> None:
    violations = refusal([node("a"), node("b", "a", "nobody"), node("c", "neither")]).violations
    assert [violation.field for violation in violations] == [
        f"{FIELD}[1].conditions.dependencies[1].node_name",
        f"{FIELD}[2].conditions.dependencies[0].node_name",
    ]
    assert "'nobody'" in violations[0].description
    assert "'neither'" in violations[1].description


def test_a_parent_that_is_named_twice() -> None:
    (violation,) = refusal([node("a"), node("b", "a", "a")]).violations
    assert violation.field == f"{FIELD}[1].conditions.dependencies[1].node_name"
    assert "twice" in violation.description


def test_names_of_any_length_are_cut_in_errors() -> None:
    assert len(refusal([node("a", "x" * 100_000)]).message) < 300


def test_a_fan_in_of_a_whole_workflow() -> None:
    """Were each parent sought among all others, this would take minutes."""
    size = 99_999
    parents: list[list[int]] = [[] for _ in range(size)]
    assert parents_of(graph([*parents, list(range(size))]), field=FIELD)[size] == list(range(size))


@given(acyclic())
def test_new_nodes_below_a_running_one_hang_on_it_and_on_each_other(parents: list[list[int]]) -> None:
    """Those without parents of their own hang on the running one; those that nobody waits for are the last."""
    found = below("running", graph(parents), field=FIELD)
    wanted: list[list[int | None]] = [[*mine] or [None] for mine in parents]
    assert [[place for place, _ in mine] for mine in found.parents] == wanted
    for mine in found.parents:
        assert [edge.parent for _, edge in mine] == ["running" if place is None else f"n{place}" for place, _ in mine]
    awaited = {parent for mine in parents for parent in mine}
    assert found.lasts == [place for place in range(len(parents)) if place not in awaited]


def test_a_new_node_may_name_the_running_one_among_its_parents() -> None:
    found = below("running", [node("a"), node("b", "a", "running")], field=FIELD)
    assert [[place for place, _ in mine] for mine in found.parents] == [[None], [0, None]]
    assert found.lasts == [1]


def test_refusals_of_new_nodes_name_their_places_in_the_request() -> None:
    for nodes, field, words in (
        ([node("a"), node("running")], f"{FIELD}[1].node_name", "'running' is the running process"),
        ([node("a", "nobody")], f"{FIELD}[0].conditions.dependencies[0].node_name", "there is no node 'nobody'"),
        ([node("a"), node("b", "a", "a")], f"{FIELD}[1].conditions.dependencies[1].node_name", "named twice"),
        ([node("a", "b"), node("b", "a")], FIELD, "cycle"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            below("running", nodes, field=FIELD)
        assert [violation.field for violation in caught.value.violations] == [field]
        assert words in caught.value.violations[0].description
