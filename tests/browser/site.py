"""What a browser loads: the SDK's modules, the gateway's pages and those of the tests. It stands where the gateway does."""

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Self
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "/sdk/web/": ROOT / "sdk" / "web" / "dist",
    "/pages/": ROOT / "services" / "gateway" / "pages",
    "/test/": Path(__file__).parent / "pages",
}
STRICT = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A page of somebody else, who allows what plain functions need.
OPEN = "/test/open.html"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    extensions_map = {  # noqa: RUF012 - as the base class has it
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        "": "application/octet-stream",
    }

    def __init__(self, cluster: str, *arguments: object) -> None:
        self._cluster = cluster
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/config.json":
            self._answer(json.dumps({"cluster": self._cluster}), "application/json")
        elif path == "/healthz":
            self._answer("ok\n", "text/plain")
        else:
            super().do_GET()

    def translate_path(self, path: str) -> str:
        wanted = urlsplit(path).path
        if wanted == "/executor":
            wanted = "/pages/executor.html"
        for prefix, folder in FOLDERS.items():
            name = wanted.removeprefix(prefix)
            if name != wanted and "/" not in name:
                return str(folder / name)
        return str(ROOT / "there" / "is" / "no such page")

    def end_headers(self) -> None:
        if urlsplit(self.path).path != OPEN:
            self.send_header("content-security-policy", STRICT)
        self.send_header("cache-control", "no-cache")
        self.send_header("x-content-type-options", "nosniff")
        super().end_headers()

    def log_message(self, *_arguments: object) -> None:
        """What is asked for is of no interest."""

    def _answer(self, text: str, media_type: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Site:
    """The server; a context manager."""

    def __init__(self, cluster: str) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, cluster))
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
