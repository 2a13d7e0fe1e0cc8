"""The gateway as a process: what is opened at its start, served, and ended in good order."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import structlog
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from servicekit.entry import StartError, check_plaintext, serve_metrics
from servicekit.tls import Certificates
from services.gateway import pages
from services.gateway.calls import Calls
from services.gateway.ending import Ending
from services.gateway.exchange import ABORT
from services.gateway.settings import Settings
from services.gateway.upstream import Upstream

log = structlog.get_logger()

# Longer than the front door's idle connections live: it is the one to close them.
KEEP_ALIVE_SECONDS = 120
BACKLOG = 4096
# How long the peer of a connection that was closed for good has to close it, too.
GOODBYE_SECONDS = 1.0
# With which words the front door asks.
HEALTH_CHECKER = "Envoy/HC"


class Connection(HttpToolsProtocol):
    """A connection whose requests can cut it off: what its peer does not take must not be kept for ever."""

    _is_last = False

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort

    def on_response_complete(self) -> None:
        """A request is over."""
        super().on_response_complete()
        if self._is_last:
            self._leave()

    def shutdown(self) -> None:
        """The process ends as soon as all connections are closed."""
        self._is_last = True
        super().shutdown()
        self._leave()

    def _leave(self) -> None:
        # A closed connection with TLS waits until its peer closes it, too. One that keeps it for later, and reads nothing
        # meanwhile, never does.
        if self.transport.is_closing():
            self.loop.call_later(GOODBYE_SECONDS, self._cut)

    def _cut(self) -> None:
        if not self.flow.write_paused:
            self.transport.abort()


class _Server(uvicorn.Server):
    """One that leaves signals to the process, and says when it serves."""

    def __init__(self, config: uvicorn.Config, on_serving: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_serving = on_serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens."""
        await super().startup(sockets)
        self._on_serving()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


class Gateway:
    """One replica."""

    def __init__(self, settings: Settings) -> None:
        """Raises:
        CertificateFileError: a certificate cannot be used.
        """
        self._settings = settings
        self._certificates = Certificates(settings)
        self._ending = Ending()
        # Set to end it.
        self.told = asyncio.Event()
        # Set when it serves, on `port`.
        self.serving = asyncio.Event()
        self.port = 0
        self.metrics_port = 0

    async def serve(self) -> None:
        """Serves until told to end.

        Raises:
            StartError: it cannot.
        """
        settings = self._settings
        if self._certificates.for_channels is None:
            check_plaintext(settings, "COLONIES_FRONT_DOOR_ADDRESS", settings.front_door_address, "COLONIES_TLS_CA_FILE")
        if self._certificates.for_listeners is None:
            check_plaintext(settings, "COLONIES_LISTEN", settings.listen, "COLONIES_TLS_CERT_FILE")
        upstream = Upstream(settings.front_door_address, self._certificates.for_channels)
        listener = _bound(settings.listen)
        self.port = listener.getsockname()[1]
        metrics = serve_metrics(settings, self._certificates) if settings.metrics_listen else None
        self.metrics_port = metrics.server_port if metrics else 0
        server = _Server(self._config(upstream), self._tell)
        watching = asyncio.create_task(self._certificates.watch())
        ending = asyncio.create_task(self._end(server))
        try:
            await server.serve(sockets=[listener])
        finally:
            for task in (watching, ending):
                task.cancel()
            await asyncio.gather(watching, ending, return_exceptions=True)
            await upstream.close()
            if metrics is not None:
                metrics.end()
            log.info("stopped")

    def _tell(self) -> None:
        log.info("serving", listen=self._settings.listen, port=self.port, front_door=self._settings.front_door_address)
        self.serving.set()

    async def _end(self, server: uvicorn.Server) -> None:
        await self.told.wait()
        log.info("draining", seconds=self._settings.drain_seconds)
        await self._ending.begin()
        server.should_exit = True
        self._ending.end_streams()
        await asyncio.sleep(self._settings.drain_seconds)
        self._ending.end_requests()

    def _config(self, upstream: Upstream) -> uvicorn.Config:
        secured = self._certificates.for_listeners is not None
        return uvicorn.Config(
            self._application(upstream),
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(self._settings.drain_seconds) + 1,
            ssl_context_factory=(lambda _config, _default: self._context()) if secured else None,
        )

    def _application(self, upstream: Upstream) -> Router:
        return Router(
            routes=[
                Route("/healthz", self._health),
                Mount("/api", app=Calls(self._settings, upstream, self._ending)),
            ],
            # Whatever else is asked for, in whatever way: it is a page, or there is none.
            default=pages.Pages(pages.load(self._settings.cluster)),
            redirect_slashes=False,
        )

    async def _health(self, request: Request) -> Response:
        if not self._ending.begun:
            return PlainTextResponse("ok")
        if request.headers.get("user-agent", "").startswith(HEALTH_CHECKER):
            self._ending.seen()
        return PlainTextResponse("draining", 503)

    def _context(self) -> ssl.SSLContext:
        """For the listener: each new connection gets the certificates of that moment."""
        context = self._certificates.server_context()

        def latest(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._certificates.server_context()

        context.sni_callback = latest
        return context


def _bound(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, ValueError) as error:
        msg = f"cannot listen on {listen}: {error}"
        raise StartError(msg) from error
    return listener
