"""What is written: the lines, the hashes and their texts, spelled out once more, so that they cannot drift."""

import hashlib
import json

import psycopg
import pytest

from colonies.audit.chains import errors_text, event_hash, membership_hash, process_root, seal_text
from colonies.audit.lines import LineWriter, canonical
from colonies.keys import PrivateKey
from colonies.verifying import signer_of
from tests.audit.stories import told


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_each_line_follows_from_the_one_before() -> None:
    writer = LineWriter({"record": "header", "cluster": "c", "colony": "dev"})
    header, other = b'{"cluster":"c","colony":"dev","record":"header"}', '{"a":[true,null,"é\\n"],"z":-1}'.encode()
    first = hashlib.sha256(bytes(32) + header).digest()
    second = hashlib.sha256(first + other).digest()
    assert writer.header_line == first.hex().encode() + b" " + header + b"\n"
    assert writer.line({"z": -1, "a": [True, None, "é\n"]}) == second.hex().encode() + b" " + other + b"\n"
    assert writer.records == 2
    key = PrivateKey(bytes(32))
    digest, content = writer.seal(key, time_ms=5).rstrip(b"\n").split(b" ", 1)
    seal = json.loads(content)
    text = f"colonies-audit-v1\nc\ndev\n5\n2\n{second.hex()}\n".encode()
    assert seal_text(cluster="c", colony="dev", time_ms=5, records=2, digest=second.hex()) == text
    assert signer_of(key.public_key, bytes.fromhex(seal.pop("signature")), text) == key.identity
    assert seal == {"record": "seal", "records": 2, "public_key": key.public_key.hex(), "time_ms": 5}
    assert digest.decode() == hashlib.sha256(second + content).hexdigest()


@pytest.mark.parametrize("value", [1.0, float("nan"), 2**63, -(2**63) - 1, b"", (1,), {1: 2}, "\ud800", {"a": [{"b": 0.5}]}])
def test_what_the_format_does_not_have_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical({"a": value})


def test_the_texts_that_are_hashed() -> None:
    assert process_root(
        colony="dev",
        process="p",
        workflow="",
        initiator="i",
        initiator_name="ann",
        submitted_us=7,
        priority_time=-8,
        call="c",
        place=0,
    ) == sha256("colonies-process-v1\ndev\np\n\ni\nann\n7\n-8\nc\n0\n")
    assert event_hash(
        "h",
        at_us=1,
        from_state=2,
        to_state=4,
        attempt=3,
        executor_name="e",
        actor="a",
        reason="CLOSED",
        outcome=2,
        errors=["x\n", 'é"'],
        call="c",
        output_call="",
    ) == sha256('colonies-event-v1\nh\n1\n2\n4\n3\ne\na\nCLOSED\n2\n["x\\n","é\\""]\nc\n\n')
    membership = membership_hash(
        "",
        colony="dev",
        number=1,
        at_us=2,
        kind="USER_ADDED",
        identity="i",
        key="k",
        role="user",
        name="ann",
        calls=["c", "d"],
    )
    assert membership == sha256("colonies-membership-v1\n\ndev\n1\n2\nUSER_ADDED\ni\nk\nuser\nann\nc\nd\n")


def test_errors_are_written_as_postgres_writes_them(empty_database_url: str) -> None:
    errors = ["", "plain", "".join(map(chr, range(1, 0x3000))), "\U0001f600 \u2028\u2029\ufeff\uffff", '"\\/', "a,b]"]
    with psycopg.connect(empty_database_url) as connection:
        for given in (errors, [], *([one] for one in errors)):
            (written,) = connection.execute("SELECT array_to_json(%s::text[])::text", (given,)).fetchone() or ("",)
            assert written == errors_text(given)


def test_a_file_is_what_it_was() -> None:
    """All keys and times are fixed, and signatures are deterministic: the same story makes the same bytes, for ever."""
    assert hashlib.sha256(told(6).file()).hexdigest() == "8d0f52a441d83d72227369ac5f93359643422e8e48fe97a1238f81126bff3373"
