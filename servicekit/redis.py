"""Redis for a service: the connection and its Lua scripts. Everything in it is derived and may be lost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
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

COMMAND_TIMEOUT_S = 5.0

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
# Replies that redis-py has no class for: a disk that is full, too few replicas, a script that blocks.
_OUTAGE_CODES = ("MISCONF", "NOREPLICAS", "BUSY")


def connect(url: str, *, connections: int = 32) -> "Redis":
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
    return Redis(connection_pool=pool)


@contextmanager
def translated() -> Iterator[None]:
    """Turns "Redis is gone" into Unavailable.

    Raises:
        Unavailable: Redis does not answer, or is loading.
    """
    try:
        yield
    except (*OUTAGES, ResponseError) as error:
        if isinstance(error, ResponseError) and not isinstance(error, OUTAGES) and not str(error).startswith(_OUTAGE_CODES):
            raise
        msg = "the queue is out of reach"
        raise Unavailable(msg, reason="QUEUE_UNAVAILABLE") from error


class Script:
    """One Lua file, called by its digest and loaded when the server does not know it (any more)."""

    def __init__(self, redis: "Redis", package: str, file: str) -> None:
        self._redis = redis
        self._text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
        self._script = redis.register_script(self._text)

    async def __call__(self, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Runs the script.

        Raises:
            Unavailable: Redis does not answer.
        """
        with translated():
            try:
                return await self._script(keys=list(keys), args=list(arguments))
            except NoScriptError:
                # The server restarted between our load and our call.
                return await self._redis.eval(self._text, len(keys), *keys, *arguments)
