"""An executor of the demo that is a real browser: a headless Chromium that opens the server's page /executor."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from colonies.cli.bootstrap import Address
from colonies.cli.failure import CliError
from colonies.client import AsyncClient
from colonies.registry.v1 import registry_service_pb2 as registry

if TYPE_CHECKING:
    from playwright.async_api import Page

NAME = "B1"
TYPES = ("browser",)
# The Chromium to use, where it is not found by one of its names.
VARIABLE = "COLONIES_CHROMIUM"
WAIT_SECONDS = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The program to run.

    Raises:
        CliError: there is none, or nothing to drive it with; says what to install.
    """
    try:
        import playwright  # noqa: F401
    except ImportError as error:
        msg = "a browser is driven with playwright, which is not installed here: pip install 'colonies[browser]'"
        raise CliError(msg) from error
    chosen = os.environ.get(VARIABLE)
    found = shutil.which(chosen) if chosen else next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        looked = f"{VARIABLE} is {chosen}, which is no program" if chosen else "no Chromium is installed here"
        msg = f"{looked}: apt-get install chromium, or set {VARIABLE} to where it is"
        raise CliError(msg)
    return found


class Tab:
    """The page in the browser, at work."""

    def __init__(self, page: "Page") -> None:
        self._page = page

    async def registered(self) -> str:
        """Its identity, once it has registered.

        Raises:
            CliError: it took too long, or the page says what is wrong.
        """
        await self._until("waiting_for_approval", "ready")
        return (await self._page.locator("#identity").text_content()) or ""

    async def ready(self) -> None:
        """Returns when it takes work. Errors as above."""
        await self._until("ready")

    async def _until(self, *states: str) -> None:
        from playwright.async_api import TimeoutError as TimedOut

        wanted = ", ".join(f'#state[data-state="{state}"]' for state in states)
        there = self._page.locator(wanted).or_(self._page.locator("#problem:not([hidden])"))
        try:
            await there.first.wait_for(timeout=WAIT_SECONDS * 1000)
        except TimedOut as error:
            said = await self._page.locator("main").inner_text()
            msg = f"the browser is not {' or '.join(states)} within {WAIT_SECONDS:.0f} s"
            raise CliError(msg, details=said.splitlines()[-5:]) from error
        problem = self._page.locator("#problem")
        if await problem.is_visible():
            msg = f"the browser's page says: {await problem.text_content()}"
            raise CliError(msg)


@asynccontextmanager
async def opened(program: str, address: Address, colony: str, profile: Path) -> AsyncIterator[Tab]:
    """A browser whose only page is an executor of this colony. What it keeps, its key above all, is in `profile`.

    Raises:
        CliError: it does not start.
    """
    from playwright.async_api import Error, async_playwright

    query = urlencode({"colony": colony, "name": NAME, "types": ",".join(TYPES), "autostart": 1})
    # Chromium's sandbox does not work for root.
    flags = [*_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else list(_FLAGS)
    async with AsyncExitStack() as stack:
        try:
            playwright = await stack.enter_async_context(async_playwright())
        except Exception as error:
            # Its Node is linked with a library that a small Debian does not have, and says so on standard error alone.
            msg = "what drives the browser cannot start; apt-get install libatomic1, if that is what it lacks"
            raise CliError(msg) from error
        try:
            context = await playwright.chromium.launch_persistent_context(
                profile,
                executable_path=program,
                args=flags,
                # The local stack's authority is known to its own clients only.
                ignore_https_errors=bool(address.ca_file),
            )
            page = context.pages[0] if context.pages else await context.new_page()
            await page.goto(f"{page_of(address)}?{query}")
        except Error as error:
            msg = f"the browser {program} cannot open {page_of(address)}"
            raise CliError(msg, details=str(error).splitlines()[:5]) from error
        try:
            yield Tab(page)
        finally:
            await context.close()


def page_of(address: Address) -> str:
    """The page that makes a tab an executor."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'https' if address.ca_file else 'http'}://{host}:{address.port}/executor"


async def admit(owner: AsyncClient, tab: Tab) -> None:
    """Approves the browser. Another one that had its name, and a key that is lost by now, is removed first."""
    identity = await tab.registered()
    async for other in owner.list_executors(states=[registry.EXECUTOR_STATE_APPROVED]):
        if other.name == NAME and other.identity != identity:
            await owner.remove_executor(other.identity)
    await owner.approve_executor(identity)
    await tab.ready()
