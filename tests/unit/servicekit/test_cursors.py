"""Cursors come back as they went out, and nothing else comes in."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit import cursors
from servicekit.failures import InvalidArgument

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)
NUMBER = st.integers(-cursors.LARGEST, cursors.LARGEST)


def spelled(value: object) -> str:
    """Any JSON, as a forger would send it."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@given(st.tuples(TEXT, NUMBER, TEXT))
def test_round_trip(parts: tuple[str, int, str]) -> None:
    text = cursors.encode(parts)
    assert text.isascii()
    assert cursors.decode("cursor", text, str, int, str) == parts


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_garbage_is_refused_and_never_more(text: str) -> None:
    try:
        parts = cursors.decode("page.cursor", text, str, int)
    except InvalidArgument as failure:
        told: list[object] = [violation.field for violation in failure.violations]
    else:
        told = [type(part) for part in parts]
    assert told in (["page.cursor"], [str, int])


@pytest.mark.parametrize(
    "value",
    [[], ["a"], ["a", "1"], [1, "a"], ["a", 1, 2], ["a", True], ["a", 1.0], ["a", None], ["a", 2**63], {"a": 1}, "a", 1,
     ["\0", 1], ["\ud800", 1], [["a"], 1]],
)  # fmt: skip
def test_other_parts_are_refused(value: object) -> None:
    with pytest.raises(InvalidArgument):
        cursors.decode("cursor", spelled(value), str, int)


@pytest.mark.parametrize("text", ["", "[" * 4000, spelled(["a" * 5000, 1]), base64.urlsafe_b64encode(b"[" * 3000).decode()])
def test_long_and_deep_ones_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        cursors.decode("cursor", text, str, int)
