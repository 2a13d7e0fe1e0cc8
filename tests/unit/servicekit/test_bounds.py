"""Bounds: what passes can be stored and shown, and what does not is named."""

import math
import re
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit import bounds as checks
from servicekit.bounds import DEFAULT_PAGE, MAX_PAGE, Bounds, checked
from servicekit.failures import MAX_VIOLATIONS, InvalidArgument

# What protobuf can carry in a string, and NUL and line breaks more often than chance would have them.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\0\n\x7f\u2028 -._aZ0"), max_size=200)


def refused(bounds: Bounds) -> list[str]:
    """The fields refused."""
    return [violation.field for violation in bounds.violations]


@given(TEXTS)
def test_names_are_those_of_the_protos(text: str) -> None:
    bounds = Bounds()
    bounds.name("field", text)
    fits = 1 <= len(text) <= 128 and all(c.isascii() and (c.isalnum() or c in "._-") for c in text) and text[0].isalnum()
    assert refused(bounds) == ([] if fits else ["field"])


@given(TEXTS, st.integers(0, 300))
def test_texts_that_pass_fit_and_have_no_nul(text: str, at_most: int) -> None:
    bounds = Bounds()
    bounds.text("field", text, at_most=at_most)
    assert (not bounds.violations) == (len(text.encode()) <= at_most and "\0" not in text)


@given(TEXTS)
def test_printable_texts_stay_on_one_line(text: str) -> None:
    bounds = Bounds()
    bounds.printable("field", text, at_most=50)
    if not bounds.violations:
        assert 1 <= len(text.encode()) <= 50
        assert len(text.splitlines()) == 1
        assert not any(ord(c) < 32 or ord(c) == 127 for c in text)
    else:
        assert len(text.encode()) > 50 or not text or re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)


@given(st.text("0123456789abcdefABCDEFx-", max_size=70))
def test_identities(text: str) -> None:
    bounds = Bounds()
    bounds.identity("field", text)
    assert (not bounds.violations) == (len(text) == 64 and set(text) <= set("0123456789abcdef"))


@given(st.uuids() | TEXTS | st.sampled_from(["{" + str(uuid.UUID(int=5)) + "}", uuid.UUID(int=5).hex, "urn:uuid:x"]))
def test_uuids_have_one_spelling(value: uuid.UUID | str) -> None:
    bounds = Bounds()
    parsed = bounds.uuid("field", str(value))
    assert (parsed == value) if isinstance(value, uuid.UUID) else (parsed is None or str(parsed) == value.lower())
    assert (parsed is None) == bool(bounds.violations)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 10.1])
def test_numbers_out_of_range(value: float) -> None:
    bounds = Bounds()
    bounds.number("field", value, at_least=0, at_most=10)
    assert refused(bounds) == ["field"]


@pytest.mark.parametrize("text", ["", "1", "0.5", "10Gi", "512Mi", "1.5Ti", "1000k", "7G"])
def test_good_quantities(text: str) -> None:
    bounds = Bounds()
    bounds.quantity("field", text)
    assert not bounds.violations


@pytest.mark.parametrize("text", ["10GB", "-1", "1e9", " 1", "1 Gi", "١Gi", "1\n", ".5", "9" * 16, "Gi", "10gi"])
def test_bad_quantities(text: str) -> None:
    bounds = Bounds()
    bounds.quantity("field", text)
    assert refused(bounds) == ["field"]


@pytest.mark.parametrize(
    ("text", "good"), [("", True), ("1000m", True), ("2", True), ("2.5", True), ("2.5m", False), ("2\n", False), ("1Gi", False)]
)
def test_processor(text: str, good: bool) -> None:
    bounds = Bounds()
    bounds.cpu("field", text)
    assert (not bounds.violations) is good


def test_pages() -> None:
    bounds = Bounds()
    assert [bounds.page("page_size", size) for size in (0, 1, MAX_PAGE)] == [DEFAULT_PAGE, 1, MAX_PAGE]
    assert not bounds.violations
    bounds.page("page_size", -1)
    bounds.page("page_size", MAX_PAGE + 1)
    assert refused(bounds) == ["page_size"] * 2


def test_everything_wrong_is_told_at_once_but_not_without_end() -> None:
    with pytest.raises(InvalidArgument) as caught, checked() as bounds:
        bounds.names("names", ["ok", "ok", "\0"] + ["-"] * 40, at_least=1, at_most=100)
    assert len(caught.value.violations) == MAX_VIOLATIONS
    assert caught.value.violations[0].field == "names[2]"
    assert "\0" not in str(caught.value)
    with pytest.raises(InvalidArgument) as caught, checked() as bounds:
        bounds.name("a", "x" * 100_000)
        bounds.request_id("b", "a b")
    assert [violation.field for violation in caught.value.violations] == ["a", "b"]
    assert len(str(caught.value)) < 300


@given(TEXTS | st.text(), st.integers(1, 300))
def test_a_predicate_holds_exactly_where_its_check_is_silent(text: str, at_most: int) -> None:
    """So for what protobuf cannot carry, too: a lone surrogate."""
    pairs: list[tuple[bool, Callable[[Bounds], object]]] = [
        (checks.is_name(text), lambda b: b.name("f", text)),
        (checks.are_names([text, "x"]), lambda b: b.names("f", [text, "x" if text != "x" else "y"], at_least=2, at_most=2)),
        (checks.is_identity(text), lambda b: b.identity("f", text)),
        (checks.is_request_id(text), lambda b: b.request_id("f", text)),
        (checks.is_uuid(text), lambda b: b.uuid("f", text)),
        (checks.is_printable(text, at_most), lambda b: b.printable("f", text, at_most=at_most)),
        (checks.is_text(text, at_most), lambda b: b.text("f", text, at_most=at_most)),
        (checks.is_quantity(text), lambda b: b.quantity("f", text)),
        (checks.is_cpu(text), lambda b: b.cpu("f", text)),
    ]
    for holds, check in pairs:
        bounds = Bounds()
        check(bounds)
        assert holds is (not bounds.violations)


@pytest.mark.parametrize("control", ["\0", "\x1f", "\x7f", "\x9f", "\u2028", "\u2029", "\ud800"])
def test_no_control_character_is_printable(control: str) -> None:
    assert not checks.is_printable(f"a{control}b")
    assert checks.is_printable("a\u00a0b \U0001f41c")


@given(st.uuids())
def test_uuids_are_read_in_either_case(value: uuid.UUID) -> None:
    for text in (str(value), str(value).upper()):
        assert checks.is_uuid(text)
        assert Bounds().uuid("f", text) == value
    for text in (value.hex, f"{{{value}}}", f"urn:uuid:{value}", f" {value}", f"{value}\n"):
        assert not checks.is_uuid(text)
