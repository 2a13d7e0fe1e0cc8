"""Any bytes at any method, signed by whoever may call it, or badly: an answer of ours, never a defect.

`make test-fuzz` has 10 000 cases for each method (COLONIES_FUZZ_CASES: another number); each run has others, and what fails is told
with its bytes.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from colonies.json_calls import SUFFIX
from tests.fuzz.stage import Stage, Target, words
from tests.rpc.methods import all_methods

TARGETS = {
    f"{method.service}/{method.descriptor.name}{SUFFIX if in_json else ''}": Target(method, in_json)
    for method in all_methods()
    for in_json in (False, True)
}
# Bytes of a case's program, and cases in one draw: drawing one by one would cost more than sending.
PROGRAM = 40
DRAWN = 200
FEW = 20
MANY = int(os.environ.get("COLONIES_FUZZ_CASES", "10000"))
# The tables are compared for each of the first draws, and then for one in so many.
CHECKED_ONE_IN = 20
MIB = 1024 * 1024
# What a process may grow by while it gets them all: new connections, prepared statements, members that it remembers.
GROWTH_FEW, GROWTH_MANY = 64 * MIB, 192 * MIB


def fuzz(stage: Stage, target: Target, cases: int) -> None:
    """So many cases at one method in one form."""
    # The first that Hypothesis draws is all zeros.
    draws = 1 + max(1, cases // DRAWN)
    number = iter(range(10**9))

    @settings(
        max_examples=draws, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,),
        print_blob=False,
    )  # fmt: skip
    @given(data=st.binary(min_size=PROGRAM * DRAWN, max_size=PROGRAM * DRAWN))
    def play(data: bytes) -> None:
        stage.play(target, words(data, PROGRAM), checked=next(number) % CHECKED_ONE_IN == 0)

    play()


@pytest.fixture(scope="module")
def growth(stage: Stage) -> Iterator[None]:
    """Looks at the memory of every process after all of them, and at what it logged."""
    before = stage.memory()
    yield
    grown = {name: (size - before[name]) // MIB for name, size in stage.memory().items()}
    bound = GROWTH_FEW if sum(sum(one.values()) for one in stage.answers.values()) < 100 * len(TARGETS) else GROWTH_MANY
    stage.notes.append(f"grown, MiB: {grown}")
    assert max(grown.values()) * MIB < bound, grown
    assert stage.errors() == []


@pytest.mark.usefixtures("growth")
@pytest.mark.parametrize("name", TARGETS)
def test_some_raw_bytes(stage: Stage, name: str) -> None:
    programs = words(os.urandom(PROGRAM * FEW), PROGRAM)
    stage.play(TARGETS[name], programs, checked=True)


@pytest.mark.fuzz
@pytest.mark.timeout(1_200)
@pytest.mark.usefixtures("growth")
@pytest.mark.parametrize("name", TARGETS)
def test_ten_thousand_raw_bytes(stage: Stage, name: str) -> None:
    fuzz(stage, TARGETS[name], MANY)
