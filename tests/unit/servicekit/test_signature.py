"""The signed bytes, spelled out by hand, and every way in which they can be wrong."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.errors import NotSignableError
from colonies.keys import PrivateKey, identity_of
from colonies.signing import (
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    Signer,
    join_text,
    rotate_text,
)
from colonies.verifying import signer_of
from servicekit.failures import InvalidArgument, Unauthenticated
from servicekit.signature import (
    MAX_JOIN_AGE_MS,
    MAX_SKEW_MS,
    Join,
    Rotation,
    check_call,
    check_join,
    check_rotation,
    headers_of,
)

# The private key of RFC 8032, section 7.1, test 1; its public key is given there too.
KEY = PrivateKey.from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC_KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
METHOD = "/colonies.auth.v1.AuthService/GetColony"
AUDIENCE = "test"
NOW_MS = 1_700_000_000_000
NONCE = "000102030405060708090a0b0c0d0e0f"
BODY = b"\x0a\x04acme"


def signed(*, method: str = METHOD, audience: str = AUDIENCE, time: str = str(NOW_MS), body: bytes = BODY) -> dict[str, str]:
    """Headers made as a client in any language would make them, from the specification alone."""
    digest = hashlib.sha256(body).hexdigest()
    text = f"colonies-call-v1\n{method}\n{audience}\n{time}\n{NONCE}\n{digest}\n"
    return {
        KEY_HEADER: PUBLIC_KEY,
        TIME_HEADER: time,
        NONCE_HEADER: NONCE,
        SIGNATURE_HEADER: KEY.sign(text.encode()).hex(),
    }


def check(headers: dict[str, str], *, body: bytes = BODY, now_ms: int = NOW_MS) -> str:
    """The identity, or a failure."""
    return check_call(headers, method=METHOD, audience=AUDIENCE, body=body, now_ms=now_ms).key


def reason_of(headers: dict[str, str], *, body: bytes = BODY, now_ms: int = NOW_MS) -> str:
    """Why it is refused."""
    with pytest.raises(Unauthenticated) as caught:
        check(headers, body=body, now_ms=now_ms)
    return caught.value.reason


def test_a_good_signature_shows_the_identity() -> None:
    assert KEY.public_key.hex() == PUBLIC_KEY
    assert check(signed()) == hashlib.sha3_256(bytes.fromhex(PUBLIC_KEY)).hexdigest()
    assert check(signed(body=b""), body=b"") == KEY.identity


def test_the_signature_of_a_vector_is_these_bytes() -> None:
    """Ed25519 gives one signature for a key and a text: whoever signs otherwise signs something else."""
    text = (
        b"colonies-call-v1\n/colonies.auth.v1.AuthService/GetColony\ntest\n1700000000000\n"
        b"000102030405060708090a0b0c0d0e0f\n" + hashlib.sha256(BODY).hexdigest().encode() + b"\n"
    )
    assert KEY.sign(text).hex() == signed()[SIGNATURE_HEADER]


@pytest.mark.parametrize("off_ms", [-MAX_SKEW_MS, -1, 0, 1, MAX_SKEW_MS])
def test_clocks_may_differ_by_a_minute(off_ms: int) -> None:
    assert check(signed(), now_ms=NOW_MS + off_ms) == KEY.identity


@pytest.mark.parametrize("off_ms", [-MAX_SKEW_MS - 1, MAX_SKEW_MS + 1])
def test_and_by_no_more(off_ms: int) -> None:
    assert reason_of(signed(), now_ms=NOW_MS + off_ms) == "SIGNATURE_STALE"


@pytest.mark.parametrize("name", [KEY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER])
def test_missing_and_malformed(name: str) -> None:
    headers = signed()
    good = headers.pop(name)
    assert reason_of(headers) == "SIGNATURE_MISSING"
    for bad in ("", good + "\n", good + "0" * 90, " " + good, "é", "-" + good[1:], "0" + good, good.replace("0", "G") + "G"):
        assert reason_of({**headers, name: bad}) == "SIGNATURE_MALFORMED"


@pytest.mark.parametrize(
    "change",
    [
        lambda: signed(method=METHOD.replace("Get", "Add")),
        lambda: signed(audience="other"),
        lambda: signed(body=BODY + b"\0"),
        lambda: {**signed(), NONCE_HEADER: "f" * 32},
        lambda: {**signed(), TIME_HEADER: str(NOW_MS + 1)},
        lambda: {**signed(), KEY_HEADER: PrivateKey(b"\1" * 32).public_key.hex()},
        lambda: {**signed(), KEY_HEADER: "ff" * 32},
        lambda: {**signed(), SIGNATURE_HEADER: "0" * 128},
    ],
)
def test_a_signature_for_something_else(change: Callable[[], dict[str, str]]) -> None:
    assert reason_of(change()) == "SIGNATURE_INVALID"


@given(st.integers(0, 64 * 8 - 1))
def test_every_bit_of_the_signature_counts(bit: int) -> None:
    headers = signed()
    flipped = int(headers[SIGNATURE_HEADER], 16) ^ (1 << bit)
    assert reason_of({**headers, SIGNATURE_HEADER: f"{flipped:0128x}"}) == "SIGNATURE_INVALID"


@given(st.dictionaries(st.sampled_from([KEY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER]), st.text()), st.binary())
def test_nothing_but_a_refusal_comes_of_garbage(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(Unauthenticated):
        check(headers, body=body)


HEADERS = (KEY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER)
ASCII = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


@st.composite
def calls(draw: st.DrawFn) -> tuple[PrivateKey, dict[str, str], str, str, bytes, int]:
    """Any call that is signed well: key, headers, method, audience, body, time."""
    key = PrivateKey(draw(st.binary(min_size=32, max_size=32)))
    method, audience = draw(st.text(ASCII, max_size=60)), draw(st.text(ASCII, max_size=40))
    body, time_ms = draw(st.binary(max_size=300)), draw(st.integers(0, 10**15 - 1))
    headers = dict(Signer(key, audience, lambda: time_ms).headers(method, body))
    return key, headers, method, audience, body, time_ms


@given(calls(), st.data())
def test_every_bit_of_what_is_sent_counts(
    call: tuple[PrivateKey, dict[str, str], str, str, bytes, int], data: st.DataObject
) -> None:
    key, headers, method, audience, body, time_ms = call

    def checked(headers: dict[str, str], method: str, audience: str, body: bytes) -> str:
        return check_call(headers, method=method, audience=audience, body=body, now_ms=time_ms).key

    assert checked(headers, method, audience, body) == key.identity
    sent = {**headers, "method": method, "audience": audience, "body": body.decode("latin-1")}
    part = data.draw(st.sampled_from([name for name, value in sent.items() if value]))
    place = data.draw(st.integers(0, len(sent[part]) - 1))
    flipped = chr(ord(sent[part][place]) ^ 1 << data.draw(st.integers(0, 7)))
    sent[part] = sent[part][:place] + flipped + sent[part][place + 1 :]
    with pytest.raises(Unauthenticated):
        checked({name: sent[name] for name in HEADERS}, sent["method"], sent["audience"], sent["body"].encode("latin-1"))


def test_every_bit_of_one_call_counts() -> None:
    """The same without chance: each bit of each header and of the body."""
    headers = signed()
    for name, value in headers.items():
        for place, letter in enumerate(value):
            for bit in range(8):
                changed = value[:place] + chr(ord(letter) ^ 1 << bit) + value[place + 1 :]
                with pytest.raises(Unauthenticated):
                    check({**headers, name: changed})
    for bit in range(8 * len(BODY)):
        body = (int.from_bytes(BODY, "big") ^ 1 << bit).to_bytes(len(BODY), "big")
        assert reason_of(headers, body=body) == "SIGNATURE_INVALID"


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_no_32_bytes_are_a_key_that_signed_what_it_did_not(public_key: bytes, text: bytes) -> None:
    assert signer_of(public_key, KEY.sign(text), text) is None
    assert reason_of({**signed(), KEY_HEADER: public_key.hex()}) == "SIGNATURE_INVALID"


@given(st.binary(min_size=64, max_size=64), st.binary(max_size=100))
def test_no_64_bytes_are_a_signature_by_chance(signature: bytes, text: bytes) -> None:
    assert signer_of(KEY.public_key, signature, text) is None
    assert reason_of({**signed(), SIGNATURE_HEADER: signature.hex()}) == "SIGNATURE_INVALID"


@given(st.binary(max_size=70), st.binary(max_size=130))
def test_keys_and_signatures_of_any_length_are_refused(public_key: bytes, signature: bytes) -> None:
    assert signer_of(public_key, signature, b"") is None


def test_an_entry_that_comes_twice_is_malformed_and_others_are_not_looked_at() -> None:
    pairs = list(signed().items())
    for name, value in pairs:
        for again in (value, "0", ""):
            assert reason_of(headers_of([*pairs, (name, again)])) == "SIGNATURE_MALFORMED"
            assert reason_of(headers_of([(name, again), *pairs])) == "SIGNATURE_MALFORMED"
    other: list[tuple[str, str | bytes]] = [
        ("x-forwarded-for", "a"),
        ("x-forwarded-for", "b"),
        ("t-bin", b"\0"),
        ("t-bin", b"\1"),
    ]
    assert check(headers_of([*other, *pairs])) == KEY.identity


def test_an_entry_in_binary_is_malformed_beside_the_text_and_instead_of_it() -> None:
    for name, value in signed().items():
        binary = {**signed(), f"{name}-bin": value}
        assert reason_of(binary) == "SIGNATURE_MALFORMED"
        binary.pop(name)
        assert reason_of(binary) == "SIGNATURE_MALFORMED"


def test_what_holds_a_line_feed_is_never_signed() -> None:
    good = {"audience": "a", "colony": "c", "role": "user", "name": "n"}
    for name in good:
        with pytest.raises(NotSignableError, match="line feed"):
            join_text(**{**good, name: "x\ny"}, time_ms=1)
    for values in ({"colony": "c\n"}, {"audience": "\n"}, {"old": "\n"}):
        with pytest.raises(NotSignableError, match="line feed"):
            rotate_text(**{"audience": "a", "colony": "", "old": "0" * 64, **values}, time_ms=1)
    with pytest.raises(NotSignableError, match="line feed"):
        Signer(KEY, "a\nb").headers(METHOD, b"")


JOIN = Join(AUDIENCE, "acme", "user", "alice")
JOIN_TEXT = f"colonies-join-v1\ntest\nacme\nuser\nalice\n{NOW_MS}\n".encode()


def join(signature: bytes, *, time_ms: int = NOW_MS, now_ms: int = NOW_MS, public_key: bytes = KEY.public_key) -> str:
    """The identity that joins, or a failure."""
    return check_join(JOIN, field="user", public_key=public_key, signature=signature, time_ms=time_ms, now_ms=now_ms)


def test_a_proof_of_joining() -> None:
    proof = KEY.sign(JOIN_TEXT)
    assert join(proof) == identity_of(KEY.public_key)
    assert join(proof, now_ms=NOW_MS + MAX_JOIN_AGE_MS) == KEY.identity
    assert join(proof, now_ms=NOW_MS - MAX_SKEW_MS) == KEY.identity


def test_proofs_that_do_not_fit_name_the_field() -> None:
    proof = KEY.sign(JOIN_TEXT)
    wrong: dict[str, list[Callable[[], str]]] = {
        "user.time_ms": [
            lambda: join(proof, now_ms=NOW_MS + MAX_JOIN_AGE_MS + 1),
            lambda: join(proof, now_ms=NOW_MS - MAX_SKEW_MS - 1),
        ],
        "user.signature": [
            lambda: join(proof, time_ms=NOW_MS + 1),
            lambda: join(KEY.sign(JOIN_TEXT.replace(b"user", b"colony_owner"))),
            lambda: join(b""),
            lambda: join(proof, public_key=b""),
            lambda: join(proof, public_key=b"\xff" * 32),
        ],
    }
    for field, attempts in wrong.items():
        for attempt in attempts:
            with pytest.raises(InvalidArgument) as caught:
                attempt()
            assert [violation.field for violation in caught.value.violations] == [field]


ROTATION = Rotation(AUDIENCE, "acme", "ab" * 32)
ROTATE_TEXT = f"colonies-rotate-v1\ntest\nacme\n{'ab' * 32}\n{NOW_MS}\n".encode()


def rotation(
    signature: bytes, *, time_ms: int = NOW_MS, now_ms: int = NOW_MS, wanted: Rotation = ROTATION, key: PrivateKey = KEY
) -> str:
    """The key that takes a place, or a failure."""
    return check_rotation(
        wanted, field="new_key", public_key=key.public_key, signature=signature, time_ms=time_ms, now_ms=now_ms
    )


def test_a_proof_of_rotation() -> None:
    proof = KEY.sign(ROTATE_TEXT)
    assert rotation(proof) == KEY.identity
    assert rotation(proof, now_ms=NOW_MS + MAX_JOIN_AGE_MS) == KEY.identity
    assert rotation(proof, now_ms=NOW_MS - MAX_SKEW_MS) == KEY.identity
    outside = KEY.sign(ROTATE_TEXT.replace(b"acme", b""))
    assert rotation(outside, wanted=replace(ROTATION, colony="")) == KEY.identity


def test_proofs_of_rotation_that_do_not_fit_name_the_field() -> None:
    proof = KEY.sign(ROTATE_TEXT)
    wrong: dict[str, list[Callable[[], str]]] = {
        "new_key.time_ms": [
            lambda: rotation(proof, now_ms=NOW_MS + MAX_JOIN_AGE_MS + 1),
            lambda: rotation(proof, now_ms=NOW_MS - MAX_SKEW_MS - 1),
        ],
        "new_key.signature": [
            lambda: rotation(proof, time_ms=NOW_MS + 1),
            lambda: rotation(proof, wanted=replace(ROTATION, colony="")),
            lambda: rotation(proof, wanted=replace(ROTATION, audience="other")),
            lambda: rotation(proof, wanted=replace(ROTATION, old="cd" * 32)),
            lambda: rotation(proof, key=PrivateKey(b"\x01" * 32)),
            lambda: rotation(KEY.sign(JOIN_TEXT)),
        ],
    }
    for field, attempts in wrong.items():
        for attempt in attempts:
            with pytest.raises(InvalidArgument) as caught:
                attempt()
            assert [violation.field for violation in caught.value.violations] == [field]
