"""Upkeep over real tables and a real queue: whatever was lost half-way is finished, a lost queue is rebuilt."""

import pytest

from servicekit.clock import datetime_of
from services.scheduler.domain import endings
from services.scheduler.domain.records import AttemptRef, Changes
from services.scheduler.domain.states import State
from services.scheduler.domain.upkeep import STEP_AT_MOST_MS
from services.scheduler.queue import keys
from services.scheduler.queue.queue import SETTLE_AGAIN_MS, SETTLE_MS

from .scheduler_records import ALICE, COLONY, WORKER, spec, success
from .scheduler_works import LEASE_S, Works

pytestmark = pytest.mark.asyncio


async def test_a_submit_that_the_queue_was_never_told_of(works: Works) -> None:
    intended = await works.queue.intend_submit(COLONY, ALICE.identity, "one")
    entered = await works.world.enter(spec("a"), spec("b", "a"), request_id="one")
    await works.after(SETTLE_MS / 1000)
    assert await works.claim() == [entered.process_ids[0]]
    # Looked at again until no transaction of that time can be open any more, then no longer.
    assert set(intended) <= set(await works.timers())
    await works.after(STEP_AT_MOST_MS / 1000)
    assert not set(intended) & set(await works.timers())


async def test_a_submit_that_commits_long_after_it_was_first_looked_at(works: Works) -> None:
    await works.queue.intend_submit(COLONY, ALICE.identity, "one")
    await works.after(SETTLE_MS / 1000)
    assert await works.claim() == []
    entered = await works.world.enter(spec("a"), request_id="one")
    await works.after(SETTLE_AGAIN_MS / 1000)
    assert await works.claim() == list(entered.process_ids)


async def test_a_close_that_the_queue_was_never_told_of(works: Works) -> None:
    a, b = (await works.world.enter(spec("a"), spec("b", "a"))).process_ids
    await works.world.assign(a)
    await works.queue.intend(COLONY, [a])
    await works.world.close(a, success(b"1"))
    await works.after(SETTLE_MS / 1000)
    assert await works.claim() == [b]


async def test_a_claim_that_was_never_recorded(works: Works) -> None:
    (a,) = (await works.world.enter(spec("a"))).process_ids
    lives = await works.world.tables.lives(COLONY, [a])
    await works.queue.accord(COLONY, lives)
    assert await works.claim() == [a]
    await works.after(SETTLE_MS / 1000 - 0.1)
    assert await works.claim() == []
    await works.after(0.1)
    assert await works.claim() == [a]


async def test_a_recorded_attempt_that_the_queue_was_never_told_of_is_on_offer_and_goes_back(works: Works) -> None:
    (a,) = (await works.world.enter(spec("a"))).process_ids
    await works.queue.accord(COLONY, await works.world.tables.lives(COLONY, [a]))
    await works.claim()
    await works.world.assign(a)
    await works.after(SETTLE_MS / 1000)
    assert keys.offer_timer(a, 1, WORKER.identity) in await works.timers()
    await works.after(LEASE_S)
    assert (await works.world.states())[a] is State.WAITING
    assert await works.claim() == [a]
    await works.world.check_ledger()


async def test_a_cancel_that_the_queue_was_never_told_of_still_reaches_the_executor(works: Works) -> None:
    (a,) = (await works.world.enter(spec("a"))).process_ids
    await works.world.assign(a)
    await works.queue.accord(COLONY, await works.world.tables.lives(COLONY, [a]))
    await works.queue.intend(COLONY, [a])
    await works.world.tables.end(
        COLONY,
        [AttemptRef(a, 0)],
        lambda row, _: endings.cancel(row, ALICE.identity),
        datetime_of(works.world.clock.now_ns() + 2_000_000_000),
    )
    await works.after(SETTLE_MS / 1000)
    refs = [AttemptRef(a, 1)]
    assert await works.queue.extend(COLONY, refs, WORKER.identity) == refs


@pytest.mark.parametrize("stale", [1, 2])
async def test_leases_of_an_old_and_of_the_live_attempt_that_end_together(works: Works, stale: int) -> None:
    """The one is of no consequence, the other ends its attempt: whichever is handed out first."""
    (a,) = (await works.world.enter(spec("a", max_retries=1))).process_ids
    await works.world.run(a, endings.Closing(successful=False, errors=("again",), retryable=True))
    works.world.clock.advance(seconds=5)
    await works.dispatch(a)
    assert await works.heartbeat(a, 2)
    now_ms = works.now_ms
    for number in (1, 2):
        due = now_ms + (number == stale)
        await works.redis.zadd(keys.timers(COLONY), {keys.lease_timer(a, number, WORKER.identity): due})
    await works.after(10)
    assert (await works.world.states())[a] is State.FAILED
    await works.world.check_ledger()


async def test_a_queue_that_was_lost_is_rebuilt_whole(works: Works) -> None:
    entered = await works.world.enter(*[spec(f"n{n}", priority=n % 3, max_exec_ms=60_000) for n in range(50)], spec("c", "n0"))
    running = entered.process_ids[:10]
    await works.world.assign(*running)
    await works.queue.apply(COLONY, Changes(ready=list(entered.changes.ready)), [])
    await works.redis.flushall()
    assert not await works.queue.is_current()
    await works.upkeep.tick()
    assert await works.queue.is_current()
    assert await works.queue.extend(COLONY, [AttemptRef(one, 1) for one in running], WORKER.identity) == []
    places = [place for place in entered.changes.ready if place.id not in running]
    wanted = [place.id for place in sorted(places, key=lambda one: (one.priority_time, one.sequence))]
    assert await works.claim() == wanted


async def test_no_deadline_fires_until_the_queue_is_whole_again(works: Works) -> None:
    """Leases that ran out while Redis was away get a grace: their executors could not send heartbeats either."""
    (a,) = (await works.world.enter(spec("a"))).process_ids
    await works.dispatch(a)
    assert await works.heartbeat(a)
    await works.redis.delete(keys.EPOCH)
    await works.after(LEASE_S * 3)
    assert (await works.world.states())[a] is State.RUNNING
    assert await works.heartbeat(a)
    await works.after(LEASE_S / 2)
    assert (await works.world.states())[a] is State.RUNNING
    await works.after(LEASE_S / 2)
    assert (await works.world.states())[a] is State.FAILED


async def test_a_cancelled_workflow_that_the_queue_was_never_told_of_still_drops_at_the_executor(works: Works) -> None:
    entered = await works.world.enter(*[spec(f"n{n}") for n in range(4)], spec("last", "n0"))
    held, waiting = entered.process_ids[:2], entered.process_ids[2:4]
    await works.queue.apply(COLONY, entered.changes, [])
    await works.dispatch(*held)
    assert [await works.heartbeat(one) for one in held] == [True, True]
    assert entered.workflow_id is not None
    intended = await works.queue.intend_workflow(COLONY, entered.workflow_id)
    await works.world.cancel_workflow(entered.workflow_id, seconds=works.seconds)
    assert set(intended) <= set(await works.timers())
    await works.after(SETTLE_MS / 1000)
    assert [await works.heartbeat(one) for one in held] == [False, False]
    # Members of lanes are only hints: whoever claims these gets no attempt of them.
    assert await works.dispatch(*waiting) == []
    await works.world.check_ledger()
