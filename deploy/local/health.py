"""The standard gRPC health question, asked of a process.

Containers ask by `python -m deploy.local.health ADDRESS`, which exits with 0 when the process serves. With TLS it goes by the
process's own settings, COLONIES_TLS_*, and shows its certificate.
"""

import os
import sys

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


def main(arguments: list[str]) -> int:
    """0 when the address serves."""
    tls = Tls(*(os.environ.get(f"COLONIES_TLS_{name}_FILE", "") for name in ("CA", "CERT", "KEY")))
    if not tls.cert_file:
        return 0 if HealthProbe(arguments[0]).serving(seconds=3.0) else 1
    # Asked by the address of this machine, a certificate answers that names the service.
    names = CertificateFiles(tls).latest().names
    return 0 if HealthProbe(arguments[0], tls, known_as=names[0] if names else "").serving(seconds=3.0) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
