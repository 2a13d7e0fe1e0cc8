"""What stands between a tab and its server, or in the tab's own browser, and answers for it: proxies, dead connections, storage."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Route

from tests.browser.stage import Stage, in_state, on_the_way, ready, sees, start, until, with_sdk
from tests.fault.proxy import Mode, Proxy
from tests.harness.cluster import CLUSTER

pytestmark = pytest.mark.asyncio(loop_scope="package")

SCHEDULER = "**/colonies.scheduler.v1.SchedulerService/*"
CLOSE = "**/colonies.scheduler.v1.SchedulerService/CloseProcesses"
HEARTBEAT = "**/colonies.scheduler.v1.SchedulerService/Heartbeat"
ADD_LOGS = "**/colonies.scheduler.v1.SchedulerService/AddLogs"
MIB = 1024 * 1024
PAGE = "<html><body>This is a proxy.</body></html>"

Answer = Callable[[Route], Awaitable[None]]


def page_of(status: int) -> Answer:
    """A proxy's own page."""

    async def answer(route: Route) -> None:
        await route.fulfill(status=status, content_type="text/html", body=PAGE)

    return answer


async def runs(stage: Stage, kind: str) -> None:
    """Makes sure that the executor is given work, and does it."""
    process_id = await stage.submit(kind, "sum", 1, 2)
    assert (await stage.reaches(process_id, "SUCCESSFUL", "FAILED")).attempt == 1


@pytest.mark.parametrize("status", [200, 403, 404])
async def test_a_page_of_a_proxy_is_an_outage(stage: Stage, status: int) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        name = f"page-{status}"
        await ready(stage, page, name)
        process_id = await stage.submit(name, "waits", 500)
        await sees(page, "seen.started.length === 1")
        await context.route(SCHEDULER, page_of(status))
        # The network seems to be back: it opens another stream, and what is in hand ends meanwhile.
        await page.evaluate("dispatchEvent(new Event('online'))")
        await sees(page, f"executor.detail.startsWith('HTTP {status} from')")
        assert await page.evaluate("executor.state") == "reconnecting"
        await context.unroute(SCHEDULER)
        await in_state(page, "ready")
        assert (await stage.reaches(process_id, "SUCCESSFUL", "FAILED")).attempt == 1
        await runs(stage, name)


async def test_a_result_that_is_too_large_for_a_proxy(stage: Stage) -> None:
    async def answer(route: Route) -> None:
        body = route.request.post_data_buffer or b""
        await (page_of(413)(route) if len(body) > MIB else route.continue_())

    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "narrow", functions="/test/odd.js")
        await context.route(CLOSE, answer)
        process = await stage.reaches(await stage.submit("narrow", "givesMany", 2 * MIB), "SUCCESSFUL", "FAILED")
        assert process.errors[0].startswith("its result was refused: HTTP 413 from")


async def test_a_heartbeat_that_crosses_the_end(stage: Stage) -> None:
    heartbeats = 0

    async def beat(route: Route) -> None:
        nonlocal heartbeats
        await route.fulfill(response=await route.fetch())
        heartbeats += 1

    async def held_back(route: Route) -> None:
        answer = await route.fetch()
        before = heartbeats

        async def twice() -> bool:
            return heartbeats >= before + 2

        # The first of these was answered after the end, and the second sent after that answer.
        await until(twice, "two heartbeats are answered")
        await route.fulfill(response=answer)

    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "crosses")
        await context.route(HEARTBEAT, beat)
        await context.route(CLOSE, held_back)
        process_id = await stage.submit("crosses", "waits", 100)
        await sees(page, "seen.ended.length + seen.dropped.length === 1")
        assert await page.evaluate("[seen.ended.length, seen.dropped.length]") == [1, 0]
        assert await stage.state(process_id) == "SUCCESSFUL"


async def test_a_result_that_is_not_wanted(stage: Stage) -> None:
    async def late(route: Route) -> None:
        await stage.client().cancel(process_id)
        await route.continue_()

    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "unwanted")
        await context.route(CLOSE, late)
        process_id = await stage.submit("unwanted", "waits", 100)
        await sees(page, "seen.ended.length + seen.dropped.length === 1")
        assert await page.evaluate("seen.dropped.map(({ reason }) => reason)") == ["its result is not wanted any more"]


async def test_lines_that_pile_up_are_counted_and_not_kept(stage: Stage) -> None:
    refused = 0

    async def answer(route: Route) -> None:
        nonlocal refused
        refused += 1
        await route.abort()

    async def tried_often() -> bool:
        return refused >= 6

    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "piles", functions="/test/odd.js")
        await context.route(ADD_LOGS, answer)
        process_id = await stage.submit("piles", "logsLong", 4_000, 8_000)
        await until(tried_often, "the lines are sent again and again")
        await context.unroute(ADD_LOGS)
        await stage.reaches(process_id, "SUCCESSFUL")
        lines = [entry.message.split()[0] async for entry in stage.client().logs(process_id)]
        unkept = 4_000 - (len(lines) - 1)
        assert unkept > 0
        assert lines == [*map(str, range(4_000 - unkept)), f"({unkept}"]


async def names_cluster(context: BrowserContext, cluster: str) -> None:
    """From now on the server says this id of itself."""
    await context.route("**/config.json", lambda route: route.fulfill(json={"cluster": cluster}))


async def test_a_server_that_has_another_cluster_id_by_now(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await names_cluster(context, "an-earlier-one")
        await start(page, "renamed")
        await in_state(page, "reconnecting")
        await names_cluster(context, CLUSTER)
        await in_state(page, "waiting_for_approval")


async def test_a_page_in_the_place_of_the_cluster_id(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await context.route("**/config.json", page_of(200))
        await start(page, "unnamed")
        assert "is it a Colonies server?" in await page.evaluate("running")


async def test_a_clock_that_is_wrong(stage: Stage) -> None:
    async def late(route: Route) -> None:
        sent = await route.fetch()
        now = "{ const { now } = Date; Date.now = () => now() - 400_000; }"
        await route.fulfill(response=sent, body=f"{now}\n{await sent.text()}")

    async with stage.context() as context:
        await context.route("**/sdk/web/colonies.mjs", late)
        page = await stage.page(context)
        await start(page, "late")
        await in_state(page, "reconnecting")
        assert (await page.evaluate("executor.detail")).endswith(": is this machine's clock right?")


class Counting(Proxy):
    """Counts the connections that are made to it."""

    count = 0

    def opened(self, end: Any) -> None:
        self.count += end.other is None
        super().opened(end)


@pytest.mark.fault
async def test_a_stream_that_never_says_anything_is_given_up(stage: Stage) -> None:
    async with on_the_way(stage, Counting) as (page, way):
        await ready(stage, page, "mute")
        await way.turn(Mode.HANG)
        before = way.count

        async def tried_again() -> bool:
            await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            return way.count >= before + 2

        # One stream in the place of that which fell silent, and one in the place of that.
        await until(tried_again, "another stream is opened", seconds=60)
        assert "no sign of life for" in await page.evaluate("executor.detail")
        await way.turn(Mode.PASS)
        await in_state(page, "ready")
        await runs(stage, "mute")


DELETED = """new Promise((resolve) => {
    const request = indexedDB.deleteDatabase("colonies");
    request.onsuccess = () => resolve("deleted");
    request.onblocked = () => resolve("blocked");
})"""


async def test_deleted_storage_holds_nothing_up(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        identity = await ready(stage, page, "deleted")
        await runs(stage, "deleted")
        assert await page.evaluate(DELETED) == "deleted"
        await runs(stage, "deleted")
        # What is in hand is still written down for the next page; which is another executor, for the key is gone.
        process_id = await stage.submit("deleted", "waits", 600_000)
        await sees(page, "seen.started.length === 3")
        assert await page.evaluate("seen.warning") == []
        await page.reload()
        await with_sdk(page)
        await start(page, "deleted")
        await in_state(page, "waiting_for_approval")
        assert await page.evaluate("executor.identity") != identity
        await stage.client().cancel(process_id)


NEWER = """new Promise((resolve, reject) => {
    const request = indexedDB.open("colonies", 99);
    request.onsuccess = () => { request.result.close(); resolve(); };
    request.onerror = reject;
})"""


async def test_without_storage_a_key_must_be_given(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await page.evaluate(NEWER)
        await start(page, "keeps-nothing")
        assert (await page.evaluate("running")).startswith("this browser keeps nothing for this page: ")
        await page.evaluate("sdk.Key.generate().then((key) => { globalThis.key = key; })")
        await page.evaluate(
            """() => {
                globalThis.warnings = [];
                globalThis.seen = {};
                globalThis.executor = new sdk.Executor({
                    name: "given", types: ["given"], colony: "acme", functions: "/test/functions.js", key,
                });
                executor.addEventListener("warning", ({ detail }) => warnings.push(detail.text));
                globalThis.running = executor.run().then(() => "", (error) => error.message);
            }"""
        )
        await in_state(page, "waiting_for_approval")
        await stage.approve("given")
        await in_state(page, "ready")
        await runs(stage, "given")
        assert (await page.evaluate("warnings[0]")).startswith("this browser keeps nothing for this page: ")
