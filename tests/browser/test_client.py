"""The client in a page: the stubs, signed; errors as they are; streams; and pages of other origins."""

from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.site import Site
from tests.browser.stage import Stage, with_sdk
from tests.harness.cluster import CLUSTER, COLONY

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def as_user(stage: Stage, page: Page, **settings: str) -> None:
    """Makes `client`, whose key is the user's."""
    await page.evaluate(
        """async ([seed, settings]) => {
            globalThis.client = new sdk.Client({ key: await sdk.Key.fromSeed(Uint8Array.from(seed)), ...settings });
        }""",
        [list(bytes.fromhex(stage.cluster.keys.user.hex)), settings],
    )


async def test_calls_and_their_errors(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await as_user(stage, page)
        assert await page.evaluate("client.auth.getServerInfo({}).then(({ cluster }) => cluster)") == CLUSTER
        process_id = await page.evaluate(
            """(colonyName) => client.scheduler.submitProcesses({
                colonyName,
                requestId: crypto.randomUUID(),
                specs: [{ funcName: "f", args: [sdk.encode(2n ** 62n)], conditions: { executorType: "nobody" } }],
            }).then(({ processIds }) => processIds[0])""",
            COLONY,
        )
        process = await stage.client().get_process(process_id)
        assert process.spec.args[0].data == str(2**62).encode()
        error: dict[str, Any] = await page.evaluate(
            """() => client.scheduler.submitProcesses({ colonyName: "acme", requestId: "", specs: [] }).catch((error) => (
                { is: error instanceof sdk.RpcError, code: error.code, fields: error.violations.map(({ field }) => field) }
            ))"""
        )
        assert error == {"is": True, "code": "INVALID_ARGUMENT", "fields": ["request_id", "specs"]}
        missing = "client.scheduler.getProcess({ colonyName: 'acme', processId: crypto.randomUUID() })"
        assert await page.evaluate(f"{missing}.catch(({{ code }}) => code)") == "NOT_FOUND"
        await stage.client().cancel(process_id)


async def test_a_stream_of_what_happens(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await as_user(stage, page)
        process_id = await stage.submit("nobody", "f")
        await page.evaluate(
            """(processId) => {
                globalThis.told = (async () => {
                    const states = [];
                    const stream = client.scheduler.watchProcesses({ colonyName: "acme", target: { case: "processId", value: processId } });
                    for await (const { events } of stream) states.push(...events.map(({ transition }) => transition.toState));
                    return states;
                })();
            }""",
            process_id,
        )
        await stage.client().cancel(process_id)
        # WAITING, CANCELLED; and then the stream ends.
        assert await page.evaluate("told") == [1, 5]


async def test_a_wrong_cluster_id_is_refused(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await as_user(stage, page, cluster="another")
        reason = await page.evaluate("client.auth.getServerInfo({}).catch(({ code, reason }) => code + ' ' + reason)")
        assert reason == "UNAUTHENTICATED SIGNATURE_INVALID"


async def test_pages_of_other_origins_need_leave(stage: Stage) -> None:
    async with stage.context() as context:
        with Site(CLUSTER) as elsewhere:
            page = await context.new_page()
            await page.goto(f"http://127.0.0.1:{elsewhere.port}/test/open.html")
            await with_sdk(page)
            await as_user(stage, page, server=stage.origin, cluster=CLUSTER)
            assert await page.evaluate("client.auth.getServerInfo({}).catch(({ code }) => code)") == "UNAVAILABLE"
        page = await context.new_page()
        # Of the front door's own pages, a call needs none.
        await page.goto(f"{stage.origin}/test/open.html")
        await with_sdk(page)
        await as_user(stage, page)
        assert await page.evaluate("client.auth.getServerInfo({}).then(({ cluster }) => cluster)") == CLUSTER
