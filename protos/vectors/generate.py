"""Writes call_vectors.json and join_vectors.json: `python protos/vectors/generate.py`. Deterministic.

It spells the signed texts by itself and takes nothing from the SDK or the services: what they do is held against these vectors,
and a change on one side alone shows. The keys are TEST keys, worked out from their names: never use them for anything else.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HERE = Path(__file__).parent
NOTICE = "TEST keys only: their private halves are public. Made by generate.py; specified in README.md."

KEY, TIME, NONCE, SIGNATURE = "colonies-public-key", "colonies-time", "colonies-nonce", "colonies-signature"
# 2023-03-27T08:45:15Z.
NOW_MS = 1_679_906_715_000
SKEW_MS = 60_000
DAY_MS = 24 * 3600 * 1000
METHOD = "/colonies.auth.v1.AuthService/GetColony"
AUDIENCE = "test-cluster"
# GetColonyRequest(colony_name="dev"), as protobuf writes it.
BODY = b"\x0a\x03dev"
# The order of the curve's base point: S + ORDER signs the same text, and must be refused (RFC 8032, 5.1.7).
ORDER = 2**252 + 27742317777372353535851937790883648493

Vector = dict[str, Any]


class TestKey:
    """A private key that everybody knows."""

    def __init__(self, name: str) -> None:
        self.seed = hashlib.sha256(f"colonies TEST key {name}".encode()).digest()
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.identity = hashlib.sha3_256(self.public).hexdigest()

    def sign(self, text: str) -> bytes:
        """The 64 bytes of R and S."""
        return self._key.sign(text.encode())


ALICE, BOB = TestKey("alice"), TestKey("bob")


def nonce_of(name: str) -> str:
    """A nonce for a vector; real ones are random."""
    return hashlib.sha256(f"nonce {name}".encode()).hexdigest()[:32]


def call(
    name: str,
    *,
    key: TestKey = ALICE,
    method: str = METHOD,
    audience: str = AUDIENCE,
    body: bytes = BODY,
    age_ms: int = 0,
    error: str = "",
    server: Vector | None = None,
    headers: dict[str, str | None] | None = None,
) -> Vector:
    """A call as its client signs it; then what the server sees, where that is something else; then what must come of it."""
    time_ms, nonce = NOW_MS - age_ms, nonce_of(name)
    digest = hashlib.sha256(body).hexdigest()
    text = f"colonies-call-v1\n{method}\n{audience}\n{time_ms}\n{nonce}\n{digest}\n"
    sent = {KEY: key.public.hex(), TIME: str(time_ms), NONCE: nonce, SIGNATURE: key.sign(text).hex()}
    changed = {**sent, **(headers or {})}
    return {
        "name": name,
        "client": {
            "test_private_key": key.seed.hex(),
            "method": method,
            "audience": audience,
            "time_ms": time_ms,
            "nonce": nonce,
            "body_hex": body.hex(),
            "text": text,
            "headers": sent,
        },
        "server": {
            "method": method,
            "audience": audience,
            "now_ms": NOW_MS,
            "body_hex": body.hex(),
            "headers": {header: value for header, value in changed.items() if value is not None},
            **(server or {}),
        },
        "expected": {"error": error} if error else {"identity": key.identity},
    }


def good_calls() -> list[Vector]:
    """Calls that must be accepted."""
    stream = "/colonies.scheduler.v1.SchedulerService/WatchProcesses"
    return [
        call("a_call"),
        call("another_key", key=BOB),
        call("an_empty_body", method="/colonies.auth.v1.AuthService/GetServerInfo", body=b""),
        call("a_body_of_every_byte", method=stream, body=bytes(range(256)) * 4),
        call("another_cluster", audience="Cluster_2.example"),
        call("signed_60_s_ago", age_ms=SKEW_MS),
        call("signed_60_s_ahead", age_ms=-SKEW_MS),
    ]


def unreduced(signature_hex: str) -> str:
    """The same signature with S + ORDER in place of S."""
    signature = bytes.fromhex(signature_hex)
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    return (signature[:32] + scalar.to_bytes(32, "little")).hex()


def bad_calls() -> list[Vector]:
    """Calls that must be refused, with the reason that the error carries."""
    missing = [
        call(f"without_{header}", headers={header: None}, error="SIGNATURE_MISSING") for header in (KEY, TIME, NONCE, SIGNATURE)
    ]
    malformed: list[tuple[str, str, str]] = [
        ("upper_case_key", KEY, ALICE.public.hex().upper()),
        ("short_key", KEY, ALICE.public.hex()[:-2]),
        ("fractional_time", TIME, f"{NOW_MS}.0"),
        ("negative_time", TIME, f"-{NOW_MS}"),
        ("time_with_leading_zero", TIME, f"0{NOW_MS}"),
        ("time_of_16_digits", TIME, "1" * 16),
        ("upper_case_nonce", NONCE, "AB" * 16),
        ("short_nonce", NONCE, "ab" * 15),
        ("signature_in_base64", SIGNATURE, "A" * 86 + "=="),
        ("signature_and_line_feed", SIGNATURE, "ab" * 64 + "\n"),
    ]
    signature: str = call("not_reduced")["client"]["headers"][SIGNATURE]
    flipped = f"{int(call('flipped_bit')['client']['headers'][SIGNATURE], 16) ^ 1:0128x}"
    invalid = [
        call("another_method", server={"method": METHOD.replace("GetColony", "RemoveColony")}),
        call("for_another_cluster", server={"audience": "other-cluster"}),
        call("changed_body", server={"body_hex": b"\x0a\x03dew".hex()}),
        call("longer_body", server={"body_hex": (BODY + b"\x00").hex()}),
        call("changed_time", headers={TIME: str(NOW_MS + 1)}),
        call("changed_nonce", headers={NONCE: nonce_of("another")}),
        call("changed_key", headers={KEY: BOB.public.hex()}),
        call("key_that_is_no_point", headers={KEY: "02" + "00" * 31}),
        # A point of order 1, under which S = 0 and R = the point fit every text.
        call("key_of_small_order", headers={KEY: "01" + "00" * 31, SIGNATURE: "01" + "00" * 63}),
        call("flipped_bit", headers={SIGNATURE: flipped}),
        call("not_reduced", headers={SIGNATURE: unreduced(signature)}),
    ]
    for vector in invalid:
        vector["expected"] = {"error": "SIGNATURE_INVALID"}
    return [
        *missing,
        *(call(name, headers={header: value}, error="SIGNATURE_MALFORMED") for name, header, value in malformed),
        call("signed_more_than_60_s_ago", age_ms=SKEW_MS + 1, error="SIGNATURE_STALE"),
        call("signed_more_than_60_s_ahead", age_ms=-SKEW_MS - 1, error="SIGNATURE_STALE"),
        *invalid,
    ]


def join(
    name: str,
    *,
    key: TestKey = ALICE,
    role: str = "user",
    member: str = "alice",
    age_ms: int = 0,
    error_field: str = "",
    server: Vector | None = None,
    prefix: str = "colonies-join-v1",
) -> Vector:
    """A proof as the new identity makes it; then what the server is asked to believe; then what must come of it."""
    time_ms = NOW_MS - age_ms
    text = f"{prefix}\n{AUDIENCE}\ndev\n{role}\n{member}\n{time_ms}\n"
    signature = key.sign(text).hex()
    return {
        "name": name,
        "client": {
            "test_private_key": key.seed.hex(),
            "audience": AUDIENCE,
            "colony": "dev",
            "role": role,
            "name": member,
            "time_ms": time_ms,
            "text": text,
            "public_key_hex": key.public.hex(),
            "signature_hex": signature,
        },
        "server": {
            "audience": AUDIENCE,
            "colony": "dev",
            "role": role,
            "name": member,
            "time_ms": time_ms,
            "now_ms": NOW_MS,
            "public_key_hex": key.public.hex(),
            "signature_hex": signature,
            **(server or {}),
        },
        "expected": {"error_field": error_field} if error_field else {"identity": key.identity},
    }


def good_joins() -> list[Vector]:
    """Proofs that must be accepted."""
    return [
        join("a_user"),
        join("another_user", key=BOB, member="b.o-b_2"),
        join("a_colony_owner", role="colony_owner", member="dev"),
        join("signed_24_h_ago", age_ms=DAY_MS),
        join("signed_60_s_ahead", age_ms=-SKEW_MS),
    ]


def bad_joins() -> list[Vector]:
    """Proofs that must be refused, with the field that the error names."""
    owner = join("a_colony_owner", role="colony_owner", member="dev")["client"]["signature_hex"]
    forged: list[tuple[str, Vector]] = [
        ("in_another_colony", {"colony": "prod"}),
        ("for_another_cluster", {"audience": "other-cluster"}),
        ("in_another_role", {"role": "colony_owner"}),
        ("by_another_name", {"name": "mallory"}),
        ("at_another_time", {"time_ms": NOW_MS - 1}),
        ("with_another_key", {"public_key_hex": BOB.public.hex()}),
        ("with_another_proof", {"signature_hex": owner}),
        ("with_a_short_key", {"public_key_hex": ALICE.public.hex()[:-2]}),
        ("with_a_short_signature", {"signature_hex": "00" * 63}),
        ("with_a_key_of_small_order", {"public_key_hex": "01" + "00" * 31, "signature_hex": "01" + "00" * 63}),
        ("with_nothing", {"public_key_hex": "", "signature_hex": ""}),
    ]
    return [
        join("signed_more_than_24_h_ago", age_ms=DAY_MS + 1, error_field="time_ms"),
        join("signed_more_than_60_s_ahead", age_ms=-SKEW_MS - 1, error_field="time_ms"),
        *(join(name, server=server, error_field="signature") for name, server in forged),
        join("under_the_prefix_of_calls", prefix="colonies-call-v1", error_field="signature"),
    ]


def documents() -> dict[str, str]:
    """The files' names and contents."""
    vectors = {
        "call_vectors.json": [*good_calls(), *bad_calls()],
        "join_vectors.json": [*good_joins(), *bad_joins()],
    }
    return {
        file: json.dumps({"notice": NOTICE, "vectors": entries}, indent=2, ensure_ascii=True) + "\n"
        for file, entries in vectors.items()
    }


if __name__ == "__main__":
    for file_name, content in documents().items():
        (HERE / file_name).write_text(content, encoding="ascii")
