"""SECURITY.md names tests for what it claims: they must be there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# `file::test`, `::test` in the file that was named last, or `file`.
NAME = re.compile(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`")


def names_of(file: str) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")}


def named(text: str) -> list[tuple[str, str]]:
    """Every file and test that a text names."""
    found, file = [], ""
    for path, test in NAME.findall(text):
        file = path or file
        if path or test:
            found.append((file, test))
    return found


def test_every_test_that_it_names_is_there() -> None:
    names = named((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(names) > 50
    missing = [
        f"{file}::{test}"
        for file, test in names
        if not (ROOT / file).is_file() or not names_of(file) or (test and test not in names_of(file))
    ]
    assert missing == []


def test_names_are_read_with_and_without_their_file() -> None:
    text = "`tests/a/test_b.py::test_c`, `::test_d` and `tests/e.py` but not `other`"
    assert named(text) == [("tests/a/test_b.py", "test_c"), ("tests/a/test_b.py", "test_d"), ("tests/e.py", "")]
