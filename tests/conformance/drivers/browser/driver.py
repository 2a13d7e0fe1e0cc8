"""The driver of the browser SDK (tests/conformance/README.md): a Chromium with a page that does what the commands say.

The page's origin is another one than the server's, http://browser-driver.localhost, so that calls need the server's leave (CORS).
This program serves the page and passes lines on, both ways; it knows nothing of what they say.
"""

import asyncio
import os
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from playwright.async_api import Page, async_playwright

HOST = "browser-driver.localhost"
ROOT = Path(__file__).resolve().parents[4]
SDK = ROOT / "sdk" / "web" / "dist"
PAGES = Path(__file__).parent / "pages"
PROGRAMS = (os.environ.get("COLONIES_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LINE_BYTES = 256 * 1024 * 1024


class _Handler(SimpleHTTPRequestHandler):
    """The page, its modules, and those of the SDK."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        folder, _, name = urlsplit(path).path.rpartition("/")
        return str((SDK if folder == "/sdk/web" else PAGES) / name)

    def guess_type(self, path: object) -> str:
        return "text/javascript" if str(path).endswith(("js", "mjs")) else "text/html; charset=utf-8"

    def log_message(self, *_arguments: object) -> None:
        """What is asked for is of no interest."""


def write(line: str) -> None:
    """An answer or an event."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def lines() -> asyncio.StreamReader:
    """The commands."""
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(partial(asyncio.StreamReaderProtocol, reader), sys.stdin)
    return reader


async def drive(page: Page) -> None:
    """Passes lines on until there are no more."""
    await page.expose_function("emit", write)
    page.on("console", lambda message: print(message.text, file=sys.stderr, flush=True))
    page.on("pageerror", lambda error: print(error, file=sys.stderr, flush=True))
    await page.goto(f"http://{HOST}/driver.html")
    await page.wait_for_function("() => globalThis.take")
    reader = await lines()
    while line := await reader.readline():
        await page.evaluate("(line) => void take(line)", line.decode())


async def main() -> None:
    """Opens the page, and drives it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    program = next(filter(None, (shutil.which(name) for name in PROGRAMS if name)))
    mapped = f"--host-resolver-rules=MAP {HOST}:80 127.0.0.1:{server.server_address[1]}"
    flags = [*FLAGS, mapped, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=flags)
        try:
            # The authority of a stack under test is nobody that a browser knows.
            context = await browser.new_context(ignore_https_errors=True)
            await drive(await context.new_page())
        finally:
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
