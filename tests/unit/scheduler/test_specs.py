"""Every field of a function spec has a bound: at it all is well, beyond it the error names the field."""

from collections.abc import Callable
from typing import Any

import pytest

from colonies.scheduler.v1 import spec_pb2
from colonies.scheduler.v1.spec_pb2 import Backoff, Conditions, Dependency, FunctionSpec, Gpu, LabelRequirement, Value
from servicekit.bounds import Bounds
from services.scheduler.domain.spec import Dependency as Edge
from services.scheduler.domain.spec import ParentPolicy, Selector, Spec
from services.scheduler.rpc import specs as rules

Change = Callable[[FunctionSpec], object]
EQUALS, IN, EXISTS = spec_pb2.LABEL_OPERATOR_EQUALS, spec_pb2.LABEL_OPERATOR_IN, spec_pb2.LABEL_OPERATOR_EXISTS
DAY_MS = 24 * 3600 * 1000
TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000
MIB = 1024 * 1024


def spec() -> FunctionSpec:
    return FunctionSpec(node_name="node", func_name="f", conditions=Conditions(executor_type="cli"))


def put(path: str, value: Any) -> Change:
    """Sets a field, by its path."""

    def change(one: FunctionSpec) -> None:
        *parents, name = path.split(".")
        message: Any = one
        for parent in parents:
            message = getattr(message, parent)
        if isinstance(value, list):
            getattr(message, name).extend(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                target = getattr(message, name)
                if isinstance(item, Value):
                    target[key].CopyFrom(item)
                else:
                    target[key] = item
        elif hasattr(value, "CopyFrom"):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)

    return change


def check(*changes: Change, in_workflow: bool = False) -> tuple[list[str], list[Spec]]:
    """The fields that are refused, and what came through."""
    one, bounds = spec(), Bounds()
    for change in changes:
        change(one)
    convert = rules.nodes_of if in_workflow else rules.specs_of
    found = convert(bounds, "specs", "acme", [one])
    return [violation.field for violation in bounds.violations], found


def of(size: int) -> Value:
    return Value(data=b"x" * size)


def many(count: int, kind: Callable[[int], Any]) -> list[Any]:
    return [kind(index) for index in range(count)]


def entries(count: int, value: Any) -> dict[str, Any]:
    return {f"k{index}": value for index in range(count)}


def like(operator: Any, *values: str, key: str = "os") -> LabelRequirement:
    return LabelRequirement(key=key, operator=operator, values=values)


AT_THE_BOUND: dict[str, Change] = {
    "func_name": put("func_name", "f" * 256),
    "func_name in UTF-8": put("func_name", "ö" * 128),
    "label": put("label", "l" * 256),
    "node_name": put("node_name", "n" * 256),
    "no node_name": put("node_name", ""),
    "args": put("args", many(1_000, lambda _: of(1))),
    "kwargs": put("kwargs", entries(1_000, of(1))),
    "env": put("env", entries(1_000, "v")),
    "env value": put("env", {"k": "v" * 65_536}),
    "user data": put("args", [of(4 * MIB)]),
    "user data, together": lambda one: [
        put("args", [of(MIB)])(one),
        put("kwargs", {"k": of(MIB)})(one),
        put("env", entries(16, "v" * 65_536))(one),
        put("filesystem", of(MIB))(one),
    ],
    "media type": put("args", [Value(media_type="m" * 255)]),
    "priority": put("priority", 50_000),
    "negative priority": put("priority", -50_000),
    "max_wait_time_ms": put("max_wait_time_ms", TEN_YEARS_MS),
    "max_exec_time_ms": put("max_exec_time_ms", TEN_YEARS_MS),
    "max_retries": put("max_retries", 1_000_000),
    "retries for ever": put("max_retries", -1),
    "channels": put("channels", many(100, lambda index: f"c{index}")),
    "colony": put("conditions.colony_name", "acme"),
    "executor_type": put("conditions.executor_type", "t" * 128),
    "executor_names": put("conditions.executor_names", many(100, lambda index: f"e{index}")),
    "location": put("conditions.location_name", "l" * 128),
    "nodes": put("conditions.nodes", 1_000_000),
    "processes": put("conditions.processes", 1_000_000),
    "processes_per_node": put("conditions.processes_per_node", 1_000_000),
    "cpu": put("conditions.cpu", "1000m"),
    "cpu in cores": put("conditions.cpu", "2.5"),
    "memory": put("conditions.memory", "10Gi"),
    "storage": put("conditions.storage", "1.5T"),
    "gpu": put("conditions.gpu", Gpu(name="g" * 128, memory="80G", count=1_000_000, node_count=1_000_000)),
    "wall_time_ms": put("conditions.wall_time_ms", TEN_YEARS_MS),
    "labels": put("labels", {f"k{index}": "v" * 128 for index in range(32)}),
    "label of UTF-8": put("labels", {"k" * 128: "ö" * 64}),
    "label without value": put("labels", {"k": ""}),
    "requirements": put("conditions.labels", [like(EQUALS, "v" * 128)] * 32),
    "requirement in": put("conditions.labels", [like(IN, *(f"v{index}" for index in range(32)))]),
    "requirement exists": put("conditions.labels", [like(EXISTS, key="k" * 128)]),
    "shortest backoff": put("backoff", Backoff(first_ms=1, factor=1, longest_ms=1, jitter=0)),
    "longest backoff": put("backoff", Backoff(first_ms=DAY_MS, factor=100, longest_ms=30 * DAY_MS, jitter=1)),
    "parent_policy": put("parent_policy", spec_pb2.PARENT_POLICY_ANY_DONE),
}

BEYOND: list[tuple[Change, str]] = [
    (put("func_name", ""), "func_name"),
    (put("func_name", "f" * 257), "func_name"),
    (put("func_name", "ö" * 129), "func_name"),
    (put("func_name", "f\0"), "func_name"),
    (put("func_name", "f\n"), "func_name"),
    (put("label", "l" * 257), "label"),
    (put("label", "\0"), "label"),
    (put("node_name", "n" * 257), "node_name"),
    (put("node_name", "n\0n"), "node_name"),
    (put("args", many(1_001, lambda _: of(0))), "args"),
    (put("kwargs", entries(1_001, of(0))), "kwargs"),
    (put("kwargs", {"": of(0)}), "kwargs (a key)"),
    (put("kwargs", {"k" * 257: of(0)}), "kwargs (a key)"),
    (put("env", entries(1_001, "")), "env"),
    (put("env", {"": "v"}), "env (a key)"),
    (put("env", {"k": "v" * 65_537}), "env"),
    (put("env", {"k": "\0"}), "env"),
    (put("args", [of(5 * MIB)]), "args"),
    (put("args", [of(2 * MIB), of(2 * MIB), of(1)]), "args"),
    (put("kwargs", {"k": of(4 * MIB + 1)}), "kwargs"),
    (put("filesystem", of(4 * MIB + 1)), "filesystem"),
    (put("env", entries(65, "v" * 65_536)), "env"),
    (put("args", [Value(media_type="m" * 256)]), "args[0].media_type"),
    (put("args", [Value(), Value(media_type="\0")]), "args[1].media_type"),
    (put("kwargs", {"k": Value(media_type="é")}), "kwargs (a value).media_type"),
    (put("filesystem", Value(media_type="a\nb")), "filesystem.media_type"),
    (put("priority", 50_001), "priority"),
    (put("priority", -50_001), "priority"),
    (put("max_wait_time_ms", -1), "max_wait_time_ms"),
    (put("max_wait_time_ms", TEN_YEARS_MS + 1), "max_wait_time_ms"),
    (put("max_exec_time_ms", -1), "max_exec_time_ms"),
    (put("max_exec_time_ms", TEN_YEARS_MS + 1), "max_exec_time_ms"),
    (put("max_retries", -2), "max_retries"),
    (put("max_retries", 1_000_001), "max_retries"),
    (put("channels", many(101, lambda index: f"c{index}")), "channels"),
    (put("channels", ["c", "c"]), "channels"),
    (put("channels", ["c", "\0"]), "channels[1]"),
    (put("conditions.colony_name", "umbrella"), "conditions.colony_name"),
    (put("conditions.executor_type", ""), "conditions.executor_type"),
    (put("conditions.executor_type", "t" * 129), "conditions.executor_type"),
    (put("conditions.executor_type", "a|b"), "conditions.executor_type"),
    (put("conditions.executor_names", many(101, lambda index: f"e{index}")), "conditions.executor_names"),
    (put("conditions.executor_names", ["e", "e"]), "conditions.executor_names"),
    (put("conditions.executor_names", ["e", "a,b"]), "conditions.executor_names[1]"),
    (put("conditions.executor_names", [""]), "conditions.executor_names[0]"),
    (put("conditions.location_name", "l" * 129), "conditions.location_name"),
    (put("conditions.location_name", "\0"), "conditions.location_name"),
    (put("conditions.nodes", -1), "conditions.nodes"),
    (put("conditions.nodes", 1_000_001), "conditions.nodes"),
    (put("conditions.processes", -1), "conditions.processes"),
    (put("conditions.processes", 1_000_001), "conditions.processes"),
    (put("conditions.processes_per_node", -1), "conditions.processes_per_node"),
    (put("conditions.processes_per_node", 1_000_001), "conditions.processes_per_node"),
    (put("conditions.cpu", "2Gi"), "conditions.cpu"),
    (put("conditions.cpu", "-1"), "conditions.cpu"),
    (put("conditions.cpu", "1000m\n"), "conditions.cpu"),
    (put("conditions.memory", "10GiB"), "conditions.memory"),
    (put("conditions.memory", "1000m"), "conditions.memory"),
    (put("conditions.memory", "9" * 16), "conditions.memory"),
    (put("conditions.storage", "lots"), "conditions.storage"),
    (put("conditions.storage", "٣"), "conditions.storage"),
    (put("conditions.gpu", Gpu(name="g" * 129)), "conditions.gpu.name"),
    (put("conditions.gpu", Gpu(memory="1e9")), "conditions.gpu.memory"),
    (put("conditions.gpu", Gpu(count=-1)), "conditions.gpu.count"),
    (put("conditions.gpu", Gpu(count=1_000_001)), "conditions.gpu.count"),
    (put("conditions.gpu", Gpu(node_count=-1)), "conditions.gpu.node_count"),
    (put("conditions.wall_time_ms", -1), "conditions.wall_time_ms"),
    (put("conditions.wall_time_ms", TEN_YEARS_MS + 1), "conditions.wall_time_ms"),
    (put("conditions.dependencies", [Dependency(node_name="a")]), "conditions.dependencies"),
    (put("labels", entries(33, "v")), "labels"),
    (put("labels", {"": "v"}), "labels (a key)"),
    (put("labels", {"k" * 129: "v"}), "labels (a key)"),
    (put("labels", {"a b": "v"}), "labels (a key)"),
    (put("labels", {"k": "v" * 129}), "labels (a value)"),
    (put("labels", {"k": "a\nb"}), "labels (a value)"),
    (put("conditions.labels", [like(EXISTS)] * 33), "conditions.labels"),
    (put("conditions.labels", [like(EXISTS, key="")]), "conditions.labels[0].key"),
    (put("conditions.labels", [like(EXISTS), like(EXISTS, key="a b")]), "conditions.labels[1].key"),
    (put("conditions.labels", [like(0)]), "conditions.labels[0].operator"),
    (put("conditions.labels", [like(4, "v")]), "conditions.labels[0].operator"),
    (put("conditions.labels", [like(EQUALS)]), "conditions.labels[0].values"),
    (put("conditions.labels", [like(EQUALS, "a", "b")]), "conditions.labels[0].values"),
    (put("conditions.labels", [like(IN)]), "conditions.labels[0].values"),
    (put("conditions.labels", [like(IN, *"v" * 33)]), "conditions.labels[0].values"),
    (put("conditions.labels", [like(EXISTS, "v")]), "conditions.labels[0].values"),
    (put("conditions.labels", [like(EQUALS, "v" * 129)]), "conditions.labels[0].values[0]"),
    (put("conditions.labels", [like(IN, "v", "a\0")]), "conditions.labels[0].values[1]"),
    (put("backoff", Backoff()), "backoff.first_ms"),
    (put("backoff", Backoff(first_ms=DAY_MS + 1)), "backoff.first_ms"),
    (put("backoff", Backoff(first_ms=1, factor=0.99)), "backoff.factor"),
    (put("backoff", Backoff(first_ms=1, factor=100.1)), "backoff.factor"),
    (put("backoff", Backoff(first_ms=1, factor=float("nan"))), "backoff.factor"),
    (put("backoff", Backoff(first_ms=10, longest_ms=9)), "backoff.longest_ms"),
    (put("backoff", Backoff(first_ms=10, longest_ms=-1)), "backoff.longest_ms"),
    (put("backoff", Backoff(first_ms=10, longest_ms=30 * DAY_MS + 1)), "backoff.longest_ms"),
    (put("backoff", Backoff(first_ms=1, jitter=-0.1)), "backoff.jitter"),
    (put("backoff", Backoff(first_ms=1, jitter=1.1)), "backoff.jitter"),
    (put("parent_policy", 4), "parent_policy"),
    (put("parent_policy", -1), "parent_policy"),
]


@pytest.mark.parametrize("change", AT_THE_BOUND.values(), ids=AT_THE_BOUND.keys())
def test_at_the_bound_all_is_well(change: Change) -> None:
    refused, found = check(change)
    assert not refused
    expected = spec()
    change(expected)
    assert FunctionSpec.FromString(found[0].body) == expected


@pytest.mark.parametrize(("change", "field"), BEYOND, ids=[f"{n}-{field}" for n, (_, field) in enumerate(BEYOND)])
def test_beyond_the_bound_the_field_is_named(change: Change, field: str) -> None:
    refused, _ = check(change)
    assert refused == [f"specs[0].{field}"]


@pytest.mark.parametrize("limit", [rules.MAX_SPECS, rules.MAX_NODES])
def test_a_request_has_one_to_many_of_them(limit: int) -> None:
    convert = rules.specs_of if limit == rules.MAX_SPECS else rules.nodes_of
    for count, good in ((0, False), (1, True), (limit, True), (limit + 1, False)):
        bounds = Bounds()
        assert len(convert(bounds, "specs", "acme", [spec()] * count)) == min(count, limit)
        assert [violation.field for violation in bounds.violations] == ([] if good else ["specs"])


def test_conditions_are_required() -> None:
    refused, _ = check(lambda one: one.ClearField("conditions"))
    assert "specs[0].conditions" in refused


def test_all_that_is_wrong_is_told_at_once() -> None:
    refused, _ = check(put("func_name", ""), put("priority", 99_999), put("conditions.executor_type", ""))
    assert refused == ["specs[0].func_name", "specs[0].priority", "specs[0].conditions.executor_type"]


def test_a_node_of_a_workflow_needs_a_name() -> None:
    refused, _ = check(put("node_name", ""), in_workflow=True)
    assert refused == ["specs[0].node_name"]


SELECTORS: list[tuple[Dependency, Edge, str]] = [
    (Dependency(node_name="a"), Edge("a"), ""),
    (Dependency(node_name="a", all=Dependency.All()), Edge("a"), ""),
    (Dependency(node_name="a", index=Dependency.Index(index=0)), Edge("a", Selector.INDEX, 0), ""),
    (Dependency(node_name="a", index=Dependency.Index(index=9_999)), Edge("a", Selector.INDEX, 9_999), ""),
    (Dependency(node_name="a", index=Dependency.Index(index=-1)), Edge("a", Selector.INDEX, -1), "index.index"),
    (Dependency(node_name="a", index=Dependency.Index(index=10_000)), Edge("a", Selector.INDEX, 10_000), "index.index"),
    (Dependency(node_name="a", share=Dependency.Share(index=1, of=2)), Edge("a", Selector.SHARE, 1, 2), ""),
    (Dependency(node_name="a", share=Dependency.Share(index=9_999, of=10_000)), Edge("a", Selector.SHARE, 9_999, 10_000), ""),
    (Dependency(node_name="a", share=Dependency.Share(index=2, of=2)), Edge("a", Selector.SHARE, 2, 2), "share.index"),
    (Dependency(node_name="a", share=Dependency.Share(index=-1, of=2)), Edge("a", Selector.SHARE, -1, 2), "share.index"),
    (Dependency(node_name="a", share=Dependency.Share(index=0, of=0)), Edge("a", Selector.SHARE, 0, 0), "share.of"),
    (Dependency(node_name="a", share=Dependency.Share(index=0, of=10_001)), Edge("a", Selector.SHARE, 0, 10_001), "share.of"),
]


@pytest.mark.parametrize(("dependency", "edge", "field"), SELECTORS)
def test_selectors(dependency: Dependency, edge: Edge, field: str) -> None:
    refused, found = check(put("conditions.dependencies", [dependency]), in_workflow=True)
    assert refused == ([f"specs[0].conditions.dependencies[0].{field}"] if field else [])
    assert list(found[0].dependencies) == [edge]


def test_too_many_dependencies() -> None:
    dependencies = many(10_001, lambda index: Dependency(node_name=f"n{index}"))
    assert check(put("conditions.dependencies", dependencies[:-1]), in_workflow=True)[0] == []
    assert check(put("conditions.dependencies", dependencies), in_workflow=True)[0] == ["specs[0].conditions.dependencies"]


def test_what_is_scheduled_by() -> None:
    _, found = check(
        put("priority", 3),
        put("max_wait_time_ms", 1),
        put("max_exec_time_ms", 2),
        put("max_retries", -1),
        put("label", "nightly"),
        put("conditions.executor_names", ["b", "a"]),
        put("conditions.location_name", "sweden"),
    )
    one = found[0]
    assert (one.func_name, one.executor_type, one.node_name, one.label) == ("f", "cli", "node", "nightly")
    assert (one.priority, one.max_wait_ms, one.max_exec_ms, one.max_retries) == (3, 1, 2, -1)
    assert (one.executor_names, one.location) == (("b", "a"), "sweden")


def test_only_a_large_spec_has_a_summary_without_user_data() -> None:
    rest = [put("priority", 3), put("label", "nightly"), put("channels", ["c"]), put("conditions.cpu", "2")]
    rest += [put("max_wait_time_ms", 1), put("max_exec_time_ms", 2), put("max_retries", -1), put("labels", {"k": "v"})]
    rest += [put("parent_policy", 2), put("backoff", Backoff(first_ms=5)), put("conditions.labels", [like(EXISTS)])]
    large = "v" * rules.SMALL
    data = [put("args", [of(rules.SMALL)]), put("kwargs", {"k": of(rules.SMALL)}), put("env", {"k": large})]
    data += [put("filesystem", of(rules.SMALL))]
    _, (bare,) = check(*rest)
    assert bare.summary == b"", "nothing was left out: the spec itself is shown"
    _, (large_bare,) = check(
        put("conditions.dependencies", many(2_000, lambda index: Dependency(node_name=f"n{index}"))), in_workflow=True
    )
    assert large_bare.summary == b""
    for change in data:
        _, (found,) = check(*rest, change)
        assert FunctionSpec.FromString(found.summary) == FunctionSpec.FromString(bare.body)
        assert found.body != bare.body
    _, (small,) = check(*rest, put("args", [of(1_000)]))
    assert small.summary == b""
    # A field that is added must be either user data or in the summary.
    assert set(rules.USER_DATA) <= {field.name for field in FunctionSpec.DESCRIPTOR.fields}


def test_every_field_is_looked_at() -> None:
    assert set(rules.PLAIN) == {field.name for field in FunctionSpec.DESCRIPTOR.fields}
    assert set(rules.PLAIN_CONDITIONS) == {field.name for field in Conditions.DESCRIPTOR.fields}


@pytest.mark.parametrize("change", [*AT_THE_BOUND.values(), *(change for change, _ in BEYOND)])
def test_what_is_plainly_in_bounds_is_in_bounds(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    """The glance and the close look agree: a glance that lets something through is right, and the close look finds no less."""
    glanced = check(change)
    monkeypatch.setattr(rules, "_is_plain", lambda *_, **__: False)
    assert check(change) == glanced


def test_ordinary_specs_are_not_looked_at_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(rules, "check_spec")
    names = ["label", "priority", "max_retries", "cpu", "memory", "location"]
    changes = [put("args", [of(1), Value(media_type="text/plain")]), put("kwargs", {"k": of(1)}), put("env", {"A": "1"})]
    changes += [put("labels", {"team": "x"}), put("channels", ["c"]), put("conditions.labels", [like(EQUALS, "linux")])]
    changes += [AT_THE_BOUND[name] for name in names]
    assert check(*changes)[0] == []
    assert check(*changes, put("conditions.dependencies", [Dependency(node_name="a")]), in_workflow=True)[0] == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([], ""),
        ([put("conditions.processes", 1)], ""),
        ([put("conditions.cpu", "0")], ""),
        ([put("conditions.cpu", "1.5"), put("conditions.memory", "1Ki")], '{"c":1500,"m":1024}'),
        (
            [put("conditions.storage", "1k"), put("conditions.nodes", 2), put("conditions.processes", 8)],
            '{"d":2,"p":8,"s":1000}',
        ),
        ([put("conditions.processes_per_node", 4), put("conditions.wall_time_ms", 4)], ""),
        ([put("conditions.gpu", Gpu())], '{"g":{"k":1}}'),
        ([put("conditions.gpu", Gpu(name="A100", memory="1k", count=2, node_count=2))], '{"g":{"k":2,"m":1000,"n":"A100"}}'),
        (
            [put("conditions.labels", [like(IN, "b", "a", "b"), like(EXISTS, key="arch"), like(EQUALS, "a")])],
            '{"l":[["arch","?"],["os","=","a"],["os","in","a","b"]]}',
        ),
        ([put("labels", {"b": "2", "a": "1"})], '{"t":{"a":"1","b":"2"}}'),
    ],
)
def test_needs(changes: list[Change], text: str) -> None:
    refused, (found,) = check(*changes)
    assert (refused, found.needs) == ([], text)
    assert rules.needs_of(FunctionSpec.FromString(found.body)).text == text


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (Backoff(first_ms=5), (5, 2, 3_600_000, 0.5)),
        (Backoff(first_ms=DAY_MS), (DAY_MS, 2, DAY_MS, 0.5)),
        (Backoff(first_ms=5, factor=1.5, longest_ms=10, jitter=0), (5, 1.5, 10, 0)),
    ],
)
def test_backoff_with_what_is_not_said(given: Backoff, found: tuple[float, ...]) -> None:
    assert check()[1][0].backoff == ()
    assert check(put("backoff", given))[1][0].backoff == found


def test_parent_policy_and_channels() -> None:
    _, (plain,) = check()
    assert (plain.parent_policy, plain.channels) == (ParentPolicy.ALL_SUCCESSFUL, ())
    for number, policy in enumerate(("ALL_SUCCESSFUL", "ALL_DONE", "ANY_DONE"), start=1):
        assert check(put("parent_policy", number))[1][0].parent_policy is ParentPolicy[policy]
    assert check(put("channels", ["b", "a"]))[1][0].channels == ("b", "a")


def test_outputs() -> None:
    for count, size, good in ((10_000, 1, True), (10_001, 0, False), (1, 4 * MIB, True), (1, 4 * MIB + 1, False)):
        bounds = Bounds()
        values = rules.values_of(bounds, "outputs", [of(size)] * count)
        assert [violation.field for violation in bounds.violations] == ([] if good else ["outputs"])
        assert Value.FromString(values[0]) == of(size)
