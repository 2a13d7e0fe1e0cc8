"""Calls in JSON as an auditor finds them: what was signed are the bytes, and what they say is one thing."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from colonies.audit.findings import Kind
from colonies.json_calls import SUFFIX, body_of
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.signing import call_digest, call_text
from tests.audit.author import CLUSTER, SCHEDULER, Author, Record, chained
from tests.audit.test_forgeries import checked, expect

CANCEL = SCHEDULER + "CancelProcess"
CANCELLED = 5


def body(record: Record) -> bytes:
    return base64.b64decode(record["body"])


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Record], None]:
    """Another body in the place of the one that was signed."""

    def rewrite(record: Record) -> None:
        record["body"] = base64.b64encode(change(body(record))).decode()

    return rewrite


def as_protobuf(record: Record) -> None:
    """The same request in protobuf's own form, of the method without the suffix."""
    request = scheduler.SubmitProcessesRequest()
    request.colony_name, request.request_id = (json.loads(body(record))[name] for name in ("colonyName", "requestId"))
    record.update(method=record["method"].removesuffix(SUFFIX), body=base64.b64encode(request.SerializeToString()).decode())


EDITS: dict[str, Callable[[Record], None]] = {
    "a_space_more": rewritten(lambda data: data + b" "),
    "written_prettily": rewritten(lambda data: json.dumps(json.loads(data), indent=1).encode()),
    "keys_in_another_order": rewritten(lambda data: json.dumps(dict(reversed(json.loads(data).items()))).encode()),
    "a_key_under_its_other_name": rewritten(lambda data: data.replace(b"colonyName", b"colony_name", 1)),
    "an_escape_for_a_letter": rewritten(lambda data: data.replace(b'"dev"', b'"d\\u0065v"', 1)),
    "another_function": rewritten(lambda data: data.replace(b'"funcName":"f', b'"funcName":"g', 1)),
    "another_priority": rewritten(lambda data: data.replace(b'"priority":0', b'"priority":9', 1)),
    "without_the_suffix": lambda record: record.update(method=record["method"].removesuffix(SUFFIX)),
    "as_protobuf": as_protobuf,
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_a_call_is_found(name: str) -> None:
    """Also by who works out its digest anew, and names the new one everywhere."""
    author = Author(in_json=True)
    (process,) = author.submit(author.user)
    author.assign(process)
    author.close([process])
    records = author.records()
    call = next(record for record in records if record.get("method") == SCHEDULER + "SubmitProcesses" + SUFFIX)
    before, said = call["digest"], (call["method"], call["body"])
    EDITS[name](call)
    assert (call["method"], call["body"]) != said
    expect(checked(author, chained(records)), Kind.CHAIN, "its digest is another")
    key, signature = bytes.fromhex(call["public_key"]), bytes.fromhex(call["signature"])
    text = call_text(method=call["method"], audience=CLUSTER, time_ms=call["time_ms"], nonce=call["nonce"], body=body(call))
    digest = call_digest(text, key, signature)
    renamed = [{name: digest if value == before else value for name, value in record.items()} for record in records]
    expect(checked(author, chained(renamed)), Kind.SIGNATURE, "its signature does not fit it")


def cancelling(make: Callable[[Author, str], bytes], *, method: str = CANCEL + SUFFIX) -> Any:
    """What is found of a cancel that its member signed with these bytes."""
    author = Author(in_json=True)
    (one,) = author.submit(author.user)
    call = author.call_of(author.user.key, method, make(author, one.id))
    author.event(one, "CANCELLED", CANCELLED, actor=author.user.identity, call=call)
    return checked(author, author.records())


@pytest.mark.parametrize(
    "text",
    [
        '{"colonyName":"other","colonyName":"dev","processId":"%s"}',
        '{"colony_name":"other","colonyName":"dev","processId":"%s"}',
        '{"colonyName":"dev","processId":"%s"} ""',
        '{"colonyName":"dev","processId":["%s"]}',
        '\ufeff{"colonyName":"dev","processId":"%s"}',
    ],
)
def test_what_could_be_read_in_two_ways_asks_for_nothing(text: str) -> None:
    """No service takes it, so a scheduler that says that one did made that up."""
    expect(cancelling(lambda _, one: (text % one).encode()), Kind.CALL, "its body is no request of this method")


def test_what_is_in_the_other_form_asks_for_nothing() -> None:
    def request(one: str) -> scheduler.CancelProcessRequest:
        return scheduler.CancelProcessRequest(colony_name="dev", process_id=one)

    expect(cancelling(lambda _, one: request(one).SerializeToString()), Kind.CALL, "its body is no request")
    expect(cancelling(lambda _, one: body_of(request(one)), method=CANCEL), Kind.CALL, "its body is no request")
    expect(cancelling(lambda _, one: body_of(request(one)), method=CANCEL + SUFFIX * 2), Kind.MALFORMED, "method")


def test_what_says_the_same_in_other_words_is_the_same() -> None:
    text = ' {"process_id" : "%s", "colon\\u0079Name":"dev"}\n'
    assert cancelling(lambda _, one: (text % one.upper()).encode()).intact(strict=True)
    newer = '{"processId":"%s","colonyName":"dev","ofTomorrow":{"x":[1]}}'
    assert cancelling(lambda _, one: (newer % one).encode()).intact(strict=True)
