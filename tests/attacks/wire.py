"""Calls as they go over the wire: somebody who has seen one go by can send it again, whole or altered."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from redis import Redis

from colonies.errors import RpcError, from_rpc_error
from colonies.keys import PrivateKey
from colonies.signing import Signer
from servicekit.nonces import MEMORY
from tests.harness.cluster import CLUSTER, Cluster

T = TypeVar("T")
Headers: TypeAlias = tuple[tuple[str, str], ...]
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Wire:
    """One signed call: where it goes, its metadata and its body."""

    path: str
    headers: Headers
    body: bytes

    @property
    def service(self) -> str:
        """Short name of the service that it goes to."""
        return self.path.split(".")[1]

    def altered(self, **changes: Any) -> "Wire":
        """The same with something changed after it was signed."""
        return replace(self, **changes)

    def with_header(self, name: str, value: str) -> "Wire":
        """The same with another value of one entry."""
        return replace(self, headers=tuple((key, value if key == name else old) for key, old in self.headers))

    def send(self, cluster: Cluster, *, replica: int = 0, service: str = "") -> Any:
        """Sends it: an awaitable, as all unary calls are."""
        call: Any = cluster.channel(service or self.service, replica=replica).unary_unary(self.path, None, None)
        return call(self.body, metadata=grpc.aio.Metadata(*self.headers), timeout=20)

    def open(self, cluster: Cluster, *, replica: int = 0) -> Any:
        """Sends it as the opening of a stream."""
        call: Any = cluster.channel(self.service, replica=replica).unary_stream(self.path, None, None)
        return call(self.body, metadata=grpc.aio.Metadata(*self.headers), timeout=20)


def nonce_prefix(cluster: Cluster) -> str:
    """What nonces have to begin with while the memory of them is young; the tests' is. A caller learns it from a refusal."""
    with Redis.from_url(cluster.redis_url, decode_responses=True) as redis:
        memory = redis.get(MEMORY)
    return str(memory).split()[2] if memory else ""


def signed(
    cluster: Cluster, key: PrivateKey, path: str, request: Message | bytes, *, audience: str = CLUSTER, shift_ms: int = 0
) -> Wire:
    """A call that its caller has signed, and nobody has sent yet."""
    body = request if isinstance(request, bytes) else request.SerializeToString()
    signer = Signer(key, audience, lambda: cluster.clock_ms() + shift_ms, nonce_prefix(cluster))
    return Wire(path, signer.headers(path, body), body)


async def answer(call: Awaitable[Any]) -> RpcError | None:
    """What a call was refused with; None if it went through."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    return None


async def together(makers: Iterable[Callable[[], Awaitable[T]]]) -> Sequence[T]:
    """Runs them all, some at a time; what they return, in order."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(make: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await make()

    return await asyncio.gather(*(one(make) for make in makers))
