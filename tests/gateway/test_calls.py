"""Calls over HTTP/JSON: every method's own answer, errors in one form, and what is no call."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.errors import RpcError, from_rpc_error
from services.gateway.problems import HTTP_STATUS
from tests.attacks.wire import Wire
from tests.harness.cluster import COLONY, Cluster
from tests.rpc.methods import NO_UUID, all_methods
from tests.rpc.scheduler_colony import SERVICES

from .http import Connection, ask, request
from .stage import API, JSON, LINES, SCHEDULER, Stage, as_json, stage

pytestmark = pytest.mark.asyncio

GET = f"{SCHEDULER}/GetProcess"
SUBMIT = f"{SCHEDULER}/SubmitProcesses"


@pytest_asyncio.fixture
async def whole(new_cluster: Callable[..., Awaitable[Cluster]]) -> AsyncIterator[Stage]:
    """All services."""
    async with stage(new_cluster) as made:
        await made.open()
        yield made


async def answered(cluster: Cluster, call: Wire) -> tuple[RpcError | None, bytes]:
    """What the service itself answers, without front door and gateway: its error, or its first message."""
    service = call.path.split(".")[1]
    invoke: Any = cluster.channel(service).unary_stream(call.path)
    stream = invoke(call.body, metadata=grpc.aio.Metadata(*call.headers), timeout=20)
    try:
        message = await stream.read()
        return None, b"" if message is grpc.aio.EOF else message
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error), b""
    finally:
        stream.cancel()


@pytest.mark.parametrize("colony", ["", COLONY])
async def test_every_method_gives_the_services_own_answer(whole: Stage, colony: str) -> None:
    """By enumeration: with an empty request, and with one that names things which there are not."""
    found = list(all_methods())
    assert len(found) > 80
    for method in found:
        document = as_json(method.request(colony)) if colony else b"{}"
        streams = method.descriptor.server_streaming
        key = whole.cluster.keys.owner
        direct, message = await answered(whole.cluster, whole.wire(method.path, document, key=key))
        call = whole.http(whole.wire(method.path, document, key=key), *([LINES] if streams else []))
        async with await Connection.to(whole.port) as connection:
            connection.send(call)
            if streams and direct is None:
                # Nothing has to come on it.
                assert await connection.head() == 200, method.path
                assert connection.headers["content-type"] == "application/jsonl"
                continue
            reply = await connection.reply()
        assert reply.headers["content-type"] == "application/json"
        if direct is None:
            assert (reply.status, set(reply.document)) == (200, set(json.loads(message))), method.path
        else:
            told = reply.document
            assert reply.status == HTTP_STATUS[direct.code], method.path
            assert (told["code"], told["reason"]) == (direct.code.name, direct.reason), method.path
            assert told["reason"], method.path
            assert [one["field"] for one in told["fields"]] == [one.field for one in direct.violations]


async def test_a_process_is_submitted_read_and_refused(here: Stage) -> None:
    process_id = await here.submit()
    reply = await here.call(GET, {"colonyName": COLONY, "processId": process_id})
    assert reply.status == 200
    assert reply.document["process"]["state"] == "PROCESS_STATE_WAITING"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"
    missing = await here.call(GET, {"colonyName": COLONY, "processId": NO_UUID}, ("x-request-id", "mine-1"))
    assert (missing.status, missing.document["code"]) == (404, "NOT_FOUND")
    wrong = await here.call(SUBMIT, {"colonyName": COLONY, "requestId": "r2", "specs": [{"priority": 7_000_000}]})
    assert (wrong.status, wrong.document["code"]) == (400, "INVALID_ARGUMENT")
    assert all(one["field"].startswith("specs[0]") and one["description"] for one in wrong.document["fields"])
    stranger = await here.call(GET, {"colonyName": COLONY, "processId": process_id}, key=here.cluster.keys.stranger)
    assert (stranger.status, stranger.document["code"]) == (403, "PERMISSION_DENIED")


async def test_who_must_sign_anew_is_told_with_what(here: Stage) -> None:
    body = as_json({"colonyName": COLONY, "processId": NO_UUID})
    unsettled = here.cluster.signer(here.cluster.keys.user).headers(f"{GET}+json", body)
    call = Wire(f"{GET}+json", tuple(unsettled), body)
    reply = await ask(here.port, here.http(call))
    assert (reply.status, reply.document["reason"]) == (401, "NONCE_PREFIX_REQUIRED")
    assert len(reply.document["metadata"]["nonce_prefix"]) == 16
    assert int(reply.document["metadata"]["server_time_ms"]) > 0
    assert reply.headers["www-authenticate"] == "Colonies-Signature"


async def test_a_call_over_a_rate_says_when_to_come_back(new_cluster: Callable[..., Awaitable[Cluster]]) -> None:
    settings = {"scheduler": {"identity_rate": 0.2, "identity_burst": 1}}
    async with stage(lambda: new_cluster(services=SERVICES, settings=settings)) as made:
        await made.open()
        document = {"colonyName": COLONY, "processId": NO_UUID}
        replies = [await made.call(GET, document) for _ in range(3)]
        limited = next(reply for reply in replies if reply.status == 429)
        assert (limited.document["code"], limited.document["reason"]) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        assert limited.document["retry_delay_ms"] > 0
        assert int(limited.headers["retry-after"]) >= limited.document["retry_delay_ms"] / 1000


async def test_entries_go_on_as_they_came(here: Stage) -> None:
    """What is wrong with them the service says: the gateway drops none, mends none and chooses none."""
    call = here.wire(GET, {"colonyName": COLONY, "processId": NO_UUID})
    for index, (name, value) in enumerate(call.headers):
        rest = call.headers[:index] + call.headers[index + 1 :]
        for altered, reason in (
            (rest, "SIGNATURE_MISSING"),
            ((*call.headers, (name, value)), "SIGNATURE_MALFORMED"),
            ((*rest, (name, value.upper() + "A")), "SIGNATURE_MALFORMED"),
            ((*rest, (name, "")), "SIGNATURE_MALFORMED"),
            ((*call.headers, *((name, value),) * 90), "SIGNATURE_MALFORMED"),
            ((*rest, (name, "a" * 50_000)), "SIGNATURE_MALFORMED"),
            ((*rest, (name, value + "\x7f")), "SIGNATURE_MALFORMED"),
            ((*rest, (name, "\xe9" + value)), "SIGNATURE_MALFORMED"),
            ((*call.headers, (f"{name}-bin", "AAAA")), "SIGNATURE_MALFORMED"),
        ):
            reply = await ask(here.port, here.http(call.altered(headers=altered)))
            if reply.status == 400 and not reply.body.startswith(b"{"):
                continue  # the front door itself takes no such header
            assert (reply.status, reply.document["reason"]) == (401, reason), (altered, reply)
    # None of them has used up the call.
    assert (await ask(here.port, here.http(call))).status == 404


async def test_what_is_no_call(here: Stage) -> None:
    call = here.wire(GET, {"colonyName": COLONY, "processId": NO_UUID})
    path, signature, body = API + GET, call.headers, call.body
    unsigned = await ask(here.port, request("POST", path, [JSON], body))
    assert (unsigned.status, unsigned.document["reason"]) == (401, "SIGNATURE_MISSING")
    for status, reason, data in (
        (415, "WRONG_CONTENT_TYPE", request("POST", path, signature, body)),
        (415, "WRONG_CONTENT_TYPE", request("POST", path, [("content-type", "text/plain"), *signature], body)),
        (415, "WRONG_CONTENT_TYPE", request("POST", path, [("content-type", "application/grpc"), *signature], body)),
        (415, "WRONG_CONTENT_TYPE", request("POST", path, [JSON, ("content-encoding", "gzip"), *signature], body)),
        (400, "WRONG_TIMEOUT", request("POST", path, [JSON, ("colonies-timeout-ms", "0"), *signature], body)),
        (400, "WRONG_TIMEOUT", request("POST", path, [JSON, ("colonies-timeout-ms", "1.5"), *signature], body)),
        (400, "WRONG_TIMEOUT", request("POST", path, [JSON, ("colonies-timeout-ms", "99999999"), *signature], body)),
        (404, "NO_SUCH_PATH", request("POST", f"{path}?colony=acme", [JSON, *signature], body)),
        (404, "NO_SUCH_PATH", request("POST", f"{path}+json", [JSON, *signature], body)),
        (404, "NO_SUCH_PATH", request("POST", path.replace("Get", "%47et"), [JSON, *signature], body)),
        (404, "NO_SUCH_PATH", request("POST", f"{path}/", [JSON, *signature], body)),
        (404, "NO_SUCH_PATH", request("POST", f"{API}/GetProcess", [JSON, *signature], body)),
        (404, "NO_SUCH_PATH", request("POST", f"{API}/grpc.health.v1.Health/Check", [JSON, *signature], body)),
        (404, "NO_SUCH_PATH", request("POST", f"{API}/{'x' * 300}/GetProcess", [JSON, *signature], body)),
        (405, "WRONG_VERB", request("GET", path, [JSON, *signature])),
        (405, "WRONG_VERB", request("PUT", path, [JSON, *signature], body)),
    ):
        reply = await ask(here.port, data)
        assert (reply.status, reply.document["reason"]) == (status, reason), (data, reply)
        assert reply.document["message"]
    for unknown in ("/colonies.scheduler.v1.SchedulerService/Nothing", "/colonies.nothing.v1.NothingService/Get"):
        reply = await here.call(unknown)
        assert (reply.status, reply.document["code"]) == (501, "UNIMPLEMENTED"), reply
        assert (reply.document["reason"], reply.document["message"]) == ("NO_SUCH_METHOD", "there is no such method")
    with_charset = request("POST", path, [("Content-Type", "application/json; charset=utf-8"), *signature], body)
    assert (await ask(here.port, with_charset)).status == 404  # the process's absence: it got through


async def test_a_stream_that_was_not_asked_for_as_one_is_explained(here: Stage) -> None:
    process_id = await here.submit()
    reply = await here.call(f"{SCHEDULER}/WatchProcesses", {"colonyName": COLONY, "processId": process_id})
    assert (reply.status, reply.document["reason"]) == (406, "STREAMS")


async def test_a_unary_call_may_be_asked_for_as_lines(here: Stage) -> None:
    process_id = await here.submit()
    for kind in ("application/jsonl", "application/x-ndjson", "text/html, application/jsonl;q=0.5"):
        reply = await here.call(GET, {"colonyName": COLONY, "processId": process_id}, ("accept", kind))
        assert (reply.status, reply.body.count(b"\n")) == (200, 1)
        assert reply.document["process"]["processId"] == process_id
