"""Values, durations and files from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from colonies.cli import arguments, workflow_file
from colonies.cli.failure import CliError, ExitCode, one_line, visible
from colonies.scheduler.v1.spec_pb2 import PARENT_POLICY_ANY_DONE, WorkflowSpec

from .conftest import Shell


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("2", b"2"),
        ("1.50", b"1.50"),
        ('{"a": [1, null]}', b'{"a": [1, null]}'),
        ("true", b"true"),
        ('"quoted"', b'"quoted"'),
        ("plain text", b'"plain text"'),
        ("NaN", b'"NaN"'),
        ("-Infinity", b'"-Infinity"'),
        ("", b'""'),
        ("grün", '"grün"'.encode()),
        ("9" * 5000, b"9" * 5000),
        ("{broken", b'"{broken"'),
    ],
)
def test_a_value_is_json_if_valid_json_else_text(text: str, data: bytes) -> None:
    value = arguments.value(text, "argument 1")
    assert value.data == data
    assert value.media_type == ""


@pytest.mark.parametrize("text", ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000])
def test_deep_json_is_refused(text: str) -> None:
    with pytest.raises(CliError, match="argument 3: the JSON is nested too deeply") as caught:
        arguments.value(text, "argument 3")
    assert caught.value.code == ExitCode.USAGE


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(CliError, match="not valid UTF-8"):
        arguments.value("\udcff", "argument 1")


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("200", 200_000), ("1.5s", 1_500), ("10m", 600_000), ("2h", 7_200_000), ("1d", 86_400_000), ("250ms", 250)],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert arguments.duration_ms(text, "--x") == milliseconds


@pytest.mark.parametrize("text", ["", "-1", "1w", "1 s", "s", "inf", "9" * 400, "999999999999d"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(CliError, match="--x"):
        arguments.duration_ms(text, "--x")


def test_control_characters_are_spelled_out() -> None:
    assert visible("a\x1b[31mb\x9b\x7f\r\ud800") == "a\\x1b[31mb\\x9b\\x7f\\x0d\\ud800"
    assert one_line("a\n b\tc") == "a b c"


def _parse(document: Any) -> WorkflowSpec:
    return workflow_file.parse(document, "w.json")


def _node(**more: Any) -> dict[str, Any]:
    return {"name": "a", "function": "f", "executor_type": "edge", **more}


EVERYTHING = {
    "label": "nightly",
    "nodes": [
        _node(),
        _node(name="b"),
        _node(
            name="c",
            args=[1, "x", 12345678901234567890],
            kwargs={"k": [None]},
            after=["a", {"node": "b", "output": 3}],
            priority=2,
            max_wait_time=1.5,
            max_exec_time="10m",
            max_retries=-1,
            label="l",
            env={"E": "1"},
            executors=["e1"],
            location="here",
            cpu="1000m",
            memory="1Gi",
            storage="2Gi",
            gpu={"name": "g", "memory": "80Gi", "count": 2, "node_count": 1},
            require={"arch": "arm64", "zone": ["a", "b"], "gpu": True},
            backoff={"first": "2s", "longest": "1m", "jitter": 0},
            parents="ANY_DONE",
            labels={"team": "x"},
            nodes=1,
            processes=2,
            processes_per_node=3,
            wall_time=60,
            filesystem={"m": 1},
            channels=["ch"],
        ),
        _node(name="d", after=[{"node": "c", "share": [0, 2]}, {"node": "a"}]),
    ],
}


def test_a_workflow_file_with_everything() -> None:
    spec = _parse(EVERYTHING)
    assert spec.label == "nightly"
    assert [node.node_name for node in spec.nodes] == ["a", "b", "c", "d"]
    c = spec.nodes[2]
    assert [value.data for value in c.args] == [b"1", b'"x"', b"12345678901234567890"]
    assert c.kwargs["k"].data == b"[null]"
    assert (c.priority, c.max_wait_time_ms, c.max_exec_time_ms, c.max_retries) == (2, 1_500, 600_000, -1)
    assert (c.label, dict(c.env), list(c.channels), c.filesystem.data) == ("l", {"E": "1"}, ["ch"], b'{"m":1}')
    conditions = c.conditions
    assert conditions.dependencies[0].WhichOneof("selector") == "all"
    assert conditions.dependencies[1].index.index == 3
    assert (conditions.cpu, conditions.memory, conditions.storage) == ("1000m", "1Gi", "2Gi")
    assert (conditions.gpu.name, conditions.gpu.memory, conditions.gpu.count) == ("g", "80Gi", 2)
    assert (conditions.nodes, conditions.processes, conditions.processes_per_node) == (1, 2, 3)
    assert (conditions.wall_time_ms, conditions.location_name) == (60_000, "here")
    assert list(conditions.executor_names) == ["e1"]
    assert [(each.key, list(each.values)) for each in conditions.labels] == [
        ("arch", ["arm64"]),
        ("zone", ["a", "b"]),
        ("gpu", []),
    ]
    assert (c.backoff.first_ms, c.backoff.longest_ms, c.backoff.jitter) == (2_000, 60_000, 0)
    assert (c.parent_policy, dict(c.labels)) == (PARENT_POLICY_ANY_DONE, {"team": "x"})
    assert _parse({"nodes": [_node(backoff=1.5)]}).nodes[0].backoff.first_ms == 1_500
    share = spec.nodes[3].conditions.dependencies[0].share
    assert (share.index, share.of) == (0, 2)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ([], "w.json: a workflow is an object with `nodes`, not a list"),
        ({"nodes": []}, "`nodes` must be a list of at least one node"),
        ({"nodes": [_node()], "lable": 1}, "unknown key 'lable'"),
        ({"nodes": [_node()], "label": 1}, "`label` must be a text, not a number"),
        ({"nodes": ["a"]}, "node number 1: a node is an object, not a text"),
        ({"nodes": [_node(aftr=[])]}, "node 'a': unknown key 'aftr'"),
        ({"nodes": [{"name": "a", "function": "f"}]}, "node 'a': `executor_type` is missing"),
        ({"nodes": [_node(), {"function": "f"}]}, "node number 2: `name` is missing"),
        ({"nodes": [_node(priority=True)]}, "node 'a': `priority` must be a whole number, not a boolean"),
        ({"nodes": [_node(priority=2**40)]}, "node 'a': `priority` is out of range"),
        ({"nodes": [_node(args={})]}, "node 'a': `args` must be a list, not an object"),
        ({"nodes": [_node(env={"A": 1})]}, "node 'a': `env`['A'] must be a text, not a number"),
        ({"nodes": [_node(after=[1])]}, "node 'a': `after`[0] must be an object, not a number"),
        ({"nodes": [_node(after=[{"nod": "b"}])]}, "`after`[0]: unknown key 'nod'"),
        ({"nodes": [_node(after=[{}])]}, "`after`[0]: `node` is missing"),
        ({"nodes": [_node(after=[{"node": "b", "output": 1, "share": [0, 1]}])]}, "exclude each other"),
        ({"nodes": [_node(after=[{"node": "b", "share": [1]}])]}, "share must be [k, n]"),
        ({"nodes": [_node(max_exec_time="soon")]}, "`max_exec_time`: 'soon' is not a duration"),
        ({"nodes": [_node(max_exec_time=1e300)]}, "`max_exec_time` is out of range"),
        ({"nodes": [_node(gpu={"nam": "x"})]}, "`gpu`: unknown key 'nam'"),
        ({"nodes": [_node(require=[])]}, "`require` must be an object, not a list"),
        ({"nodes": [_node(require={"gpu": 1})]}, "`require`['gpu'] is 1: it takes a text"),
        ({"nodes": [_node(require={"gpu": "\ud800"})]}, "`require`"),
        ({"nodes": [_node(labels={"a": 1})]}, "`labels`['a'] must be a text, not a number"),
        ({"nodes": [_node(backoff="soon")]}, "`backoff`.first: 'soon' is not a duration"),
        ({"nodes": [_node(backoff={"first": 1, "speed": 2})]}, "it takes first, factor, longest and jitter"),
        ({"nodes": [_node(backoff={"first": 1, "factor": 0})]}, "`backoff`: factor is 0"),
        ({"nodes": [_node(parents="none")]}, "`parents`: 'none' is none of all_successful"),
        ({"nodes": [_node(label="\ud800")]}, "half of a surrogate pair"),
    ],
)
def test_a_mistake_in_a_workflow_file_is_named(document: Any, error: str) -> None:
    with pytest.raises(CliError) as caught:
        _parse(document)
    assert error in caught.value.message
    assert caught.value.message.startswith("w.json")
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "w.json: line 1, column 2"),
        ('{"nodes": NaN}', "NaN is not JSON"),
        ('{"nodes": ' + "[" * 10_000 + "]" * 10_000 + "}", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_json(offline: Shell, tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "w.json"
    file.write_text(text)
    result = offline("workflow", "submit", str(file))
    assert result.exit_code == 2
    assert error in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_cannot_be_read(offline: Shell, tmp_path: Path) -> None:
    assert "No such file" in offline("workflow", "submit", str(tmp_path / "none.json")).stderr
    binary = tmp_path / "b.json"
    binary.write_bytes(b"\xff\xfe")
    result = offline("workflow", "submit", str(binary))
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr


def test_a_workflow_is_read_from_the_standard_input(offline: Shell) -> None:
    # Without a profile this ends after the file was read and understood.
    result = offline("workflow", "submit", "-", stdin=json.dumps({"nodes": [_node()]}))
    assert "no profile" in result.stderr
    assert "unknown key" in offline("workflow", "submit", "-", stdin='{"x": 1}').stderr
