"""Holds the signing code of each language against protos/vectors: `python -m tests.conformance.signatures.conformance`.

A language takes part with a runner: a program that reads questions from its standard input, a JSON object a line, and writes an
answer to each. A question has what a signer or a verifier knows, never what must come of it; the judging is done here. So a
runner cannot pass by saying that it did.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
VECTORS = ROOT / "protos" / "vectors"
TIMEOUT_S = 100
# What a client is given; all else in its part of a vector must come of it.
INPUTS = frozenset(
    {
        "test_private_key",
        "method",
        "audience",
        "body_hex",
        "body_times",
        "time_ms",
        "nonce",
        "colony",
        "role",
        "name",
        "old_key",
    }
)


@dataclass(frozen=True, slots=True)
class Language:
    """A language's runner."""

    name: str
    command: tuple[str, ...]
    # What to do when the program is not there.
    install: str = ""


LANGUAGES = (
    Language("Python", (sys.executable, "-m", "tests.conformance.signatures.runner")),
    Language("Node", ("node", str(HERE / "runner.mjs")), "apt-get install nodejs"),
    Language("Ruby", ("ruby", str(HERE / "runner.rb")), "apt-get install ruby"),
    Language("C++", (str(HERE / "runner_cpp"),)),
    Language("Go", (str(HERE / "runner_go.sh"),)),
)


class RunnerFailed(Exception):
    """The runner is not there, died, or did not answer every question."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question, and the answer to it."""

    kind: str
    direction: str
    name: str
    ask: str
    given: dict[str, Any]
    expected: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.direction})"


def _cases_of(kind: str, vector: dict[str, Any]) -> list[Case]:
    cases = []
    if "client" in vector:
        client = vector["client"]
        given = {name: value for name, value in client.items() if name in INPUTS}
        expected = {name: value for name, value in client.items() if name not in INPUTS}
        ask = "identity" if kind == "identity" else f"sign_{kind}"
        cases.append(Case(kind, "sign", vector["name"], ask, given, expected))
    if "server" in vector:
        cases.append(Case(kind, "check", vector["name"], f"check_{kind}", vector["server"], vector["expected"]))
    return cases


def cases() -> list[Case]:
    """Every question of every vector."""
    found = []
    for kind in ("identity", "call", "join", "rotation"):
        document = json.loads((VECTORS / f"{kind}_vectors.json").read_text(encoding="ascii"))
        for vector in document["vectors"]:
            found += _cases_of(kind, vector)
    return found


def answers_of(language: Language, questions: Sequence[Case]) -> list[Any]:
    """A runner's answers.

    Raises:
        RunnerFailed: there are fewer, or more.
    """
    program, *arguments = language.command
    path = shutil.which(program)
    if path is None:
        msg = f"{language.name}: {program} is not installed: {language.install}"
        raise RunnerFailed(msg)
    lines = "".join(json.dumps({"ask": case.ask, "given": case.given}) + "\n" for case in questions)
    run = subprocess.run(
        [path, *arguments], input=lines, capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_S, check=False
    )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode != 0 or len(answers) != len(questions):
        msg = f"{language.name}: {len(answers)} answers to {len(questions)} questions, exit {run.returncode}\n{run.stderr}"
        raise RunnerFailed(msg)
    return answers


def failures_of(language: Language, questions: Sequence[Case]) -> list[tuple[Case, Any]]:
    """The questions that were not answered right, with what was answered."""
    answers = answers_of(language, questions)
    return [(case, answer) for case, answer in zip(questions, answers, strict=True) if answer != case.expected]


def main() -> int:
    """Prints a table: language by direction and kind of vector, passed of all."""
    questions = cases()
    columns = sorted({(case.direction, case.kind) for case in questions}, key=lambda column: column[::-1])
    print(f"{'':10}" + "".join(f"{' '.join(column):>17}" for column in columns))
    good = True
    for language in LANGUAGES:
        try:
            failures = failures_of(language, questions)
        except RunnerFailed as failure:
            print(f"{language.name:10}  FAILED: {failure}")
            good = False
            continue
        row = ""
        for column in columns:
            every = sum((case.direction, case.kind) == column for case in questions)
            failed = sum((case.direction, case.kind) == column for case, _ in failures)
            row += f"{f'{every - failed}/{every}':>17}"
        print(f"{language.name:10}{row}")
        for case, answer in failures:
            print(f"  {case}: {answer}, not {case.expected}")
        good = good and not failures
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
