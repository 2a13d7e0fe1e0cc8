"""Stands in for a service: answers health, and every method of its package with who and where it is.

    python dummy_service.py NAME

Reads the environment that services read. `Echo` answers with the request, `Wait` is a stream that says hello and then stays silent until the process
drains; `Environment` tells what the process was told; `Crash` kills it.

The gateway's stand-in speaks HTTP/1.1: it is well, and answers every path with who and where it is.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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

    def _echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    def _environment(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return json.dumps({key: value for key, value in os.environ.items() if key.startswith("COLONIES_")}).encode()

    def _crash(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"hello"
        self._draining.wait()
        yield b"goodbye"


class Pages(BaseHTTPRequestHandler):
    """What the gateway's stand-in answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        environment = {key: value for key, value in os.environ.items() if key.startswith("COLONIES_")}
        answer = (
            json.dumps(environment) if self.path == "/environment" else f"gateway@{os.environ['COLONIES_LISTEN']}{self.path}"
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - it is the base's
        """Nothing: it is asked for its health all the time."""


def serve_pages(draining: threading.Event) -> None:
    """Serves HTTP until SIGTERM."""
    host, _, port = os.environ["COLONIES_LISTEN"].rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    draining.wait()
    server.shutdown()


def main(name: str) -> int:
    """Serves until SIGTERM."""
    if os.environ.get("DUMMY_BROKEN") == name:
        print(f"{name} is broken on purpose", file=sys.stderr)
        return 3
    draining = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: draining.set())
    if name == "gateway":
        serve_pages(draining)
    else:
        serve_calls(name, draining)
    print(f"{name} drained", file=sys.stderr)
    return 0


def serve_calls(name: str, draining: threading.Event) -> None:
    """Serves gRPC until SIGTERM."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), handlers=[Answers(name, draining)])
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(os.environ["COLONIES_LISTEN"])
    server.start()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    draining.wait()
    servicer.enter_graceful_shutdown()
    server.stop(grace=5).wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
