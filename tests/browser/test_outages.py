"""What an executor in a tab lives through: servers that end, networks that go, pages that are loaded anew."""

import asyncio
import re

import pytest

from tests.browser.stage import Stage, in_state, on_the_way, ready, sees, start, with_sdk
from tests.fault.proxy import Mode, Proxy

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def runs(stage: Stage, kind: str) -> None:
    """Makes sure that the executor is given work, and does it."""
    process_id = await stage.submit(kind, "sum", 1, 2)
    assert (await stage.reaches(process_id, "SUCCESSFUL", "FAILED")).attempt == 1


async def test_scheduler_ends_and_comes_back(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "scheduler-restarts")
        process_id = await stage.submit("scheduler-restarts", "waits", 1_500)
        await sees(page, "seen.started.length === 1")
        await stage.cluster.stop_replica(stage.cluster.replicas["scheduler"][0])
        await in_state(page, "reconnecting")
        await stage.cluster.start("scheduler")
        await in_state(page, "ready")
        # What was in hand went on meanwhile, and its result was kept.
        assert (await stage.reaches(process_id, "SUCCESSFUL", "FAILED")).attempt == 1
        await runs(stage, "scheduler-restarts")
        assert await page.evaluate("seen.started.length") == 2


async def test_front_door_is_killed_and_comes_back(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "door-restarts")
        process_id = await stage.submit("door-restarts", "waits", 500)
        await sees(page, "seen.started.length === 1")
        await asyncio.to_thread(stage.door.kill)
        await in_state(page, "reconnecting")
        await asyncio.to_thread(stage.door.start)
        await in_state(page, "ready")
        assert (await stage.reaches(process_id, "SUCCESSFUL", "FAILED")).attempt == 1
        await runs(stage, "door-restarts")


async def test_offline_and_online(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "offline")
        await context.set_offline(offline=True)
        await in_state(page, "offline")
        await context.set_offline(offline=False)
        await in_state(page, "ready")
        await runs(stage, "offline")


async def test_reload_in_the_middle(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await ready(stage, page, "reloads")
        process_id = await stage.submit("reloads", "hangsFirst", max_retries=1)
        await sees(page, "seen.started.length === 1")
        await page.reload()
        await with_sdk(page)
        await start(page, "reloads")
        process = await stage.reaches(process_id, "SUCCESSFUL", "FAILED")
        assert (process.attempt, process.executor_name) == (2, "reloads")
        assert await page.evaluate("seen.started.map(({ attempt }) => attempt)") == [2]
        # It was given back by the new page: nobody had to wait for the lease.
        history = str(await stage.client().get_history(process_id))
        assert "loaded anew" in history, history


async def test_a_second_tab_waits_and_takes_over(stage: Stage) -> None:
    async with stage.context() as context:
        first, second = await stage.page(context), await stage.page(context)
        await ready(stage, first, "tabs")
        await start(second, "tabs")
        await sees(second, "executor.detail.startsWith('another tab')")
        await runs(stage, "tabs")
        assert await second.evaluate("seen.started.length") == 0
        await first.close()
        await in_state(second, "ready")
        await runs(stage, "tabs")


async def test_a_tab_that_waits_for_another_can_be_stopped(stage: Stage) -> None:
    async with stage.context() as context:
        first, second = await stage.page(context), await stage.page(context)
        await start(first, "stops-waiting")
        await in_state(first, "waiting_for_approval")
        await start(second, "stops-waiting")
        await sees(second, "executor.detail.startsWith('another tab')")
        await second.evaluate("executor.stop()")
        assert await second.evaluate("running") == ""


@pytest.mark.fault
@pytest.mark.parametrize("looked_at", [True, False])
async def test_a_connection_that_dies_without_a_word(stage: Stage, looked_at: bool) -> None:
    async with on_the_way(stage, Proxy) as (page, way):
        name = f"silence-{looked_at}"
        await ready(stage, page, name)
        await way.turn(Mode.HANG)
        look = "document.dispatchEvent(new Event('visibilitychange')), " if looked_at else ""
        await sees(page, f"{look}executor.state === 'reconnecting'", seconds=60)
        said = re.search(r"no sign of life for (\d+) s", await page.evaluate("executor.detail"))
        assert said is not None
        # Half a minute, or twelve seconds for who looks at it.
        assert (int(said[1]) < 30) == looked_at
        await way.turn(Mode.PASS)
        await in_state(page, "ready")
        await runs(stage, name)
