"""Stands in for a service: answers health, and every method of its package with who and where it is.

    python dummy_service.py NAME

Reads the environment that services read. `Wait` is a stream that says hello and then stays silent until the process
drains; `Environment` tells what the process was told; `Crash` kills it.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class Answers(grpc.GenericRpcHandler):
    """Answers whatever is asked of one package."""

    def __init__(self, name: str, draining: threading.Event) -> None:
        self._name = name
        self._draining = draining

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """The handler of a method of this package; None for others."""
        if not details.method.startswith(f"/colonies.{self._name}.v1."):
            return None
        method = details.method.rpartition("/")[2]
        if method == "Wait":
            return grpc.unary_stream_rpc_method_handler(self._wait)
        return grpc.unary_unary_rpc_method_handler(getattr(self, f"_{method.lower()}"))

    def _who(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return f"{self._name}@{os.environ['COLONIES_LISTEN']}:{len(request)}".encode()

    def _environment(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return json.dumps({key: value for key, value in os.environ.items() if key.startswith("COLONIES_")}).encode()

    def _crash(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"hello"
        self._draining.wait()
        yield b"goodbye"


def main(name: str) -> int:
    """Serves until SIGTERM."""
    if os.environ.get("DUMMY_BROKEN") == name:
        print(f"{name} is broken on purpose", file=sys.stderr)
        return 3
    draining = threading.Event()
    server = grpc.server(ThreadPoolExecutor(max_workers=8), handlers=[Answers(name, draining)])
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(os.environ["COLONIES_LISTEN"])
    signal.signal(signal.SIGTERM, lambda *_: draining.set())
    server.start()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    draining.wait()
    servicer.enter_graceful_shutdown()
    server.stop(grace=5).wait()
    print(f"{name} drained", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
