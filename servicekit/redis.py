"""Redis for a service: the client, the pipelined path and its Lua scripts. Everything in it is derived and may be lost.

What every call needs (nonces, scripts) goes through `Commands`: the commands of concurrent calls share one connection and one
round trip. The client itself is for odd commands and subscriptions.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, TypeAlias

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from servicekit.failures import Unavailable
from servicekit.metrics import REDIS_OUTAGES

COMMAND_TIMEOUT_S = 5.0
# Of one batch. What is more goes with the next.
MAX_COMMANDS = 512

OUTAGES = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    OSError,
)
# What uvloop says, as a RuntimeError, when a connection was closed a moment before it is written to.
_CLOSED = "the handler is closed"
# Replies that redis-py has no class for: a disk that is full, too few replicas, a script that blocks.
_OUTAGE_CODES = ("MISCONF", "NOREPLICAS", "BUSY")


class _ClosedIsOutage(AbstractConnection):
    """A connection that says of every end of it that it is one, so that the retry and the translation below know it."""

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().send_packed_command(*args, **kwargs)
        except RuntimeError as error:
            if _CLOSED not in str(error):
                raise
            await self.disconnect(nowait=True)
            msg = "the connection was closed"
            raise RedisConnectionError(msg) from error


class Client(Redis):
    """A client with its own bounded pool, and a pipelined path beside it; connects when it is first used."""

    def __init__(self, pool: BlockingConnectionPool) -> None:
        super().__init__(connection_pool=pool)
        self.commands = Commands(pool)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.commands.close()
        await super().aclose(close_connection_pool)


def connect(url: str, *, connections: int = 32) -> Client:
    """A client with its own bounded pool; connects when it is first used.

    One retry, at once: a connection that died while it lay idle in the pool is no outage.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=COMMAND_TIMEOUT_S,
        socket_timeout=COMMAND_TIMEOUT_S,
        socket_connect_timeout=COMMAND_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
        decode_responses=True,
    )
    # Of whatever kind the URL's scheme makes them.
    pool.connection_class = type("Connection", (_ClosedIsOutage, pool.connection_class), {})
    return Client(pool)


@contextmanager
def translated() -> Iterator[None]:
    """Turns "Redis is gone" into Unavailable.

    Raises:
        Unavailable: Redis does not answer, or is loading.
    """
    try:
        yield
    except (*OUTAGES, ResponseError) as error:
        if not _is_outage(error):
            raise
        raise _unavailable(error) from error


def _unavailable(error: BaseException) -> Unavailable:
    REDIS_OUTAGES.inc()
    failure = Unavailable("the queue is out of reach", reason="QUEUE_UNAVAILABLE")
    failure.__cause__ = error
    return failure


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, OUTAGES) or (isinstance(error, ResponseError) and str(error).startswith(_OUTAGE_CODES))


Argument: TypeAlias = str | int
_Waiting: TypeAlias = "tuple[bytes, asyncio.Future[Any]]"


class Commands:
    """Commands of concurrent calls, over one connection: while one batch is on its way, the next gathers.

    There is no timer: a command that is alone goes at once. Commands run, and replies come, in the order in which they were
    posted, and an error reply is that command's own. A caller that stops waiting leaves its command where it is.

    A batch whose connection breaks before anything was answered is sent once more over a new one, as the connection may have
    been dead for long; so a command may run twice, and only such as may belong here.
    """

    def __init__(self, pool: BlockingConnectionPool) -> None:
        self._pool = pool
        # Made at the first command: only then is there sure to be a loop.
        self._connection: AbstractConnection | None = None
        self._queue: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def execute(self, *command: Argument) -> Any:
        """Runs a command, given as its words, and returns its reply as it came.

        Raises:
            Unavailable: Redis does not answer, or cannot serve now.
            ResponseError: the command itself is refused.
        """
        return await self.post(*command)

    def post(self, *command: Argument) -> "asyncio.Future[Any]":
        """As `execute`, for the reply to be awaited later: what is posted after it runs after it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        # Packed here, so that what cannot be packed fails its own caller.
        self._queue.append((pack_command(command), answer))  # type: ignore[arg-type]  # its stub says a tuple of one
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return answer

    async def close(self) -> None:
        """Waits for what is under way, and disconnects."""
        while self._worker is not None:
            await asyncio.wait((self._worker,))
        if self._connection is not None:
            await self._connection.disconnect()

    async def _work(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_COMMANDS))]
                try:
                    await self._exchange(batch)
                except Exception as error:  # noqa: BLE001 - raised by each caller of the batch
                    for _, answer in batch:
                        _refuse(answer, error)
        finally:
            # In the same step as the last look at the queue, so that no command is left without a worker.
            self._worker = None

    async def _exchange(self, batch: list[_Waiting]) -> None:
        """Sends a batch and hands out its replies."""
        connection = self._connection = self._connection or self._new_connection()
        for last_try in (not connection.is_connected, True):
            answered = False
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await connection.send_packed_command(b"".join([packed for packed, _ in batch]))
                    for _, answer in batch:
                        await _receive(connection, answer)
                        answered = True
                return
            except BaseException as error:
                # Replies that nobody read must not be taken for those of the next batch.
                await connection.disconnect(nowait=True)
                if last_try or answered or not isinstance(error, RedisConnectionError):
                    raise

    def _new_connection(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        # One timer for each batch, in place of one for its sending and one for each of its replies.
        connection.socket_timeout = None
        return connection


async def _receive(connection: AbstractConnection, answer: "asyncio.Future[Any]") -> None:
    try:
        reply = await connection.read_response()
    except ResponseError as error:
        _refuse(answer, error)
    else:
        if not answer.done():
            answer.set_result(reply)


def _refuse(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(_unavailable(error) if _is_outage(error) else error)


def commands_of(redis: Redis) -> Commands:
    """The pipelined path beside a client of `connect`; all that use the client share it."""
    assert isinstance(redis, Client), "a client that connect() made"
    return redis.commands


class Script:
    """One Lua file, called by its digest and loaded when the server does not know it (any more).

    A script may run twice for one call (see Commands), so each must be safe to repeat.
    """

    def __init__(self, redis: "Redis", package: str, file: str) -> None:
        self._commands = commands_of(redis)
        self._text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Runs the script.

        Raises:
            Unavailable: Redis does not answer.
        """
        try:
            return await self._commands.execute("EVALSHA", self._digest, len(keys), *keys, *arguments)
        except NoScriptError:
            # The server is new, or restarted. This loads it, too.
            return await self._commands.execute("EVAL", self._text, len(keys), *keys, *arguments)
