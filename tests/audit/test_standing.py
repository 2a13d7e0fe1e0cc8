"""When the keys of a member end, and that many rotations of one member, or calls about one process, take no more time each."""

import time

from hypothesis import given
from hypothesis import strategies as st

from colonies.audit.life import Life
from colonies.audit.standing import AFTER_ALL, Member
from tests.audit.author import Author

MANY = 50_000
# Of one processor. What grows with the square takes many times this.
SECONDS = 4.0


@given(st.lists(st.integers(0, 9), max_size=12))
def test_a_key_ends_with_the_earliest_end_of_all_rotations_from_its_own_on(ends: list[int]) -> None:
    member = Member("i", "i")
    for number, end_us in enumerate(ends):
        member.rotate(f"k{number}", end_us)
    for rotation in range(len(ends) + 1):
        assert member.key_until_us(rotation) == min(ends[rotation:], default=AFTER_ALL)
    assert member.key == (f"k{len(ends) - 1}" if ends else "i")


def test_a_member_may_rotate_as_often_as_it_likes() -> None:
    member = Member("i", "i")
    began = time.process_time()
    for number in range(MANY):
        member.rotate(f"k{number}", number)
        assert member.key_until_us(number) == number
    assert time.process_time() - began < SECONDS


def test_a_process_may_have_many_calls() -> None:
    author = Author()
    (one,) = author.submit(author.user)
    life = Life(one.record)
    submitted = one.events[0] | {"number": 1}
    began = time.process_time()
    for number in range(MANY):
        call = f"{number:064x}"
        assert call not in life.calls
        life.step(submitted | {"call": call})
        assert call in life.calls
    assert time.process_time() - began < SECONDS
