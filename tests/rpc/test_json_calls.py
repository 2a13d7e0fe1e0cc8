"""Calls in JSON: what a program without protobuf sends and gets, and what it is told when it sends something else."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from prometheus_client import REGISTRY

from colonies.errors import FieldViolation, RpcError
from colonies.json_calls import MAX_NESTED, body_of
from servicekit.json_calls import ASIDE_FROM, LARGE_JSON_AT_MOST, JsonRequestType
from tests.attacks.tables import contents
from tests.attacks.wire import Wire, answer, signed
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster
from tests.rpc.methods import all_methods

from .scheduler_colony import SERVICES, Acme, spec, value
from .scheduler_streams import WorkStream

pytestmark = pytest.mark.asyncio

SCHEDULER = "/colonies.scheduler.v1.SchedulerService"
SUBMIT = f"{SCHEDULER}/SubmitProcesses+json"
GET = f"{SCHEDULER}/GetProcess+json"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
SPEC = {"funcName": "f", "conditions": {"executorType": "cli"}}


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


def submit(acme: Acme, **fields: Any) -> Wire:
    """A submit of one process, as a program would write it."""
    return calling(acme, {"colonyName": COLONY, "requestId": "request-1", "specs": [SPEC], **fields})


def calling(acme: Acme, body: Any, path: str = SUBMIT, key: Any = None) -> Wire:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return signed(acme.cluster, key or acme.keys.user, path, raw)


async def refused(acme: Acme, call: Wire) -> RpcError:
    error = await refusal(call.send(acme.cluster))
    assert error.code is INVALID, str(error)
    return error


async def test_a_process_from_its_submit_to_its_result_without_protobuf(acme: Acme) -> None:
    document = json.loads(await submit(acme).send(acme.cluster))
    (process_id,) = document.pop("processIds")
    # Nothing else is in it, and a repeat is answered as in protobuf's own form.
    assert document == {}
    again = json.loads(await submit(acme).send(acme.cluster))
    assert again == {"processIds": [process_id]}
    assign = {"colonyName": COLONY, "maxProcesses": 1, "waitMs": "20000"}
    got = await calling(acme, assign, f"{SCHEDULER}/AssignProcesses+json", acme.keys.executor).send(acme.cluster)
    (assignment,) = json.loads(got)["assignments"]
    assert (assignment["processId"], assignment["attempt"], assignment["spec"]["funcName"]) == (process_id, 1, "f")
    ref = {"processId": process_id, "attempt": 1}
    close = {"colonyName": COLONY, "closes": [{"attempt": ref, "success": {"outputs": [{"data": "NDI="}]}}]}
    closed = await calling(acme, close, f"{SCHEDULER}/CloseProcesses+json", acme.keys.executor).send(acme.cluster)
    assert json.loads(closed) == {"states": ["PROCESS_STATE_SUCCESSFUL"]}
    read = json.loads(await calling(acme, {"colonyName": COLONY, "processId": process_id}, GET).send(acme.cluster))["process"]
    assert (read["state"], read["outputs"][0]["data"], read["spec"]["label"]) == ("PROCESS_STATE_SUCCESSFUL", "NDI=", "")
    # The same, in the other form.
    assert (await acme.get(process_id)).outputs[0].data == b"42"


async def test_a_stream_is_documents_of_one_line_each(acme: Acme) -> None:
    follow = {"colonyName": COLONY, "colony": {}}
    stream = calling(acme, follow, f"{SCHEDULER}/WatchProcesses+json").open(acme.cluster)
    first = await stream.read()
    assert (b"\n" in first, "cursor" in json.loads(first)) == (False, True)
    ids = await acme.submit(spec(), spec())
    seen: list[str] = []
    async with asyncio.timeout(20):
        while len(seen) < 2:
            seen += [event["processId"] for event in json.loads(await stream.read())["events"]]
    assert seen == ids
    stream.cancel()


async def test_work_comes_by_a_stream_in_json(new_cluster: Callable[..., Awaitable[Cluster]]) -> None:
    acme = Acme(await new_cluster(services=SERVICES, in_json=True))
    async with WorkStream(acme.worker, 3) as stream:
        ids = await acme.submit(*[spec(args=[value(str(number))]) for number in range(3)])
        assert [one.process_id for one in await stream.brought(3)] == ids
        for one in list(stream.came):
            await acme.close(one, "1")
        (later,) = await acme.submit(spec())
        assert (await stream.brought(4))[-1].process_id == later


BAD = {
    "nothing": (b"", "request"),
    "white_space": (b" \n", "request"),
    "a_list": (b"[]", "request"),
    "null": (b"null", "request"),
    "half_an_object": (b'{"colonyName":"acme"', "request"),
    "two_objects": (b'{"colonyName":"acme"}{}', "request"),
    "a_byte_order_mark": (b'\xef\xbb\xbf{"colonyName":"acme"}', "request"),
    "utf_16": ('{"colonyName":"acme"}'.encode("utf-16"), "request"),
    "latin_1": ('{"colonyName":"acme","requestId":"é"}'.encode("latin-1"), "request"),
    "compressed": (bytes.fromhex("1f8b08000000000002ffab5600000000ffff"), "request"),
    "protobuf": (b"\x0a\x04acme", "request"),
    "a_lone_surrogate": (b'{"colonyName":"acme","requestId":"\\ud800"}', "request"),
    "a_lone_surrogate_as_the_colony": (b'{"colonyName":"\\udfff"}', "request"),
    "a_lone_surrogate_in_a_key": (b'{"colonyName":"acme","\\ud800":1}', "request"),
    "nan": (b'{"colonyName":"acme","specs":NaN}', "request"),
    "too_many_digits": (b'{"colonyName":"acme","specs":' + b"1" * 5_000 + b"}", "request"),
    "too_deep": (b'{"colonyName":"acme","specs":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "request"),
    "too_many_lists": (b'{"colonyName":"acme","specs":[' + b"[]," * MAX_NESTED + b"[]]}", "request"),
    "the_colony_twice": (b'{"colonyName":"acme","colonyName":"acme"}', "request"),
    "the_colony_by_both_names": (b'{"colonyName":"acme","colony_name":"umbrella"}', "colony_name"),
    "no_colony": (b'{"colonyName":7}', "colony_name"),
    "no_name": (b'{"colonyName":"a b"}', "colony_name"),
    "an_unknown_field": (b'{"colonyName":"acme","requestid":"r"}', "requestid"),
    "an_unknown_field_inside": (b'{"colonyName":"acme","specs":[{"funcName":"f","funcname":""}]}', "specs[0].funcname"),
    "another_kind": (b'{"colonyName":"acme","specs":[{"priority":"high"}]}', "specs[0].priority"),
    "too_large_a_number": (b'{"colonyName":"acme","specs":[{"priority":1e99}]}', "specs[0].priority"),
    "no_base64": (b'{"colonyName":"acme","specs":[{"args":[{"data":"?"}]}]}', "specs[0].args[0].data"),
    "what_the_service_itself_refuses": (b'{"colonyName":"acme","requestId":"r","specs":[{}]}', "specs[0].func_name"),
}


async def test_what_is_wrong_is_told_by_name_and_changes_nothing(acme: Acme, database_url: str) -> None:
    before = contents(database_url)
    for name, (body, field) in BAD.items():
        error = await refused(acme, calling(acme, body))
        assert field in [violation.field for violation in error.violations], name
        assert len(str(error)) < 1_000, name
        # A stream is opened by the same rules.
        error = await refusal(calling(acme, body, f"{SCHEDULER}/WatchProcesses+json").open(acme.cluster).read())
        assert error.code is INVALID, name
    assert contents(database_url) == before


async def test_what_has_no_twin(acme: Acme) -> None:
    for path in (
        "/grpc.health.v1.Health/Check+json",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo+json",
        f"{SUBMIT}+json",
        f"{SCHEDULER}/SubmitProcesses+JSON",
        f"{SCHEDULER}/SubmitProcesses json",
        f"{SCHEDULER}/NoSuch+json",
        f"{SCHEDULER}/+json",
        "/colonies.auth.v1.AuthService/GetColony+json",
    ):
        call = calling(acme, {"colonyName": COLONY}, path)
        error = await refusal(call.send(acme.cluster, service="scheduler"))
        assert error.code is grpc.StatusCode.UNIMPLEMENTED, path


async def test_large_requests_arrive_and_larger_ones_are_refused_by_name(acme: Acme) -> None:
    room = LARGE_JSON_AT_MOST - 2_000
    call = submit(acme, specs=[{**SPEC, "args": [{"data": "YWJj" * (room // 4)}]}])
    assert ASIDE_FROM < len(call.body) <= LARGE_JSON_AT_MOST
    (process_id,) = json.loads(await call.send(acme.cluster))["processIds"]
    # And so does the answer that holds it.
    read = json.loads(await calling(acme, {"colonyName": COLONY, "processId": process_id}, GET).send(acme.cluster))
    assert read["process"]["spec"]["args"][0]["data"] == "YWJj" * (room // 4)
    padded = call.altered(body=call.body.ljust(LARGE_JSON_AT_MOST + 1))
    # Before the signature is looked at.
    error = await refused(acme, padded)
    assert error.violations == (
        FieldViolation("request", f"must be at most {LARGE_JSON_AT_MOST} bytes; it has {len(padded.body)}"),
    )


async def test_what_grpc_compresses_on_the_way_is_what_was_signed(acme: Acme) -> None:
    call = submit(acme)
    method: Any = acme.cluster.channel("scheduler").unary_unary(call.path, None, None)
    headers = grpc.aio.Metadata(*call.headers)
    assert "processIds" in json.loads(await method(call.body, metadata=headers, compression=grpc.Compression.Gzip))


async def test_a_strangers_megabytes_become_no_message(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = JsonRequestType.parse

    def spied(self: JsonRequestType, body: bytes) -> Message:
        parsed.append(len(body))
        return parse(self, body)

    monkeypatch.setattr(JsonRequestType, "parse", spied)
    body = {"colonyName": COLONY, "requestId": "r", "specs": [{}] * 100_000}
    error = await refusal(calling(acme, body, key=acme.keys.stranger).send(acme.cluster))
    assert (error.code, error.reason, parsed) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_MEMBER", [])
    assert (await refused(acme, calling(acme, body))).code is INVALID
    assert len(parsed) == 1


@pytest.mark.parametrize("step", ["envelope", "parse", "respond"])
async def test_others_are_served_while_large_json_is_read_or_written(
    acme: Acme, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """That takes a good part of a second, and a small call is not to wait for it."""
    large = submit(acme, specs=[{**SPEC, "args": [{"data": "YWJj" * ASIDE_FROM}]}])
    (process_id,) = json.loads(await large.send(acme.cluster))["processIds"]
    reached, answered = threading.Event(), threading.Event()

    def slow(original: Any, *args: Any) -> Any:
        if len(args[-1] if isinstance(args[-1], bytes) else args[-1].SerializeToString()) >= ASIDE_FROM:
            reached.set()
            assert answered.wait(10), "nobody else was served meanwhile"
        return original(*args)

    if step == "respond":
        monkeypatch.setattr("servicekit.json_calls.body_of", partial(slow, body_of))
        call = calling(acme, {"colonyName": COLONY, "processId": process_id}, GET)
    else:
        original = getattr(JsonRequestType, step)
        monkeypatch.setattr(JsonRequestType, step, lambda kind, body: slow(original, kind, body))
        call = submit(acme, requestId="another", specs=[{**SPEC, "args": [{"data": "YWJj" * ASIDE_FROM}]}])
    sending = asyncio.ensure_future(answer(call.send(acme.cluster)))
    assert await asyncio.to_thread(reached.wait, 10)
    await small(acme)
    answered.set()
    assert await sending is None


async def test_of_large_json_two_documents_at_most_are_read_for_callers_that_may_be_strangers(
    acme: Acme, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes many times its size, and there is no end to strangers."""
    original, guard, two, released = JsonRequestType.envelope, threading.Lock(), threading.Event(), threading.Event()
    now, most = 0, 0

    def watched(kind: JsonRequestType, body: bytes) -> Any:
        nonlocal now, most
        if len(body) < ASIDE_FROM:
            return original(kind, body)
        with guard:
            now += 1
            most = max(most, now)
            if now == 2:
                two.set()
        assert released.wait(10)
        with guard:
            now -= 1
        return original(kind, body)

    monkeypatch.setattr(JsonRequestType, "envelope", watched)
    body = {"colonyName": COLONY, "requestId": "r" * ASIDE_FROM}
    calls = [asyncio.ensure_future(refusal(calling(acme, body, key=acme.keys.stranger).send(acme.cluster))) for _ in range(6)]
    assert await asyncio.to_thread(two.wait, 10)
    for _ in range(3):
        await small(acme)
    released.set()
    assert {error.reason for error in await asyncio.gather(*calls)} == {"NOT_A_MEMBER"}
    assert most == 2


async def small(acme: Acme) -> None:
    call = calling(acme, {"colonyName": COLONY, "processId": "123e4567-e89b-12d3-a456-426614174000"}, GET)
    assert (await refusal(call.send(acme.cluster))).code is grpc.StatusCode.NOT_FOUND


async def test_the_log_and_the_metrics_tell_the_two_forms_apart(acme: Acme) -> None:
    def handled(path: str) -> float:
        return REGISTRY.get_sample_value("colonies_rpc_handled_total", {"method": path, "code": "OK"}) or 0.0

    before = handled(SUBMIT), handled(SUBMIT.removesuffix("+json"))
    await submit(acme).send(acme.cluster)
    assert (handled(SUBMIT), handled(SUBMIT.removesuffix("+json"))) == (before[0] + 1, before[1])
    # What is no method leaves no label behind.
    await refusal(calling(acme, {}, f"{SCHEDULER}/Another+json").send(acme.cluster))
    assert REGISTRY.get_sample_value("colonies_rpc_in_flight", {"method": f"{SCHEDULER}/Another+json"}) is None


async def test_every_method_says_what_is_wrong_with_its_json(new_cluster: Callable[..., Awaitable[Cluster]]) -> None:
    """Whoever may call it at all; the others hear that they may not."""
    acme = Acme(await new_cluster())
    codes = set()
    for method in all_methods():
        for body in (
            b"",
            b"{",
            b'{"colonyName":',
            b'{"nope":1}',
            b'{"colonyName":"acme","nope":1}',
            b'{"colonyName":"acme"} x',
        ):
            for key in (acme.keys.owner, acme.keys.server_owner, acme.keys.service("registry"), acme.keys.executor):
                call = calling(acme, body, method.path + "+json", key)
                stream = method.descriptor.server_streaming
                error = await refusal(call.open(acme.cluster).read() if stream else call.send(acme.cluster))
                assert error.code in {INVALID, grpc.StatusCode.PERMISSION_DENIED}, (method.path, body, str(error))
                codes.add(error.code)
    assert len(codes) == 2
