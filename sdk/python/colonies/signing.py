"""Signed calls: what is signed, how it travels, and a channel that does it for every stub.

The scheme is specified in protos/vectors/README.md; this module and the services share these functions, so that there is one
place that spells the signed bytes.
"""

import hashlib
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

import grpc

from colonies.errors import NotSignableError
from colonies.keys import PrivateKey
from colonies.nonces import StreamCall, UnaryCall
from colonies.tls import CertificateFiles, TlsChannel

KEY_HEADER = "colonies-public-key"
TIME_HEADER = "colonies-time"
NONCE_HEADER = "colonies-nonce"
SIGNATURE_HEADER = "colonies-signature"

CALL_PREFIX = "colonies-call-v1"
JOIN_PREFIX = "colonies-join-v1"
ROTATE_PREFIX = "colonies-rotate-v1"
NONCE_BYTES = 16


def _text(*values: str | int) -> bytes:
    """Values as the lines of a text that is signed: each ended by one line feed."""
    text = "".join([f"{value}\n" for value in values])
    if text.count("\n") != len(values):
        msg = "no value of a signed text may hold a line feed: it would read as two"
        raise NotSignableError(msg)
    return text.encode()


def call_text(*, method: str, audience: str, time_ms: int, nonce: str, body: bytes) -> bytes:
    """What the caller of an RPC signs.

    Args:
        method: full method name with its slashes, such as "/colonies.auth.v1.AuthService/GetColony".
        audience: cluster id.
        time_ms: unix milliseconds.
        nonce: 32 lower-case hex digits.
        body: the request message as it goes over the wire.

    Raises:
        NotSignableError: a value holds a line feed.
    """
    return _text(CALL_PREFIX, method, audience, time_ms, nonce, hashlib.sha256(body).hexdigest())


def join_text(*, audience: str, colony: str, role: str, name: str, time_ms: int) -> bytes:
    """What a new identity signs to agree to a membership; role is "colony_owner" or "user".

    Raises:
        NotSignableError: a value holds a line feed.
    """
    return _text(JOIN_PREFIX, audience, colony, role, name, time_ms)


def rotate_text(*, audience: str, colony: str, old: str, time_ms: int) -> bytes:
    """What a new key signs to take over from an old one.

    Args:
        audience: cluster id.
        colony: the member's colony; empty for the server owner and for services.
        old: identity of the old key.
        time_ms: unix milliseconds.

    Raises:
        NotSignableError: a value holds a line feed.
    """
    return _text(ROTATE_PREFIX, audience, colony, old, time_ms)


def call_digest(text: bytes, public_key: bytes, signature: bytes) -> str:
    """What a signed call is known by in receipts: 64 hex digits over its text, its raw public key and its signature."""
    return hashlib.sha256(text + public_key + signature).hexdigest()


def now_ms() -> int:
    """Unix milliseconds of this machine's clock."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True, eq=False)
class Signer:
    """Signs calls for one cluster, with the key that it has at the moment: `key` may be set to another one at any time.

    Nonces begin with `nonce_prefix`, once the cluster has asked for one.
    """

    key: PrivateKey
    audience: str
    clock_ms: Callable[[], int] = now_ms
    # Lower-case hex digits; empty for none.
    nonce_prefix: str = ""

    def headers(self, method: str, body: bytes) -> tuple[tuple[str, str], ...]:
        """The metadata that makes this call a signed one. Each call takes a nonce of its own."""
        key = self.key
        time_ms = self.clock_ms()
        nonce = self.nonce_prefix + os.urandom(NONCE_BYTES - len(self.nonce_prefix) // 2).hex()
        text = call_text(method=method, audience=self.audience, time_ms=time_ms, nonce=nonce, body=body)
        return (
            (KEY_HEADER, key.public_key.hex()),
            (TIME_HEADER, str(time_ms)),
            (NONCE_HEADER, nonce),
            (SIGNATURE_HEADER, key.sign(text).hex()),
        )


def _serialized(serializer: Callable[[Any], bytes] | None, request: Any) -> bytes:
    return serializer(request) if serializer is not None else bytes(request)


class _Signed:
    """Calls of one method, whose request is serialised once, signed, and sent as those very bytes."""

    def __init__(
        self,
        signer: Signer,
        method: str,
        serializer: Callable[[Any], bytes] | None,
        inner: Any,
        kind: type[UnaryCall] | type[StreamCall],
    ) -> None:
        self._signer = signer
        self._method = method
        self._serializer = serializer
        self._inner = inner
        self._kind = kind

    def __call__(self, request: Any, *, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        body = _serialized(self._serializer, request)
        given = tuple(metadata) if metadata else ()

        def send(prefix: str | None, seconds: float | None) -> Any:
            if prefix is not None:
                self._signer.nonce_prefix = prefix
            headers = self._signer.headers(self._method, body)
            return self._inner(body, timeout=seconds, metadata=grpc.aio.Metadata(*given, *headers), **options)

        return self._kind(send, timeout)


class SigningChannel(grpc.aio.Channel):
    """A channel over another one, signing every call made through it: `SchedulerServiceStub(SigningChannel(...))`.

    Each request is serialised once; the signed bytes are the sent bytes. A call that must have a prefix in its nonce is signed
    and sent once more, and whoever made it does not notice.
    """

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._channel = channel
        self._signer = signer

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        inner: Any = self._channel.unary_unary(method, None, response_deserializer)
        return _Signed(self._signer, method, request_serializer, inner, UnaryCall)

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        inner: Any = self._channel.unary_stream(method, None, response_deserializer)
        return _Signed(self._signer, method, request_serializer, inner, StreamCall)

    def stream_unary(self, *_args: Any, **_kwargs: Any) -> Any:
        msg = "Colonies has no client streams: every call is one signed message"
        raise TypeError(msg)

    def stream_stream(self, *_args: Any, **_kwargs: Any) -> Any:
        msg = "Colonies has no bidirectional streams: every call is one signed message"
        raise TypeError(msg)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> Coroutine[Any, Any, None]:
        return self._channel.wait_for_state_change(last_observed_state)

    def channel_ready(self) -> Coroutine[Any, Any, None]:
        return self._channel.channel_ready()


CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    # A long poll is silent for a minute; pings find out about a dead peer sooner than TCP would.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # After an outage, look again soon: an executor should not sit out gRPC's default two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def signed_channel(address: str, signer: Signer, files: CertificateFiles | None = None) -> SigningChannel:
    """A channel to `address` ("host:port") that signs every call; with TLS if there are certificates to check it by."""
    if files is None:
        return SigningChannel(grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS), signer)
    return SigningChannel(TlsChannel(address, files, CHANNEL_OPTIONS), signer)
