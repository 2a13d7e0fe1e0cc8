"""An executor in a tab: from its key to what becomes of its attempts."""

from typing import Any

import pytest

from colonies import values
from tests.browser.stage import LEASE_MS, Stage, in_state, ready, sees, start

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_registers_waits_and_runs(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        identity = await ready(stage, page, "runs")
        assert await page.evaluate("executor.identity") == identity
        assert await page.evaluate("seen.states") == ["joining", "waiting_for_approval", "ready"]
        process_id = await stage.submit("runs", "sum", 4, 9)
        assert await stage.client().wait(process_id) == [13]
        registered = await stage.executor_named("runs")
        assert registered is not None
        assert registered.capabilities.labels["user_agent"] == await page.evaluate("navigator.userAgent")
        assert registered.capabilities.labels["language"] == "browser"
        functions = {one.function.name: one.function.description async for one in stage.client().list_functions()}
        assert functions["sum"] == "Adds numbers."
        assert set(functions) >= {"sum", "echo", "hangs"}
        await page.evaluate("executor.stop(), running")
        assert await page.evaluate("seen.states.slice(-2)") == ["draining", "stopped"]
        assert await page.evaluate("violations") == []


async def test_values_and_failures(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "values")
        beyond = 2**63 - 1
        outputs: list[tuple[str, list[Any], list[Any]]] = [
            ("echo", [1, "two", [3.5, None, {"4": True}], beyond], [[1, "two", [3.5, None, {"4": True}], beyond]]),
            ("two", [], [2, 3]),
            ("none", [], []),
            ("nothing", [], [None]),
            ("size", [b"\x00\xff"], [{"isBytes": True, "length": 2}]),
        ]
        for name, args, wanted in outputs:
            assert await stage.client().wait(await stage.submit("values", name, *args)) == wanted
        failures = [
            ("fail", ["no"], "Error: no"),
            ("infinite", [], "its result cannot be sent: JSON cannot carry Infinity"),
            ("absent", [], 'this executor has no function "absent"; it has: echo, fail,'),
        ]
        for name, args, said in failures:
            process = await stage.reaches(await stage.submit("values", name, *args, max_retries=3), "FAILED", "SUCCESSFUL")
            assert process.errors[0].startswith(said)
            assert process.attempt == 1
        process = await stage.reaches(await stage.submit("values", "failRetryable", "again", max_retries=2), "FAILED")
        assert (process.attempt, process.errors[0]) == (3, "RetryableError: again")


async def test_keyword_arguments_come_last(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "keywords")
        process_id = await stage.submit("keywords", "echo", 1, kwargs={"two": 2})
        assert await stage.client().wait(process_id) == [[1, {"two": 2}]]


async def test_log_lines_come_in_order_before_the_end(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "logs")
        process_id = await stage.submit("logs", "logs", "one", "two", "three")
        await stage.reaches(process_id, "SUCCESSFUL")
        assert [entry.message async for entry in stage.client().logs(process_id)] == ["one", "two", "three"]


async def test_leases_are_kept(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "leases")
        process = await stage.reaches(await stage.submit("leases", "waits", LEASE_MS + 1_500), "SUCCESSFUL", "FAILED")
        assert (process.attempt, values.decode(process.outputs[0])) == (1, "waited")


async def test_many_at_once_each_once(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "many", concurrency=3)
        ids = [await stage.submit("many", "sum", number, number) for number in range(40)]
        assert [await stage.client().wait(each) for each in ids] == [[2 * number] for number in range(40)]
        started = await page.evaluate("seen.started.map(({ processId }) => processId)")
        assert sorted(started) == sorted(ids)


@pytest.mark.parametrize("name", ["hangs", "waits"])
async def test_what_is_cancelled_is_ended(stage: Stage, name: str) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, f"cancelled-{name}")
        process_id = await stage.submit(f"cancelled-{name}", name, 600_000)
        await sees(page, "seen.started.length === 1")
        await stage.client().cancel(process_id)
        await sees(page, "seen.dropped.length === 1")
        assert await page.evaluate("seen.dropped[0].reason") == "it was cancelled"
        # There is one place: it is free again.
        assert await stage.client().wait(await stage.submit(f"cancelled-{name}", "sum", 1, 2)) == [3]
        await sees(page, "seen.ended.length === 1")
        assert await page.evaluate("seen.ended[0].function") == "sum"


async def test_what_takes_too_long_is_ended(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "too-long")
        process_id = await stage.submit("too-long", "hangs", max_exec_time=1, max_retries=0)
        process = await stage.reaches(process_id, "FAILED")
        assert process.attempt == 1
        assert await stage.client().wait(await stage.submit("too-long", "sum", 1, 2)) == [3]


async def test_stop_finishes_what_is_in_hand(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "drains")
        process_id = await stage.submit("drains", "waits", 1_000)
        await sees(page, "seen.started.length === 1")
        later = await stage.submit("drains", "sum", 1)
        await page.evaluate("executor.stop()")
        assert await page.evaluate("running") == ""
        assert await stage.state(process_id) == "SUCCESSFUL"
        assert await stage.state(later) == "WAITING"
        await stage.client().cancel(later)


async def test_stop_gives_back_what_is_not_finished_in_time(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "gives-back", drainSeconds=0.2)
        process_id = await stage.submit("gives-back", "hangs", max_retries=3)
        await sees(page, "seen.started.length === 1")
        await page.evaluate("executor.stop()")
        assert await page.evaluate("running") == ""
        assert await stage.state(process_id) == "WAITING"
        await stage.client().cancel(process_id)


async def test_stop_does_not_wait_for_a_module_that_never_loads(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        async with page.expect_response("**/test/never.js"):
            await start(page, "loads", functions="/test/never.js")
        await page.evaluate("executor.stop()")
        await in_state(page, "stopped")
        assert await page.evaluate("running") == ""


async def test_rejection_ends_it(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await start(page, "rejected")
        await in_state(page, "waiting_for_approval")
        await stage.owner.reject_executor(await page.evaluate("executor.identity"))
        assert "rejected" in await page.evaluate("running")
        assert await page.evaluate("executor.state") == "stopped"


async def test_plain_functions_go_to_workers(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context, "/test/open.html")
        await page.evaluate(
            """() => {
                globalThis.seen = [];
                globalThis.executor = new sdk.Executor({ name: "plain", types: ["plain"], colony: "acme" });
                executor.function("a sum", (...numbers) => numbers.reduce((a, b) => a + b, 0), { description: "Adds." });
                executor.function("where", async function () { return typeof document + " " + this.attempt; });
                globalThis.running = executor.run().catch((error) => seen.push(error.message));
            }"""
        )
        await sees(page, "executor.state === 'waiting_for_approval'")
        await stage.approve("plain")
        assert await stage.client().wait(await stage.submit("plain", "a sum", 1, 2, 3)) == [6]
        assert await stage.client().wait(await stage.submit("plain", "where")) == ["undefined 1"]


async def test_a_strict_page_says_where_plain_functions_belong(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        said = await page.evaluate(
            """async () => {
                const executor = new sdk.Executor({ name: "strict", types: ["browser"], colony: "acme" });
                executor.function("one", () => 1);
                return executor.run().catch((error) => error.message);
            }"""
        )
        assert "content security policy" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('{ name: "no name" }', "name is"),
        ("{ types: [] }", "types"),
        ("{ concurrency: 0 }", "concurrency is 0: it must be 1 to 1000"),
        ("{ drainSeconds: -1 }", "drainSeconds is -1"),
        ("{ drainSeconds: Infinity }", "drainSeconds is Infinity: it must be 0 to 86400"),
        ("{ name: undefined }", "name is"),
        ("{ types: undefined }", "types is"),
        ("{ types: [null] }", "types is"),
    ],
)
async def test_what_makes_no_sense_is_refused(stage: Stage, settings: str, said: str) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        message = await page.evaluate(
            f"""() => {{
                try {{ new sdk.Executor({{ name: "n", types: ["t"], colony: "c", ...{settings} }}); return ""; }}
                catch (error) {{ return error.message; }}
            }}"""
        )
        assert said in message


async def test_functions_that_are_no_expressions_are_refused(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        for source in ("({ method() {} }).method", "Math.max", "(() => 1).bind(null)"):
            message = await page.evaluate(
                f"""() => {{
                    try {{ new sdk.Executor({{ name: "n", types: ["t"], colony: "c" }}).function("f", {source}); return ""; }}
                    catch (error) {{ return error.message; }}
                }}"""
            )
            assert message.startswith("f: only functions written as"), source
