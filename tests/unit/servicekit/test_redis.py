"""The pipelined path against a real server, and over a wire that breaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from servicekit import redis as servicekit_redis
from servicekit.failures import Unavailable
from servicekit.redis import Client, Commands, Script

pytestmark = pytest.mark.asyncio


class Wire:
    """A way to the server that notes what is sent over it, and can be cut before or after the server has it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.sent: list[bytes] = []
        self.connections = 0
        self.lose_requests = False
        self.lose_replies = 0
        self.refusing = False

    async def listen(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection(*self._address)
        self._writers += [writer, server_writer]

        async def requests() -> None:
            with suppress(OSError):
                while data := await reader.read(1 << 16):
                    self.sent.append(data)
                    if not self.lose_requests:
                        server_writer.write(data)
                server_writer.close()

        async def replies() -> None:
            with suppress(OSError):
                while data := await server_reader.read(1 << 16):
                    if self.lose_replies:
                        self.lose_replies -= 1
                        writer.close()
                        return
                    writer.write(data)
                writer.close()

        await asyncio.gather(requests(), replies())

    async def cut(self) -> None:
        """Ends all connections, as a server that restarts does."""
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with suppress(OSError):
                await writer.wait_closed()
        self._writers.clear()

    async def close(self) -> None:
        await self.cut()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()


@pytest_asyncio.fixture
async def wire(redis_url: str) -> AsyncIterator[Wire]:
    """A wire to an empty server."""
    parts = urlsplit(redis_url)
    assert parts.hostname is not None
    assert parts.port is not None
    laid = Wire(parts.hostname, parts.port)
    yield laid
    await laid.close()


@pytest_asyncio.fixture
async def client(redis_url: str, wire: Wire) -> AsyncIterator[Client]:
    """A client whose commands take the wire."""
    port = await wire.listen()
    made = servicekit_redis.connect(redis_url.replace(f":{urlsplit(redis_url).port}", f":{port}"))
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def commands(client: Client, wire: Wire) -> Commands:
    """The pipelined path, connected."""
    assert await client.commands.execute("PING") == "PONG"
    wire.sent.clear()
    return client.commands


async def test_concurrent_commands_share_round_trips_and_get_their_own_replies(commands: Commands, wire: Wire) -> None:
    first = asyncio.create_task(commands.execute("ECHO", "first"))
    while not wire.sent:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(commands.execute("ECHO", f"number {number}")) for number in range(100)]
    assert await first == "first"
    assert await asyncio.gather(*rest) == [f"number {number}" for number in range(100)]
    assert len(wire.sent) == 2, "one alone, and all that came while it was on its way"
    assert wire.connections == 1


async def test_many_more_than_a_batch_and_large_ones(commands: Commands) -> None:
    texts = [str(number) * (200_000 if number % 500 == 7 else 3) for number in range(2_000)]
    assert await asyncio.gather(*(commands.execute("ECHO", text) for text in texts)) == texts


async def test_words_and_replies_as_they_are(commands: Commands) -> None:
    assert await commands.execute("SET", "a key", "å\r\n$3\r\n", "PX", 10_000) == "OK"
    assert await commands.execute("GET", "a key") == "å\r\n$3\r\n"
    assert await commands.execute("SET", "a key", "b", "NX", "GET", "PX", 10_000) == "å\r\n$3\r\n"
    assert await commands.execute("GET", "none") is None
    assert await commands.execute("INCRBY", "n", -(2**53)) == -(2**53)
    assert await commands.execute("EVAL", "return {1, 'x', {}, false}", 0) == [1, "x", [], None]


async def test_an_error_reply_is_its_own_commands(commands: Commands) -> None:
    answers = await asyncio.gather(
        commands.execute("SET", "text", "x"),
        commands.execute("INCR", "text"),
        commands.execute("NOSUCH"),
        commands.execute("EVAL", "return redis.error_reply('MISCONF no disk')", 0),
        commands.execute("GET", "text"),
        return_exceptions=True,
    )
    assert (answers[0], answers[4]) == ("OK", "x")
    assert isinstance(answers[1], ResponseError)
    assert isinstance(answers[2], ResponseError)
    assert isinstance(answers[3], Unavailable)


async def test_what_cannot_be_sent_fails_its_caller_alone(commands: Commands) -> None:
    wrong: Any = object()
    answers = await asyncio.gather(
        commands.execute("ECHO", "1"), commands.execute("ECHO", wrong), commands.execute("ECHO", "2"), return_exceptions=True
    )
    assert (answers[0], answers[2]) == ("1", "2")
    assert isinstance(answers[1], TypeError)


async def test_a_caller_that_goes_disturbs_nobody(commands: Commands, wire: Wire) -> None:
    tasks = [asyncio.create_task(commands.execute("ECHO", str(number))) for number in range(10)]
    await asyncio.sleep(0)
    tasks[4].cancel()  # before it is sent
    while not wire.sent:
        await asyncio.sleep(0)
    tasks[5].cancel()  # on its way
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, str)] == [
        str(number) for number in range(10) if number not in {4, 5}
    ]
    assert wire.connections == 1
    assert await commands.execute("ECHO", "after") == "after"


async def test_a_connection_that_died_while_idle_is_no_outage(commands: Commands, wire: Wire) -> None:
    for _ in range(3):
        await wire.cut()
        answers = await asyncio.gather(*(commands.execute("ECHO", str(number)) for number in range(5)))
        assert answers == [str(number) for number in range(5)]
    assert wire.connections == 4


async def test_a_break_before_any_reply_is_tried_once_more(commands: Commands, wire: Wire) -> None:
    wire.lose_replies = 1
    assert await commands.execute("SET", "claim", "mine", "NX", "GET") == "mine", "it ran twice, and finds itself"
    wire.lose_replies = 3  # the reply, and what the new connection is told at its start
    with pytest.raises(Unavailable) as caught:
        await commands.execute("ECHO", "lost")
    assert caught.value.reason == "QUEUE_UNAVAILABLE"
    wire.lose_replies = 0
    assert await commands.execute("ECHO", "back") == "back"


async def test_without_a_server_all_are_told_and_it_comes_back(commands: Commands, wire: Wire) -> None:
    wire.refusing = True
    await wire.cut()
    answers = await asyncio.gather(*(commands.execute("ECHO", "x") for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5
    wire.refusing = False
    assert await commands.execute("ECHO", "back") == "back"


async def test_a_server_that_does_not_answer_is_an_outage(
    commands: Commands, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicekit_redis, "COMMAND_TIMEOUT_S", 0.2)
    wire.lose_requests = True
    with pytest.raises(Unavailable):
        await commands.execute("ECHO", "lost")
    assert len(wire.sent) == 1, "what takes too long is not tried again"
    wire.lose_requests = False
    assert await commands.execute("ECHO", "back") == "back"


async def test_late_replies_are_never_taken_for_those_of_the_next_batch(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicekit_redis, "COMMAND_TIMEOUT_S", 0.2)
    with pytest.raises(Unavailable):
        await commands.execute("BLPOP", "nothing", 1)
    answers = await asyncio.gather(*(commands.execute("ECHO", str(number)) for number in range(20)))
    assert answers == [str(number) for number in range(20)]


async def test_a_script_is_loaded_when_the_server_does_not_know_it(client: Client, tmp_path: Any) -> None:
    (tmp_path / "scripts_of_a_test").mkdir()
    (tmp_path / "scripts_of_a_test" / "__init__.py").write_text("")
    (tmp_path / "scripts_of_a_test" / "add.lua").write_text("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        script = Script(client, "scripts_of_a_test", "add.lua")
    assert sorted(await asyncio.gather(*(script(["n"], [1]) for _ in range(5)))) == [1, 2, 3, 4, 5]
    assert await script(["n"], ["10"]) == 15
    await client.script_flush()
    assert await script(["n"], [1]) == 16
    with pytest.raises(ResponseError, match="not an integer"):
        await script(["n"], ["x"])


async def test_close_waits_for_what_is_under_way(client: Client, wire: Wire) -> None:
    tasks = [asyncio.create_task(client.commands.execute("ECHO", str(number))) for number in range(5)]
    await asyncio.sleep(0)
    await client.commands.close()
    assert await asyncio.gather(*tasks) == [str(number) for number in range(5)]
    assert await client.commands.execute("ECHO", "again") == "again"


async def test_callers_one_after_another_are_never_left_behind(commands: Commands) -> None:
    async def caller(number: int) -> None:
        for turn in range(30):
            assert await commands.execute("ECHO", f"{number} {turn}") == f"{number} {turn}"

    async with asyncio.timeout(20):
        await asyncio.gather(*map(caller, range(16)))


async def _send_on_a_closed_connection(url: str) -> None:
    client = servicekit_redis.connect(url)
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    connection._writer.transport.abort()
    try:
        with pytest.raises(RedisConnectionError):
            await connection.send_command("PING")
        # It connects anew.
        await connection.connect()
        await connection.send_command("PING")
        assert await connection.read_response() == "PONG"
    finally:
        await pool.release(connection)
        await client.aclose()


async def test_a_write_to_a_closed_connection_under_uvloop(redis_url: str) -> None:
    """An outage, whatever the event loop calls it."""
    await asyncio.to_thread(lambda: uvloop.run(_send_on_a_closed_connection(redis_url)))
