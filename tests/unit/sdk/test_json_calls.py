"""Requests in JSON: one document, one meaning, and a name for whatever is wrong with it."""

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.errors import UnreadableRequestError
from colonies.json_calls import EXACT, MAX_NESTED, base_of, body_of, document_of, is_json, message_of, request_of
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.scheduler.v1 import controls_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb

SUBMIT = "/colonies.scheduler.v1.SchedulerService/SubmitProcesses"
PROCESS_ID = "123e4567-e89b-12d3-a456-426614174000"


def read(text: str | bytes, message_type: Any = pb.SubmitProcessesRequest) -> Any:
    body = text if isinstance(text, bytes) else text.encode()
    return message_of(document_of(body), message_type)


def refused(text: str | bytes, message_type: Any = pb.SubmitProcessesRequest) -> tuple[str, str]:
    with pytest.raises(UnreadableRequestError) as caught:
        read(text, message_type)
    assert len(str(caught.value)) < 500
    str(caught.value).encode()
    return caught.value.field, caught.value.description


def test_the_method_that_a_path_asks_for() -> None:
    assert (is_json(SUBMIT), is_json(SUBMIT + "+json"), is_json(SUBMIT + "+JSON")) == (False, True, False)
    assert (base_of(SUBMIT), base_of(SUBMIT + "+json"), base_of(SUBMIT + "+json+json")) == (SUBMIT, SUBMIT, SUBMIT + "+json")


def test_what_is_written_is_read_again() -> None:
    spec = spec_pb2.FunctionSpec(
        func_name="süm \U0001f600",
        args=[spec_pb2.Value(media_type="application/octet-stream", data=bytes(range(256)))],
        kwargs={"a_b": spec_pb2.Value(data=b""), "aB": spec_pb2.Value(data=b"x")},
        env={"colony_name": "1", "colonyName": "2"},
        priority=-5,
        max_wait_time_ms=2**62,
        backoff=spec_pb2.Backoff(factor=1.5),
    )
    request = pb.SubmitProcessesRequest(colony_name="acme", request_id="r", specs=[spec])
    body = body_of(request)
    assert b"\n" not in body
    assert read(body) == request
    # What has no presence is there with its default; what has is not.
    document = json.loads(body)
    assert (document["specs"][0]["nodeName"], "jitter" in document["specs"][0]["backoff"]) == ("", False)
    assert request_of(SUBMIT + "+json", body, pb.SubmitProcessesRequest) == request
    assert request_of(SUBMIT, request.SerializeToString(), pb.SubmitProcessesRequest) == request


def test_both_names_of_a_field_are_read_and_null_is_as_if_not_there() -> None:
    assert read('{"colony_name": "acme", "requestId": null}') == pb.SubmitProcessesRequest(colony_name="acme")
    assert read(' {"colonyName" : "acme"}\r\n\t') == pb.SubmitProcessesRequest(colony_name="acme")


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"[]", b'"a"', b"1", b"{", b'{"colonyName":"a"', b"{}{}", b"{} x", b"{},", b"{'a':1}", b"{a:1}", b'{"a":1,}',
        b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"{\0}\0", b"\x1f\x8b\x08\x00", b'{"colonyName":"\xff"}', b'{"colonyName":"\xed\xa0\x80"}',
        b'{"colonyName":"\xc0\xaf"}', b'{"colonyName":"a\nb"}', b'{"colonyName":"\\x41"}', b'{"colonyName":NaN}', b'{"colonyName":Infinity}',
        b'{"colonyName":-Infinity}', b'{"colonyName":01}', b'{"colonyName":+1}', b'{"colonyName":.5}', b'{"colonyName":0x1}',
        b'{"colonyName":' + b"9" * 5_000 + b"}", b'{"colonyName":' + b"[" * 100_000, b'{"colonyName":' + b'{"":' * 100_000,
        b"{/* no */}", b'{"a":1}\0', b'{"colonyName":\xc2\xa0"a"}',
    ],
)  # fmt: skip
def test_what_is_no_json_object_in_utf_8(body: bytes) -> None:
    assert refused(body)[0] == "request"


@pytest.mark.parametrize("escaped", [r"\ud800", r"\uDFFF", r"a\udbffb", r"\ud800\ud800", r"\udc00\ud800", r"\\\ud800"])
def test_half_a_surrogate_pair_is_refused_wherever_it_is(escaped: str) -> None:
    for body in (
        f'{{"colonyName":"{escaped}"}}',
        f'{{"{escaped}":1}}',
        f'{{"specs":[{{"kwargs":{{"{escaped}":{{}}}}}}]}}',
        f'{{"unknown":[["{escaped}"]]}}',
    ):
        field, description = refused(body)
        assert (field, "surrogate" in description) == ("request", True)


def test_whole_pairs_and_what_only_looks_like_a_surrogate_are_read() -> None:
    assert read(r'{"colonyName":"\ud83d\ude00"}').colony_name == "\U0001f600"
    assert read(r'{"colonyName":"\\ud800"}').colony_name == r"\ud800"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"colonyName":"a","colonyName":"b"}', "request"),
        ('{"colonyName":"a","colonyName":"a"}', "request"),
        (r'{"colonyName":"a","colony\u004eame":"b"}', "request"),
        ('{"x":{"a":1,"b":[{"c":1,"c":2}]}}', "request"),
        ('{"colonyName":"a","colony_name":"b"}', "colony_name"),
        ('{"colony_name":"a","colonyName":"a"}', "colony_name"),
        ('{"colonyName":"a","colony_name":null}', "colony_name"),
        ('{"specs":[{},{"funcName":"f","func_name":"g"}]}', "specs[1].func_name"),
        ('{"specs":[{"kwargs":{"k":{"mediaType":"a","media_type":"b"}}}]}', 'specs[0].kwargs["k"].media_type'),
    ],
)
def test_what_is_there_twice(body: str, field: str) -> None:
    assert refused(body)[0] == field


def test_many_keys_of_which_the_last_is_there_twice_are_told_at_once() -> None:
    keys = [f'"{number:x}":0' for number in range(100_000)]
    assert refused("{" + ",".join([*keys, keys[-1]]) + "}")[0] == "request"


def test_two_of_one_choice() -> None:
    close = '{"attempt":{"processId":"%s","attempt":1},"success":{},"failure":%s}'
    field, description = refused(f'{{"closes":[{close % (PROCESS_ID, "{}")}]}}', pb.CloseProcessesRequest)
    assert (field, description) == ("closes[0].failure", "cannot be there together with success")
    read_close = read(f'{{"closes":[{close % (PROCESS_ID, "null")}]}}', pb.CloseProcessesRequest).closes[0]
    assert read_close.WhichOneof("outcome") == "success"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"nope":1}', "nope"),
        ('{"nope":null}', "nope"),
        ('{"ColonyName":"a"}', "ColonyName"),
        ('{"@type":"x"}', "request"),
        ('{"1":"a"}', "request"),
        ('{"":"a"}', "request"),
        ('{"specs":[{"conditions":{"typo":""}}]}', "specs[0].conditions.typo"),
        ('{"specs":[{"kwargs":{"a":{"typo":""}}}]}', 'specs[0].kwargs["a"].typo'),
    ],
)
def test_what_this_version_does_not_know(body: str, field: str) -> None:
    assert refused(body)[0] == field
    # Who audits what a newer version took passes it over.
    request_of(SUBMIT + "+json", body.encode(), pb.SubmitProcessesRequest)


def test_there_are_no_extensions() -> None:
    assert refused('{"[colonies.x]":1}')[0] == "request"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ('{"colonyName":1}', "colony_name"), ('{"colonyName":[]}', "colony_name"), ('{"colonyName":{}}', "colony_name"),
        ('{"colonyName":true}', "colony_name"), ('{"specs":{}}', "specs"), ('{"specs":"a"}', "specs"), ('{"specs":[null]}', "specs[0]"),
        ('{"specs":[[]]}', "specs[0]"), ('{"specs":[{"priority":"x"}]}', "specs[0].priority"),
        ('{"specs":[{"priority":true}]}', "specs[0].priority"), ('{"specs":[{"priority":1.5}]}', "specs[0].priority"),
        ('{"specs":[{"priority":"1 "}]}', "specs[0].priority"), ('{"specs":[{"priority":"+1"}]}', "specs[0].priority"),
        ('{"specs":[{"priority":"1_0"}]}', "specs[0].priority"), ('{"specs":[{"priority":"01"}]}', "specs[0].priority"),
        ('{"specs":[{"priority":"1.0"}]}', "specs[0].priority"), ('{"specs":[{"priority":"\u0661"}]}', "specs[0].priority"),
        ('{"specs":[{"priority":2147483648}]}', "specs[0].priority"), ('{"specs":[{"priority":1e300}]}', "specs[0].priority"),
        ('{"specs":[{"priority":1e999}]}', "specs[0].priority"), ('{"specs":[{"priority":[]}]}', "specs[0].priority"),
        ('{"specs":[{"maxWaitTimeMs":9223372036854775807}]}', "specs[0].max_wait_time_ms"),
        ('{"specs":[{"maxWaitTimeMs":"9223372036854775808"}]}', "specs[0].max_wait_time_ms"),
        ('{"specs":[{"backoff":{"factor":1e999}}]}', "specs[0].backoff.factor"), ('{"specs":[{"backoff":{"factor":"nan"}}]}', "specs[0].backoff.factor"),
        ('{"specs":[{"backoff":{"factor":"1e999"}}]}', "specs[0].backoff.factor"), ('{"specs":[{"backoff":{"factor":false}}]}', "specs[0].backoff.factor"),
        ('{"specs":[{"backoff":{"factor":" 1"}}]}', "specs[0].backoff.factor"), ('{"specs":[{"args":[{"data":"a b"}]}]}', "specs[0].args[0].data"),
        ('{"specs":[{"args":[{"data":"YQ==\\n"}]}]}', "specs[0].args[0].data"), ('{"specs":[{"args":[{"data":"Y"}]}]}', "specs[0].args[0].data"),
        ('{"specs":[{"args":[{"data":"Y=Q="}]}]}', "specs[0].args[0].data"), ('{"specs":[{"args":[{"data":5}]}]}', "specs[0].args[0].data"),
        ('{"specs":[{"args":[{"data":"\u00e9"}]}]}', "specs[0].args[0].data"), ('{"specs":[{"env":[]}]}', "specs[0].env"),
        ('{"specs":[{"env":{"a":null}}]}', 'specs[0].env["a"]'), ('{"specs":[{"env":{"a":1}}]}', 'specs[0].env["a"]'),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused_by_name(value: str, field: str) -> None:
    assert refused(value)[0] == field


def test_numbers_are_read_in_their_forms() -> None:
    for text in ("5", '"5"', "5.0", "5e0", "50e-1"):
        assert read(f'{{"specs":[{{"priority":{text}}}]}}').specs[0].priority == 5
    for text in ("1.5", '"1.5"', '"15e-1"'):
        assert read(f'{{"specs":[{{"backoff":{{"factor":{text}}}}}]}}').specs[0].backoff.factor == 1.5
    assert read(f'{{"specs":[{{"maxWaitTimeMs":{EXACT}}}]}}').specs[0].max_wait_time_ms == EXACT
    # The next one is the same to whoever reads numbers as doubles.
    assert refused(f'{{"specs":[{{"maxWaitTimeMs":{EXACT + 1}}}]}}')[0] == "specs[0].max_wait_time_ms"
    assert read(f'{{"specs":[{{"maxWaitTimeMs":"{EXACT + 1}"}}]}}').specs[0].max_wait_time_ms == EXACT + 1


def test_base64_of_both_alphabets_with_and_without_padding() -> None:
    data = b"\xfb\xff\xfe\x00"
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"=")):
        assert read(f'{{"specs":[{{"args":[{{"data":"{text.decode()}"}}]}}]}}').specs[0].args[0].data == data


@pytest.mark.parametrize("word", ['"NOPE"', '"1"', "1.5", "true", '"process_state_waiting"', "[]", "3000000000"])
def test_enums_are_names_or_numbers(word: str) -> None:
    assert refused(f'{{"states":[1,{word}]}}', pb.ListProcessesRequest)[0] == "states[1]"
    assert refused(f'{{"specs":[{{"parentPolicy":{word}}}]}}')[0] == "specs[0].parent_policy"


def test_enums_of_a_newer_version() -> None:
    body = '{"specs":[{"parentPolicy":"PARENT_POLICY_OF_TOMORROW"}]}'
    assert refused(body)[0] == "specs[0].parent_policy"
    unset = pb.SubmitProcessesRequest(specs=[spec_pb2.FunctionSpec()])
    assert request_of(SUBMIT + "+json", body.encode(), pb.SubmitProcessesRequest) == unset
    assert read('{"states":["PROCESS_STATE_WAITING"]}', pb.ListProcessesRequest) == read(
        '{"states":[1]}', pb.ListProcessesRequest
    )


@pytest.mark.parametrize("text", ['"yesterday"', '""', "5", '"2026-13-01T00:00:00Z"', '"9999999-01-01T00:00:00Z"', "{}"])
def test_times_are_texts(text: str) -> None:
    assert refused(f'{{"afterTime":{text}}}', cron.PreviewScheduleRequest)[0] == "after_time"
    assert read('{"afterTime":"2026-01-01T00:00:00.5Z"}', cron.PreviewScheduleRequest).after_time.nanos == 500_000_000


def test_more_objects_than_anybody_needs_are_not_looked_at() -> None:
    document = '{"specs":[' + ",".join(["{}"] * (MAX_NESTED - 2)) + "]}"
    assert len(read(document).specs) == MAX_NESTED - 2
    assert refused(document[:-2] + ",{}]}")[0] == "request"


def test_what_has_presence_keeps_it() -> None:
    assert read('{"paused":false}', controls_pb2.UpdateControlsRequest).HasField("paused")
    assert not read('{"paused":null}', controls_pb2.UpdateControlsRequest).HasField("paused")
    assert read('{"capabilities":{}}', registry.RegisterExecutorRequest).HasField("capabilities")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["acme", "YQ==", "1", "-0", "1e5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["colonyName", "colony_name", "specs", "args", "data", "kwargs", "backoff", "factor", "priority", "env", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["colonyName", "colony_name", "requestId", "specs", "x"]), JSON, max_size=4))
def test_whatever_is_read_here_a_reader_of_the_mapping_reads_the_same(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode(errors="surrogatepass")
    try:
        message = read(body)
    except UnreadableRequestError:
        return
    assert json_format.Parse(body, pb.SubmitProcessesRequest()) == message
    assert read(body_of(message)) == message
