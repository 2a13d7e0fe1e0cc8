"""The cases: files of tests/conformance/cases, and one for each kind of vector in protos/vectors."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.kit.languages import ROOT

CASES = ROOT / "tests" / "conformance" / "cases"
VECTORS = ROOT / "protos" / "vectors"
KNOWN_FAILURES = ROOT / "tests" / "conformance" / "known_failures.json"

Step = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Steps, played from the first to the last; once for each row, if there are rows."""

    group: str
    name: str
    steps: tuple[Step, ...]
    rows: tuple[dict[str, Any], ...] = ()
    # Rows are played all at once and not one by one: for those that only speak to the driver.
    at_once: bool = False
    # In the small set that is run with every test run.
    quick: bool = False

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"

    @property
    def has_middle(self) -> bool:
        """Whether the case says itself when the services are to be killed."""
        return any("middle" in step for step in self.steps)


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A case that a language is known not to pass, and why."""

    language: str
    case: str
    reason: str


def _case(group: str, entry: dict[str, Any]) -> Case:
    extra = entry.keys() - {"name", "steps", "rows", "at_once", "quick"}
    assert not extra, f"{group}: {entry['name']}: what is {sorted(extra)}?"
    rows = tuple(entry.get("rows", ()))
    at_once, quick = entry.get("at_once", False), entry.get("quick", False)
    return Case(group, entry["name"], tuple(entry["steps"]), rows, at_once=at_once, quick=quick)


def _written(files: Iterable[Path]) -> list[Case]:
    found = []
    for file in sorted(files):
        document = json.loads(file.read_text(encoding="utf-8"))
        found += [_case(file.stem.partition("-")[2] or file.stem, entry) for entry in document["cases"]]
    return found


def _row(command: str, vector: dict[str, Any]) -> dict[str, Any]:
    client = vector["client"]
    told: dict[str, Any] = {"do": command, "seed": client["test_private_key"]}
    names = ("method", "audience", "body_times", "time_ms", "nonce", "colony", "role", "name", "old_key")
    told |= {name: client[name] for name in names if name in client}
    if "body_hex" in client:
        told["body"] = client["body_hex"]
    if client.get("refused"):
        return {"row": vector["name"], "told": told, "answer": {"error": {"code": "REFUSED"}}}
    if command == "identity":
        result = {"public_key": client["public_key_hex"], "identity": client["identity"]}
    elif command == "sign_call":
        # More entries than the four would be more than what was signed for.
        result = {"metadata": {"$exact": dict(client["metadata"])}, "digest": client["digest"]}
    else:
        result = {"signature": client["signature_hex"]}
    return {"row": vector["name"], "told": told, "answer": {"result": result}}


def _vectors() -> list[Case]:
    commands = {"identity": "identity", "call": "sign_call", "join": "prove_join", "rotation": "prove_rotation"}
    found = []
    for kind, command in commands.items():
        vectors = json.loads((VECTORS / f"{kind}_vectors.json").read_text(encoding="ascii"))["vectors"]
        rows = tuple(_row(command, vector) for vector in vectors if "client" in vector)
        steps = ({"tell": "${told}", "answer": "${answer}"},)
        found.append(Case("signatures", f"{kind} vectors", steps, rows, at_once=True, quick=True))
    return found


def cases() -> list[Case]:
    """Every case, in the order in which they are played.

    Raises:
        AssertionError: two have one name, or one has a field that no case has.
    """
    found = [*_vectors(), *_written(CASES.glob("*.json"))]
    names = [str(case) for case in found]
    assert len(set(names)) == len(names), "two cases have one name"
    return found


def known_failures() -> list[KnownFailure]:
    """Those that are listed."""
    return [KnownFailure(**entry) for entry in json.loads(KNOWN_FAILURES.read_text(encoding="utf-8"))["known_failures"]]
