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


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_a_key_is_good_for_a_while_after_its_rotation_but_no_longer_than_to_the_next(steps: list[tuple[int, int]]) -> None:
    member, now_us = Member("i", "i"), 0
    ends_us: list[int] = []
    for number, (after_us, keep_us) in enumerate(steps):
        now_us += after_us
        member.rotate(f"k{number}", now_us, keep_us)
        ends_us = [min(end_us, now_us) for end_us in ends_us] + [now_us + keep_us]
    assert [member.key_until_us(rotation) for rotation in range(len(steps) + 1)] == [*ends_us, AFTER_ALL]
    assert member.key == (f"k{len(steps) - 1}" if steps else "i")


def test_a_member_may_rotate_as_often_as_it_likes() -> None:
    member = Member("i", "i")
    began = time.process_time()
    for number in range(MANY):
        member.rotate(f"k{number}", number, 10)
        assert member.key_until_us(number) == number + 10
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
