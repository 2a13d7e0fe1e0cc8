"""The queue is told after a commit while the caller has its answer already: in order, to the end, and not without bound."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import pytest

from servicekit.failures import Unavailable
from services.scheduler.domain import aftermath
from services.scheduler.domain.records import Changes, SubmitCall
from services.scheduler.domain.submitting import MAX_WEIGHT
from tests.harness.calls import eventually

from .scheduler_records import COLONY, WORKER, spec
from .scheduler_works import Works
from .test_scheduler_batches import request, submitting

pytestmark = pytest.mark.asyncio


class Gate:
    """The queue's `apply`, held up until it is opened."""

    def __init__(self, works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0
        self.failure: Exception | None = None
        self._apply: Callable[[str, Changes], Awaitable[None]] = works.queue.apply
        monkeypatch.setattr(works.queue, "apply", self._held)

    async def _held(self, colony: str, changes: Changes) -> None:
        self.waiting += 1
        await self.opened.wait()
        if self.failure is not None:
            raise self.failure
        await self._apply(colony, changes)


async def idle(works: Works) -> None:
    """Returns when everything is told, or noted to be told later."""

    async def is_idle() -> bool:
        return works.steps.idle

    await eventually(is_idle)


async def test_a_submit_has_its_answer_before_the_queue_is_told_and_the_watermark_waits(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(works, monkeypatch)
    began_ms = works.steps.watermark_ms()
    ids = await asyncio.wait_for(submitting(works).processes(request("one"), [spec()]), 5)
    works.world.clock.advance(seconds=10)
    assert not works.steps.idle
    assert works.steps.watermark_ms() == began_ms, "another replica would look after it from here on"
    assert await works.claim() == []
    gate.opened.set()
    await idle(works)
    assert await works.claim() == list(ids)


async def test_what_could_not_be_told_is_told_later(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(works, monkeypatch)
    gate.failure = Unavailable("the queue is out of reach", reason="QUEUE_UNAVAILABLE")
    gate.opened.set()
    ids = await submitting(works).processes(request("one"), [spec()])

    async def is_noted() -> bool:
        return works.aftermath.unsettled == 1

    await eventually(is_noted)
    assert not works.steps.idle
    await works.settle()
    assert await works.claim() == list(ids)


async def test_with_many_under_way_the_caller_waits(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "MAX_TELLING", 3)
    gate = Gate(works, monkeypatch)
    service = submitting(works)
    for number in range(3):
        await asyncio.wait_for(service.processes(request(f"r{number}"), [spec()]), 5)
    fourth = asyncio.create_task(service.processes(request("r3"), [spec()]))

    async def all_wait() -> bool:
        return gate.waiting == 4

    await eventually(all_wait)
    assert not fourth.done()
    gate.opened.set()
    await asyncio.wait_for(fourth, 5)
    await idle(works)
    assert len(await works.claim()) == 4


async def test_who_asks_the_queue_next_is_answered_after_what_it_was_told(works: Works) -> None:
    """Also in a colony of which the queue has never heard."""
    for colony in (COLONY, "umbrella", COLONY):
        entered = await works.world.enter(spec(), colony=colony)
        token = works.steps.begin()
        await works.aftermath.tell({colony: entered.changes}, token)
        # As the next call does, a turn of the loop later.
        await asyncio.sleep(0)
        claimed, _ = await works.queue.claim(colony, WORKER, 10)
        assert [one.id for one in claimed] == list(entered.process_ids)
        await idle(works)


async def test_a_large_submit_holds_no_other_up(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    service = submitting(works)
    submit, release = works.world.tables.submit, asyncio.Event()

    async def slow(calls: Sequence[SubmitCall], now: datetime) -> object:
        if any(call.size >= MAX_WEIGHT for call in calls):
            await release.wait()
        return await submit(calls, now)

    monkeypatch.setattr(works.world.tables, "submit", slow)
    large = [
        asyncio.create_task(service.processes(request(f"large {number}"), [spec() for _ in range(MAX_WEIGHT)]))
        for number in range(3)
    ]
    await asyncio.sleep(0)
    assert len(await asyncio.wait_for(service.processes(request("small"), [spec()]), 5)) == 1
    assert not any(one.done() for one in large)
    release.set()
    assert sum(map(len, await asyncio.gather(*large))) == 3 * MAX_WEIGHT
    await idle(works)
