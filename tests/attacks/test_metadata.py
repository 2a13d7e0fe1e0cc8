"""What gRPC lets somebody send beside a request: entries twice, far too much of them, methods and services that are not there."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from colonies.errors import from_rpc_error
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.signing import KEY_HEADER, NONCE_HEADER, SIGNATURE_HEADER, TIME_HEADER
from servicekit.policy import Policy
from tests.harness.calls import first, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.servers import ALL_SERVICES
from tests.rpc.methods import all_methods
from tests.rpc.scheduler_colony import SERVICES, Acme, spec

from .places import ACME
from .requests import filled
from .tables import contents
from .wire import Wire, signed

pytestmark = pytest.mark.asyncio

SUBMIT = "/colonies.scheduler.v1.SchedulerService/SubmitProcesses"
ENTRIES = (KEY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER)
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


def submitting(acme: Acme, key: Any = None) -> Wire:
    request = pb.SubmitProcessesRequest(colony_name=COLONY, request_id="request-1", specs=[spec()])
    return signed(acme.cluster, key or acme.keys.user, SUBMIT, request)


@pytest.mark.parametrize("name", ENTRIES)
async def test_an_entry_that_is_there_twice(acme: Acme, database_url: str, name: str) -> None:
    """Which of the two would count is for nobody to choose: neither for who signed nor for somebody on the way."""
    before = contents(database_url)
    other = dict(submitting(acme, acme.keys.owner).headers)[name]
    for value in (other, "", "x", dict(submitting(acme).headers)[name]):
        for at_end in (False, True):
            call = submitting(acme)
            extra = ((name, value),)
            twice = call.altered(headers=(*call.headers, *extra) if at_end else (*extra, *call.headers))
            error = await refusal(twice.send(acme.cluster))
            assert (error.code, error.reason) == (UNAUTHENTICATED, "SIGNATURE_MALFORMED")
    same = submitting(acme)
    error = await refusal(same.altered(headers=(*same.headers, (name, dict(same.headers)[name]))).send(acme.cluster))
    assert (error.code, error.reason) == (UNAUTHENTICATED, "SIGNATURE_MALFORMED")
    assert contents(database_url) == before


async def test_other_entries_may_be_there_twice(acme: Acme) -> None:
    call = submitting(acme)
    await call.altered(headers=(*call.headers, ("x-anything", "1"), ("x-anything", "2"))).send(acme.cluster)


async def test_signatures_that_are_said_to_be_binary_are_none(acme: Acme, database_url: str) -> None:
    before = contents(database_url)
    call = submitting(acme)
    binary: Any = tuple((f"{name}-bin", value.encode()) for name, value in call.headers)
    error = await refusal(call.altered(headers=binary).send(acme.cluster))
    assert (error.code, error.reason) == (UNAUTHENTICATED, "SIGNATURE_MALFORMED")
    assert contents(database_url) == before


@pytest.mark.parametrize("name", [*ENTRIES, "x-request-id", "x-anything"])
async def test_far_too_long_entries_end_that_call_and_nothing_else(acme: Acme, database_url: str, name: str) -> None:
    before = contents(database_url)
    # gRPC lets 8 KiB of all metadata together pass.
    for length in (7_000, 1_000_000) if name in ENTRIES else (1_000_000,):
        call = submitting(acme)
        headers = tuple((key, value) for key, value in call.headers if key != name)
        error = await refusal(call.altered(headers=(*headers, (name, "a" * length))).send(acme.cluster))
        assert error.code in {UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}, (length, str(error))
        assert contents(database_url) == before
    await submitting(acme).send(acme.cluster)


async def test_a_request_id_that_is_none_is_not_taken_up(acme: Acme) -> None:
    """It goes into lines of the log: nothing but plain characters, and not many."""
    for request_id in ("a" * 65, 'x","level":"error', "two words", "\x7e", ""):
        call = signed(
            acme.cluster, acme.keys.user, "/colonies.scheduler.v1.SchedulerService/GetProcess", pb.GetProcessRequest()
        )
        error = await refusal(call.altered(headers=(*call.headers, ("x-request-id", request_id))).send(acme.cluster))
        assert request_id == "" or request_id not in str(error)


async def test_methods_and_services_that_are_not_there(cluster: Cluster) -> None:
    scheduler = "/colonies.scheduler.v1.SchedulerService"
    for service in ALL_SERVICES:
        for path in (
            f"{scheduler}/Nothing", f"{scheduler}/", f"{scheduler}/submitprocesses", f"{scheduler}/SubmitProcesses/",
            "/colonies.nothing.v1.NothingService/Get", "/Nothing/Get", "/grpc.health.v1.Health/Nothing", "/a/b/c", "/x",
        ):  # fmt: skip
            for call in (signed(cluster, cluster.keys.owner, path, b""), Wire(path, (), b"")):
                error = await refusal(call.send(cluster, service=service))
                assert error.code is grpc.StatusCode.UNIMPLEMENTED, (service, path)


async def test_a_method_asked_of_a_service_that_does_not_have_it(cluster: Cluster) -> None:
    for method in all_methods():
        for service in ALL_SERVICES:
            if service != method.service and not method.descriptor.server_streaming:
                call = signed(cluster, cluster.keys.owner, method.path, filled(method, ACME.values()))
                assert (await refusal(call.send(cluster, service=service))).code is grpc.StatusCode.UNIMPLEMENTED


async def test_unsigned_calls_get_health_and_reflection_and_nothing_else(cluster: Cluster, database_url: str) -> None:
    assert Policy.load().public_services == {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    before = contents(database_url)
    for service in ALL_SERVICES:
        health: Any = HealthStub(cluster.channel(service))
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = ServerReflectionStub(cluster.channel(service))  # type: ignore[arg-type]
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = [
            one.name
            async for answer in reflection.ServerReflectionInfo(iter([ask]))
            for one in answer.list_services_response.service
        ]
        # What may be called unsigned, and the service's own names.
        assert len(listed) == 2 + len({method.path.split("/")[1] for method in all_methods() if method.service == service})
    for method in all_methods():
        call = method.call(cluster.channel(method.service), filled(method, ACME.values()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (first(call) if method.descriptor.server_streaming else call)
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == (UNAUTHENTICATED, "SIGNATURE_MISSING"), method.path
    assert contents(database_url) == before
