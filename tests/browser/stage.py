"""Services, Envoy before them, and a Chromium: what every test of this folder plays on."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from colonies.client import AsyncClient
from colonies.function import Function
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.scheduler.v1 import process_pb2
from deploy.local.envoy import EnvoyFrontDoor
from deploy.local.ports import free_port
from tests.browser.site import Site
from tests.fault.proxy import Proxy
from tests.harness.cluster import CLUSTER, COLONY, Cluster
from tests.harness.servers import open_directory

P = TypeVar("P", bound=Proxy)

# Short, so that a test sees leases run out.
LEASE_MS = 3_000
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
SECONDS = 30.0


def missing() -> str:
    """Why no browser can be started here; empty if one can."""
    return "" if shutil.which(CHROMIUM) else f"no {CHROMIUM}: apt-get install chromium"


class Stage:
    """All of it. Opened by `stage()`."""

    def __init__(self, cluster: Cluster, door: EnvoyFrontDoor, browser: Browser, site: Site) -> None:
        self.cluster = cluster
        self.door = door
        self._site = site
        self._browser = browser
        self._clients: dict[str, AsyncClient] = {}

    @property
    def origin(self) -> str:
        """What the pages of this stage come from."""
        return f"http://{self.door.address}"

    async def tell_door(self) -> None:
        """Tells the front door where everything is; returns when it has found it."""
        services = {name: [_place(one.address) for one in replicas] for name, replicas in self.cluster.replicas.items()}
        await asyncio.to_thread(self.door.set_endpoints, {**services, "gateway": [("127.0.0.1", self._site.port)]})

        async def found() -> bool:
            return all((await asyncio.to_thread(self.door.healthy_endpoints)).values())

        await until(found, "the front door finds all services")

    def client(self, key: PrivateKey | None = None) -> AsyncClient:
        """A client at the front door: of the user, or with this key."""
        key = key or self.cluster.keys.user
        if key.identity not in self._clients:
            host, _, port = self.door.address.rpartition(":")
            self._clients[key.identity] = AsyncClient(host, int(port), COLONY, key, CLUSTER)
        return self._clients[key.identity]

    @property
    def owner(self) -> AsyncClient:
        """The colony's owner."""
        return self.client(self.cluster.keys.owner)

    async def close(self) -> None:
        """Ends the clients."""
        for client in self._clients.values():
            await client.close()

    @asynccontextmanager
    async def context(self) -> AsyncIterator[BrowserContext]:
        """What one user has: pages that share keys."""
        context = await self._browser.new_context()
        context.set_default_timeout(SECONDS * 1000)
        try:
            yield context
        finally:
            await context.close()

    async def page(self, context: BrowserContext, path: str = "/test/blank.html") -> Page:
        """A page with the SDK as `sdk`; `violations` are those of its content security policy."""
        page = await context.new_page()
        await page.goto(self.origin + path)
        await with_sdk(page)
        return page

    async def submit(self, kind: str, name: str, *args: Any, **spec: Any) -> str:
        """Submits a call for an executor of this type; gives the process's id."""
        function = Function(name, executortype=kind, args=list(args), **spec)
        return await self.client().submit(function)

    async def state(self, process_id: str) -> str:
        """The name of a process's state."""
        process = await self.client().get_process(process_id)
        return process_pb2.ProcessState.Name(process.state).removeprefix("PROCESS_STATE_")

    async def reaches(self, process_id: str, *states: str) -> Any:
        """The process, once it is in one of these states."""

        async def is_there() -> bool:
            return await self.state(process_id) in states

        await until(is_there, f"process {process_id} is {' or '.join(states)}")
        return await self.client().get_process(process_id)

    async def executor_named(self, name: str) -> registry.Executor | None:
        """A registered executor."""
        found = [one async for one in self.owner.list_executors() if one.name == name]
        return found[0] if found else None

    async def approve(self, name: str) -> str:
        """Approves an executor once it has registered; gives its identity."""

        async def registered() -> bool:
            return await self.executor_named(name) is not None

        await until(registered, f"{name} registers")
        found = await self.executor_named(name)
        assert found is not None
        await self.owner.approve_executor(found.identity)
        return found.identity


@asynccontextmanager
async def on_the_way(stage: Stage, way: type[P]) -> AsyncIterator[tuple[Page, P]]:
    """A page with the SDK that reaches the front door through a proxy, which can be told to do harm."""
    proxy = way(lambda: _place(stage.door.address)[1])
    await proxy.start()
    try:
        async with stage.context() as context:
            page = await context.new_page()
            await page.goto(f"http://127.0.0.1:{proxy.port}/test/blank.html")
            await with_sdk(page)
            yield page, proxy
    finally:
        await proxy.stop()


async def with_sdk(page: Page) -> None:
    """Imports the SDK into the page, and notes what its policy forbids."""
    await page.evaluate(
        """async () => {
            globalThis.violations = [];
            addEventListener("securitypolicyviolation", (event) => violations.push(event.blockedURI + " " + event.violatedDirective));
            globalThis.sdk = await import("/sdk/web/colonies.mjs");
        }"""
    )


START = """([name, settings]) => {
    globalThis.seen = { states: [], started: [], ended: [], dropped: [], warning: [] };
    globalThis.executor = new sdk.Executor({ name, types: [name], colony: "acme", functions: "/test/functions.js", ...settings });
    executor.addEventListener("state", ({ detail }) => seen.states.push(detail.state));
    for (const type of ["started", "ended", "dropped", "warning"]) {
        executor.addEventListener(type, ({ detail }) => seen[type].push(detail));
    }
    globalThis.running = executor.run().then(() => "", (error) => error.message);
}"""


async def start(page: Page, name: str, **settings: Any) -> None:
    """Starts an executor in the page, as `executor`, of a type of its own; what happens is in `seen`."""
    await page.evaluate(START, [name, settings])


async def ready(stage: Stage, page: Page, name: str, **settings: Any) -> str:
    """An approved executor in this page, at work; gives its identity."""
    await start(page, name, **settings)
    await in_state(page, "waiting_for_approval")
    identity = await stage.approve(name)
    # It looks again every two seconds, and when it seems that the network is back.
    await page.evaluate("dispatchEvent(new Event('online'))")
    await in_state(page, "ready")
    return identity


async def sees(page: Page, condition: str, *, seconds: float = SECONDS) -> None:
    """Returns when a condition holds in the page. Looks from outside: the policy of a strict page forbids what waits inside."""

    async def holds() -> bool:
        return bool(await page.evaluate(condition))

    try:
        await until(holds, condition, seconds=seconds)
    except AssertionError as error:
        now = await page.evaluate("JSON.stringify([executor.state, executor.detail, seen])")
        raise AssertionError(f"{error}: {now}") from None


async def in_state(page: Page, state: str) -> None:
    """Returns when the page's executor is in this state."""
    await sees(page, f"executor.state === {state!r}")


async def until(condition: Callable[[], Awaitable[bool]], what: str, *, seconds: float = SECONDS) -> None:
    """Waits for a condition to hold; looks again every 20 ms."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        assert loop.time() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@asynccontextmanager
async def stage(database_url: str, redis_url: str, directory: Path) -> AsyncIterator[Stage]:
    """A running stage."""
    async with AsyncExitStack() as stack:
        site = stack.enter_context(Site(CLUSTER))
        settings = {"scheduler": {"lease_ms": LEASE_MS, "listen": f"127.0.0.1:{free_port()}"}}
        cluster = await stack.enter_async_context(Cluster(database_url, redis_url, directory, settings=settings))
        folder = stack.enter_context(open_directory())
        door = EnvoyFrontDoor(folder / "envoy", port=free_port())
        await asyncio.to_thread(door.start)
        stack.push_async_callback(asyncio.to_thread, door.stop)
        playwright = await stack.enter_async_context(async_playwright())
        flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        stack.push_async_callback(browser.close)
        made = Stage(cluster, door, browser, site)
        stack.push_async_callback(made.close)
        await made.tell_door()
        yield made
