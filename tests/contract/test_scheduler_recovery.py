"""What was committed and not told is told: by the replica itself when it can again, by another one if it died."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from servicekit import redis as servicekit_redis
from servicekit.clock import datetime_of
from servicekit.failures import Unavailable
from services.scheduler.domain import aftermath as aftermath_module
from services.scheduler.domain import endings
from services.scheduler.domain import patrol as patrol_module
from services.scheduler.domain.records import Changes, Over
from services.scheduler.domain.spec import ParentPolicy
from services.scheduler.domain.states import State
from services.scheduler.queue import keys
from services.scheduler.queue.replicas import LOST_AFTER_MS, SECOND_PASS_MS
from tests.harness.calls import eventually

from .scheduler_records import ALICE, COLONY, WORKER, World, spec, success
from .scheduler_works import Works, works_over

pytestmark = pytest.mark.asyncio

OTHER = "umbrella"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replicas: one that will die in the middle of a step, and one that goes on."""

    dying: Works
    living: Works

    @property
    def world(self) -> World:
        """Where both write."""
        return self.dying.world

    @property
    def now(self) -> datetime:
        """By the clock of both."""
        return datetime_of(self.world.clock.now_ns())

    async def dies(self) -> None:
        """It beats no more; the other one looks after what it left."""
        await self.passes(LOST_AFTER_MS)

    async def passes(self, milliseconds: int) -> int:
        """The living one beats and recovers; how often it recovered."""
        recovered = 0
        for _ in range(milliseconds // 500):
            self.world.clock.advance(seconds=0.5)
            for lost in await self.living.queue.beat(self.living.steps.replica, self.living.steps.watermark_ms()):
                await self.living.recovery.recover(lost)
                recovered += 1
        return recovered


@pytest_asyncio.fixture
async def pair(works: Works, redis_url: str) -> AsyncIterator[Pair]:
    """Both beat."""
    client = servicekit_redis.connect(redis_url)
    try:
        found = Pair(works, works_over(works.world, client))
        await found.dying.recovery.beat()
        await found.living.recovery.beat()
        yield found
    finally:
        await client.aclose()


async def test_a_submit_that_nobody_told_the_queue_of(pair: Pair) -> None:
    pair.dying.steps.begin()
    entered = await pair.world.enter(spec("a"), spec("b", "a"), at=pair.now)
    theirs = await pair.world.enter(spec(), workflow=False, colony=OTHER, at=pair.now)
    assert await pair.living.claim() == []
    await pair.dies()
    assert await pair.living.claim() == [entered.process_ids[0]]
    assert await pair.living.claim(colony=OTHER) == list(theirs.process_ids)


async def test_closes_that_nobody_told_the_queue_of(pair: Pair) -> None:
    """Children become ready, also through a cascade; leases of what ended are taken away; retries come back."""
    nodes = [spec("a"), spec("b", "a"), spec("bad"), spec("c", "bad"), spec("d", "c", parent_policy=ParentPolicy.ALL_DONE)]
    a, b, bad, c, d = (await pair.world.enter(*nodes)).process_ids
    again, cancelled = (await pair.world.enter(spec(max_retries=1), spec(), workflow=False)).process_ids
    held = (a, bad, again, cancelled)
    await pair.dying.dispatch(*held)
    assert [await pair.dying.heartbeat(one) for one in held] == [True] * 4
    pair.dying.steps.begin()
    now = pair.dying.seconds
    await pair.world.close(a, success(b"1"), seconds=now)
    await pair.world.close(bad, endings.Closing(successful=False, errors=("broken",)), seconds=now)
    await pair.world.close(again, endings.Closing(successful=False, errors=("again",), retryable=True), seconds=now)
    await pair.world.end(cancelled, lambda row: endings.cancel(row, ALICE.identity), seconds=now)
    await pair.dies()
    assert [await pair.living.heartbeat(one) for one in held] == [False] * 4
    claimed, _ = await pair.living.queue.claim(COLONY, WORKER, 10)
    assert {(one.id, one.attempt) for one in claimed} == {(b, 1), (d, 1), (again, 2)}
    assert (await pair.world.states())[c] is State.FAILED
    await pair.world.check_ledger()


async def test_an_assignment_that_nobody_told_the_queue_of_is_on_offer(pair: Pair) -> None:
    (a,) = (await pair.world.enter(spec(), workflow=False)).process_ids
    pair.dying.steps.begin()
    await pair.world.assign(a, seconds=pair.dying.seconds)
    await pair.dies()
    assert keys.offer_timer(a, 1, WORKER.identity) in await pair.living.timers()
    assert await pair.living.heartbeat(a)


async def test_a_retried_workflow_that_nobody_told_the_queue_of(pair: Pair) -> None:
    entered = await pair.world.enter(spec("a"), spec("b", "a"))
    assert entered.workflow_id is not None
    await pair.world.cancel_workflow(entered.workflow_id, seconds=pair.dying.seconds)
    pair.dying.steps.begin()
    await pair.world.retry_workflow(entered.workflow_id, seconds=pair.dying.seconds)
    await pair.dies()
    assert await pair.living.claim() == [entered.process_ids[0]]


async def test_what_commits_after_the_first_look_is_found_by_the_second(pair: Pair) -> None:
    """The transaction of the dead was still open: its lines have the times of then, and come to light later."""
    pair.dying.steps.begin()
    then = pair.now
    await pair.dies()
    entered = await pair.world.enter(spec(), workflow=False, at=then)
    assert await pair.living.claim() == []
    assert await pair.passes(SECOND_PASS_MS) == 1
    assert await pair.living.claim() == list(entered.process_ids)
    assert await pair.passes(2 * SECOND_PASS_MS) == 0


async def test_only_what_came_after_the_watermark_is_looked_at(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair.world.enter(spec(), workflow=False, at=pair.now)
    pair.world.clock.advance(seconds=60)
    await pair.dying.recovery.beat()
    pair.dying.steps.begin()
    late = (await pair.world.enter(*[spec() for _ in range(7)], workflow=False, at=pair.now)).process_ids
    seen: list[UUID] = []
    settle = pair.living.aftermath.settle

    async def noted(colony: str, ids: Sequence[UUID]) -> None:
        seen.extend(ids)
        await settle(colony, ids)

    monkeypatch.setattr(pair.living.aftermath, "settle", noted)
    # Page by page, each once.
    monkeypatch.setattr(patrol_module, "PAGE", 3)
    await pair.dies()
    assert seen == sorted(late)


async def test_a_watermark_stays_before_the_oldest_step_that_is_under_way(pair: Pair) -> None:
    """However long a step takes, and however many others come and go meanwhile."""
    steps = pair.dying.steps
    oldest = steps.begin()
    began = steps.watermark_ms()
    for _ in range(3):
        pair.world.clock.advance(seconds=10)
        with steps.under_way():
            assert steps.watermark_ms() == began
    entered = await pair.world.enter(spec(), workflow=False, at=pair.now)
    await pair.dying.recovery.beat()
    await pair.dies()
    assert await pair.living.claim() == list(entered.process_ids)
    steps.end(oldest)
    assert steps.watermark_ms() == pair.dying.now_ms
    assert steps.idle


async def test_what_is_in_doubt_keeps_the_watermark_before_the_step_that_left_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the step took to learn that it could not tell, and whatever was in doubt before."""
    steps = pair.dying.steps
    pair.world.clock.advance(seconds=100)
    with steps.under_way():
        entered = await pair.world.enter(spec(), workflow=False, at=pair.now)
        pair.world.clock.advance(seconds=40)
        async with away(pair.dying, monkeypatch):
            with steps.under_way():
                other = await pair.world.enter(spec(), workflow=False, at=pair.now)
                await pair.dying.aftermath.changed(COLONY, other.changes)
            await pair.dying.aftermath.changed(COLONY, entered.changes)
    await pair.dying.recovery.beat()
    await pair.dies()
    assert set(await pair.living.claim()) == {*entered.process_ids, *other.process_ids}


async def test_one_that_comes_back_is_not_looked_after_again(pair: Pair) -> None:
    await pair.dies()
    await pair.dying.recovery.beat()
    for _ in range(40):
        await pair.dying.recovery.beat()
        assert await pair.passes(1_000) == 0


async def test_one_that_leaves_with_nothing_untold_is_not_looked_after(pair: Pair) -> None:
    await stopped(pair.dying)
    assert await pair.passes(60_000) == 0


async def test_one_that_leaves_in_the_middle_of_a_step_is(pair: Pair) -> None:
    pair.dying.steps.begin()
    entered = await pair.world.enter(spec(), workflow=False, at=pair.now)
    await stopped(pair.dying)
    assert await pair.passes(60_000) == 2
    assert await pair.living.claim() == list(entered.process_ids)


async def stopped(works: Works) -> None:
    """Its beats end as they do when a replica is shut down."""
    beating = asyncio.create_task(works.recovery.run_beats())
    member = works.steps.replica

    async def has_beaten() -> bool:
        score = await works.redis.zscore(keys.REPLICAS, member)
        return score is not None and int(score) == works.now_ms + LOST_AFTER_MS

    await eventually(has_beaten)
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


@asynccontextmanager
async def away(works: Works, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """Redis does not answer. What was asked of it."""
    asked: list[str] = []

    async def refused(method: str, *_: Any, **__: Any) -> None:
        asked.append(method)
        msg = "redis is out of reach"
        raise Unavailable(msg, reason="QUEUE_UNAVAILABLE")

    with monkeypatch.context() as patch:
        patch.setattr(aftermath_module, "RETRY_S", 0.01)
        for method in ("apply", "accord", "announce", "invalidate"):
            patch.setattr(works.queue, method, partial(refused, method))
        yield asked


async def test_what_could_not_be_told_is_told_when_the_queue_is_back(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    world = works.world
    (held,) = (await world.enter(spec("held"), workflow=False)).process_ids
    await works.dispatch(held)
    assert await works.heartbeat(held)
    settling = asyncio.create_task(works.aftermath.run())
    try:
        async with away(works, monkeypatch) as asked:

            async def has_tried_again() -> bool:
                return asked.count("accord") >= 3

            entered = await world.enter(spec("a"), spec("b", "a"))
            await works.aftermath.changed(COLONY, entered.changes)
            changes, _ = await world.close(held, success(b"1"))
            await works.aftermath.changed(COLONY, changes)
            # It tries, and does not lose what it tried with.
            await eventually(has_tried_again)
            assert not works.steps.idle
            mark = works.steps.watermark_ms()
            world.clock.advance(seconds=5)
            assert works.steps.watermark_ms() == mark
        assert await works.claim() == []

        async def told() -> bool:
            return works.steps.idle

        await eventually(told)
    finally:
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
    assert not await works.heartbeat(held)
    assert await works.claim() == [entered.process_ids[0]]


async def test_a_workflow_in_doubt_is_told_of_with_all_its_processes(works: Works) -> None:
    entered = await works.world.enter(*[spec(f"n{n}") for n in range(4)])
    await works.dispatch(*entered.process_ids[:2])
    assert entered.workflow_id is not None
    assert [await works.heartbeat(one) for one in entered.process_ids[:2]] == [True, True]
    await works.world.cancel_workflow(entered.workflow_id, seconds=works.seconds)
    works.aftermath.doubt_workflow(COLONY, entered.workflow_id)
    await works.settle()
    assert [await works.heartbeat(one) for one in entered.process_ids[:2]] == [False, False]


async def test_more_doubts_than_can_be_kept_make_the_queue_anew(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath_module, "MAX_UNSETTLED", 10)
    ids = (await works.world.enter(*[spec() for _ in range(11)], workflow=False)).process_ids
    works.aftermath.doubt(COLONY, ids[:6])
    works.aftermath.doubt(OTHER, ids[6:])
    await works.settle()
    assert not await works.queue.is_current()
    await works.upkeep.tick()
    assert await works.queue.is_current()
    assert set(await works.claim()) == set(ids)


async def test_a_doubt_that_comes_while_the_same_process_is_being_told_of_is_not_lost(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was read before it changed again: what was in flight does not answer for that."""
    (a,) = (await works.world.enter(spec(max_retries=1), workflow=False)).process_ids
    await works.dispatch(a)
    assert await works.heartbeat(a)
    take_back = works.aftermath.take_back

    async def overtaken(colony: str, lives: Sequence[Any]) -> None:
        await take_back(colony, lives)
        monkeypatch.undo()
        await works.world.end(a, lambda row: endings.cancel(row, ALICE.identity))
        works.aftermath.doubt(COLONY, [a])

    monkeypatch.setattr(works.aftermath, "take_back", overtaken)
    works.aftermath.doubt(COLONY, [a])
    await works.settle()
    assert (await works.world.states())[a] is State.CANCELLED
    assert not await works.heartbeat(a)


async def test_what_is_in_doubt_stays_so_until_it_was_told(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page after page: those that failed come again, those that were told do not."""
    monkeypatch.setattr(aftermath_module, "PAGE", 2)
    ids = (await works.world.enter(*[spec() for _ in range(6)], workflow=False)).process_ids
    settle, seen = works.aftermath.settle, []

    async def failing(colony: str, page: Sequence[UUID]) -> None:
        seen.append(list(page))
        if len(seen) == 2:
            msg = "redis is out of reach"
            raise Unavailable(msg, reason="QUEUE_UNAVAILABLE")
        await settle(colony, page)

    monkeypatch.setattr(aftermath_module, "RETRY_S", 0)
    monkeypatch.setattr(works.aftermath, "settle", failing)
    works.aftermath.doubt(COLONY, ids)
    await works.settle()
    assert len(seen) == 4
    assert sorted(one for place, page in enumerate(seen) if place != 1 for one in page) == sorted(ids)
    assert set(await works.claim()) == set(ids)


async def test_telling_twice_and_late_does_no_harm(works: Works) -> None:
    """Whatever was told before: the rows are what the queue says in the end."""
    entered = await works.world.enter(spec("a", max_retries=1), workflow=False)
    (a,) = entered.process_ids
    await works.dispatch(a)
    assert await works.heartbeat(a)
    changes, _ = await works.world.close(a, endings.Closing(successful=False, errors=("again",), retryable=True))
    await works.dispatch(a)
    assert await works.heartbeat(a, 2)
    for late in (changes, entered.changes, changes):
        await works.aftermath.changed(COLONY, late)
        await works.aftermath.changed(COLONY, Changes(released=[Over(a, 1, WORKER.identity)]))
    assert await works.heartbeat(a, 2)
    assert (await works.queue.loads(COLONY, [WORKER.identity]))[WORKER.identity][1] == 1
    # What stands in the lane is out of date: whoever claims it gets no attempt of it.
    claimed, _ = await works.queue.claim(COLONY, WORKER, 5)
    assert await works.world.assign(*[one.id for one in claimed], seconds=5) == {}
