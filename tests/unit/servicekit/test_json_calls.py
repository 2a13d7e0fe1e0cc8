"""What the gate reads of a request in JSON, and what the servicer gets of it."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from colonies.json_calls import SUFFIX, body_of
from servicekit.envelope import KEPT_AT_MOST, LARGE, MIB, Envelope
from servicekit.failures import InvalidArgument
from servicekit.json_calls import JsonRequestType
from tests.rpc.methods import Method, all_methods
from tests.unit.registry.test_registration_size import largest

METHODS = list(all_methods())
SUBMIT = "/colonies.scheduler.v1.SchedulerService/SubmitProcesses+json"
WORKFLOWS = "/colonies.scheduler.v1.SchedulerService/SubmitWorkflows+json"
REGISTER = "/colonies.registry.v1.RegistryService/RegisterExecutor+json"


def fields_of(kind: Any, body: bytes, *, read: str = "parse") -> list[str]:
    with pytest.raises(InvalidArgument) as caught:
        getattr(kind, read)(body)
    return [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path)
def test_the_envelope_of_every_method(method: Method) -> None:
    fields = method.descriptor.input_type.fields_by_name
    request: Any = method.request("acme")
    if "on_behalf_of" in fields:
        request.on_behalf_of = "11" * 32
    kind = JsonRequestType(method.path + SUFFIX)
    snake = json_format.MessageToJson(request, preserving_proto_field_name=True).encode()
    for body in (body_of(request), snake):
        found = kind.envelope(body)
        if "colony_name" not in fields:
            assert found == Envelope()
        elif "on_behalf_of" in fields:
            assert found == Envelope("acme", "11" * 32, can_represent=True)
        else:
            assert found == Envelope("acme")
        assert kind.parse(body) == request
    assert kind.method == method.path


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path)
def test_requests_are_bounded(method: Method) -> None:
    name = method.descriptor.name
    at_most = 2 * KEPT_AT_MOST[name] if name in KEPT_AT_MOST else (4 if name in LARGE else 1) * MIB
    kind = JsonRequestType(method.path + SUFFIX)
    body = b"{}".ljust(at_most)
    kind.check_size(body)
    kind.parse(body)
    assert fields_of(kind, body + b" ", read="check_size") == ["request"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path)
def test_no_request_has_what_nobody_knows(method: Method) -> None:
    kind = JsonRequestType(method.path + SUFFIX)
    assert fields_of(kind, b'{"hidden":1}') == ["hidden"]
    for field in method.descriptor.input_type.fields:
        message = field.message_type
        if message is not None and not message.full_name.startswith("google.") and not message.GetOptions().map_entry:
            hidden: Any = {"hidden": 1}
            body = json.dumps({field.json_name: [hidden] if field.is_repeated else hidden}).encode()
            place = f"{field.name}[0]" if field.is_repeated else field.name
            assert fields_of(kind, body) == [f"{place}.hidden"]


def test_the_largest_legal_registration_fits() -> None:
    body = json_format.MessageToJson(largest(), indent=2).encode()
    kind = JsonRequestType(REGISTER)
    kind.check_size(body)
    assert kind.parse(body) == largest()


@pytest.mark.parametrize(
    "body",
    [
        b'{"colonyName":"mine","colony_name":"theirs"}',
        b'{"colonyName":null,"colony_name":"theirs"}',
        b'{"colonyName":"mine","colonyName":"theirs"}',
        b'{"colonyName":7}',
        b'{"colonyName":["mine"]}',
        b'{"colonyName":"mine"} {"colonyName":"theirs"}',
        b'\xef\xbb\xbf{"colonyName":"mine"}',
        b'"colonyName"',
    ],
)
def test_there_is_one_colony_or_none_in_a_request(body: bytes) -> None:
    kind = JsonRequestType(SUBMIT)
    assert fields_of(kind, body, read="envelope") == fields_of(kind, body, read="parse")


def test_of_a_colony_within_something_else_nothing_is_known() -> None:
    body = b'{"x":{"colonyName":"theirs"},"specs":[{"env":{"colonyName":"theirs"}}],"colonyName":"mine"}'
    assert JsonRequestType(SUBMIT).envelope(body).colony == "mine"


_names = st.sampled_from(["colonyName", "colony_name", "onBehalfOf", "on_behalf_of", "submissions", "x"])
_values = st.one_of(
    st.none(), st.sampled_from(["mine", "theirs", "", "\ud800"]), st.integers(), st.lists(st.text(), max_size=2)
)


@given(st.lists(st.tuples(_names, _values), max_size=5), st.integers(0, 400), st.binary(max_size=1))
def test_what_the_gate_reads_is_what_the_servicer_gets(pairs: list[tuple[str, Any]], at: int, byte: bytes) -> None:
    """Keys in any order and number, and a byte somewhere that is not as it was."""
    body = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}"
    written = bytearray(body.encode())
    if byte:
        written[at % len(written)] = byte[0]
    kind = JsonRequestType(WORKFLOWS)
    try:
        message: Any = kind.parse(bytes(written))
    except InvalidArgument:
        return
    found = kind.envelope(bytes(written))
    assert (found.colony, found.on_behalf_of) == (message.colony_name, message.on_behalf_of)
