"""User data comes back as it went."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies import values
from colonies.errors import ValueEncodingError
from colonies.scheduler.v1.spec_pb2 import Value

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values | st.binary())
def test_round_trip(value: Any) -> None:
    sent = values.encode(value).SerializeToString()
    back = values.decode(Value.FromString(sent))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), "\ud800", {"x": 1j}])
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(ValueEncodingError):
        values.encode(value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000 + b"]" * 100_000, b"1" * 5_000, b"NaN", b"[-Infinity]"])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueEncodingError, match=f"{len(data)} bytes"):
        values.decode(Value(data=data))


def test_nesting_without_end_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueEncodingError):
        values.encode(deep)
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(ValueEncodingError):
        values.encode(ring)


def test_other_media_types_pass_through() -> None:
    image = Value(media_type="image/png", data=b"\x89")
    assert values.encode(image) is image
    assert values.decode(image) == image
