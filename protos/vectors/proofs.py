"""The vectors of proofs: joins, by which a new member agrees, and rotations, by which a new key does."""

from collections.abc import Callable

import odd_keys
from texts import (
    ALICE,
    AUDIENCE,
    BOB,
    COLONY,
    DAY_MS,
    NOW_MS,
    SKEW_MS,
    TestKey,
    Vector,
    call_text,
    join_text,
    nonce_of,
    rotate_text,
)

Values = dict[str, str]
Text = Callable[[Values, int], str]

USER: Values = {"audience": AUDIENCE, "colony": COLONY, "role": "user", "name": "alice"}
OWNER: Values = {**USER, "role": "colony_owner", "name": COLONY}
ROTATION: Values = {"audience": AUDIENCE, "colony": COLONY, "old_key": BOB.identity}


def joining(values: Values, time_ms: int) -> str:
    """The text of a join."""
    return join_text(values["audience"], values["colony"], values["role"], values["name"], time_ms)


def rotating(values: Values, time_ms: int) -> str:
    """The text of a rotation."""
    return rotate_text(values["audience"], values["colony"], values["old_key"], time_ms)


def proof(
    name: str, text_of: Text, values: Values, *, key: TestKey = ALICE, age_ms: int = 0, server: Vector | None = None
) -> Vector:
    """A proof as the new key makes it; then what the server is asked to believe; then what must come of it."""
    time_ms = NOW_MS - age_ms
    text = text_of(values, time_ms)
    signed = {"public_key_hex": key.public.hex(), "signature_hex": key.sign(text).hex()}
    return {
        "name": name,
        "client": {
            "test_private_key": key.seed.hex(),
            **values,
            "time_ms": time_ms,
            "identity": key.identity,
            "text": text,
            **signed,
        },
        "server": {**values, "time_ms": time_ms, "now_ms": NOW_MS, **signed, **(server or {})},
        "expected": {"identity": key.identity},
    }


def refused(vector: Vector, field: str) -> Vector:
    """The same, with the field that the error names."""
    return {**vector, "expected": {"error_field": field}}


def late(text_of: Text, values: Values) -> list[Vector]:
    """Proofs that are too old, or too early."""
    ages = {
        "signed_more_than_24_h_ago": DAY_MS + 1,
        "signed_more_than_60_s_ahead": -SKEW_MS - 1,
        "signed_at_0": NOW_MS,
        "signed_in_a_thousand_years": -1000 * 365 * DAY_MS,
    }
    return [refused(proof(name, text_of, values, age_ms=age), "time_ms") for name, age in ages.items()]


def fresh(text_of: Text, values: Values) -> list[Vector]:
    """Proofs at the edges of their time."""
    ages = {"signed_24_h_ago": DAY_MS, "signed_60_s_ahead": -SKEW_MS}
    return [proof(name, text_of, values, age_ms=age) for name, age in ages.items()]


def without_client(name: str, values: Values, text_of: Text, public_key: bytes, signature: bytes) -> Vector:
    """A proof that no ordinary client makes."""
    server = {"public_key_hex": public_key.hex(), "signature_hex": signature.hex()}
    vector = refused(proof(name, text_of, values, server=server), "signature")
    del vector["client"]
    return vector


def odd(text_of: Text, values: Values) -> list[Vector]:
    """Keys and signatures that are not of the form, at the edges of Ed25519, or over the text of something else."""
    text = text_of(values, NOW_MS).encode()
    signature = ALICE.sign(text.decode())
    unreduced = int.from_bytes(signature[32:], "little") + odd_keys.curve.ORDER
    texts = {
        "text_of_a_call": call_text("/colonies.auth.v1.AuthService/AddUser", AUDIENCE, NOW_MS, nonce_of("a proof"), b""),
        "text_of_a_join": joining(OWNER, NOW_MS),
        "text_of_a_rotation": rotating({**ROTATION, "colony": "prod"}, NOW_MS),
        "text_of_version_2": text.decode().replace("-v1", "-v2"),
        "text_under_the_prefix_of_calls": "colonies-call-v1\n" + text.decode().partition("\n")[2],
        "text_under_the_prefix_of_memberships": "colonies-membership-v1\n" + text.decode().partition("\n")[2],
        "text_without_the_last_line_feed": text.decode()[:-1],
        "text_with_carriage_returns": text.decode().replace("\n", "\r\n"),
    }
    pairs = {
        "short_key": (ALICE.public[:-1], signature),
        "long_key": (ALICE.public + b"\x00", signature),
        "short_signature": (ALICE.public, signature[:-1]),
        "long_signature": (ALICE.public, signature + b"\x00"),
        "nothing": (b"", b""),
        "s_not_reduced": (ALICE.public, odd_keys.curve.signature(signature[:32], unreduced)),
        "r_of_small_order": (ALICE.public, odd_keys.by_alice(odd_keys.NEUTRAL)(text)),
        "key_with_y_above_the_prime": (odd_keys.NOBODYS_KEYS[0], signature),
        "key_that_is_no_point": (b"\x02" + bytes(31), signature),
        **{name: (ALICE.public, ALICE.sign(other)) for name, other in texts.items()},
    }
    for name, key in list(odd_keys.small_keys())[::3]:
        pairs[f"key_of_small_order_{name}"] = (key, odd_keys.under_small_key(key)(text))
    return [without_client(name, values, text_of, *pair) for name, pair in pairs.items()]


def swapped(text_of: Text, values: Values, others: dict[str, Vector]) -> list[Vector]:
    """Proofs that were well made, for something else."""
    return [refused(proof(name, text_of, values, server=server), "signature") for name, server in others.items()]


def unsignable(values: Values) -> list[Vector]:
    """What a client must refuse to sign: one of the values would read as two."""
    request = {"test_private_key": ALICE.seed.hex(), **values, "time_ms": NOW_MS, "refused": True}
    names = [name for name in values if name != "role"]
    return [{"name": f"signs_no_{name}_with_a_line_feed", "client": {**request, name: "a\nb"}} for name in names]


def joins() -> list[Vector]:
    """The vectors of joins."""
    return [
        proof("a_user", joining, USER),
        proof("another_user", joining, {**USER, "name": "b.o-b_2"}, key=BOB),
        proof("a_colony_owner", joining, OWNER),
        proof("the_longest_names", joining, {**USER, "colony": "c" * 128, "name": "n" * 128}),
        *fresh(joining, USER),
        *late(joining, USER),
        *swapped(
            joining,
            USER,
            {
                "in_another_colony": {"colony": "prod"},
                "for_another_cluster": {"audience": "other-cluster"},
                "in_another_role": {"role": "colony_owner"},
                "by_another_name": {"name": "mallory"},
                "by_a_name_in_upper_case": {"name": "ALICE"},
                "colony_and_name_swapped": {"colony": "alice", "name": COLONY},
                "at_another_time": {"time_ms": NOW_MS - 1},
                "with_another_key": {"public_key_hex": BOB.public.hex()},
                "name_with_a_line_feed": {"name": f"alice\n{NOW_MS}"},
            },
        ),
        # What a careless client signed, read as it was meant to be read.
        without_client(
            "signed_over_a_line_feed",
            {**USER, "name": "alice\nbob"},
            joining,
            ALICE.public,
            ALICE.sign(joining({**USER, "name": "alice\nbob"}, NOW_MS)),
        ),
        *odd(joining, USER),
        *unsignable(USER),
    ]


def rotations() -> list[Vector]:
    """The vectors of rotations: Alice's key takes over from Bob's."""
    return [
        proof("a_member", rotating, ROTATION),
        proof("another_member", rotating, {**ROTATION, "colony": "prod", "old_key": ALICE.identity}, key=BOB),
        proof("the_server_owner", rotating, {**ROTATION, "colony": ""}),
        *fresh(rotating, ROTATION),
        *late(rotating, ROTATION),
        *swapped(
            rotating,
            ROTATION,
            {
                "in_another_colony": {"colony": "prod"},
                "in_no_colony": {"colony": ""},
                "for_another_cluster": {"audience": "other-cluster"},
                "from_another_key": {"old_key": ALICE.identity},
                "from_a_key_in_upper_case": {"old_key": BOB.identity.upper()},
                "at_another_time": {"time_ms": NOW_MS + 1},
                "with_another_key": {"public_key_hex": BOB.public.hex()},
                "colony_with_a_line_feed": {"colony": f"{COLONY}\n{BOB.identity}"},
            },
        ),
        # The old key's own signature proves nothing about the new one.
        without_client("signed_by_the_old_key", ROTATION, rotating, ALICE.public, BOB.sign(rotating(ROTATION, NOW_MS))),
        without_client(
            "signed_over_a_line_feed",
            {**ROTATION, "colony": "dev\nprod"},
            rotating,
            ALICE.public,
            ALICE.sign(rotating({**ROTATION, "colony": "dev\nprod"}, NOW_MS)),
        ),
        *odd(rotating, ROTATION),
        *unsignable(ROTATION),
    ]
