"""Ids of processes and workflows."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.domain.ids import new_id

LATEST_NS = (1 << 48) * 1_000_000 - 1


@given(st.integers(0, LATEST_NS))
def test_ids_are_uuids_of_version_7_that_tell_their_millisecond(now_ns: int) -> None:
    one = new_id(now_ns)
    assert one.version == 7
    assert one.variant == uuid.RFC_4122
    assert one.int >> 80 == now_ns // 1_000_000


@given(st.integers(0, LATEST_NS - 1_000_000))
def test_ids_of_a_later_millisecond_sort_after(now_ns: int) -> None:
    assert new_id(now_ns) < new_id(now_ns + 1_000_000)
    assert str(new_id(now_ns)) < str(new_id(now_ns + 1_000_000))


def test_ids_of_one_moment_differ_in_all_their_random_bits() -> None:
    ids = [new_id(1_679_906_715_352_024_000).int for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    ever_one = ever_zero = 0
    for one in ids:
        ever_one |= one
        ever_zero |= ~one
    random = ((1 << 12) - 1) << 64 | (1 << 62) - 1
    assert ever_one & random == random
    assert ever_zero & random == random
