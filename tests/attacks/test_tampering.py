"""Signed calls that somebody on the way cuts, mixes, sends elsewhere, keeps or repeats (single bytes: test_flips.py)."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.signing import KEY_HEADER, NONCE_HEADER, SIGNATURE_HEADER, TIME_HEADER
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster
from tests.rpc.scheduler_colony import SERVICES, Acme, ref_of, spec, value

from .tables import contents
from .wire import Wire, answer, signed, together

pytestmark = pytest.mark.asyncio

SCHEDULER = "/colonies.scheduler.v1.SchedulerService"


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


def submitting(acme: Acme, *specs: Any) -> Wire:
    request = pb.SubmitProcessesRequest(colony_name=COLONY, request_id="request-1", specs=specs or [spec()])
    return signed(acme.cluster, acme.keys.user, f"{SCHEDULER}/SubmitProcesses", request)


async def closing(acme: Acme) -> Wire:
    """The close of a running attempt, with an output."""
    await acme.submit(spec())
    assignment = await acme.one()
    close = pb.Close(attempt=ref_of(assignment), success=pb.Close.Success(outputs=[value("42")]))
    request = pb.CloseProcessesRequest(colony_name=COLONY, closes=[close])
    return signed(acme.cluster, acme.keys.executor, f"{SCHEDULER}/CloseProcesses", request)


def cut_bodies(call: Wire) -> Iterator[Wire]:
    """The call with its body ended early at each byte, and with a byte too many."""
    for end in range(len(call.body)):
        yield call.altered(body=call.body[:end])
    yield call.altered(body=call.body + b"\0")


async def all_refused(acme: Acme, calls: Iterator[Wire], database_url: str) -> int:
    """Sends them all; each must be refused as badly signed, and together they must change nothing. How many there were."""
    before = contents(database_url)
    sent = list(calls)
    errors = await together([lambda call=call: answer(call.send(acme.cluster)) for call in sent])  # type: ignore[misc]
    let_in = [
        (call, error) for call, error in zip(sent, errors, strict=True)
        if error is None or error.code is not grpc.StatusCode.UNAUTHENTICATED or error.reason == "SIGNATURE_REPLAYED"
    ]  # fmt: skip
    assert let_in == []
    assert contents(database_url) == before
    return len(sent)


@pytest.mark.parametrize("kind", ["submit", "close"])
async def test_a_body_that_is_cut_is_refused_and_the_call_itself_is_still_good(
    acme: Acme, database_url: str, kind: str
) -> None:
    call = submitting(acme) if kind == "submit" else await closing(acme)
    assert await all_refused(acme, cut_bodies(call), database_url) == len(call.body) + 1
    # So each was refused for its cut, and none of them has used up the nonce.
    before = contents(database_url)
    await call.send(acme.cluster)
    assert contents(database_url) != before


async def test_what_is_signed_for_one_method_is_no_call_of_another(acme: Acme, database_url: str) -> None:
    """The requests of these have the same fields: the bodies would do for any of them."""
    (process_id,) = await acme.submit(spec())
    before = contents(database_url)
    methods = ("GetProcess", "GetProcessHistory", "ListAttributes", "ExplainProcess", "CancelProcess", "RemoveProcess")
    request = pb.GetProcessRequest(colony_name=COLONY, process_id=process_id)
    for method in methods:
        for other in set(methods) - {method}:
            call = signed(acme.cluster, acme.keys.user, f"{SCHEDULER}/{method}", request)
            error = await refusal(call.altered(path=f"{SCHEDULER}/{other}").send(acme.cluster))
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_INVALID")
    assert contents(database_url) == before


async def test_what_is_signed_for_one_service_or_cluster_is_no_call_of_another(acme: Acme, database_url: str) -> None:
    before = contents(database_url)
    request = pb.SubmitProcessesRequest(colony_name=COLONY, request_id="request-1", specs=[spec()])
    for audience in ("another-cluster", "", "test-cluster ", "TEST-CLUSTER"):
        call = signed(acme.cluster, acme.keys.user, f"{SCHEDULER}/SubmitProcesses", request, audience=audience)
        error = await refusal(call.send(acme.cluster))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_INVALID")
    listing = signed(acme.cluster, acme.keys.user, "/colonies.registry.v1.RegistryService/ListLocations", request)
    error = await refusal(listing.altered(path="/colonies.auth.v1.AuthService/ListUsers").send(acme.cluster))
    assert error.reason == "SIGNATURE_INVALID"
    assert contents(database_url) == before


async def test_a_replay_to_the_same_and_to_another_replica(acme: Acme, database_url: str) -> None:
    await acme.cluster.start("scheduler")
    for call in (submitting(acme), await closing(acme)):
        await call.send(acme.cluster)
        before = contents(database_url)
        for replica in (0, 1, 0, 1):
            error = await refusal(call.send(acme.cluster, replica=replica))
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_REPLAYED")
        assert contents(database_url) == before


async def test_parts_of_two_calls_make_no_third(acme: Acme, database_url: str) -> None:
    """Time, nonce, signature and body of two good calls of one caller, in every mixture but the two themselves."""
    calls = [submitting(acme, spec(func_name=name)) for name in ("one", "two")]
    mixtures = []
    for mask in range(1, 15):
        chosen = [calls[mask >> bit & 1] for bit in range(4)]
        entries = {
            name: dict(chosen[index].headers)[name] for index, name in enumerate((TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER))
        }
        entries[KEY_HEADER] = dict(calls[0].headers)[KEY_HEADER]
        mixtures.append(Wire(calls[0].path, tuple(entries.items()), chosen[3].body))
    same_time = dict(calls[0].headers)[TIME_HEADER] == dict(calls[1].headers)[TIME_HEADER]
    themselves = {(call.body, dict(call.headers)[NONCE_HEADER], dict(call.headers)[SIGNATURE_HEADER]) for call in calls}
    if same_time:
        # Signed in one millisecond: swapping their times changes nothing.
        mixtures = [
            one
            for one in mixtures
            if (one.body, dict(one.headers)[NONCE_HEADER], dict(one.headers)[SIGNATURE_HEADER]) not in themselves
        ]
    assert await all_refused(acme, iter(mixtures), database_url) >= 12


async def test_a_batch_that_is_put_in_another_order_is_no_batch(acme: Acme, database_url: str) -> None:
    await acme.submit(spec(), spec())
    assignments = await acme.assign(at_most=2, wait_ms=10_000)
    closes = [
        pb.Close(attempt=ref_of(one), success=pb.Close.Success(outputs=[value(str(index))]))
        for index, one in enumerate(assignments)
    ]
    assert len(closes) == 2
    specs = [spec(func_name=name) for name in ("one", "two")]
    key = acme.keys
    for method, signer, request, field in (
        ("CloseProcesses", key.executor, pb.CloseProcessesRequest(colony_name=COLONY, closes=closes), "closes"),
        ("SubmitProcesses", key.user, pb.SubmitProcessesRequest(colony_name=COLONY, request_id="r", specs=specs), "specs"),
    ):
        call = signed(acme.cluster, signer, f"{SCHEDULER}/{method}", request)
        reversed_request: Any = type(request).FromString(call.body)
        parts = list(reversed(getattr(reversed_request, field)))
        del getattr(reversed_request, field)[:]
        getattr(reversed_request, field).extend(parts)
        body = reversed_request.SerializeToString()
        assert (len(body), body == call.body) == (len(call.body), False)
        assert await all_refused(acme, iter([call.altered(body=body)]), database_url) == 1
        await call.send(acme.cluster)
