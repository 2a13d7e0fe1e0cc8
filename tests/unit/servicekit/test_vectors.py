"""The signing scheme, held against protos/vectors: what the SDK signs, and what the services accept and refuse."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from colonies.keys import PrivateKey
from colonies.signing import Signer, call_text, join_text
from servicekit.failures import InvalidArgument, Unauthenticated
from servicekit.signature import Join, check_call, check_join

VECTORS = Path(__file__).resolve().parents[3] / "protos" / "vectors"


def vectors(file: str) -> list[Any]:
    """The vectors of one file, each a test of its own."""
    document = json.loads((VECTORS / file).read_text(encoding="ascii"))
    return [pytest.param(vector, id=vector["name"]) for vector in document["vectors"]]


CALLS = vectors("call_vectors.json")
JOINS = vectors("join_vectors.json")


@pytest.mark.parametrize("vector", CALLS)
def test_the_sdk_signs_calls_as_the_vectors_say(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    client = vector["client"]
    body = bytes.fromhex(client["body_hex"])
    text = call_text(
        method=client["method"],
        audience=client["audience"],
        time_ms=client["time_ms"],
        nonce=client["nonce"],
        body=body,
    )
    assert text.decode() == client["text"]
    monkeypatch.setattr("colonies.signing.os.urandom", lambda _count: bytes.fromhex(client["nonce"]))
    key = PrivateKey.from_hex(client["test_private_key"])
    signer = Signer(key, client["audience"], clock_ms=lambda: client["time_ms"])
    assert dict(signer.headers(client["method"], body)) == client["headers"]


@pytest.mark.parametrize("vector", CALLS)
def test_services_check_calls_as_the_vectors_say(vector: dict[str, Any]) -> None:
    server, expected = vector["server"], vector["expected"]

    def check() -> str:
        return check_call(
            server["headers"],
            method=server["method"],
            audience=server["audience"],
            body=bytes.fromhex(server["body_hex"]),
            now_ms=server["now_ms"],
        ).key

    if "identity" in expected:
        assert check() == expected["identity"]
        return
    with pytest.raises(Unauthenticated) as caught:
        check()
    assert caught.value.reason == expected["error"]


@pytest.mark.parametrize("vector", JOINS)
def test_the_sdk_signs_joins_as_the_vectors_say(vector: dict[str, Any]) -> None:
    client = vector["client"]
    text = join_text(
        audience=client["audience"],
        colony=client["colony"],
        role=client["role"],
        name=client["name"],
        time_ms=client["time_ms"],
    )
    key = PrivateKey.from_hex(client["test_private_key"])
    assert key.public_key.hex() == client["public_key_hex"]
    assert key.sign(client["text"].encode()).hex() == client["signature_hex"]
    # One vector is signed under another prefix on purpose; the SDK never does that.
    assert (text.decode() == client["text"]) == (vector["name"] != "under_the_prefix_of_calls")


@pytest.mark.parametrize("vector", JOINS)
def test_services_check_joins_as_the_vectors_say(vector: dict[str, Any]) -> None:
    server, expected = vector["server"], vector["expected"]

    def check() -> str:
        return check_join(
            Join(server["audience"], server["colony"], server["role"], server["name"]),
            field="proof",
            public_key=bytes.fromhex(server["public_key_hex"]),
            signature=bytes.fromhex(server["signature_hex"]),
            time_ms=server["time_ms"],
            now_ms=server["now_ms"],
        )

    if "identity" in expected:
        assert check() == expected["identity"]
        return
    with pytest.raises(InvalidArgument) as caught:
        check()
    assert [violation.field for violation in caught.value.violations] == [f"proof.{expected['error_field']}"]


def test_the_committed_vectors_are_those_of_the_script() -> None:
    spec = importlib.util.spec_from_file_location("vector_generator", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    for file, content in generator.documents().items():
        assert (VECTORS / file).read_text(encoding="ascii") == content, f"run protos/vectors/generate.py: {file} differs"


def test_the_specification_shows_the_first_vector() -> None:
    text = (VECTORS / "README.md").read_text(encoding="utf-8")
    first = CALLS[0].values[0]["client"]
    shown = [*first["text"].splitlines(), *first["headers"].values(), first["body_hex"], first["test_private_key"]]
    assert [value for value in shown if value not in text] == []
