"""The standard gRPC health question, asked of a process.

Containers ask by `python -m deploy.local.health ADDRESS`, which exits with 0 when the process serves.
"""

import sys

import grpc

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

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            _METHOD, request_serializer=None, response_deserializer=None
        )

    def serving(self, seconds: float = 1.0) -> bool:
        """Whether it says SERVING within this time."""
        try:
            return bytes(self._check(_WHOLE_PROCESS, timeout=seconds)) == _SERVING
        except grpc.RpcError:
            return False

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


def main(arguments: list[str]) -> int:
    """0 when the address serves."""
    return 0 if HealthProbe(arguments[0]).serving(seconds=3.0) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
