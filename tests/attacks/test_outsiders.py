"""Whoever is nothing in a colony, or nothing any more: one answer for all, whatever there is, and the same work for it."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.message import Message

from colonies.errors import from_rpc_error
from colonies.keys import PrivateKey
from colonies.signing import SigningChannel
from servicekit import logs
from servicekit.directory import Directory
from servicekit.envelope import RequestType
from servicekit.members import RemoteMembers
from servicekit.redis import Commands
from tests.harness.calls import first
from tests.harness.cluster import Cluster
from tests.harness.keys import key_of
from tests.rpc.callers import KINDS, settle
from tests.rpc.methods import Method, all_methods

from .places import ACME, NOWHERE, Place, furnish
from .requests import filled
from .tables import contents

pytestmark = pytest.mark.asyncio

OUTSIDERS = (
    "user of another colony", "owner of another colony", "pending executor", "rejected executor", "removed executor", "removed user",
)  # fmt: skip
REGISTER = "/colonies.registry.v1.RegistryService/RegisterExecutor"


def requests_in(place: Place) -> Iterator[tuple[Method, Message]]:
    """A request of every method that everybody may send, or nobody but members: with this place's names."""
    for method in all_methods():
        # Whoever was turned down once hears that of this one; for those who never were, it has a test of its own.
        if method.path != REGISTER:
            yield method, filled(method, place.values())


async def whole_answer(cluster: Cluster, key: PrivateKey, method: Method, request: Message) -> tuple[Any, ...]:
    """Everything that a caller can see of an answer."""
    channel = SigningChannel(cluster.channel(method.service), cluster.signer(key))
    call = method.call(channel, request)
    try:
        response = await (first(call) if method.descriptor.server_streaming else call)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details(), tuple(error.initial_metadata()), tuple(error.trailing_metadata())
    return grpc.StatusCode.OK, str(response)


async def test_all_outsiders_get_the_answer_that_a_stranger_gets_for_a_colony_that_is_not(
    cluster: Cluster, database_url: str
) -> None:
    await settle(cluster)
    acme = await furnish(cluster, ACME)
    before = contents(database_url)
    nothing = [await whole_answer(cluster, cluster.keys.stranger, *one) for one in requests_in(NOWHERE)]
    differing = []
    for kind in KINDS:
        if kind.name not in (*OUTSIDERS, "stranger"):
            continue
        assert kind.key is not None
        for (method, request), expected in zip(requests_in(acme), nothing, strict=True):
            answer = await whole_answer(cluster, kind.key(cluster.keys), method, request)
            if answer != expected:
                differing.append((kind.name, method.path, answer, expected))
    assert differing == []
    refused = [answer for answer in nothing if answer[0] is grpc.StatusCode.PERMISSION_DENIED]
    # All but GetServerInfo, which everybody may call.
    assert len(refused) == len(nothing) - 1
    assert contents(database_url) == before


async def test_the_shape_of_a_request_is_nothing_that_a_stranger_can_probe(cluster: Cluster) -> None:
    """Empty and ill-formed requests, too: who is no member does not get as far as a check of the rest."""
    await furnish(cluster, ACME)
    for method in all_methods():
        if not method.in_colony:
            continue
        answers = set()
        for place in (ACME, NOWHERE):
            for values in (
                {"colony_name": place.colony},
                {**place.values(), "process_id": "no uuid", "name": "\0", "attempt": -1},
            ):
                answers.add(await whole_answer(cluster, cluster.keys.stranger, method, filled(method, values)))
        assert len(answers) == 1, method.path


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is done for calls, of all services in this process: look-ups, statements, commands to Redis."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str, what: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            # What services do by themselves goes on meanwhile: it has no call in hand.
            if logs.call_in_hand.get(None) is not None:
                counted[what(*args)] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(Directory, "get", lambda *_: "look-up in the directory")
    count(RemoteMembers, "fetch", lambda *_: "question to auth")
    count(psycopg.AsyncCursor, "execute", lambda _cursor, query, *_: f"statement {query!r}")
    count(Commands, "execute", lambda _commands, name, *_: f"command {name}")
    return counted


async def test_what_is_done_for_a_stranger_does_not_depend_on_what_there_is(cluster: Cluster, work: Counter[str]) -> None:
    """No clock is asked, for its noise would hide a difference: the same look-ups and statements are made, call by call."""
    acme = await furnish(cluster, ACME)
    differing = []
    asked = 0
    for number, method in enumerate(all_methods()):
        if not method.in_colony and method.path != REGISTER:
            continue
        done = []
        for place in (acme, NOWHERE):
            # The first call of each key, for which nothing is known yet, and its second, for which what was found is.
            key = key_of(f"stranger {number} of {place.colony}")
            for _ in range(1 if method.path == REGISTER else 2):
                work.clear()
                answer = await whole_answer(cluster, key, method, filled(method, place.values()))
                done.append((answer[0], dict(work)))
        asked += sum(bool(counts) for _, counts in done)
        half = len(done) // 2
        if done[:half] != done[half:]:
            differing.append((method.path, done))
    assert differing == []
    assert asked > 100


async def test_a_stranger_is_refused_before_its_request_is_read(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    original = RequestType.parse

    def parse(request_type: RequestType, body: bytes) -> Message:
        # Services go on asking auth; their requests have no such field.
        assert not request_type.envelope(body).colony, "a stranger's request was parsed"
        return original(request_type, body)

    monkeypatch.setattr(RequestType, "parse", parse)
    for method in all_methods():
        if not method.in_colony:
            continue
        channel = SigningChannel(cluster.channel(method.service), cluster.signer(cluster.keys.stranger))
        call = method.call(channel, filled(method, ACME.values()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (first(call) if method.descriptor.server_streaming else call)
        assert from_rpc_error(caught.value).reason == "NOT_A_MEMBER"
