"""The page /executor, as somebody uses it: under the gateway's strict policy."""

import pytest
from playwright.async_api import Page, expect

from tests.browser.stage import SECONDS, Stage, until
from tests.harness.cluster import COLONY

pytestmark = pytest.mark.asyncio(loop_scope="package")

expect.set_options(timeout=SECONDS * 1000)

WATCH = """globalThis.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.blockedURI + " " + event.violatedDirective));
addEventListener("error", (event) => violations.push(event.message));
addEventListener("unhandledrejection", (event) => violations.push(String(event.reason)));"""


async def opened(stage: Stage, page: Page, query: str = "") -> None:
    """Opens the page; what its policy forbids, and what fails in it, is noted from the start."""
    await page.add_init_script(WATCH)
    await page.goto(f"{stage.origin}/executor{query}")


async def test_from_the_form_to_the_results(stage: Stage) -> None:
    async with stage.context() as context:
        page = await context.new_page()
        await opened(stage, page)
        await page.get_by_label("Colony").fill(COLONY)
        await page.get_by_label("Name").fill("by-hand")
        await page.get_by_label("Types").fill("by-hand, other")
        await page.get_by_role("button", name="Start").click()
        await expect(page.get_by_role("status")).to_contain_text("waiting for approval")
        assert await page.locator("#command").text_content() == "colonies executor approve by-hand"
        identity = await stage.approve("by-hand")
        assert await page.locator("#identity").text_content() == identity
        await expect(page.get_by_role("status")).to_contain_text("ready")
        registered = await stage.executor_named("by-hand")
        assert registered is not None
        assert list(registered.executor_types) == ["by-hand", "other"]

        total = await stage.submit("by-hand", "sum", 4, 9)
        two = await stage.submit("by-hand", "gen_nums")
        primes = await stage.submit("by-hand", "count_primes", 1_000)
        failing = await stage.submit("by-hand", "sleep", -1)
        assert [await stage.client().wait(one) for one in (total, two, primes)] == [[13], [2, 3], [168]]
        await stage.reaches(failing, "FAILED")
        await expect(page.locator("#successful")).to_have_text("3")
        await expect(page.locator("#failed")).to_have_text("1")
        await expect(page.locator("#last tr").nth(0)).to_contain_text("seconds is -1: it must be 0 to 3600")
        await expect(page.locator("#last tr").nth(3)).to_contain_text("13")
        assert [entry.message async for entry in stage.client().logs(total)] == ["adding 4 and 9"]

        await page.get_by_role("button", name="Drain and stop").click()
        await expect(page.get_by_role("status")).to_contain_text("stopped")
        assert await page.evaluate("violations") == []


async def test_by_its_address_alone_and_again_after_a_reload(stage: Stage) -> None:
    async with stage.context() as context:
        page = await context.new_page()
        await opened(stage, page, f"?colony={COLONY}&name=by-address&types=by-address&autostart=1")
        identity = await stage.approve("by-address")
        await expect(page.get_by_role("status")).to_contain_text("ready")
        slow = await stage.submit("by-address", "sleep", 600, max_retries=1)
        await expect(page.locator("#running")).to_have_text("1")
        await page.reload()
        await expect(page.get_by_role("status")).to_contain_text("ready")
        assert await page.locator("#identity").text_content() == identity

        async def begun_anew() -> bool:
            return (await stage.client().get_process(slow)).attempt == 2

        await until(begun_anew, "the process runs again")
        await stage.client().cancel(slow)
        await expect(page.locator("#dropped")).to_have_text("1")
        assert await page.evaluate("violations") == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?colony=acme&name=no%20name&types=x&autostart=1", 'name is "no name"'),
        ("?colony=acme&name=n&types=x&module=https://other.example/f.js&autostart=1", "a module must be on this one"),
        ("?colony=acme&name=n&types=x&module=/test/absent.js&autostart=1", "/test/absent.js"),
    ],
)
async def test_what_cannot_work_is_said(stage: Stage, query: str, said: str) -> None:
    async with stage.context() as context:
        page = await context.new_page()
        await opened(stage, page, query)
        await expect(page.get_by_role("alert")).to_contain_text(said)
        await expect(page.get_by_role("button", name="Start")).to_be_enabled()


async def test_a_module_of_ones_own(stage: Stage) -> None:
    async with stage.context() as context:
        page = await context.new_page()
        await opened(stage, page, f"?colony={COLONY}&name=own&types=own&module=/test/functions.js&autostart=1")
        await stage.approve("own")
        assert await stage.client().wait(await stage.submit("own", "two")) == [2, 3]
        await expect(page.locator("#functions")).to_contain_text("Adds numbers.")
