"""What a browser loads: the gateway's own pages, under its own policy, and those of the tests. It stands where the gateway does."""

from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Self
from urllib.parse import urlsplit

from services.gateway.pages import HEADERS, Page, load

PAGES = Path(__file__).parent / "pages"
# A page of somebody else, who allows what plain functions need.
OPEN = "/test/open.html"
POLICY = "content-security-policy"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, pages: dict[str, Page], *arguments: object) -> None:
        self._pages = pages
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        page = self._pages.get(path)
        self.send_response(HTTPStatus.OK if page else HTTPStatus.NOT_FOUND)
        body = page.body if page else b""
        for name, value in HEADERS.items():
            if name != POLICY or path != OPEN:
                self.send_header(name, value)
        self.send_header("content-type", page.kind if page else "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """What is asked for is of no interest."""


class Site:
    """The server; a context manager."""

    def __init__(self, cluster: str) -> None:
        pages = load(cluster)
        pages.update({f"/test/{path.name}": Page.of(path) for path in PAGES.iterdir()})
        pages["/healthz"] = Page.made_of(b"ok", "text/plain")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, pages))
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens, on loopback."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
