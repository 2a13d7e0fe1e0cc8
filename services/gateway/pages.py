"""What browsers load: pages, the modules of the web SDK, and the description of the interface. All of it is read at the start.

A file below `pages/` is served under its own name, `NAME.html` as /NAME, and `index.html` as /. The web SDK's bundle is below
/sdk/web/. /config.json has what a page must know to sign: for which cluster.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.problems import no_such_path, wrong_verb

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Asked about each time, and not sent again while it is the same.
    "cache-control": "no-cache",
}
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".wasm": "application/wasm",
}
_HERE = Path(__file__).parent
# In a wheel the bundle lies beside the pages, in a checkout where it is built.
BUNDLES = (_HERE / "sdk_web", _HERE.parents[1] / "sdk" / "web" / "dist")


@dataclass(frozen=True, slots=True)
class Page:
    """A file as it is served."""

    body: bytes
    kind: str
    etag: str

    @classmethod
    def of(cls, path: Path) -> "Page":
        """Reads it."""
        return cls.made_of(path.read_bytes(), _KINDS.get(path.suffix, "text/plain; charset=utf-8"))

    @classmethod
    def made_of(cls, body: bytes, kind: str) -> "Page":
        """One that is in no file."""
        return cls(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def load(cluster: str = "") -> dict[str, Page]:
    """Every page by its path. `cluster` is told to pages, if it is known."""
    pages = {f"/{name}": page for name, page in _files(_HERE / "pages")}
    pages = {_address(name): page for name, page in pages.items()}
    bundle = next((folder for folder in BUNDLES if folder.is_dir()), None)
    if bundle is not None:
        pages.update((f"/sdk/web/{name}", page) for name, page in _files(bundle))
    if cluster:
        pages["/config.json"] = Page.made_of(json.dumps({"cluster": cluster}).encode(), _KINDS[".json"])
    return pages


def _files(folder: Path) -> Iterator[tuple[str, Page]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith((".", "__init__")) and path.suffix != ".pyc":
            yield path.relative_to(folder).as_posix(), Page.of(path)


def _address(name: str) -> str:
    return "/" if name == "/index.html" else name.removesuffix(".html")


class Pages:
    """Serves them."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request with one of them."""
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        page = self._pages.get(request.scope["path"])
        if page is None or request.method not in {"GET", "HEAD"}:
            problem = no_such_path() if page is None else wrong_verb("GET")
            return Response(
                problem.body(), problem.status, {**HEADERS, **problem.headers, "cache-control": "no-store"}, "application/json"
            )
        headers = {**HEADERS, "etag": page.etag}
        known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
        if page.etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(page.body, headers={**headers, "content-type": page.kind})
