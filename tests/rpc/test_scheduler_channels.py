"""Channels as the two parties call them: order, streams over two replicas, roles, fencing, bad input."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import channel_pb2 as pb
from colonies.scheduler.v1 import scheduler_service_pb2 as service
from colonies.scheduler.v1.spec_pb2 import Value
from servicekit import cursors
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

from .scheduler_colony import SERVICES, Acme, spec, value

pytestmark = pytest.mark.asyncio

OTHER = "umbrella"
NOWHERE = "123e4567-e89b-12d3-a456-426614174000"
DATA, END, ERROR = pb.MESSAGE_KIND_DATA, pb.MESSAGE_KIND_END, pb.MESSAGE_KIND_ERROR
SUBMITTER, EXECUTOR = pb.CHANNEL_SIDE_SUBMITTER, pb.CHANNEL_SIDE_EXECUTOR
MIB = 1024 * 1024


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


def news(*texts: str, last: Any = None) -> list[pb.NewMessage]:
    found = [pb.NewMessage(kind=DATA, value=value(text)) for text in texts]
    return [*found, pb.NewMessage(kind=last)] if last is not None else found


def appending(stub: Any, process_id: str, first: int, messages: Sequence[Any], **fields: Any) -> Any:
    request = pb.AppendMessagesRequest(
        **{
            "colony_name": COLONY,
            "process_id": process_id,
            "channel": "chat",
            "first_number": first,
            "messages": messages,
            **fields,
        }
    )
    return stub.AppendMessages(request)


def following(stub: Any, process_id: str, cursor: str = "", **fields: Any) -> Any:
    request = {"colony_name": COLONY, "process_id": process_id, "channel": "chat", "cursor": cursor, **fields}
    return stub.FollowChannel(pb.FollowChannelRequest(**request))


def listing(stub: Any, process_id: str, **fields: Any) -> Any:
    request = {"colony_name": COLONY, "process_id": process_id, "channel": "chat", **fields}
    return stub.ListMessages(pb.ListMessagesRequest(**request))


async def some(stream: Any, count: int) -> list[Any]:
    """The next messages; streams are read to no more than the page that completes them."""
    found: list[Any] = []
    while len(found) < count:
        found += (await anext(stream)).messages
    return found


async def rest(stream: Any) -> list[Any]:
    return [message async for response in stream for message in response.messages]


def texts(messages: Sequence[Any]) -> list[str]:
    return [message.value.data.decode() for message in messages]


async def test_a_conversation_to_its_end(acme: Acme) -> None:
    (one,) = await acme.submit(spec(channels=["chat"]))
    await appending(acme.user, one, 1, news("early"))
    running = await acme.one()
    ours, theirs = aiter(following(acme.user, one)), aiter(following(acme.worker, one))
    for stream in (ours, theirs):
        assert texts(await some(stream, 1)) == ["early"]
    await appending(acme.worker, one, 1, news("a", "b"), attempt=running.attempt)
    await appending(acme.user, one, 2, news("c", last=END))
    for stream in (ours, theirs):
        assert texts(await some(stream, 4)) == ["a", "b", "c", ""]
    await appending(acme.worker, one, 3, [pb.NewMessage(kind=ERROR, value=value('"why"'))], attempt=1)
    # Both sides have ended: the streams end, though the process runs.
    assert texts(await rest(ours)) == texts(await rest(theirs)) == ['"why"']
    whole = (await listing(acme.by(acme.keys.owner), one)).messages
    assert [(m.number, m.side, m.sender_name, m.attempt, m.kind) for m in whole] == [
        (1, SUBMITTER, "alice", 0, DATA),
        (2, EXECUTOR, "worker-1", 1, DATA),
        (3, EXECUTOR, "worker-1", 1, DATA),
        (4, SUBMITTER, "alice", 0, DATA),
        (5, SUBMITTER, "alice", 0, END),
        (6, EXECUTOR, "worker-1", 1, ERROR),
    ]
    assert all(message.HasField("time") for message in whole)
    await acme.close(running)
    for index, message in enumerate(whole):
        assert await rest(following(acme.user, one, message.cursor)) == list(whole[index + 1 :])


async def test_a_follower_that_waits_learns_of_the_process_end(acme: Acme) -> None:
    (one,) = await acme.submit(spec(channels=["chat"]))
    running = await acme.one()
    stream = aiter(following(acme.user, one))
    await appending(acme.worker, one, 1, news("only"), attempt=1)
    await some(stream, 1)
    await acme.close(running)
    async with asyncio.timeout(4):  # well before it would look again by itself
        assert await rest(stream) == []


async def test_pages(acme: Acme) -> None:
    (one,) = await acme.submit(spec(channels=["chat"]))
    await appending(acme.user, one, 1, news(*(str(number) for number in range(7))))
    found, cursor = [], ""
    while True:
        response = await listing(acme.user, one, page_size=3, cursor=cursor)
        found.append(texts(response.messages))
        if not (cursor := response.next_cursor):
            break
    assert found == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


async def test_large_messages_come_in_pages_that_fit(acme: Acme) -> None:
    (one,) = await acme.submit(spec(channels=["chat"]))
    large = [pb.NewMessage(value=Value(media_type="application/octet-stream", data=bytes([n]) * MIB)) for n in range(4)]
    for call in range(2):
        await appending(acme.user, one, 4 * call + 1, large)
    call = following(acme.user, one)
    received = await some(aiter(call), 8)
    call.cancel()
    assert [message.value.data[0] for message in received] == [0, 1, 2, 3] * 2
    assert {len(message.value.data) for message in received} == {MIB}
    response = await listing(acme.user, one, page_size=1_000)
    assert 1 <= len(response.messages) <= 4
    assert response.next_cursor


async def test_two_replicas_and_the_death_of_one(acme: Acme) -> None:
    """Appended through one and followed through the other; when the follower's dies, the next takes up at the cursor."""
    cluster = acme.cluster
    await cluster.start("scheduler")
    here, there = acme, Acme(cluster, replica=1)
    (one,) = await here.submit(spec(channels=["chat"]))
    running = await here.one()
    stream = aiter(following(there.user, one))
    seen: list[Any] = []
    for number in range(1, 21):
        await appending(here.worker if number % 2 else here.user, one, (number + 1) // 2, news(f"{number}"), attempt=number % 2)
        async with asyncio.timeout(4):
            seen += await some(stream, 1)
    assert texts(seen) == [str(number) for number in range(1, 21)]

    await cluster.stop_replica(cluster.replicas["scheduler"][1])
    with pytest.raises(grpc.aio.AioRpcError):
        await rest(stream)
    await appending(here.worker, one, 11, news("meanwhile"), attempt=1)
    await cluster.start("scheduler")
    again = aiter(following(Acme(cluster, replica=1).user, one, seen[-1].cursor))
    assert texts(await some(again, 1)) == ["meanwhile"]

    # The replica that took every append dies too: all of it is in Postgres.
    await cluster.stop_replica(cluster.replicas["scheduler"][0])
    left = Acme(cluster)
    await appending(left.worker, one, 11, news("meanwhile", "later", last=END), attempt=1)
    assert texts(await some(again, 2)) == ["later", ""]
    await left.close(running)
    assert await rest(again) == []
    numbers = [message.number for message in (await listing(left.user, one)).messages]
    assert numbers == list(range(1, 24))


async def test_who_may_and_who_may_not(acme: Acme) -> None:
    (one,) = await acme.submit(spec(channels=["chat"]))
    await acme.one()
    owner = acme.by(acme.keys.owner)
    await acme.cluster.add_user(COLONY, acme.keys.owner, "carol", key_of("carol"))
    carol = acme.by(key_of("carol"))
    for call in (
        appending(carol, one, 1, news("x")),
        appending(owner, one, 1, news("x")),
        appending(acme.worker, one, 1, news("x")),
        appending(acme.worker_2, one, 1, news("x"), attempt=1),
        listing(carol, one),
        listing(acme.worker_2, one),
        anext(aiter(following(carol, one))),
        anext(aiter(following(acme.worker_2, one))),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_PARTY")
    assert not (await listing(owner, one)).messages
    # Who was an executor of it may go on reading.
    await appending(acme.worker, one, 1, news("x"), attempt=1)
    await acme.user.CancelProcess(service.CancelProcessRequest(colony_name=COLONY, process_id=one))
    assert texts((await listing(acme.worker, one)).messages) == texts(await rest(following(owner, one))) == ["x"]
    error = await refusal(appending(acme.user, one, 1, news("late")))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CHANNEL_ENDED")


async def test_a_superseded_attempt_says_nothing_more(acme: Acme) -> None:
    (one,) = await acme.submit(spec(channels=["chat"], max_retries=1))
    first = await acme.one()
    await appending(acme.worker, one, 1, news("first"), attempt=1)
    await acme.close(first, errors=["again"], retryable=True)
    second = await acme.one(acme.worker_2)
    for attempt in (1, 2):
        error = await refusal(appending(acme.worker, one, 2, news("late"), attempt=attempt))
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ATTEMPT_SUPERSEDED")
        assert error.metadata == {"process_id": one}
    await appending(acme.worker_2, one, 1, news("second"), attempt=2)
    await acme.close(second, stub=acme.worker_2)
    messages = (await listing(acme.user, one)).messages
    assert [(m.attempt, m.value.data, m.sender_name) for m in messages] == [
        (1, b"first", "worker-1"),
        (2, b"second", "worker-2"),
    ]


async def test_another_colony_finds_nothing(acme: Acme) -> None:
    owner, rival = key_of("owner of umbrella"), key_of("rival")
    await acme.cluster.add_colony(OTHER, owner)
    await acme.cluster.add_executor(OTHER, owner, "worker-1", rival)
    (one,) = await acme.submit(spec(channels=["chat"]))
    await acme.one()
    await appending(acme.user, one, 1, news("secret"))
    named = {"colony_name": OTHER}
    for call in (
        appending(acme.by(owner), one, 1, news("x"), **named),
        appending(acme.by(rival), one, 1, news("x"), attempt=1, **named),
        listing(acme.by(owner), one, **named),
        anext(aiter(following(acme.by(owner), one, **named))),
    ):
        assert (await refusal(call)).code is grpc.StatusCode.NOT_FOUND
    for call in (listing(acme.by(owner), one), appending(acme.by(rival), one, 1, news("x"), attempt=1)):
        assert (await refusal(call)).reason == "NOT_A_MEMBER"
    assert len((await listing(acme.user, one)).messages) == 1


async def test_what_is_not_there(acme: Acme) -> None:
    (one,) = await acme.submit(spec(channels=["chat"]))
    for process_id, channel, reason in ((one, "ghost", "CHANNEL_NOT_FOUND"), (NOWHERE, "chat", "PROCESS_NOT_FOUND")):
        for call in (
            appending(acme.user, process_id, 1, news("x"), channel=channel),
            listing(acme.user, process_id, channel=channel),
            anext(aiter(following(acme.user, process_id, channel=channel))),
        ):
            error = await refusal(call)
            assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, reason)


BAD_APPENDS: list[tuple[dict[str, Any], str]] = [
    ({"process_id": "x"}, "process_id"),
    ({"channel": ""}, "channel"),
    ({"channel": "a\0"}, "channel"),
    ({"attempt": -1}, "attempt"),
    ({"first_number": 0}, "first_number"),
    ({"first_number": 2**53 + 1}, "first_number"),
    ({"first_number": 3}, "first_number"),
    ({"messages": []}, "messages"),
    ({"messages": news(*["x"] * 1_001)}, "messages"),
    ({"messages": [pb.NewMessage(value=Value(data=b"x" * MIB))] * 5}, "messages"),
    ({"messages": [pb.NewMessage(value=Value(data=b"x" * (MIB + 1)))]}, "messages[0].value.data"),
    ({"messages": [pb.NewMessage(value=Value(media_type="a\n"))]}, "messages[0].value.media_type"),
    ({"messages": [pb.NewMessage(kind=4)]}, "messages[0].kind"),  # type: ignore[arg-type]
    ({"messages": [*news("a", last=END), *news("b")]}, "messages[2]"),
]


async def test_bad_input_is_refused_by_field_and_leaves_nothing(acme: Acme) -> None:
    (one,) = await acme.submit(spec(channels=["chat"]))
    for fields, field in BAD_APPENDS:
        error = await refusal(appending(acme.user, **{"process_id": one, "first": 1, "messages": news("x"), **fields}))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, field
        assert [violation.field for violation in error.violations] == [field]
    for cursor in ("x", "bm8", cursors.encode((1, 2)), cursors.encode(("a",))):
        for call in (listing(acme.user, one, cursor=cursor), anext(aiter(following(acme.user, one, cursor)))):
            assert [violation.field for violation in (await refusal(call)).violations] == ["cursor"]
    assert [v.field for v in (await refusal(listing(acme.user, one, page_size=1_001))).violations] == ["page_size"]
    assert not (await listing(acme.user, one)).messages
    # Of the right form, and of no sense: all that is there, or nothing.
    await appending(acme.user, one, 1, news("x"))
    for number, count in ((-(2**63) + 1, 1), (-1, 1), (0, 1), (1, 0), (2**63 - 1, 0)):
        assert len((await listing(acme.user, one, cursor=cursors.encode((number,)))).messages) == count
