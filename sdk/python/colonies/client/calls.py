"""How every call goes out: signed, with a deadline, and repeated until an outage is over."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar, cast

import grpc

from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceStub
from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceStub
from colonies.errors import NotFoundError, ResourceExhaustedError, RpcError, UnavailableError, from_rpc_error
from colonies.keys import PrivateKey
from colonies.profile import Profile, active, cluster_for, tls_for
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.signing import Signer, SigningChannel, signed_channel
from colonies.tls import CertificateFiles, Tls
from colonies.tls_diagnosis import diagnose, may_be_tls

if TYPE_CHECKING:
    from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceAsyncStub
    from colonies.cron.v1.cron_service_pb2_grpc import CronServiceAsyncStub
    from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceAsyncStub
    from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceAsyncStub
    from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")

CALL_SECONDS = 30.0
# Added to the wait that a long poll asks for.
LONG_POLL_GRACE_SECONDS = 10.0
# Streams send signs of life. One that is silent for this long is taken for dead, and opened again at its cursor.
STREAM_SILENCE_SECONDS = 90.0

FIRST_BACKOFF_SECONDS = 0.05
LONGEST_BACKOFF_SECONDS = 2.0
# For this long, what was found to be wrong with TLS is not looked into again.
DIAGNOSIS_HOLDS_SECONDS = 10.0

_OUTAGE_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        # No Colonies service says CANCELLED: a proxy or a dying server has reset the call.
        grpc.StatusCode.CANCELLED,
    }
)


class Backoff:
    """Exponential waiting times with jitter, so that clients of a restarted server do not come back all at once."""

    def __init__(self) -> None:
        self._tries = 0

    def reset(self) -> None:
        """Begins again with the shortest wait."""
        self._tries = 0

    def next_seconds(self, at_least: float | None = None) -> float:
        """The next wait: 0.05 s doubling to 2 s, half of it random; never shorter than the server asked for."""
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(self._tries, 16))
        self._tries += 1
        return max(longest * random.uniform(0.5, 1.0), at_least or 0.0)  # noqa: S311 - jitter


def is_outage(error: grpc.aio.AioRpcError) -> bool:
    """Whether a failed call says that the server is out of reach, and not that it refused."""
    code = error.code()
    # A reset of the HTTP/2 stream under a call is reported as INTERNAL, and only its text tells it from a real fault.
    return code in _OUTAGE_CODES or (code is grpc.StatusCode.INTERNAL and "RST_STREAM" in (error.details() or ""))


def to_error(error: grpc.aio.AioRpcError, address: str) -> RpcError:
    """The SDK's error for a failed call; every outage is an UnavailableError that names the address."""
    converted = from_rpc_error(error)
    if not is_outage(error):
        return converted
    return UnavailableError(
        f"no answer from {address}: {converted}",
        code=grpc.StatusCode.UNAVAILABLE,
        reason=converted.reason,
        metadata=converted.metadata,
        retry_delay=converted.retry_delay,
    )


def _is_full(failure: RpcError) -> bool:
    """Whether the server asks to come back later; without a delay it is gRPC itself, and the message is too large for it."""
    return isinstance(failure, ResourceExhaustedError) and failure.retry_delay is not None


def _is_pace(failure: RpcError) -> bool:
    """Whether the server asks to call less often."""
    return isinstance(failure, ResourceExhaustedError) and failure.is_pace


@asynccontextmanager
async def in_time(seconds: float | None, what: str) -> AsyncGenerator[None]:
    """Ends its block after some seconds with a TimeoutError that says what was not over; None = never."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        msg = f"{what} is not over after {seconds:g} s; it goes on"
        raise TimeoutError(msg) from None


class Calls:
    """A signed connection to one server on behalf of one key: what all groups of methods are built on."""

    def __init__(
        self,
        host: str,
        port: int,
        colony: str,
        key: PrivateKey | str,
        cluster: str | None = None,
        *,
        retry_for: float = 30.0,
        tls: Tls | bool | None = None,
    ) -> None:
        """Nothing is connected yet: the first call does that, in the event loop that makes it.

        Args:
            host: host name or address of the server's front door.
            port: its port.
            colony: the colony that all methods are about.
            key: who signs; a PrivateKey or its 64 hex digits.
            cluster: the server's cluster id; by default COLONIES_CLUSTER, or what a profile says about this address.
            retry_for: seconds to ride out an outage before a call fails; 0 = fail at once.
            tls: with which certificates; True for the public ones, False for plaintext. By default what the environment or
                a profile says about this address; else plaintext, which is refused to another machine.

        Raises:
            ProfileError: `cluster` is not given and not known; or it would be plaintext to another machine.
            CertificateFileError: a file of `tls` cannot be used.
            KeyFileError: the key's text is not a key.
        """
        self.host = host
        self.port = port
        self.colony = colony
        signing_key = PrivateKey.from_hex(key) if isinstance(key, str) else key
        self.cluster = cluster or cluster_for(host, port)
        self._signer = Signer(key=signing_key, audience=self.cluster)
        self.retry_for = retry_for
        bare = host.strip("[]")
        self.address = f"[{bare}]:{port}" if ":" in bare else f"{host}:{port}"
        if tls is None:
            tls = tls_for(host, port)
        self.tls = Tls() if tls is True else tls or None
        self._certificates = CertificateFiles(self.tls) if self.tls else None
        self._tls_problem = ""
        self._diagnose_after = 0.0

    @classmethod
    def from_profile(
        cls, profile: Profile | str | None = None, *, key: PrivateKey | None = None, retry_for: float = 30.0
    ) -> Self:
        """A client with the settings of a profile: one given, one by name, or the active one.

        Raises:
            ProfileError: there is no such profile, or it lacks something.
            KeyFileError: its key cannot be read.
        """
        chosen = profile if isinstance(profile, Profile) else active(profile)
        return cls(
            chosen.host,
            chosen.port,
            chosen.colony,
            key or chosen.load_key(),
            chosen.cluster or None,
            retry_for=retry_for,
            tls=chosen.transport() or False,
        )

    @cached_property
    def _channel(self) -> SigningChannel:
        return signed_channel(self.address, self._signer, self._certificates)

    @property
    def key(self) -> PrivateKey:
        """Who signs."""
        return self._signer.key

    def use_key(self, key: PrivateKey) -> None:
        """Signs with another key from now on; calls that are repeated as well."""
        self._signer.key = key

    @cached_property
    def auth(self) -> "AuthServiceAsyncStub":
        """The auth service's stub, signed, without retries."""
        return AuthServiceStub(self._channel)

    @cached_property
    def registry(self) -> "RegistryServiceAsyncStub":
        """The registry service's stub, signed, without retries."""
        return RegistryServiceStub(self._channel)

    @cached_property
    def scheduler(self) -> "SchedulerServiceAsyncStub":
        """The scheduler service's stub, signed, without retries."""
        return SchedulerServiceStub(self._channel)

    @cached_property
    def cron(self) -> "CronServiceAsyncStub":
        """The cron service's stub, signed, without retries."""
        return CronServiceStub(self._channel)

    @cached_property
    def generator(self) -> "GeneratorServiceAsyncStub":
        """The stub of the cron service's generators, signed, without retries."""
        return GeneratorServiceStub(self._channel)

    async def close(self) -> None:
        """Ends the connection; calls in flight are cancelled."""
        if "_channel" in self.__dict__:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float = CALL_SECONDS,  # noqa: ASYNC109 - it is gRPC's
        gone: Response | None = None,
        wait_if_full: bool = False,
    ) -> Response:
        """Makes any unary call of the stubs, and again while the server is out of reach or asks to call less often.

            response = await client.call(client.auth.GetColony, GetColonyRequest(colony_name="dev"))

        Every RPC may be repeated: submits have a request id, closes are fenced, the others set a state. Each try is
        signed anew, for a nonce is good for one.

        Args:
            method: a method of `auth`, `registry`, `scheduler`, `cron` or `generator`.
            request: its request.
            timeout: seconds for each try.
            gone: what a removal returns for NOT_FOUND after a try that got no answer: that try removed it.
            wait_if_full: ride out RESOURCE_EXHAUSTED with a retry delay (a full queue) like an outage.

        Raises:
            RpcError: the call was refused; the subclass says how.
            UnavailableError: the server was out of reach for `retry_for` seconds.
            ResourceExhaustedError: over a limit; for `retry_for` seconds, if it is one of calls a second (RATE_LIMITED).
        """
        backoff = Backoff()
        give_up = time.monotonic() + self.retry_for
        unanswered = False
        while True:
            try:
                response = await method(request, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                failure = await self._failure(error)
                if not is_outage(error):
                    self._answered()
                if gone is not None and unanswered and isinstance(failure, NotFoundError):
                    return gone
                wait = backoff.next_seconds(failure.retry_delay)
                passes = is_outage(error) or _is_pace(failure) or (wait_if_full and _is_full(failure))
                if not passes or time.monotonic() + wait > give_up:
                    raise failure from None
                if is_outage(error):
                    unanswered = True
                    self._no_answer(failure)
            else:
                self._answered()
                return response
            await asyncio.sleep(wait)

    async def _failure(self, error: grpc.aio.AioRpcError) -> RpcError:
        """The error for a failed call. Where TLS may be the reason this finds out, and says so in plain words."""
        if is_outage(error) and may_be_tls(error.details() or ""):
            now = time.monotonic()
            if now >= self._diagnose_after:
                self._diagnose_after = now + DIAGNOSIS_HOLDS_SECONDS
                self._tls_problem = await diagnose(self.host, self.port, self.tls)
            if self._tls_problem:
                msg = f"no answer from {self.address}: {self._tls_problem}"
                return UnavailableError(msg, code=grpc.StatusCode.UNAVAILABLE)
        return to_error(error, self.address)

    def _no_answer(self, failure: RpcError) -> None:
        """Called for each try that is going to be made again."""

    def _answered(self) -> None:
        """Called for each try that the server answered."""

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Callable[[], Request],
    ) -> AsyncGenerator[Response]:
        """The messages of a server stream, opened again whenever it breaks.

        Args:
            method: a streaming method of one of the stubs.
            request: makes the request for each opening, with the cursor of that moment.

        Raises:
            RpcError: the stream was refused.
            UnavailableError: nothing came for `retry_for` seconds after a break.
        """
        backoff = Backoff()
        give_up: float | None = None
        while True:
            opened = method(request())
            try:
                while True:
                    async with asyncio.timeout(STREAM_SILENCE_SECONDS):
                        message = await opened.read()
                    if message is grpc.aio.EOF:
                        return
                    backoff.reset()
                    give_up = None
                    yield cast("Response", message)
            except TimeoutError:
                wait = 0.0
            except grpc.aio.AioRpcError as error:
                failure = await self._failure(error)
                wait = backoff.next_seconds(failure.retry_delay)
                give_up = give_up or time.monotonic() + self.retry_for
                if not (is_outage(error) or _is_pace(failure)) or time.monotonic() + wait > give_up:
                    raise failure from None
            finally:
                opened.cancel()
            await asyncio.sleep(wait)
