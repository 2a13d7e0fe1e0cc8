"""Answers the questions of conformance.py with the SDK and servicekit: a JSON object a line, in and out."""

import json
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from colonies.client import join_proof
from colonies.errors import NotSignableError
from colonies.keys import PrivateKey
from colonies.signing import Signer, call_digest, call_text, join_text, rotate_text
from servicekit.failures import InvalidArgument, Unauthenticated
from servicekit.signature import Join, Rotation, check_call, check_join, check_rotation, headers_of

FIELD = "proof"

Answer = dict[str, Any]


def body_of(given: Answer) -> bytes:
    """The request message."""
    body: bytes = bytes.fromhex(given["body_hex"]) * given["body_times"]
    return body


def identity(given: Answer) -> Answer:
    key = PrivateKey.from_hex(given["test_private_key"])
    return {"public_key_hex": key.public_key.hex(), "identity": key.identity}


def sign_call(given: Answer) -> Answer:
    key = PrivateKey.from_hex(given["test_private_key"])
    body = body_of(given)
    signer = Signer(key, given["audience"], clock_ms=lambda: int(given["time_ms"]))
    with patch("colonies.signing.os.urandom", lambda _count: bytes.fromhex(given["nonce"])):
        metadata = signer.headers(given["method"], body)
    text = call_text(
        method=given["method"], audience=given["audience"], time_ms=given["time_ms"], nonce=given["nonce"], body=body
    )
    signature = bytes.fromhex(dict(metadata)["colonies-signature"])
    return {
        "identity": key.identity,
        "text": text.decode(),
        "metadata": [list(entry) for entry in metadata],
        "digest": call_digest(text, key.public_key, signature),
    }


def sign_join(given: Answer) -> Answer:
    key = PrivateKey.from_hex(given["test_private_key"])
    values = {name: given[name] for name in ("audience", "colony", "role", "name")}
    with patch("colonies.client.members.now_ms", lambda: given["time_ms"]):
        proof = join_proof(key, **values)
    return {
        "identity": key.identity,
        "text": join_text(time_ms=given["time_ms"], **values).decode(),
        "public_key_hex": proof.public_key.hex(),
        "signature_hex": proof.signature.hex(),
    }


def sign_rotation(given: Answer) -> Answer:
    key = PrivateKey.from_hex(given["test_private_key"])
    text = rotate_text(audience=given["audience"], colony=given["colony"], old=given["old_key"], time_ms=given["time_ms"])
    return {
        "identity": key.identity,
        "text": text.decode(),
        "public_key_hex": key.public_key.hex(),
        "signature_hex": key.sign(text).hex(),
    }


def checked_call(given: Answer) -> Answer:
    try:
        signed = check_call(
            headers_of([(name, value) for name, value in given["metadata"]]),
            method=given["method"],
            audience=given["audience"],
            body=body_of(given),
            now_ms=given["now_ms"],
        )
    except Unauthenticated as failure:
        return {"error": failure.reason}
    digest = call_digest(signed.text, bytes.fromhex(signed.public_key), bytes.fromhex(signed.signature))
    return {"identity": signed.key, "digest": digest}


def checked_proof(check: Callable[..., str], agreement: Join | Rotation, given: Answer) -> Answer:
    try:
        return {
            "identity": check(
                agreement,
                field=FIELD,
                public_key=bytes.fromhex(given["public_key_hex"]),
                signature=bytes.fromhex(given["signature_hex"]),
                time_ms=given["time_ms"],
                now_ms=given["now_ms"],
            )
        }
    except InvalidArgument as failure:
        (violation,) = failure.violations
        return {"error_field": violation.field.removeprefix(f"{FIELD}.")}


def checked_join(given: Answer) -> Answer:
    return checked_proof(check_join, Join(given["audience"], given["colony"], given["role"], given["name"]), given)


def checked_rotation(given: Answer) -> Answer:
    return checked_proof(check_rotation, Rotation(given["audience"], given["colony"], given["old_key"]), given)


ANSWERS: dict[str, Callable[[Answer], Answer]] = {
    "identity": identity,
    "sign_call": sign_call,
    "sign_join": sign_join,
    "sign_rotation": sign_rotation,
    "check_call": checked_call,
    "check_join": checked_join,
    "check_rotation": checked_rotation,
}


def main() -> None:
    for line in sys.stdin:
        question = json.loads(line)
        ask, given = question["ask"], question["given"]
        try:
            answer = ANSWERS[ask](given)
        except NotSignableError:
            # Only signing may refuse: an error out of a check is a defect.
            if ask.startswith("check"):
                raise
            answer = {"refused": True}
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
