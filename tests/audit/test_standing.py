"""When the keys of a member end, and which calls a process had."""

from hypothesis import given
from hypothesis import strategies as st

from colonies.audit.life import Life
from colonies.audit.standing import AFTER_ALL, Member
from tests.audit.author import Author


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


def test_calls_of_a_process_are_looked_up_and_not_looked_through() -> None:
    """A process that is tried again for ever has as many as it likes."""
    author = Author()
    (one,) = author.submit(author.user)
    life = Life(one.record)
    life.step(one.events[0] | {"number": 1})
    assert isinstance(life.calls, set)
    assert one.events[0]["call"] in life.calls
