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
        await expect(page.locator("#last tr").nth(0)).to_contain_text("failed: RangeError: seconds is -1: it must be 0 to 3600")
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


async def test_what_was_in_the_form_may_be_unreadable(stage: Stage) -> None:
    async with stage.context() as context:
        page = await context.new_page()
        for kept in ("{", "null", "7"):
            await opened(stage, page)
            await page.evaluate("(kept) => localStorage.setItem('colonies-executor-form', kept)", kept)
            await page.reload()
            assert (await page.get_by_label("Name").input_value()).startswith("browser-")
            assert await page.evaluate("violations") == []


@pytest.mark.parametrize(
    "answer",
    ["() => Promise.resolve(false)", "() => Promise.reject(new Error('no'))", "() => new Promise(() => {})", "undefined"],
)
async def test_the_browser_is_asked_to_keep_the_key(stage: Stage, answer: str) -> None:
    """Whatever it says to that, and if it says nothing, the executor goes on."""
    async with stage.context() as context:
        page = await context.new_page()
        await page.add_init_script(f"""globalThis.asked = 0;
            const answer = {answer};
            navigator.storage.persist = answer && (() => {{ asked += 1; return answer(); }});""")
        await opened(stage, page, f"?colony={COLONY}&name=keeper&types=keeper")
        assert await page.evaluate("asked") == 0
        await page.get_by_role("button", name="Start").click()
        await expect(page.get_by_role("status")).to_contain_text("waiting for approval")
        assert await page.evaluate("asked") == (0 if answer == "undefined" else 1)
        assert await page.evaluate("violations") == []


async def test_a_module_from_a_link_is_in_sight(stage: Stage) -> None:
    async with stage.context() as context:
        page = await context.new_page()
        await opened(stage, page, "?module=/test/functions.js")
        await expect(page.get_by_label("Module")).to_be_visible()
        # What else is in the form is not kept from a link that was never started.
        await opened(stage, page)
        await expect(page.get_by_label("Module")).to_be_hidden()


async def test_focus_copying_and_what_is_left(stage: Stage) -> None:
    async with stage.context() as context:
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = await context.new_page()
        await opened(stage, page, f"?colony={COLONY}&name=at-hand&types=at-hand")
        await page.get_by_role("button", name="Start").click()
        await expect(page.get_by_role("heading", name="at-hand in colony")).to_be_focused()
        await expect(page.get_by_role("button", name="Copy")).to_be_visible()
        await page.get_by_role("button", name="Copy").click()
        await expect(page.locator("#copied")).to_have_text("Copied.")
        assert await page.evaluate("navigator.clipboard.readText()") == "colonies executor approve at-hand"
        await page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('no')))")
        await page.get_by_role("button", name="Copy").click()
        await expect(page.locator("#copied")).to_contain_text("copy it by hand")

        await stage.approve("at-hand")
        await expect(page.get_by_role("status")).to_contain_text("ready")
        beyond = 2**60
        sums = [await stage.submit("at-hand", "sum", *numbers) for numbers in ([beyond, 1], [], [1, 2.5])]
        assert [await stage.client().wait(one) for one in sums] == [[beyond + 1], [0], [3.5]]
        slow = await stage.submit("at-hand", "sleep", 600)
        await expect(page.locator("#now tr")).to_have_count(1)
        await stage.owner.reject_executor(await page.locator("#identity").text_content() or "")
        await expect(page.get_by_role("alert")).to_contain_text("rejected")
        # Nothing runs in an executor that has ended.
        await expect(page.locator("#now tr")).to_have_count(0)
        await expect(page.locator("#running")).to_have_text("0")
        assert await page.evaluate("violations") == []
        await stage.client().cancel(slow)


async def test_what_was_given_is_shown_as_text(stage: Stage) -> None:
    async with stage.context() as context:
        page = await context.new_page()
        await opened(stage, page, f"?colony={COLONY}&name=shows&types=shows&module=/test/odd.js&autostart=1")
        await stage.approve("shows")
        markup = "<img src=x onerror=alert(1)>"
        rows = page.locator("#last tr")
        for number, (name, args, shown) in enumerate(
            [
                ("echo", [markup], f'"{markup}"'),
                (markup, [], f'failed: this executor has no function "{markup}"'),
                ("givesMedia", [], "2 bytes"),
                ("throwsNul", [], "failed: Error: a\ufffdb"),
            ]
        ):
            await stage.submit("shows", name, *args)
            await expect(rows).to_have_count(number + 1)
            await expect(rows.first).to_contain_text(shown)
        assert await page.locator("main img").count() == 0
        assert await page.evaluate("violations") == []


async def test_a_module_of_ones_own(stage: Stage) -> None:
    async with stage.context() as context:
        page = await context.new_page()
        await opened(stage, page, f"?colony={COLONY}&name=own&types=own&module=/test/functions.js&autostart=1")
        await stage.approve("own")
        assert await stage.client().wait(await stage.submit("own", "two")) == [2, 3]
        await expect(page.locator("#functions")).to_contain_text("Adds numbers.")
