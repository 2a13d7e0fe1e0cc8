"""Channels in the SDK: counted sends, iteration over outages, the blocking face, and the functions of executors."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies import AsyncClient, Client, Context, PrivateKey
from colonies.client.channels import data, end, failure
from colonies.errors import ChannelError, ResourceExhaustedError, UnavailableError
from colonies.executor.channels import Said
from colonies.scheduler.v1 import channel_pb2 as pb
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.values import decode

from .fake_server import CLUSTER, COLONY, FakeServer
from .test_executor import Address, errors, outputs, run_one

pytestmark = pytest.mark.asyncio

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DATA, END, ERROR = pb.MESSAGE_KIND_DATA, pb.MESSAGE_KIND_END, pb.MESSAGE_KIND_ERROR


@pytest_asyncio.fixture
async def client(server: FakeServer, key: PrivateKey) -> AsyncIterator[AsyncClient]:
    async with AsyncClient("127.0.0.1", server.port, COLONY, key.hex, CLUSTER) as opened:
        yield opened


def there(server: FakeServer, process_id: str = "p") -> list[tuple[int, int, Any]]:
    """Attempt, kind and value of each message."""
    messages = server.channels[process_id, "chat"]
    return [(one.attempt, one.kind, decode(one.value) if one.value.data else None) for one in messages]


async def hear(server: FakeServer, *messages: pb.NewMessage, process_id: str = "p", attempt: int = 1) -> None:
    """The other side says something."""
    for message in messages:
        server.say(process_id, "chat", message, attempt=attempt)
    await server._note()


async def test_what_is_sent_arrives_once_in_order(server: FakeServer, client: AsyncClient) -> None:
    channel = client.channel("p", "chat")
    server.refuse("AppendMessages", UNAVAILABLE, times=2)
    await channel.send("a", {"n": 1}, b"\x00")
    await asyncio.gather(*(channel.send(number) for number in range(20)))
    await channel.end()
    values = ["a", {"n": 1}, b"\x00", *range(20)]
    assert there(server) == [*((0, DATA, value) for value in values), (0, END, None)]


async def test_a_later_program_counts_what_was_sent_before(server: FakeServer, client: AsyncClient) -> None:
    await client.channel("p", "chat").send("a", "b")
    await hear(server, data("x"))
    again = AsyncClient("127.0.0.1", server.port, COLONY, client.key, CLUSTER)
    async with again:
        await again.channel("p", "chat").send("c")
        await again.channel("p", "chat").fail("enough")
    assert there(server) == [(0, DATA, "a"), (0, DATA, "b"), (1, DATA, "x"), (0, DATA, "c"), (0, ERROR, "enough")]


async def test_two_objects_of_one_client_share_their_count(client: AsyncClient) -> None:
    first = client.channel("p", "chat")
    assert client.channel("p", "chat") is first
    assert client.channel("p", "other") is not first
    assert client.channel("p", "chat", attempt=1) is not first


async def test_a_send_that_nobody_answered_is_counted_anew(server: FakeServer, key: PrivateKey) -> None:
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER, retry_for=0) as client:
        channel = client.channel("p", "chat")
        server.refuse("AppendMessages", UNAVAILABLE)
        with pytest.raises(UnavailableError):
            await channel.send("arrived all the same")
        await channel.send("next")
    assert there(server) == [(0, DATA, "arrived all the same"), (0, DATA, "next")]


async def test_a_send_that_is_cancelled_is_finished_before_the_next(server: FakeServer, client: AsyncClient) -> None:
    channel = client.channel("p", "chat")
    await channel.send(0)
    for number in range(1, 20):
        sending = asyncio.create_task(channel.send(number))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await channel.send("last")
    values = [value for _, _, value in there(server)]
    assert values[-1] == "last"
    assert values[:-1] == sorted(values[:-1])
    assert len(set(values)) == len(values)


async def test_many_and_large_values_go_in_several_calls(server: FakeServer, client: AsyncClient) -> None:
    channel = client.channel("p", "chat")
    await channel.send(*range(2_500))
    assert server.calls["AppendMessages"] == 3
    await channel.send(*(b"x" * (1 << 20) for _ in range(6)))
    assert server.calls["AppendMessages"] == 6
    assert len(there(server)) == 2_506


async def test_iterating_gives_the_other_side_to_its_end_and_goes_on_from_there(
    server: FakeServer, client: AsyncClient
) -> None:
    channel = client.channel("p", "chat")
    await channel.send("mine")
    await hear(server, data(1), data(2), end())
    assert [value async for value in channel] == [1, 2]
    await hear(server, data("next attempt"), data("unheard"), attempt=2)
    async for value in channel:
        assert value == "next attempt"
        break
    await hear(server, failure("broke"), attempt=2)
    heard = []
    with pytest.raises(ChannelError, match="e1 on channel chat: broke") as caught:
        async for value in channel:
            heard.append(value)
    assert (heard, caught.value.text) == (["unheard"], "broke")
    server.channels_over.add("p")
    assert [value async for value in channel] == []


async def test_iterating_rides_out_an_outage(server: FakeServer, client: AsyncClient) -> None:
    channel, heard = client.channel("p", "chat"), []

    async def listen() -> None:
        async for value in channel:
            heard.append(value)
            await server._note()

    listening = asyncio.create_task(listen())
    await hear(server, data(1))
    await server.until(lambda: heard == [1])
    server.refuse("FollowChannel", UNAVAILABLE)
    await server._note()
    await server.until(lambda: server.calls["FollowChannel"] == 2)
    await server.stop()
    server.say("p", "chat", data(2), attempt=1)
    await server.start()
    await hear(server, data(3), end())
    await listening
    assert heard == [1, 2, 3]


async def test_both_sides_as_they_are(server: FakeServer, client: AsyncClient) -> None:
    channel = client.channel("p", "chat")
    await channel.send("a", "b")
    await hear(server, data("c"))
    server.channels_over.add("p")
    for messages in (channel.messages(), channel.follow()):
        assert [(one.attempt, decode(one.value)) async for one in messages] == [(0, "a"), (0, "b"), (1, "c")]
    assert [decode(one.value) async for one in channel.follow("2")] == ["c"]
    assert [one.number async for one in channel.messages(limit=1)] == [1]


async def test_the_blocking_face(server: FakeServer, key: PrivateKey) -> None:
    def talk() -> list[Any]:
        with Client("127.0.0.1", server.port, COLONY, key, CLUSTER) as client:
            with client.channel("p", "chat") as channel:
                channel.send("hello")
                first = next(iter(channel))
                rest = list(channel)
            channel.end()
            return [first, *rest, *(one.number for one in channel.messages())]

    talking = asyncio.create_task(asyncio.to_thread(talk))
    await server.until(lambda: there(server) == [(0, DATA, "hello")])
    await hear(server, data(1), data(2), end())
    assert await talking == [1, 2, 1, 2, 3, 4, 5]


# Executors ---------------------------------------------------------------------------------------------------------------


def echo(ctx: Context) -> int:
    """Sends back twice what it hears."""
    channel, count = ctx.channel("chat"), 0
    for value in channel:
        channel.send(value, value)
        count += 1
    channel.end()
    return count


async def aecho(ctx: Context) -> int:
    """As `echo`."""
    channel, count = ctx.channel("chat"), 0
    async for value in channel:
        channel.send(value, value)
        count += 1
    channel.end()
    return count


@pytest.mark.parametrize("fn", [echo, aecho])
async def test_a_function_hears_and_answers(server: FakeServer, address: Address, fn: Callable[..., Any]) -> None:
    server.refuse("AppendMessages", UNAVAILABLE)
    await hear(server, data(1), data("two"), end(), attempt=0)
    close = await run_one(server, address, fn, process_id="p", channels=["chat"])
    assert outputs(close) == [b"2"]
    mine = [(kind, value) for attempt, kind, value in there(server) if attempt == 1]
    assert mine == [(DATA, 1), (DATA, 1), (DATA, "two"), (DATA, "two"), (END, None)]


async def test_all_that_was_said_is_there_when_the_process_closes(server: FakeServer, address: Address) -> None:
    def chatter(ctx: Context) -> None:
        def aside() -> None:
            for number in range(500):
                ctx.channel("other").send(number)

        other = threading.Thread(target=aside)
        other.start()
        for number in range(3_000):
            ctx.channel("chat").send(number)
            ctx.log(str(number))
        other.join()
        ctx.channel("chat").fail("done for")

    await run_one(server, address, chatter, process_id="p", channels=["chat", "other"])
    assert there(server) == [*((1, DATA, number) for number in range(3_000)), (1, ERROR, "done for")]
    assert [decode(one.value) for one in server.channels["p", "other"]] == list(range(500))


async def test_a_refusal_is_told_by_the_next_send(server: FakeServer, address: Address) -> None:
    def insist(ctx: Context) -> str:
        channel = ctx.channel("chat")
        channel.send("refused")
        try:
            while not ctx.cancelled.wait(0.001):
                channel.send("more")
        except ResourceExhaustedError as error:
            return error.reason
        raise AssertionError

    assert outputs(await run_one(server, address, insist, process_id="p", channels=["chat"])) == [b'"CHANNEL_FULL"']
    assert there(server) == []


async def test_the_other_side_that_fails_fails_the_function(server: FakeServer, address: Address) -> None:
    await hear(server, data(1), failure("no more input"), attempt=0)
    for number, fn in enumerate((echo, aecho)):
        server.channels[f"q{number}", "chat"] = server.channels["p", "chat"][:2]
        close = await run_one(server, address, fn, process_id=f"q{number}", channels=["chat"])
        assert errors(close)[0] == "ChannelError: alice on channel chat: no more input"


async def test_a_thread_that_listens_is_let_go_when_its_attempt_is_dropped(server: FakeServer, address: Address) -> None:
    left = threading.Event()

    def listen(ctx: Context) -> None:
        for _ in ctx.channel("chat"):
            raise AssertionError
        left.set()

    def short(ctx: Context) -> None:
        """Runs after it, in its place: concurrency is 1."""

    from colonies import Executor

    from .test_executor import running

    server.lease_ms = 30
    executor = Executor("e1", **address)
    executor.function(listen)
    executor.function(short)
    async with running(executor):
        await server.give("listen", process_id="p", channels=["chat"])
        await server.until(lambda: server.calls["FollowChannel"] == 1)
        server.drops["p"] = scheduler.DROP_REASON_SUPERSEDED
        process_id = await server.give("short")
        await server.until(server.is_closed(process_id))
    assert left.is_set()


async def test_a_channel_that_the_process_does_not_have(server: FakeServer, address: Address) -> None:
    def ask(ctx: Context) -> None:
        ctx.channel("ghost")

    close = await run_one(server, address, ask, channels=["chat", "other"])
    assert errors(close)[0] == "ValueError: this process has no channel 'ghost'; it has: chat, other"


async def test_blocking_the_executor_itself_is_refused(server: FakeServer, address: Address) -> None:
    async def wrong(ctx: Context) -> None:
        for _ in ctx.channel("chat"):
            pass

    close = await run_one(server, address, wrong, channels=["chat"])
    assert errors(close)[0] == "RuntimeError: this would block the executor: use `async for` in a coroutine"


async def test_a_context_made_by_an_author_has_channels_that_report() -> None:
    said: list[Any] = []
    ctx = Context(channels=["chat"], report=said.append)
    ctx.channel("chat").send(1, 2)
    assert list(ctx.channel("chat")) == []
    assert [value async for value in ctx.channel("chat")] == []
    assert all(isinstance(one, Said) for one in said)
    assert [decode(one.message.value) for one in said] == [1, 2]
