"""The listener that Prometheus asks for metrics."""

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import make_wsgi_app

log = structlog.get_logger()

# A peer that connects and says nothing holds one thread, and no longer than this; whatever it says, no longer than that.
SILENCE_SECONDS = 10.0
CONNECTION_SECONDS = 30.0
# Each has a thread. Who comes when there are as many is not served.
MAX_CONNECTIONS = 32
# Between two tries to accept a connection when there is no room for one: else this would be all that the thread does.
FULL_SECONDS = 0.1


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
        self._lock = threading.Lock()
        # Until when each connection that is open may be.
        self._open: dict[socket.socket, float] = {}
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
        """The next connection. Its handshake is made in the thread that serves it: here it would keep all others waiting.

        Raises:
            OSError: there is none that could be served; anything else would end the server.
        """
        try:
            connection, peer = super().get_request()
        except OSError:
            time.sleep(FULL_SECONDS)
            raise
        if self._context is None:
            return connection, peer
        try:
            return self._context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer
        except Exception as error:
            log.error("a metrics connection cannot be served", error=repr(error))  # noqa: TRY400 - no trace needed
            connection.close()
            msg = "no TLS for this connection"
            raise OSError(msg) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves a connection in a thread of its own, if there are not too many."""
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open[request] = time.monotonic() + CONNECTION_SECONDS
        if full:
            log.debug("too many metrics connections", peer=str(client_address))
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves it, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def _ended(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)

    def service_actions(self) -> None:
        """Between connections, and twice a second: ends those whose time is over, so that their threads end."""
        now = time.monotonic()
        with self._lock:
            over = [connection for connection, until in self._open.items() if now >= until]
        for connection in over:
            # Of the socket below TLS: what is there may be in use by the connection's thread.
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away or speaks no TLS is no fault of ours."""
        del request
        log.debug("a metrics request failed", peer=str(client_address), error=repr(sys.exception()))

    def end(self) -> None:
        """Stops listening."""
        self.shutdown()
        self.server_close()
