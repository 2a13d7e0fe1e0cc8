"""Functions that do odd things: the attempt says what is wrong, and the tab goes on."""

from typing import Any

import pytest

from colonies import values
from tests.browser.stage import Stage, ready, sees

pytestmark = pytest.mark.asyncio(loop_scope="package")

ODD = {"functions": "/test/odd.js"}


async def ended(stage: Stage, kind: str, name: str, *args: Any) -> Any:
    """The process of a call, when it is over; whatever it did, the executor still works."""
    process = await stage.reaches(await stage.submit(kind, name, *args), "SUCCESSFUL", "FAILED")
    after = await stage.reaches(await stage.submit(kind, "fine"), "SUCCESSFUL", "FAILED")
    assert values.decode(after.outputs[0]) == "fine", after.errors
    return process


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("throwsUndefined", "undefined"),
        ("throwsSymbol", "Symbol(odd)"),
        ("throwsProxy", "(its text cannot be told)"),
        ("throwsGetter", "[object Object]"),
        ("throwsLong", "Error: long long"),
        ("throwsHalf", "xxx"),
        ("throwsNul", "Error: a\ufffdb"),
        ("throwsMeanwhile", "Uncaught Error: in a timer"),
        ("closes", "TypeError: a function may not close its worker"),
        ("givesCycle", "its result cannot be sent: cannot encode this value: "),
        ("givesFunction", "its result cannot be sent: JSON cannot carry a function"),
        ("givesSymbol", "its result cannot be sent: JSON cannot carry a symbol"),
        ("givesProxy", "Error: odd"),
        ("givesNoMedia", "ValueError: a Media is the name"),
    ],
)
async def test_what_is_odd_fails_and_says_so(stage: Stage, name: str, said: str) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, f"odd-{name}", **ODD)
        process = await ended(stage, f"odd-{name}", name)
        assert process.errors[0].startswith(said), process.errors[0][:200]
        assert process.attempt == 1


async def test_what_can_be_carried_is(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "carried", **ODD)
        assert await stage.client().wait(await stage.submit("carried", "givesBig")) == [2**80]
        process = await ended(stage, "carried", "givesMedia")
        assert [(one.media_type, one.data) for one in process.outputs] == [("image/png", b"\x01\x02")]


@pytest.mark.parametrize("size", [5, 34])
async def test_a_result_that_is_too_large_fails_and_says_so(stage: Stage, size: int) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, f"large-{size}", **ODD)
        process = await ended(stage, f"large-{size}", "givesMany", size * 1024 * 1024)
        assert process.errors[0].startswith("its result was refused: "), process.errors
        # The page says what the server has.
        await sees(page, "seen.ended.length === 2")
        assert await page.evaluate("seen.ended[0].errors") == list(process.errors)


async def test_an_error_after_the_end_costs_the_worker_and_nothing_else(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "later", **ODD)
        process = await ended(stage, "later", "throwsLater")
        assert values.decode(process.outputs[0]) == "returned"


async def test_what_a_function_posts_is_not_taken_for_an_answer(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "posts", **ODD)
        process = await ended(stage, "posts", "posts", "text")
        assert values.decode(process.outputs[0]) == "posted"
        await sees(page, "seen.ended.length === 2")


async def test_a_line_goes_to_no_other_attempt(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "lines", **ODD)
        first, second = await stage.submit("lines", "logsLater"), await stage.submit("lines", "waits", 300)
        await stage.reaches(second, "SUCCESSFUL")
        assert [entry.message async for entry in stage.client().logs(first)] == ["of its own"]
        assert [entry.message async for entry in stage.client().logs(second)] == ["waited"]


async def test_more_lines_than_go_into_a_call(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "much", **ODD)
        process_id = await stage.submit("much", "logsLong", 2_000, 8_000)
        await stage.reaches(process_id, "SUCCESSFUL")
        numbers = [int(entry.message.split()[0]) async for entry in stage.client().logs(process_id)]
        assert numbers == list(range(2_000))


@pytest.mark.parametrize(
    ("name", "lines"), [("logsNul", ["before", "a\ufffdb", "after"]), ("logsHalf", ["x" * 8_191 + "\ufffd"])]
)
async def test_odd_lines_are_kept(stage: Stage, name: str, lines: list[str]) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, f"lines-{name}", **ODD)
        process_id = await stage.submit(f"lines-{name}", name)
        await stage.reaches(process_id, "SUCCESSFUL")
        assert [entry.message async for entry in stage.client().logs(process_id)] == lines
