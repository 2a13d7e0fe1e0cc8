"""Whoever is on the way changes one byte of a signed call: the service that acts on it refuses it, every byte and every time."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.json_calls import SUFFIX
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of
from tests.rpc.rotations import proof
from tests.rpc.scheduler_colony import SERVICES, Acme, ref_of, spec, value

from .flips import Flip, covered, flips, positions
from .tables import contents
from .wire import Wire, answer, signed, together

pytestmark = pytest.mark.asyncio

SCHEDULER = "/colonies.scheduler.v1.SchedulerService/"
REGISTRY = "/colonies.registry.v1.RegistryService/"
AUTH = "/colonies.auth.v1.AuthService/"
# What a flip may end with. Of a path that no service has, gRPC itself says so; no service sees the call.
UNAUTHENTICATED, UNIMPLEMENTED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


async def a_submit(acme: Acme) -> tuple[PrivateKey, str, Message]:
    request = pb.SubmitProcessesRequest(colony_name=COLONY, request_id="request-1", specs=[spec(args=[value("1")])])
    return acme.keys.user, SCHEDULER + "SubmitProcesses", request


async def a_close(acme: Acme) -> tuple[PrivateKey, str, Message]:
    await acme.submit(spec())
    close = pb.Close(attempt=ref_of(await acme.one()), success=pb.Close.Success(outputs=[value("42")]))
    return acme.keys.executor, SCHEDULER + "CloseProcesses", pb.CloseProcessesRequest(colony_name=COLONY, closes=[close])


async def an_approval(acme: Acme) -> tuple[PrivateKey, str, Message]:
    executor = await acme.cluster.register(COLONY, "newcomer", key_of("newcomer"))
    request = registry_pb.ApproveExecutorRequest(colony_name=COLONY, identity=executor.identity)
    return acme.keys.owner, REGISTRY + "ApproveExecutor", request


async def a_rotation(acme: Acme) -> tuple[PrivateKey, str, Message]:
    new_key = proof(acme.cluster, acme.keys.user, key_of("new alice"))
    return acme.keys.user, AUTH + "RotateKey", auth_pb.RotateKeyRequest(colony_name=COLONY, new_key=new_key)


async def a_stream_of_work(acme: Acme) -> tuple[PrivateKey, str, Message]:
    """There is work: who opens it has an attempt."""
    await acme.submit(spec())
    return acme.keys.executor, SCHEDULER + "WatchAssignments", pb.WatchAssignmentsRequest(colony_name=COLONY, max_in_flight=1)


async def outcome(cluster: Cluster, wire: Wire, *, service: str, stream: bool) -> str:
    """What came of a flipped call: nothing, if it was refused as it must be."""
    channel: Any = cluster.channel(service)
    made = (channel.unary_stream if stream else channel.unary_unary)(wire.path, None, None)
    call = made(wire.body, metadata=grpc.aio.Metadata(*wire.headers), timeout=20)
    error = await answer(call.read() if stream else call)
    call.cancel()
    if error is None:
        return "was let in"
    # As badly signed, and not as good but replayed, or of somebody who may not.
    good = error.code is UNAUTHENTICATED and error.reason in {
        "SIGNATURE_INVALID",
        "SIGNATURE_MALFORMED",
        "SIGNATURE_STALE",
        "SIGNATURE_MISSING",
    }
    return "" if good else f"{error.code.name} {error.reason}"


MAKERS = {
    "submit": a_submit,
    "close": a_close,
    "approval": an_approval,
    "rotation": a_rotation,
    "stream": a_stream_of_work,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("in_json", [False, True], ids=["protobuf", "json"])
@pytest.mark.parametrize("name", MAKERS)
async def test_every_byte_of_a_call(
    acme: Acme, database_url: str, name: str, in_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    key, path, request = await MAKERS[name](acme)
    body = MessageToJson(request, indent=None).encode() if in_json else request.SerializeToString()
    call = signed(acme.cluster, key, path + SUFFIX if in_json else path, body)
    stream = name == "stream"
    before = contents(database_url)
    made = list(flips(call))
    assert covered(made) == positions(call)

    async def send(flip: Flip) -> str:
        return await outcome(acme.cluster, flip.wire, service=call.service, stream=stream)

    outcomes = await together([lambda flip=flip: send(flip) for flip in made])  # type: ignore[misc]
    wrong = [f"{flip}: {told}" for flip, told in zip(made, outcomes, strict=True) if told and not _unknown_path(flip, told)]
    assert wrong == []
    assert contents(database_url) == before
    with capsys.disabled():
        form = "JSON" if in_json else "protobuf"
        print(f"\n{path.rpartition('/')[2]} in {form}: {positions(call)} bytes, {len(made)} flips, all refused")
    # So each was refused for its flip, and none of them has used up the nonce.
    if stream:
        opened = call.open(acme.cluster)
        await opened.read()
        opened.cancel()
    else:
        await call.send(acme.cluster)

    async def changed() -> bool:
        return contents(database_url) != before

    await eventually(changed)


def _unknown_path(flip: Flip, told: str) -> bool:
    return flip.part == "path" and told.strip() == UNIMPLEMENTED.name
