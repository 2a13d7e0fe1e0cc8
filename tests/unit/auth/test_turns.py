"""Turns: one at a time for each colony, in order, and nothing left of those that are over."""

import asyncio

import pytest

from servicekit.failures import Unavailable
from services.auth.store import turns
from services.auth.store.turns import Turns

pytestmark = pytest.mark.asyncio


async def test_one_at_a_time_in_order_and_colonies_apart() -> None:
    queue, seen = Turns(), list[str]()
    go_on = asyncio.Event()

    async def change(name: str, colony: str = "acme") -> None:
        async with queue.of(colony):
            seen.append(f"{name} in")
            await go_on.wait()
            seen.append(f"{name} out")

    tasks = [asyncio.create_task(change(name)) for name in ("a", "b", "given up", "c")]
    await asyncio.sleep(0)
    tasks[2].cancel()
    other = asyncio.create_task(change("x", "umbrella"))
    await asyncio.wait((tasks[2],))
    assert seen == ["a in", "x in"]
    assert len(queue) == 2
    go_on.set()
    await asyncio.gather(*tasks[:2], tasks[3], other)
    assert [one for one in seen if one[0] != "x"] == ["a in", "a out", "b in", "b out", "c in", "c out"]
    assert len(queue) == 0


async def test_who_waits_too_long_is_told_to_come_again_and_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_WAIT_S", 0.01)
    queue = Turns()
    async with queue.of("acme"):
        with pytest.raises(Unavailable) as caught:
            async with queue.of("acme"):
                raise AssertionError
    assert caught.value.reason == "DATABASE_BUSY"
    assert len(queue) == 0
    async with queue.of("acme"), queue.of("umbrella"):
        assert len(queue) == 2
