"""The kit finds what is wrong, and a quick round of it with the Python driver; the whole of it is `make conformance`."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.kit.__main__ import hold
from tests.conformance.kit.cases import Case, KnownFailure, cases, known_failures
from tests.conformance.kit.languages import Language
from tests.conformance.kit.matching import MismatchError, fill, match
from tests.conformance.kit.runner import Meeting, Verdict
from tests.conformance.kit.steps import STEPS
from tests.conformance.kit.table import Column, Table

PYTHON = Language("python")


@pytest.mark.timeout(300)
def test_a_quick_round_with_python() -> None:
    quick = [case for case in cases() if case.quick]
    assert len(quick) > 25
    assert asyncio.run(hold([PYTHON], quick, kills=False, build=True)) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            'for line in sys.stdin: print(json.dumps({"id": json.loads(line)["id"], "result": {}}), flush=True)', id="a parrot"
        ),
        pytest.param("sys.stdin.readline(); print(json.dumps({'id': 1, 'result': {}}), flush=True)", id="one that dies"),
        pytest.param("print('ready', flush=True); sys.stdin.read()", id="one that chats"),
    ],
)
def test_a_driver_that_is_wrong_passes_nothing(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.conformance.kit.languages.DRIVERS", tmp_path)
    (tmp_path / "wrong").mkdir()
    for name, text in (("build", ""), ("run", f"import json, sys\n{program}\n")):
        script = tmp_path / "wrong" / name
        script.write_text(f"#!{sys.executable}\n{text}")
        script.chmod(0o755)
    played = [case for case in cases() if case.group in {"signatures", "values"}][:6]
    faults = asyncio.run(hold([Language("wrong")], played, kills=False, build=True))
    assert [fault.partition(": ")[0] for fault in faults] == [f"wrong, {case.group}" for case in played]


def test_every_step_of_every_case_is_of_one_kind() -> None:
    for case in cases():
        for step in case.steps:
            assert len(STEPS.keys() & step.keys()) == 1, (str(case), step)


def test_what_is_known_to_fail_is_a_case_and_has_a_reason() -> None:
    names = {str(case) for case in cases()}
    for failure in known_failures():
        assert failure.case in names
        assert failure.reason


@pytest.mark.parametrize(
    ("pattern", "actual"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ([1, {"$any": True}], [1, None]),
        ({"$exact": {"a": 1}}, {"a": 1}),
        ({"a": {"$absent": True}}, {}),
        ({"a": {"$absent": True}}, {"a": []}),
        ({"$regex": "^b+$"}, "bbb"),
        ({"$one_of": [1, 2]}, 2),
        ({"$some": {"a": 2}}, [{"a": 1}, {"a": 2}]),
        ({"$all": [{"$some": 1}, {"$some": 2}]}, [2, 1]),
        ({"$json": {"a": [1, 2.0]}}, ' {"a":[1.0,2]}'),
        ({"$json": 9007199254740993}, "9007199254740993"),
        ({"$not": 1}, 2),
        ("${known}", {"x": 1}),
        ("<${known.x}>", "<1>"),
        ({"$hex": "é"}, "c3a9"),
        ({"$value": [1]}, {"data": "WzFd"}),
    ],
)
def test_what_matches(pattern: Any, actual: Any) -> None:
    match(pattern, actual, {"known": {"x": 1}})


@pytest.mark.parametrize(
    ("pattern", "actual"),
    [
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, None),
        (1, True),
        (0, False),
        (1, "1"),
        ([1], [1, 2]),
        ([1], {"0": 1}),
        ({"$exact": {"a": 1}}, {"a": 1, "b": 2}),
        ({"a": {"$absent": True}}, {"a": "there"}),
        ({"$regex": "^b+$"}, "abb"),
        ({"$regex": "1"}, 1),
        ({"$one_of": [1, 2]}, 3),
        ({"$some": 3}, [1, 2]),
        ({"$all": [{"$some": 1}, {"$some": 3}]}, [2, 1]),
        ({"$json": 1}, "{"),
        ({"$json": 1}, "true"),
        ({"$json": 9007199254740993}, "9007199254740992"),
        ({"$json": 9007199254740993}, "9.007199254740993e15"),
        ({"$not": 1}, 1),
        ("${known}", {"x": 2}),
    ],
)
def test_what_does_not_match(pattern: Any, actual: Any) -> None:
    with pytest.raises(MismatchError):
        match(pattern, actual, {"known": {"$exact": {"x": 1}}})


def test_what_is_kept_is_known_from_then_on() -> None:
    scope: dict[str, Any] = {}
    match({"a": {"$keep": "first", "is": {"$regex": "^x"}}, "b": [{"$keep": "second"}]}, {"a": "xy", "b": [{"c": 1}]}, scope)
    assert fill(["${first}", "${second.c}", {"$list": "${first}", "times": 2}, {"$repeat": "ab", "times": 2}], scope) == [
        "xy",
        1,
        ["xy", "xy"],
        "abab",
    ]
    with pytest.raises(KeyError):
        fill("${third}", scope)


def table(verdict: Verdict, *known: KnownFailure) -> Table:
    """A table of one case in one language, with this verdict."""
    case = Case("a", "case", ())
    return Table([Column(PYTHON, {case: verdict})], [case], known)


def test_a_failure_is_a_fault_unless_it_is_known() -> None:
    known = KnownFailure("python", "a: case", "for a reason")
    assert table(Verdict(0.5)).faults() == []
    assert table(Verdict(0.5, "broken")).faults() == ["Python, a: case: broken"]
    assert table(Verdict(0.5, "broken"), known).faults() == []
    assert table(Verdict(0.5, "broken"), known).known() == ["Python, a: case: known: for a reason"]
    assert table(Verdict(0.5), known).faults() == ["Python, a: case: is listed as a known failure, and passed"]


def test_a_language_that_cannot_be_run_is_a_fault() -> None:
    case = Case("a", "case", ())
    unbuilt = Table([Column(PYTHON, None, "apt-get install python")], [case], [])
    assert unbuilt.faults() == ["Python was not run: apt-get install python"]
    assert "–" in unbuilt.row(case)


@pytest.mark.asyncio
async def test_the_middle_comes_once_for_all_that_still_play() -> None:
    acts: list[int] = []

    async def act() -> None:
        acts.append(len(acts))

    middle = Meeting(3, act)
    waiting = [asyncio.create_task(middle.arrive()) for _ in range(2)]
    await asyncio.sleep(0)
    assert acts == []
    middle.leave()
    await asyncio.gather(*waiting)
    assert acts == [0]
