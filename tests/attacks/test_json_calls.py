"""What was signed in one form of a message is nothing in the other, and no two readers of one text find two things in it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.json_calls import SUFFIX, body_of
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of
from tests.rpc.callers import OTHER_COLONY, settle
from tests.rpc.scheduler_colony import SERVICES, Acme, spec

from .tables import contents
from .wire import Wire, signed

pytestmark = pytest.mark.asyncio

SUBMIT = "/colonies.scheduler.v1.SchedulerService/SubmitProcesses"
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_INVALID")
REPLAYED = (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_REPLAYED")


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


def request(**fields: Any) -> pb.SubmitProcessesRequest:
    return pb.SubmitProcessesRequest(**{"colony_name": COLONY, "request_id": "r", "specs": [spec()], **fields})


def both(acme: Acme, key: PrivateKey | None = None) -> tuple[Wire, Wire]:
    """One request, signed in each form."""
    signer, asked = key or acme.keys.user, request()
    return signed(acme.cluster, signer, SUBMIT, asked), signed(acme.cluster, signer, SUBMIT + SUFFIX, body_of(asked))


async def test_a_signature_for_one_form_is_none_for_the_other(acme: Acme, database_url: str) -> None:
    before = contents(database_url)
    protobuf, in_json = both(acme)
    swapped = [
        protobuf.altered(path=in_json.path),
        in_json.altered(path=protobuf.path),
        protobuf.altered(body=in_json.body),
        in_json.altered(body=protobuf.body),
        # The request as its caller meant it, in the other form: only the bytes that were signed are.
        protobuf.altered(path=in_json.path, body=in_json.body),
        in_json.altered(path=protobuf.path, body=protobuf.body),
        in_json.altered(body=json.dumps(json.loads(in_json.body)).encode()),
        in_json.altered(body=in_json.body + b"\n"),
        in_json.altered(body=in_json.body.replace(b"colonyName", b"colony_name", 1)),
    ]
    for call in swapped:
        assert call != protobuf
        assert call != in_json
        error = await refusal(call.send(acme.cluster))
        assert (error.code, error.reason) == REFUSED
    assert contents(database_url) == before
    # Each was refused for what was changed.
    for call in (protobuf, in_json):
        await call.send(acme.cluster)


async def test_a_nonce_is_good_once_in_whichever_form(acme: Acme, database_url: str) -> None:
    """Also if its holder signs it twice: it is claimed for its key, and not for a method."""
    await acme.cluster.start("scheduler")
    _, in_json = both(acme)
    await in_json.send(acme.cluster)
    before = contents(database_url)
    for replica in (0, 1):
        error = await refusal(in_json.send(acme.cluster, replica=replica))
        assert (error.code, error.reason) == REPLAYED
    assert contents(database_url) == before


async def test_a_member_of_one_colony_gets_into_no_other_by_the_way_it_is_written(acme: Acme, database_url: str) -> None:
    """Each of these names the caller's own colony to some readers, and the other to some."""
    await settle(acme.cluster)
    before = contents(database_url)
    mine, theirs = f'"colonyName":"{OTHER_COLONY}"', f'"colonyName":"{COLONY}"'
    snake = f'"colony_name":"{COLONY}"'
    rest = '"requestId":"r","specs":[{"funcName":"f","conditions":{"executorType":"cli"}}]'
    null = '"colonyName":null'
    bodies = [
        f"{{{first},{second},{rest}}}"
        for first, second in (
            (mine, theirs), (theirs, mine), (mine, snake), (snake, mine), (null, snake), (snake, null),
            (mine, theirs.replace("N", "\\u004e")), (theirs.replace("colony", "\\u0063olony"), mine),
            (mine, '"":{"":0},' + theirs),
        )
    ]  # fmt: skip
    bodies += [
        f"{{{mine},{rest}}}{{{theirs},{rest}}}",
        f"{{{theirs},{rest}}}\n{{{mine},{rest}}}",
        f"{{{mine},{rest}}}//{{{theirs}}}",
        f"[{{{mine},{rest}}},{{{theirs},{rest}}}]",
        f'{{"colonyName":["{OTHER_COLONY}","{COLONY}"],{rest}}}',
        f"\ufeff{{{mine},{theirs},{rest}}}",
        f"{{{mine},\0{theirs},{rest}}}",
        f"{{{theirs},{rest}}}",
        f"{{{null},{rest}}}",
        f"{{{rest}}}",
    ]
    for body in bodies:
        error = await refusal(signed(acme.cluster, key_of("bob"), SUBMIT + SUFFIX, body.encode()).send(acme.cluster))
        assert error.code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}, body
    assert contents(database_url) == before
    good = signed(acme.cluster, key_of("bob"), SUBMIT + SUFFIX, f"{{{mine},{rest}}}".encode())
    await good.send(acme.cluster)
    colonies = {json.loads(row)["colony"] for row in contents(database_url)["scheduler.process"]}
    assert colonies == {OTHER_COLONY}


async def test_whom_a_service_acts_for_is_read_once(acme: Acme, database_url: str) -> None:
    before = contents(database_url)
    alice, owner = acme.keys.user.identity, acme.keys.owner.identity
    rest = f'"colonyName":"{COLONY}","submissions":[{{"requestId":"r","workflow":{{"nodes":[]}}}}]'
    path = "/colonies.scheduler.v1.SchedulerService/SubmitWorkflows" + SUFFIX
    for twice in (
        f'"onBehalfOf":"{alice}","onBehalfOf":"{owner}"',
        f'"onBehalfOf":"{alice}","on_behalf_of":"{owner}"',
        f'"on_behalf_of":"{owner}","onBehalfOf":null',
    ):
        call = signed(acme.cluster, acme.keys.service("cron"), path, f"{{{rest},{twice}}}".encode())
        error = await refusal(call.send(acme.cluster))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert contents(database_url) == before
