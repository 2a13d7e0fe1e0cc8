"""The vectors of calls: what a client signs, what a server sees, what must come of it."""

import hashlib

import odd_keys
from texts import (
    ALICE,
    AUDIENCE,
    BOB,
    COLONY,
    NOW_MS,
    SKEW_MS,
    TestKey,
    Vector,
    call_text,
    identity_of,
    join_text,
    nonce_of,
    rotate_text,
)

KEY, TIME, NONCE, SIGNATURE = "colonies-public-key", "colonies-time", "colonies-nonce", "colonies-signature"
METHOD = "/colonies.auth.v1.AuthService/GetColony"
# GetColonyRequest(colony_name="dev"), as protobuf writes it.
BODY = b"\x0a\x03dev"
# The same in JSON.
JSON_METHOD = METHOD + "+json"
JSON_BODY = b'{"colonyName":"dev"}'
# The order of the curve's base point: S + ORDER signs the same text, and must be refused (RFC 8032, 5.1.7).
ORDER = 2**252 + 27742317777372353535851937790883648493
LARGE = 8192

Headers = dict[str, str | None]
Pairs = list[list[str]]


def digest_of(text: str, public_key: bytes, signature: bytes) -> str:
    """What a call is known by in receipts."""
    return hashlib.sha256(text.encode() + public_key + signature).hexdigest()


def call(
    name: str,
    *,
    key: TestKey = ALICE,
    method: str = METHOD,
    audience: str = AUDIENCE,
    body: bytes = BODY,
    times: int = 1,
    age_ms: int = 0,
    now_ms: int = NOW_MS,
    nonce: str = "",
    error: str = "",
    server: Vector | None = None,
    headers: Headers | None = None,
    more: Pairs | None = None,
) -> Vector:
    """A call as its client signs it; then what the server sees, where that is something else; then what must come of it.

    `headers` are changed (None: left out), `more` are added at the end.
    """
    time_ms, nonce = now_ms - age_ms, nonce or nonce_of(name)
    text = call_text(method, audience, time_ms, nonce, body * times)
    signature = key.sign(text)
    digest = digest_of(text, key.public, signature)
    sent = {KEY: key.public.hex(), TIME: str(time_ms), NONCE: nonce, SIGNATURE: signature.hex()}
    seen = [[header, value] for header, value in {**sent, **(headers or {})}.items() if value is not None]
    request = {"method": method, "audience": audience, "body_hex": body.hex(), "body_times": times}
    return {
        "name": name,
        "client": {
            "test_private_key": key.seed.hex(),
            **request,
            "time_ms": time_ms,
            "nonce": nonce,
            "identity": key.identity,
            "text": text,
            "metadata": [list(entry) for entry in sent.items()],
            "digest": digest,
        },
        "server": {**request, "now_ms": now_ms, "metadata": seen + (more or []), **(server or {})},
        "expected": {"error": error} if error else {"identity": key.identity, "digest": digest},
    }


def good_calls() -> list[Vector]:
    """Calls that must be accepted."""
    watch = "/colonies.scheduler.v1.SchedulerService/WatchProcesses"
    in_between: Pairs = [["user-agent", "test"], ["x-forwarded-for", "a"], ["x-forwarded-for", "b"], ["trace-bin", "AAE="]]
    reordered = call("entries_in_another_order")
    reordered["server"]["metadata"].reverse()
    return [
        call("a_call"),
        call("another_key", key=BOB),
        # The private keys of RFC 8032, 7.1.
        *(call(f"key_{number}_of_rfc_8032", key=TestKey("", bytes.fromhex(seed))) for number, seed in enumerate(RFC_KEYS, 1)),
        call("an_empty_body", method="/colonies.auth.v1.AuthService/GetServerInfo", body=b""),
        call("a_body_of_every_byte", method=watch, body=bytes(range(256)) * 4),
        call("a_body_of_2_mib", body=bytes(range(256)), times=LARGE),
        call("a_body_of_one_zero", body=b"\x00"),
        call("a_body_that_looks_like_a_text", body=b"colonies-call-v1\n" + METHOD.encode() + b"\n"),
        call("a_stream", method=watch, body=BODY),
        call("a_call_in_json", method=JSON_METHOD, body=JSON_BODY),
        call("a_call_in_json_with_room", method=JSON_METHOD, body=b'\n{ "colony_name" :\t"d\\u0065v" }\r\n'),
        call("a_call_in_json_beyond_ascii", method=JSON_METHOD, body='{"colonyName":"d\u00e9v \U0001f600"}'.encode()),
        call("an_empty_request_in_json", method="/colonies.auth.v1.AuthService/GetServerInfo+json", body=b"{}"),
        call("a_stream_in_json", method=watch + "+json", body=JSON_BODY),
        call("another_cluster", audience="Cluster_2.example"),
        call("a_cluster_of_one_letter", audience="c"),
        call("the_longest_cluster_id", audience="c" * 128),
        call("signed_60_s_ago", age_ms=SKEW_MS),
        call("signed_60_s_ahead", age_ms=-SKEW_MS),
        call("signed_1_ms_ahead", age_ms=-1),
        call("signed_at_0", now_ms=SKEW_MS, age_ms=SKEW_MS),
        call("a_time_of_15_digits", now_ms=10**15 - 1),
        call("a_nonce_of_zeros", nonce="0" * 32),
        call("a_nonce_of_ones", nonce="f" * 32),
        call("other_entries_beside", more=in_between),
        reordered,
    ]


RFC_KEYS = (
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
)


def missing_calls() -> list[Vector]:
    """Calls of which an entry is not there."""
    headers = (KEY, TIME, NONCE, SIGNATURE)
    nothing: Headers = dict.fromkeys(headers)
    return [
        *(call(f"without_{header}", headers={header: None}, error="SIGNATURE_MISSING") for header in headers),
        call("without_any", headers=nothing, error="SIGNATURE_MISSING"),
        call("missing_goes_before_malformed", headers={KEY: "?", SIGNATURE: None}, error="SIGNATURE_MISSING"),
    ]


def malformed_values() -> dict[str, tuple[str, str]]:
    """Entries that are not of the form."""
    key, time, nonce = ALICE.public.hex(), str(NOW_MS), "ab" * 16
    signature = "ab" * 64
    return {
        "upper_case_key": (KEY, key.upper()),
        "key_of_mixed_case": (KEY, key.replace("b", "B", 1)),
        "short_key": (KEY, key[:-2]),
        "key_of_63_digits": (KEY, key[:-1]),
        "long_key": (KEY, key + "00"),
        "key_in_base64": (KEY, "A" * 43 + "="),
        "key_with_0x": (KEY, "0x" + key[2:]),
        "key_and_line_feed": (KEY, key + "\n"),
        "space_and_key": (KEY, " " + key),
        "key_of_wide_digits": (KEY, "\uff11" * 64),
        "fractional_time": (TIME, time + ".0"),
        "negative_time": (TIME, "-" + time),
        "time_with_plus": (TIME, "+" + time),
        "time_with_leading_zero": (TIME, "0" + time),
        "time_of_two_zeros": (TIME, "00"),
        "time_of_16_digits": (TIME, "1" * 16),
        "time_with_exponent": (TIME, "1e12"),
        "time_with_underscore": (TIME, "1_679_906_715_000"),
        "time_in_hex": (TIME, f"0x{NOW_MS:x}"),
        "time_of_arabic_digits": (TIME, "".join(chr(0x660 + int(digit)) for digit in time)),
        "time_that_ends_in_arabic_digits": (TIME, time[:-1] + chr(0x660 + int(time[-1]))),
        "time_and_line_feed": (TIME, time + "\n"),
        "time_and_space": (TIME, time + " "),
        "upper_case_nonce": (NONCE, nonce.upper()),
        "short_nonce": (NONCE, nonce[:-2]),
        "long_nonce": (NONCE, nonce + "ab"),
        "nonce_that_is_no_hex": (NONCE, "g" * 32),
        "nonce_and_line_feed": (NONCE, nonce + "\n"),
        "nonce_that_is_the_time": (NONCE, time),
        "time_that_is_the_nonce": (TIME, nonce),
        "upper_case_signature": (SIGNATURE, signature.upper()),
        "short_signature": (SIGNATURE, signature[:-2]),
        "long_signature": (SIGNATURE, signature + "ab"),
        "signature_in_base64": (SIGNATURE, "A" * 86 + "=="),
        "signature_and_line_feed": (SIGNATURE, signature + "\n"),
        "two_signatures": (SIGNATURE, f"{signature},{signature}"),
    }


def malformed_calls() -> list[Vector]:
    """Calls with an entry that is not of the form, or more than one of it."""
    headers = (KEY, TIME, NONCE, SIGNATURE)
    refused = [call(name, headers={header: value}) for name, (header, value) in malformed_values().items()]
    refused += [call(f"empty_{header}", headers={header: ""}) for header in headers]
    another = dict(call("another_call", key=BOB, age_ms=1)["client"]["metadata"])
    for header in headers:
        twice = call(f"twice_the_same_{header}")
        twice["server"]["metadata"] += [entry for entry in twice["server"]["metadata"] if entry[0] == header]
        refused.append(twice)
        refused.append(call(f"another_{header}_behind", more=[[header, another[header]]]))
        refused.append(call(f"{header}_in_binary_instead", headers={header: None}, more=[[f"{header}-bin", "AAE="]]))
        refused.append(call(f"{header}_in_binary_beside", more=[[f"{header}-bin", "AAE="]]))
    for vector in refused:
        vector["expected"] = {"error": "SIGNATURE_MALFORMED"}
    return refused


def stale_calls() -> list[Vector]:
    """Calls signed too long ago, or ahead."""
    flipped = call("stale_goes_before_invalid", age_ms=SKEW_MS + 1, server={"body_hex": "00"})
    stale = [
        call("signed_more_than_60_s_ago", age_ms=SKEW_MS + 1),
        call("signed_more_than_60_s_ahead", age_ms=-SKEW_MS - 1),
        call("signed_a_day_ago", age_ms=24 * 3600 * 1000),
        call("signed_in_seconds", headers={TIME: str(NOW_MS // 1000)}),
        call("signed_in_microseconds", headers={TIME: str(NOW_MS // 10)}),
        flipped,
    ]
    for vector in stale:
        vector["expected"] = {"error": "SIGNATURE_STALE"}
    return stale


def changed_calls() -> list[Vector]:
    """Calls that were well signed, for something else."""
    good = call("a_call")["client"]
    framed = b"\x00" + len(BODY).to_bytes(4, "big") + BODY
    changed = [
        call("another_method", server={"method": METHOD.replace("GetColony", "RemoveColony")}),
        call("another_service", server={"method": METHOD.replace("auth", "registry")}),
        call("method_without_its_slash", server={"method": METHOD[1:]}),
        call("method_in_lower_case", server={"method": METHOD.lower()}),
        call("json_taken_for_protobuf", method=JSON_METHOD, body=JSON_BODY, server={"method": METHOD}),
        call("protobuf_taken_for_json", server={"method": JSON_METHOD}),
        call("the_same_request_in_json", server={"method": JSON_METHOD, "body_hex": JSON_BODY.hex()}),
        call("the_same_json_in_other_bytes", method=JSON_METHOD, body=JSON_BODY, server={"body_hex": JSON_BODY.hex() + "20"}),
        call("another_colony_in_json", method=JSON_METHOD, body=JSON_BODY, server={"body_hex": b'{"colonyName":"dew"}'.hex()}),
        call("another_method_in_json", method=JSON_METHOD, body=JSON_BODY, server={"method": METHOD + "+JSON"}),
        call("json_twice", method=JSON_METHOD, body=JSON_BODY, server={"method": JSON_METHOD + "+json"}),
        call("for_another_cluster", server={"audience": "other-cluster"}),
        call("for_a_cluster_with_a_longer_id", server={"audience": AUDIENCE + "-2"}),
        call("for_a_cluster_in_upper_case", server={"audience": AUDIENCE.upper()}),
        call("changed_body", server={"body_hex": b"\x0a\x03dew".hex()}),
        call("longer_body", server={"body_hex": (BODY + b"\x00").hex()}),
        call("shorter_body", server={"body_hex": BODY[:-1].hex()}),
        call("emptied_body", server={"body_hex": ""}),
        call("body_twice", server={"body_times": 2}),
        call("body_with_its_frame", server={"body_hex": framed.hex()}),
        call("changed_time", headers={TIME: str(NOW_MS + 1)}),
        call("changed_nonce", headers={NONCE: nonce_of("another")}),
        call("nonce_with_time_of_another_call", headers={NONCE: good["nonce"], TIME: str(NOW_MS - 1)}),
        call("changed_key", headers={KEY: BOB.public.hex()}),
        call("signature_of_another_call", headers={SIGNATURE: good["metadata"][3][1]}),
        # The audience and the time, run together in one line.
        call("audience_with_a_line_feed", server={"audience": f"{AUDIENCE}\n{NOW_MS}"}),
        call("method_with_a_line_feed", server={"method": f"{METHOD}\n{AUDIENCE}"}),
    ]
    for vector in changed:
        vector["expected"] = {"error": "SIGNATURE_INVALID"}
    return changed


def other_texts() -> list[Vector]:
    """Calls whose signature is over a text that is not the one of this page: each is Alice's own."""
    made = []
    nonce = nonce_of("other texts")
    text = call_text(METHOD, AUDIENCE, NOW_MS, nonce, BODY)
    digest = text.split("\n")[5]
    texts = {
        "text_of_version_2": text.replace("-v1", "-v2"),
        "text_without_its_prefix": text.partition("\n")[2],
        "text_of_a_join": join_text(AUDIENCE, COLONY, "user", "alice", NOW_MS),
        "text_of_a_rotation": rotate_text(AUDIENCE, COLONY, ALICE.identity, NOW_MS),
        "text_of_a_join_with_these_values": text.replace("call", "join", 1),
        "text_of_a_rotation_with_these_values": text.replace("call", "rotate", 1),
        "text_of_a_membership": text.replace("call", "membership", 1),
        "text_of_an_audit": text.replace("call", "audit", 1),
        "text_without_the_last_line_feed": text[:-1],
        "text_with_one_more_line_feed": text + "\n",
        "text_with_carriage_returns": text.replace("\n", "\r\n"),
        "text_with_an_upper_case_digest": text.replace(digest, digest.upper()),
        "text_with_the_body_for_its_digest": text.replace(digest, BODY.decode()),
        "text_with_time_and_nonce_swapped": text.replace(f"{NOW_MS}\n{nonce}", f"{nonce}\n{NOW_MS}"),
        "text_with_method_and_audience_swapped": text.replace(f"{METHOD}\n{AUDIENCE}", f"{AUDIENCE}\n{METHOD}"),
        "text_hashed_first": hashlib.sha512(text.encode()).hexdigest(),
    }
    for name, other in texts.items():
        made.append(call(name, nonce=nonce, headers={SIGNATURE: ALICE.sign(other).hex()}, error="SIGNATURE_INVALID"))
        del made[-1]["client"]
    return made


def forged(name: str, key: bytes, forger: odd_keys.Forger, *, good: bool = False) -> Vector:
    """A call with a key or a signature that no honest signer makes."""
    nonce = nonce_of(name)
    text = call_text(METHOD, AUDIENCE, NOW_MS, nonce, BODY)
    signature = forger(text.encode())
    vector = call(name, nonce=nonce, headers={KEY: key.hex(), SIGNATURE: signature.hex()}, error="SIGNATURE_INVALID")
    del vector["client"]
    if good:
        vector["expected"] = {"identity": identity_of(key), "digest": digest_of(text, key, signature)}
    return vector


def odd_calls() -> list[Vector]:
    """Calls with keys and signatures at the edges of Ed25519."""
    genuine = bytes.fromhex(call("a_call")["client"]["metadata"][3][1])

    def anything(_text: bytes) -> bytes:
        return genuine

    def unreduced(text: bytes) -> bytes:
        signature = ALICE.sign(text.decode())
        return odd_keys.curve.signature(signature[:32], int.from_bytes(signature[32:], "little") + ORDER)

    def flipped(bit: int) -> odd_keys.Forger:
        return lambda text: (int.from_bytes(ALICE.sign(text.decode()), "little") ^ 1 << bit).to_bytes(64, "little")

    mixed = odd_keys.under_mixed_key
    return [
        forged("key_with_a_part_of_small_order", odd_keys.MIXED_KEY, mixed(fits=True, fits_unreduced=False), good=True),
        forged("fits_with_the_cofactor_only", odd_keys.MIXED_KEY, mixed(fits=False, fits_unreduced=False)),
        forged("fits_with_k_unreduced_only", odd_keys.MIXED_KEY, mixed(fits=False, fits_unreduced=True)),
        *(forged(f"key_of_small_order_{name}", key, odd_keys.under_small_key(key)) for name, key in odd_keys.small_keys()),
        forged("key_with_y_above_the_prime", odd_keys.NOBODYS_KEYS[0], anything),
        forged("another_key_with_y_above_the_prime", odd_keys.NOBODYS_KEYS[1], anything),
        forged("key_that_is_no_point", b"\x02" + bytes(31), anything),
        forged("key_of_zeros", bytes(32), anything),
        forged("key_of_ones", b"\xff" * 32, anything),
        forged("r_of_small_order", ALICE.public, odd_keys.by_alice(odd_keys.NEUTRAL)),
        *(
            forged(f"r_of_small_order_in_another_encoding_{number}", ALICE.public, odd_keys.by_alice(encoding))
            for number, encoding in enumerate(odd_keys.NEUTRAL_AGAIN, 1)
        ),
        forged("r_with_a_part_of_small_order", ALICE.public, odd_keys.MIXED_R),
        forged("r_with_y_above_the_prime", ALICE.public, odd_keys.by_alice(odd_keys.NOBODYS_KEYS[0])),
        forged("s_not_reduced", ALICE.public, unreduced),
        forged("s_that_is_the_order", ALICE.public, lambda _text: genuine[:32] + ORDER.to_bytes(32, "little")),
        forged("s_of_ones", ALICE.public, lambda _text: genuine[:32] + b"\xff" * 32),
        forged("s_of_zeros", ALICE.public, lambda _text: genuine[:32] + bytes(32)),
        forged("signature_of_zeros", ALICE.public, lambda _text: bytes(64)),
        forged("r_and_s_swapped", ALICE.public, lambda text: ALICE.sign(text.decode())[32:] + ALICE.sign(text.decode())[:32]),
        *(forged(f"flipped_bit_{bit}", ALICE.public, flipped(bit)) for bit in (0, 255, 256, 507)),
    ]


def unsignable_calls() -> list[Vector]:
    """What a client must refuse to sign: in the text, one of these values would read as two."""
    request = {
        "test_private_key": ALICE.seed.hex(),
        "method": METHOD,
        "audience": AUDIENCE,
        "body_hex": BODY.hex(),
        "body_times": 1,
        "time_ms": NOW_MS,
        "nonce": nonce_of("unsignable"),
        "refused": True,
    }
    return [
        {"name": "signs_no_audience_with_a_line_feed", "client": {**request, "audience": "a\nb"}},
        {"name": "signs_no_audience_that_ends_in_one", "client": {**request, "audience": f"{AUDIENCE}\n"}},
        {"name": "signs_no_method_with_a_line_feed", "client": {**request, "method": f"{METHOD}\n{AUDIENCE}"}},
    ]


def vectors() -> list[Vector]:
    """All of them."""
    return [
        *good_calls(),
        *missing_calls(),
        *malformed_calls(),
        *stale_calls(),
        *changed_calls(),
        *other_texts(),
        *odd_calls(),
        *unsignable_calls(),
    ]
