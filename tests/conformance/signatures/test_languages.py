"""Each language's signing code passes every vector; and the judge sees when one does not."""

import sys

import pytest

from tests.conformance.signatures.conformance import (
    LANGUAGES,
    Language,
    RunnerFailed,
    answers_of,
    cases,
    failures_of,
)

CASES = cases()
# Answers everything as the first question is to be answered.
PARROT = "import sys, json\nfor line in sys.stdin: print(json.dumps({answer}))"


def runner(program: str) -> Language:
    """A runner in a few words of Python."""
    return Language("wrong", (sys.executable, "-c", program))


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_a_language_passes_every_vector(language: Language) -> None:
    """A language whose program is missing fails: what was not run has not passed."""
    assert [f"{case}: {answer}, not {case.expected}" for case, answer in failures_of(language, CASES)] == []


def test_every_kind_of_vector_is_asked_in_both_directions() -> None:
    both = {(kind, direction) for kind in ("call", "join", "rotation") for direction in ("sign", "check")}
    assert {(case.kind, case.direction) for case in CASES} == {*both, ("identity", "sign")}
    assert len({(case.kind, case.name) for case in CASES}) > 200


def test_no_question_holds_its_answer() -> None:
    for case in CASES:
        assert not set(case.given) & set(case.expected), str(case)


def test_wrong_answers_are_seen() -> None:
    answer = CASES[0].expected
    failures = failures_of(runner(PARROT.format(answer=answer)), CASES)
    assert len(failures) == sum(case.expected != answer for case in CASES)
    always = failures_of(runner(PARROT.format(answer={"error": "SIGNATURE_INVALID"})), CASES)
    assert {case.name for case, _ in always if case.kind == "call"} >= {"a_call", "without_any", "signed_a_day_ago"}


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("", id="no answers"),
        pytest.param(PARROT.format(answer={}) + "\nprint('{}')", id="an answer too many"),
        pytest.param(PARROT.format(answer={}) + "\nsys.exit(3)", id="a crash at the end"),
    ],
)
def test_a_runner_that_breaks_off_has_not_passed(program: str) -> None:
    with pytest.raises(RunnerFailed):
        answers_of(runner(program), CASES[:3])


def test_a_missing_language_is_a_failure_that_says_what_to_install() -> None:
    with pytest.raises(RunnerFailed, match="apt-get install nothing"):
        answers_of(Language("none", ("no-such-program",), "apt-get install nothing"), CASES[:1])
