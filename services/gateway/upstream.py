"""The way to the services: channels to the front door, and calls over them whose messages are bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from colonies.tls import CertificateFiles, TlsChannel

Metadata = Sequence[tuple[str, str]]
# The front door takes a thousand calls of one connection; what comes beyond would wait there, quick calls behind quiet streams.
CALLS_PER_CHANNEL = 500
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 128 * 1024 * 1024),
    ("grpc.max_send_message_length", 128 * 1024 * 1024),
    # Channels with equal options would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # What is signed is good for one delivery.
    ("grpc.enable_retries", 0),
    # The front door is never behind a proxy that the environment names.
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    # Whoever asks has come through the front door: it is there again.
    ("grpc.max_reconnect_backoff_ms", 300),
)


class _Line:
    """A channel, and how many calls are open over it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0


class Upstream:
    """As many channels as the calls in hand need."""

    def __init__(self, address: str, files: CertificateFiles | None) -> None:
        self._address = address
        self._files = files
        self._lines: list[_Line] = []

    @contextmanager
    def call(self, method: str, body: bytes, metadata: Metadata, timeout: float | None) -> Iterator[Any]:
        """A call, over when the block ends. Its `read()` gives messages as bytes, and `grpc.aio.EOF` at its end."""
        line = self._line()
        line.calls += 1
        try:
            # Unary or not: a unary call is a stream of one message.
            invoke: Any = line.channel.unary_stream(method)
            call = invoke(body, timeout=timeout, metadata=tuple(metadata))
            try:
                yield call
            finally:
                call.cancel()
        finally:
            line.calls -= 1

    def _line(self) -> _Line:
        for line in self._lines:
            if line.calls < CALLS_PER_CHANNEL:
                return line
        line = _Line(self._channel())
        self._lines.append(line)
        return line

    def _channel(self) -> grpc.aio.Channel:
        if self._files is None:
            return grpc.aio.insecure_channel(self._address, options=OPTIONS)
        return TlsChannel(self._address, self._files, OPTIONS)

    async def close(self) -> None:
        """Ends all connections."""
        for line in self._lines:
            await line.channel.close()
