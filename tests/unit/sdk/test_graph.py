"""What drawing means: the paper's workflow, selectors, names, and what is refused."""

from typing import Any

import pytest

from colonies import Backoff, ColoniesWorkflow, Function, Gpu, PrivateKey, WorkflowError
from colonies.graph import child_specs
from colonies.scheduler.v1 import spec_pb2
from colonies.scheduler.v1.spec_pb2 import Dependency, FunctionSpec


def edges(workflow: ColoniesWorkflow) -> dict[str, list[tuple[Any, ...]]]:
    """For each node its dependencies as (parent, selector, numbers)."""

    def told(dependency: Dependency) -> tuple[Any, ...]:
        match dependency.WhichOneof("selector"):
            case "share":
                return dependency.node_name, "share", dependency.share.index, dependency.share.of
            case "index":
                return dependency.node_name, "index", dependency.index.index
            case selector:
                return dependency.node_name, selector

    return {node.node_name: [told(each) for each in node.conditions.dependencies] for node in workflow.to_spec().nodes}


@pytest.fixture
def workflow() -> ColoniesWorkflow:
    return ColoniesWorkflow("localhost", 50080, "dev", PrivateKey.generate().hex, cluster="c")


def functions(names: str) -> list[Function]:
    return [Function(name, "dev") for name in names]


def gen_data() -> None: ...


def square() -> None: ...


def test_the_papers_workflow(workflow: ColoniesWorkflow) -> None:
    gen_nums = Function(gen_data, "dev", executortype="edge")
    square1 = Function(square, "dev", executortype="cloud")
    square2 = Function(square, "dev", executortype="cloud")
    total = Function("sum", "dev", executortype="browser")
    workflow >> gen_nums
    gen_nums >> square1
    gen_nums >> square2
    [square1, square2] >> total
    assert edges(workflow) == {
        "gen_data": [],
        "square": [("gen_data", "share", 0, 2)],
        "square-2": [("gen_data", "share", 1, 2)],
        "sum": [("square", "share", 0, 1), ("square-2", "share", 0, 1)],
    }
    assert [node.conditions.executor_type for node in workflow.to_spec().nodes] == ["edge", "cloud", "cloud", "browser"]


def test_children_in_a_list_each_get_everything(workflow: ColoniesWorkflow) -> None:
    a, b, c = functions("abc")
    workflow >> a
    a >> [b, c]
    assert edges(workflow) == {"a": [], "b": [("a", "all")], "c": [("a", "all")]}


def test_a_share_counts_only_children_drawn_one_by_one(workflow: ColoniesWorkflow) -> None:
    a, b, c, d, e, x = functions("abcdex")
    workflow >> [a, x]
    a >> b
    a >> [c]
    a[3] >> d
    [a, x] >> e
    assert edges(workflow) == {
        "a": [],
        "x": [],
        "b": [("a", "share", 0, 2)],
        "c": [("a", "all")],
        "d": [("a", "index", 3)],
        "e": [("a", "share", 1, 2), ("x", "share", 0, 1)],
    }


def test_outputs_and_functions_mix_in_a_list(workflow: ColoniesWorkflow) -> None:
    a, b, c = functions("abc")
    workflow >> a >> b
    [a[0], b] >> c
    assert edges(workflow)["c"] == [("a", "index", 0), ("b", "share", 0, 1)]


def test_chains(workflow: ColoniesWorkflow) -> None:
    a, b, c, d, e, f = functions("abcdef")
    workflow >> a >> [b, c] >> d >> e
    a[1] >> f
    assert edges(workflow) == {
        "a": [],
        "b": [("a", "all")],
        "c": [("a", "all")],
        "d": [("b", "share", 0, 1), ("c", "share", 0, 1)],
        "e": [("d", "share", 0, 1)],
        "f": [("a", "index", 1)],
    }


def test_everything_connected_belongs(workflow: ColoniesWorkflow) -> None:
    a, b, other_root, c, stranger, strangers_child = functions("abocst")
    stranger >> strangers_child
    a >> b
    [other_root, b] >> c
    workflow >> a
    assert set(edges(workflow)) == {"a", "b", "o", "c"}


def test_a_function_may_be_in_two_workflows(workflow: ColoniesWorkflow) -> None:
    a, b = functions("ab")
    a >> b
    other = ColoniesWorkflow("localhost", 50080, "dev", PrivateKey.generate(), cluster="c")
    workflow >> a
    other >> a
    assert edges(workflow) == edges(other) == {"a": [], "b": [("a", "share", 0, 1)]}


def test_names_are_made_unique_around_those_that_were_chosen(workflow: ColoniesWorkflow) -> None:
    nodes = [Function("f"), Function("f", name="f-2"), Function("f"), Function("g", name="f")]
    for node in nodes:
        workflow >> node
    assert [node.node_name for node in workflow.to_spec().nodes] == ["f-3", "f-2", "f-4", "f"]


def test_a_name_taken_twice_is_refused(workflow: ColoniesWorkflow) -> None:
    workflow >> [Function("f", name="x"), Function("g", name="x")]
    with pytest.raises(WorkflowError, match="'x'"):
        workflow.to_spec()


def test_an_edge_drawn_twice_is_refused() -> None:
    a, b = functions("ab")
    a >> b
    with pytest.raises(WorkflowError, match="a >> b is drawn twice"):
        a[0] >> b


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cycle_is_refused_and_named(workflow: ColoniesWorkflow, length: int) -> None:
    ring = functions("abc"[:length])
    for parent, child in zip(ring, ring[1:] + ring[:1], strict=True):
        parent >> child
    before, after = functions("xy")
    workflow >> before >> ring[0]
    ring[-1] >> after
    with pytest.raises(WorkflowError) as caught:
        workflow.to_spec()
    around = str(caught.value).partition("circle: ")[2].split(" >> ")
    assert around[0] == around[-1]
    assert set(around) == set("abc"[:length])


def test_another_colony_is_refused(workflow: ColoniesWorkflow) -> None:
    workflow >> Function("a", "dev") >> Function("b", "prod")
    with pytest.raises(WorkflowError, match="prod"):
        workflow.to_spec()


def test_an_empty_workflow_is_refused(workflow: ColoniesWorkflow) -> None:
    with pytest.raises(WorkflowError, match="empty"):
        workflow.to_spec()


@pytest.mark.parametrize("index", [-1, 10_000, True, "0", slice(1)])
def test_an_output_is_picked_by_its_number(index: Any) -> None:
    with pytest.raises(WorkflowError, match="0 to 9999"):
        Function("a")[index]


def test_a_function_is_not_something_to_loop_over() -> None:
    with pytest.raises(TypeError):
        list(Function("a"))  # type: ignore[call-overload]


@pytest.mark.parametrize("target", [[], ["a"], None, "a", [Function("a"), 3]])
def test_edges_lead_to_functions_only(target: Any) -> None:
    with pytest.raises(WorkflowError):
        Function("a") >> target


def test_every_field_of_the_spec() -> None:
    made = Function(
        "f",
        "dev",
        "hpc",
        name="n",
        args=[1, "x"],
        kwargs={"k": [None]},
        priority=-3,
        max_wait_time=1.5,
        max_exec_time=200,
        max_retries=5,
        executor_names=["e1"],
        location="lab",
        nodes=2,
        processes=8,
        processes_per_node=4,
        cpu="1500m",
        memory="10Gi",
        storage="1Ti",
        gpu={"name": "a100", "memory": "80Gi", "count": 2, "node_count": 1},
        wall_time=0.0001,
        require={"arch": "arm64", "zone": ["a", "b"], "gpu": True},
        backoff={"first": 1.5, "longest": 60},
        parents="all_done",
        env={"A": "b"},
        label="l",
        labels={"team": "x"},
        filesystem={"mount": "/data"},
        channels=["c1"],
    ).to_spec()
    assert made.priority == -3
    assert (made.max_wait_time_ms, made.max_exec_time_ms, made.conditions.wall_time_ms) == (1500, 200_000, 1)
    assert [value.data for value in made.args] == [b"1", b'"x"']
    assert made.kwargs["k"].data == b"[null]"
    assert made.conditions.gpu.count == 2
    assert [(each.key, each.operator, list(each.values)) for each in made.conditions.labels] == [
        ("arch", spec_pb2.LABEL_OPERATOR_EQUALS, ["arm64"]),
        ("zone", spec_pb2.LABEL_OPERATOR_IN, ["a", "b"]),
        ("gpu", spec_pb2.LABEL_OPERATOR_EXISTS, []),
    ]
    assert (made.backoff.first_ms, made.backoff.factor, made.backoff.longest_ms, made.backoff.jitter) == (1500, 2, 60_000, 0.5)
    assert made.parent_policy == spec_pb2.PARENT_POLICY_ALL_DONE
    # Nothing may be forgotten: every field that a spec has is set.
    unset = {field.name for field in FunctionSpec.DESCRIPTOR.fields} - {field.name for field, _ in made.ListFields()}
    assert not unset
    conditions = made.conditions
    unset = {field.name for field in conditions.DESCRIPTOR.fields} - {field.name for field, _ in conditions.ListFields()}
    assert unset == {"dependencies"}
    assert Function("f", gpu=Gpu(name="a100")).to_spec().conditions.gpu.count == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"max_exec_time": 0}, "max_exec_time"),
        ({"max_wait_time": float("nan")}, "max_wait_time"),
        ({"wall_time": float("inf")}, "wall_time"),
        ({"priority": 1.5}, "priority"),
        ({"max_retries": 2**31}, "max_retries"),
        ({"gpu": {"cores": 3}}, "gpu"),
        ({"gpu": {"count": "many"}}, "gpu"),
        ({"executor_names": "e1"}, "executor_names"),
        ({"require": {"arch": 3}}, r"require\['arch'\]"),
        ({"require": {"arch": []}}, r"require\['arch'\]"),
        ({"require": {"gpu": False}}, r"require\['gpu'\]"),
        ({"labels": {"team": 1}}, r"labels\['team'\]"),
        ({"backoff": 0}, "backoff: first"),
        ({"backoff": True}, "backoff: first"),
        ({"backoff": {"first": 1, "factor": 0.5}}, "backoff: factor"),
        ({"backoff": {"first": 1, "jitter": 2}}, "backoff: jitter"),
        ({"backoff": Backoff(1, longest=-1)}, "backoff: longest"),
        ({"backoff": {"longest": 1}}, "it takes first, factor, longest and jitter"),
        ({"parents": "some"}, "all_successful, all_done, any_done"),
        ({"fn": lambda: None}, "no name"),
        ({"fn": ""}, "no name"),
    ],
)
def test_nonsense_is_refused_with_its_name(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(WorkflowError, match=word):
        Function(**{"fn": "f", **arguments})


@pytest.mark.asyncio
async def test_execute_inside_an_event_loop_points_to_aexecute(workflow: ColoniesWorkflow) -> None:
    workflow >> Function("a")
    with pytest.raises(WorkflowError, match="aexecute"):
        workflow.execute()


def test_children_hang_together_among_themselves() -> None:
    a, b, c = Function("f", name="a"), Function("g"), Function("g")
    a >> b
    a >> c
    raw = FunctionSpec(node_name="raw", func_name="h")
    made = child_specs([c, raw, a, b])
    assert [node.func_name for node in made] == ["g", "h", "f", "g"]
    assert made[1] is raw
    assert len({node.node_name for node in made}) == 4
    shares = [made[3].conditions.dependencies[0], made[0].conditions.dependencies[0]]
    assert [(each.node_name, each.share.index, each.share.of) for each in shares] == [("a", 0, 2), ("a", 1, 2)]


def test_children_that_do_not_hang_together_are_refused() -> None:
    a, b = Function("a"), Function("b")
    a >> b
    with pytest.raises(WorkflowError, match="not among the new"):
        child_specs([a])
    with pytest.raises(WorkflowError, match="'x'"):
        child_specs([Function("f", name="x"), FunctionSpec(node_name="x")])
    b >> a
    with pytest.raises(WorkflowError, match="circle"):
        child_specs([a, b])
