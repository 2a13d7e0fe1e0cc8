"""Whatever is in a file, checking it ends with a report: no bytes make it raise, and none but a whole file pass."""

import hashlib
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonies.audit.lines import LineWriter
from colonies.audit.records import decoded
from colonies.audit.verify import verify
from tests.audit.author import Author, Record, chained
from tests.audit.stories import STORIES

AUTHOR = Author("fuzz")
for story in STORIES:
    story(AUTHOR)
RECORDS = AUTHOR.records()
CASES = 400
# Each checks a whole file.
FILES = 120
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def check(data: bytes) -> bool:
    return verify(io.BytesIO(data), AUTHOR.trust, after=io.BytesIO(data), max_findings=1000).intact()


def lines(contents: list[bytes]) -> bytes:
    """Lines whose digests are right, whatever is in them."""
    digest, out = bytes(32), []
    for content in contents:
        digest = hashlib.sha256(digest + content).digest()
        out.append(digest.hex().encode() + b" " + content + b"\n")
    return b"".join(out)


@given(st.binary(max_size=300))
@settings(max_examples=CASES, deadline=None)
def test_any_bytes(data: bytes) -> None:
    assert not check(data)


@given(st.lists(st.binary(max_size=80).filter(lambda content: b"\n" not in content), max_size=5))
@settings(max_examples=CASES, deadline=None)
def test_any_lines_with_right_digests(contents: list[bytes]) -> None:
    assert not check(lines(contents))


@given(st.lists(JUNK.map(lambda value: json.dumps(value).encode()), max_size=5))
@settings(max_examples=CASES, deadline=None)
def test_any_json_with_right_digests(contents: list[bytes]) -> None:
    header = AUTHOR.file().splitlines()[0][65:]
    assert not check(lines([header, *contents]))


def _sealed(records: list[Record]) -> bytes:
    """The records with right digests and seal, as far as they can be written at all."""
    header, *rest = records
    writer = LineWriter(header)
    return b"".join(
        [
            writer.header_line,
            *(writer.line(record) for record in rest),
            writer.seal(AUTHOR.scheduler, time_ms=AUTHOR.now_us // 1000),
        ]
    )


@given(st.data())
@settings(max_examples=FILES, deadline=None)
def test_any_member_of_any_record(data: st.DataObject) -> None:
    """A record with a member that is something else, sealed by the scheduler."""
    records: list[Record] = chained(RECORDS)
    place = data.draw(st.integers(1, len(records) - 1))
    name = data.draw(st.sampled_from(sorted(records[place])))
    value: Any = data.draw(JUNK)
    if records[place][name] == value and type(records[place][name]) is type(value):
        return
    records[place][name] = value
    assert not check(_sealed(records))


@given(st.data())
@settings(max_examples=FILES, deadline=None)
def test_any_order_of_records(data: st.DataObject) -> None:
    records: list[Record] = chained(RECORDS)
    as_it_was = [id(record) for record in records if record["record"] != "call"]
    one, other = data.draw(st.tuples(st.integers(1, len(records) - 1), st.integers(1, len(records) - 1)))
    records.insert(one, records.pop(other))
    told = [id(record) for record in records if record["record"] != "call"]
    intact = check(_sealed(records))
    # A call may stand anywhere before its use; all else has one place.
    assert not intact or told == as_it_was


def test_json_in_any_other_form_is_refused() -> None:
    for text in (
        '{"a": 1}',
        '{"b":1,"a":1}',
        '{"a":1,"a":1}',
        '{"a":1.0}',
        '{"a":1e3}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":9223372036854775808}',
        '{"a":-0}',
        '{"a":"\\u00e9"}',
        '{"a":"\\/"}',
        '{"a":"\\ud800"}',
        '{"a":1} ',
        "\ufeff{}",
        "[]",
        '"a"',
        "",
        "[" * 100_000,
        '{"a":' + "9" * 5000 + "}",
    ):
        with pytest.raises(ValueError, match=r"."):
            decoded(text.encode("utf-8"))
    with pytest.raises(ValueError, match="no JSON"):
        decoded(b'{"a":"\xff"}')
    assert decoded('{"a":"é\\u0001","b":[true,null,-1]}'.encode()) == {"a": "é\x01", "b": [True, None, -1]}
