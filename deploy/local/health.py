"""The question whether a process is well: gRPC's standard one, asked of a service, and a page of the gateway.

Containers ask by `python -m deploy.local.health [--http] ADDRESS`, which exits with 0 when the process serves. With TLS it goes
by the process's own settings, COLONIES_TLS_*, and shows its certificate.
"""

import http.client
import os
import ssl
import sys
from contextlib import suppress
from typing import Protocol

import grpc

from colonies.tls import CertificateFiles, Tls, handshake_options

_METHOD = "/grpc.health.v1.Health/Check"
# A HealthCheckResponse whose first field, the status, is 1: SERVING. The question about the process as a whole is an
# empty message. Written out, the supervisor needs no generated code.
_WHOLE_PROCESS = b""
_SERVING = b"\x08\x01"
_OPTIONS = (
    # An address on this machine is never reached through a proxy that the environment names.
    ("grpc.enable_http_proxy", 0),
    # A process that comes back is noticed at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
)


class Probe(Protocol):
    """Asks one address how it is."""

    def serving(self, seconds: float = 1.0) -> bool:
        """Whether it says that it serves, within this time."""

    def close(self) -> None:
        """Ends the connection."""


class HealthProbe:
    """Asks one address how it is, over one connection."""

    def __init__(self, address: str, tls: Tls | None = None, *, known_as: str = "") -> None:
        """`known_as` is the name in the certificate, where that is not the host of the address.

        Raises:
            CertificateFileError: a file of `tls` cannot be used.
        """
        self._address = address
        self._options = (*_OPTIONS, *((("grpc.ssl_target_name_override", known_as),) if known_as else ()))
        self._files = CertificateFiles(tls) if tls else None
        self._open()

    def _open(self) -> None:
        self._credentials = held = self._files.latest() if self._files else None
        if held is None:
            self._channel = grpc.insecure_channel(self._address, options=self._options)
        else:
            # Without an authority, the chain itself may lead to one.
            credentials = grpc.ssl_channel_credentials(held.roots or held.chain, held.key, held.chain)
            self._channel = grpc.secure_channel(self._address, credentials, options=handshake_options(self._options))
        self._check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            _METHOD, request_serializer=None, response_deserializer=None
        )

    def serving(self, seconds: float = 1.0) -> bool:
        """Whether it says SERVING within this time."""
        if self._files is not None and self._files.latest() is not self._credentials:
            self.close()
            self._open()
        try:
            return bytes(self._check(_WHOLE_PROCESS, timeout=seconds)) == _SERVING
        except grpc.RpcError:
            return False

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


class HttpProbe:
    """Asks the gateway, over one connection. `known_as` as above."""

    def __init__(self, address: str, tls: Tls | None = None, *, known_as: str = "") -> None:
        """Raises:
        CertificateFileError: a file of `tls` cannot be used.
        """
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._tls = tls
        self._files = CertificateFiles(tls) if tls else None
        self._used = self._files.latest() if self._files else None
        self._known_as = known_as
        self._connection: http.client.HTTPConnection | None = None

    def serving(self, seconds: float = 1.0) -> bool:
        """Whether its page for this says so."""
        if self._files is not None and self._files.latest() is not self._used:
            self._used = self._files.latest()
            self.close()
        for fresh in (self._connection is None, True):
            # A connection that was left open may have been closed by the other side since: one more try, on a new one.
            if fresh:
                self.close()
            with suppress(OSError, http.client.HTTPException):
                return self._ask(seconds)
        self.close()
        return False

    def _ask(self, seconds: float) -> bool:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=seconds)
            self._connection.connect()
            if self._tls is not None:
                context = ssl.create_default_context(cafile=self._tls.ca_file or None)
                context.check_hostname = bool(self._known_as)
                context.load_cert_chain(self._tls.cert_file, self._tls.cert_key_file)
                self._connection.sock = context.wrap_socket(self._connection.sock, server_hostname=self._known_as or None)
        self._connection.sock.settimeout(seconds)
        self._connection.request("GET", "/healthz")
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == http.client.OK

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def main(arguments: list[str]) -> int:
    """0 when the address serves."""
    kind = HttpProbe if "--http" in arguments else HealthProbe
    address = arguments[-1]
    tls = Tls(*(os.environ.get(f"COLONIES_TLS_{name}_FILE", "") for name in ("CA", "CERT", "KEY")))
    if not tls.cert_file:
        return 0 if kind(address).serving(seconds=3.0) else 1
    # Asked by the address of this machine, a certificate answers that names the service.
    names = CertificateFiles(tls).latest().names
    return 0 if kind(address, tls, known_as=names[0] if names else "").serving(seconds=3.0) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
