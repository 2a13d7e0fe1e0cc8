"""The envelope: what the gate reads of a request before anybody parses it."""

from typing import Any

import pytest

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import FunctionSpec
from servicekit.envelope import KEPT_AT_MOST, LARGE, LARGE_AT_MOST, SMALL_AT_MOST, Envelope, RequestType
from servicekit.failures import InvalidArgument
from tests.rpc.methods import Method, all_methods

METHODS = list(all_methods())
SUBMIT = "/colonies.scheduler.v1.SchedulerService/SubmitProcesses"
GET = "/colonies.scheduler.v1.SchedulerService/GetProcess"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path)
def test_the_envelope_of_every_method(method: Method) -> None:
    fields = method.descriptor.input_type.fields_by_name
    assert "colony_name" not in fields or fields["colony_name"].number == 1
    assert "on_behalf_of" not in fields or fields["on_behalf_of"].number == 4
    request: Any = method.request("acme")
    if "on_behalf_of" in fields:
        request.on_behalf_of = "11" * 32
    found = RequestType(method.path).envelope(request.SerializeToString())
    if "colony_name" not in fields:
        assert found == Envelope()
    elif "on_behalf_of" in fields:
        assert found == Envelope("acme", "11" * 32, can_represent=True)
    else:
        assert found == Envelope("acme")
    assert RequestType(method.path).parse(request.SerializeToString()) == request


def test_every_method_that_may_be_large_exists() -> None:
    assert {method.descriptor.name for method in METHODS} >= LARGE | set(KEPT_AT_MOST)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path)
def test_requests_are_bounded(method: Method) -> None:
    name = method.descriptor.name
    at_most = KEPT_AT_MOST.get(name, LARGE_AT_MOST if name in LARGE else SMALL_AT_MOST)
    kind = RequestType(method.path)
    # A field that no message has; its length takes four bytes, its key two.
    padding = b"\xfa\x3f" + _varint(at_most - 6) + b"\0" * (at_most - 6)
    assert len(padding) == at_most
    kind.check_size(padding)
    kind.envelope(padding)
    with pytest.raises(InvalidArgument) as caught:
        kind.check_size(padding + b"\0")
    assert [violation.field for violation in caught.value.violations] == ["request"]


KEPT = [method for method in METHODS if method.descriptor.name in KEPT_AT_MOST]
UNKNOWN = b"\xfa\x3f\x05\xff\x00abc"


@pytest.mark.parametrize("method", KEPT, ids=lambda method: method.path)
def test_what_is_kept_has_no_room_for_what_nobody_knows(method: Method) -> None:
    kind = RequestType(method.path)
    body = method.request("acme").SerializeToString()
    kind.parse(body)
    inside = [field for field in method.descriptor.input_type.fields if field.message_type is not None]
    bodies = [body + UNKNOWN, *(body + bytes((field.number << 3 | 2, len(UNKNOWN))) + UNKNOWN for field in inside)]
    for hidden in bodies:
        with pytest.raises(InvalidArgument) as caught:
            kind.parse(hidden)
        assert [violation.field for violation in caught.value.violations] == ["request"]


def test_what_is_not_kept_may_come_from_a_newer_version() -> None:
    assert RequestType(GET).parse(pb.GetProcessRequest(colony_name="acme").SerializeToString() + UNKNOWN)


def _varint(number: int) -> bytes:
    """In exactly four bytes, as protobuf allows."""
    return bytes((number >> shift) & 0x7F | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21))


def test_what_comes_twice_counts_as_it_will_when_parsed() -> None:
    """The last one wins in protobuf: whoever is checked for one colony must not act in another."""
    body = pb.GetProcessRequest(colony_name="mine").SerializeToString()
    body += pb.GetProcessRequest(colony_name="theirs").SerializeToString()
    parsed: Any = RequestType(GET).parse(body)
    assert RequestType(GET).envelope(body).colony == parsed.colony_name == "theirs"


@pytest.mark.parametrize("body", [b"\x0a\xff", b"\x0a\x02\xff\xfe", b"\xff\xff\xff"])
def test_what_is_no_message_is_refused_by_name(body: bytes) -> None:
    kind = RequestType(SUBMIT)
    for read in (kind.envelope, kind.parse):
        with pytest.raises(InvalidArgument) as caught:
            read(body)
        assert [violation.field for violation in caught.value.violations] == ["request"]


def test_the_rest_is_not_looked_at() -> None:
    """Half a message behind the envelope: only parsing it whole finds that out."""
    request = pb.SubmitProcessesRequest(colony_name="acme", specs=[FunctionSpec(func_name="f")])
    broken = request.SerializeToString().replace(b"\x0a\x01f", b"\xff\xff\xff", 1).replace(b"f", b"\xff")
    kind = RequestType(SUBMIT)
    assert kind.envelope(broken).colony == "acme"
    with pytest.raises(InvalidArgument):
        kind.parse(broken)
