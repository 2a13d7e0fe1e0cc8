"""Async functions that share tasks: nobody may notice."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from colonies import Executor

from .fake_server import FakeServer
from .test_executor import errors, outputs, running

Address = dict[str, Any]

SETTING = ContextVar("SETTING", default="clean")


async def run_all(server: FakeServer, executor: Executor, *names: str) -> list[Any]:
    ids = [await server.give(name) for name in names]
    async with running(executor):
        await server.until(server.is_closed(*ids))
    return [server.closed(process_id) for process_id in ids]


@pytest.mark.asyncio
async def test_many_that_do_not_wait_share_a_task(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=100, **address)
    tasks = []

    @executor.function
    async def work() -> None:
        tasks.append(asyncio.current_task())

    closes = await run_all(server, executor, *["work"] * 100)
    assert len(closes) == len(tasks) == 100
    assert len(set(tasks)) == 1
    assert max(server.close_calls) == 100


@pytest.mark.asyncio
async def test_those_that_wait_run_at_once_each_in_its_task(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=20, **address)
    waiting = asyncio.Barrier(10)
    tasks = set()

    @executor.function
    async def together() -> bool:
        before = asyncio.current_task()
        await waiting.wait()
        tasks.add(before)
        return asyncio.current_task() is before

    @executor.function
    async def quick() -> int:
        return 1

    closes = await run_all(server, executor, *["together", "quick"] * 10)
    assert [outputs(close) for close in closes] == [[b"true"], [b"1"]] * 10
    assert len(tasks) == 10


@pytest.mark.asyncio
async def test_what_a_function_sets_is_gone_with_it(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=3, **address)

    @executor.function
    async def work() -> str:
        before = SETTING.get()
        SETTING.set("dirty")
        return before

    closes = await run_all(server, executor, "work", "work", "work")
    assert [outputs(close) for close in closes] == [[b'"clean"']] * 3


@pytest.mark.asyncio
async def test_time_outs_and_cancels_hit_only_their_own(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=10, **address)

    @executor.function
    async def times_out() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    @executor.function
    async def too_late() -> None:
        async with asyncio.timeout(-1):
            pass

    @executor.function
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @executor.function
    async def quick() -> int:
        await asyncio.sleep(0)
        return 1

    names = ["times_out", "quick", "too_late", "quick", "cancels_itself", "quick"]
    closes = await run_all(server, executor, *names)
    assert [outputs(close) for close in closes[1::2]] == [[b"1"]] * 3
    assert errors(closes[0])[0].startswith("TimeoutError")
    assert errors(closes[4])[0].startswith("CancelledError")


@pytest.mark.asyncio
async def test_a_cancel_that_is_swallowed_stays_with_its_function(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=5, **address)

    @executor.function
    async def stubborn() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return 1
        return 2

    @executor.function
    async def cancels_and_leaves() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 3

    @executor.function
    async def quick() -> int:
        await asyncio.sleep(0)
        return 4

    names = ["cancels_and_leaves", "quick", "stubborn", "quick", "quick"]
    closes = await run_all(server, executor, *names)
    assert [outputs(close) for close in closes] == [[b"3"], [b"4"], [b"1"], [b"4"], [b"4"]]
