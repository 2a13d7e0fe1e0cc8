"""The signing scheme, held against protos/vectors: what the SDK signs, and what the services accept and refuse.

tests/conformance/signatures asks the same of every language; here each vector is a test of its own.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from colonies.errors import NotSignableError
from colonies.signing import KEY_HEADER, NONCE_HEADER, SIGNATURE_HEADER, call_text
from tests.conformance.signatures.conformance import Case, cases
from tests.conformance.signatures.runner import ANSWERS

VECTORS = Path(__file__).resolve().parents[3] / "protos" / "vectors"
CALLS: dict[str, Any] = {
    vector["name"]: vector for vector in json.loads((VECTORS / "call_vectors.json").read_text(encoding="ascii"))["vectors"]
}
SPECIFICATION = (VECTORS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in cases()])
def test_a_vector(case: Case) -> None:
    if "refused" in case.expected:
        with pytest.raises(NotSignableError, match="line feed"):
            ANSWERS[case.ask](case.given)
        return
    assert ANSWERS[case.ask](case.given) == case.expected


def test_the_committed_vectors_are_those_of_the_script() -> None:
    check = [sys.executable, "-B", str(VECTORS / "generate.py"), "--check"]
    run = subprocess.run(check, capture_output=True, text=True, timeout=100, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_script_takes_nothing_from_what_it_is_held_against() -> None:
    for file in VECTORS.glob("*.py"):
        imported = re.findall(r"^(?:from|import) (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not {"colonies", "servicekit", "services"} & set(imported), file.name


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith("key_of_small_order_")] + ["r_of_small_order"])
def test_the_library_alone_would_let_it_in(name: str) -> None:
    """So these vectors try the scheme's own rules, and not the library."""
    server = CALLS[name]["server"]
    headers = dict(server["metadata"])
    body = bytes.fromhex(server["body_hex"])
    text = call_text(
        method=server["method"],
        audience=server["audience"],
        time_ms=server["now_ms"],
        nonce=headers[NONCE_HEADER],
        body=body,
    )
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(headers[KEY_HEADER]))
    key.verify(bytes.fromhex(headers[SIGNATURE_HEADER]), text)


def test_every_encoding_of_a_small_order_is_a_vector() -> None:
    """Eight points, of which four have more than one."""
    keys = {dict(CALLS[name]["server"]["metadata"])[KEY_HEADER] for name in CALLS if name.startswith("key_of_small_order_")}
    assert len(keys) == 14


def test_the_specification_shows_the_first_vector() -> None:
    first = CALLS["a_call"]["client"]
    sent = [value for _name, value in first["metadata"]]
    shown = [*first["text"].splitlines(), *sent, first["body_hex"], first["test_private_key"], first["digest"]]
    assert [value for value in shown if value not in SPECIFICATION] == []


def test_the_specification_has_every_reason_and_field() -> None:
    expected = [case.expected for case in cases() if case.direction == "check"]
    words = {answer.get("error") or answer.get("error_field") for answer in expected} - {None}
    assert words == {"SIGNATURE_MISSING", "SIGNATURE_MALFORMED", "SIGNATURE_STALE", "SIGNATURE_INVALID", "time_ms", "signature"}
    assert [word for word in words if f"`{word}`" not in SPECIFICATION] == []
