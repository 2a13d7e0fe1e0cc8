"""The listener that Prometheus asks for metrics."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import make_wsgi_app

log = structlog.get_logger()

# A peer that connects and says nothing holds one thread, and no longer than this.
SILENCE_SECONDS = 10.0


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - it is the base's
        del format, args


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves this process's metrics until it is shut down."""

    daemon_threads = True

    def __init__(self, host: str, port: int, context: Callable[[], ssl.SSLContext] | None) -> None:
        """`context` is asked at each new connection; None for plaintext.

        Raises:
            OSError: it cannot listen there.
        """
        self._context = context
        family, *_, address = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]  # IPv6 addresses are longer
        self.set_app(make_wsgi_app())
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def server_bind(self) -> None:
        """Binds, without asking the resolver for the name of this machine."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection. Its handshake is made in the thread that serves it: here it would keep all others waiting."""
        connection, peer = super().get_request()
        if self._context is not None:
            connection = self._context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, peer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away or speaks no TLS is no fault of ours."""
        del request
        log.debug("a metrics request failed", peer=str(client_address), error=repr(sys.exception()))

    def end(self) -> None:
        """Stops listening."""
        self.shutdown()
        self.server_close()
