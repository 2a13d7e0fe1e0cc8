"""Threads for sync functions: they share one while they are quick, and have one each when they are not."""

import asyncio
import threading
from typing import Any

import pytest

from colonies.executor import threads
from colonies.executor.threads import DaemonThreads


class Results:
    """What came back, and a way to wait for so many."""

    def __init__(self, expected: int) -> None:
        self.got: list[Any] = []
        self._expected = expected
        self._all = asyncio.Event()
        self._loop_thread = threading.current_thread()

    def take(self, result: Any) -> None:
        assert threading.current_thread() is self._loop_thread
        self.got.append(result)
        if len(self.got) == self._expected:
            self._all.set()

    async def all(self) -> list[Any]:
        async with asyncio.timeout(10):
            await self._all.wait()
        return self.got


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 2, 50, 300])
async def test_calls_that_wait_for_each_other_all_run(count: int) -> None:
    pool, results = DaemonThreads("test"), Results(count)
    barrier = threading.Barrier(count)
    for number in range(count):
        pool.run(lambda number=number: (barrier.wait(10), number)[1], results.take)  # type: ignore[misc]
    assert sorted(await results.all()) == list(range(count))


@pytest.mark.asyncio
async def test_quick_ones_share_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "PATIENCE_SECONDS", 5.0)
    pool, results = DaemonThreads("test"), Results(100)
    for _ in range(100):
        pool.run(threading.current_thread, results.take)
    assert len(set(await results.all())) == 1


@pytest.mark.asyncio
async def test_one_after_another_never_waits_for_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "PATIENCE_SECONDS", 60.0)
    pool = DaemonThreads("test")
    seen = set()
    for _ in range(200):
        results = Results(1)
        pool.run(threading.current_thread, results.take)
        seen.update(await results.all())
    assert len(seen) <= 2  # the last one may not be idle yet when the next call comes


@pytest.mark.asyncio
async def test_a_stuck_call_holds_up_no_other() -> None:
    pool, results, stuck = DaemonThreads("test"), Results(20), Results(3)
    end = threading.Event()
    for _ in range(3):
        pool.run(lambda: end.wait(10), stuck.take)
    for number in range(20):
        pool.run(lambda number=number: number, results.take)  # type: ignore[misc]
    assert sorted(await results.all()) == list(range(20))
    end.set()
    assert await stuck.all() == [True] * 3
    again = Results(50)
    for _ in range(50):
        pool.run(int, again.take)
    await again.all()


@pytest.mark.asyncio
async def test_what_is_stuck_is_waited_for_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, first = DaemonThreads("test"), Results(1)
    end = threading.Event()
    pool.run(lambda: end.wait(10), lambda _: None)
    pool.run(int, first.take)
    await first.all()
    monkeypatch.setattr(threads, "PATIENCE_SECONDS", 60.0)
    for _ in range(100):
        results = Results(1)
        pool.run(int, results.take)
        await results.all()
    end.set()
