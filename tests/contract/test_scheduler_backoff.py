"""Back-off: a process that is retried comes back into the queue after a while, and not before."""

from datetime import datetime, timedelta

import pytest

from servicekit.clock import datetime_of, unix_ms
from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.records import AttemptRef
from services.scheduler.domain.states import State
from services.scheduler.queue import keys

from .scheduler_records import ALICE, COLONY, WORKER_2, spec, success
from .scheduler_works import Works

pytestmark = pytest.mark.asyncio

RETRYABLE = Closing(successful=False, errors=("again",), retryable=True)
# Four seconds, then eight, then ten for ever.
BACKOFF = (4_000.0, 2.0, 10_000.0, 0.0)


async def failed(works: Works, *, max_wait_ms: int = 0, workflow: bool = False) -> tuple[AttemptRef, datetime]:
    """A process whose first attempt has just failed, told to the queue; and until when it backs off."""
    given = spec("a", max_retries=-1, backoff=BACKOFF, max_wait_ms=max_wait_ms)
    entered = await works.world.enter(given, workflow=workflow)
    await works.queue.apply(COLONY, entered.changes)
    (a,) = await works.claim()
    await works.dispatch(a)
    return AttemptRef(a, 1), await fail(works, AttemptRef(a, 1))


async def fail(works: Works, ref: AttemptRef) -> datetime:
    changes, _ = await works.world.close(ref.process_id, RETRYABLE, number=ref.number, seconds=works.seconds)
    await works.queue.apply(COLONY, changes)
    (place,) = changes.ready
    assert place.not_before is not None
    (live,) = await works.world.tables.lives(COLONY, [ref.process_id])
    assert live.place == place, "what the close tells the queue is what the row says"
    return place.not_before


async def test_it_is_given_out_when_its_back_off_is_over_and_not_before(works: Works) -> None:
    ref, until = await failed(works)
    assert unix_ms(until) == works.now_ms + 4_000
    assert await works.timers() == {keys.ready_timer(ref.process_id, unix_ms(until)): unix_ms(until) + 1}
    for _ in range(4):
        assert await works.claim(executor=WORKER_2) == []
        await works.after(0.999)
    assert await works.claim() == []
    await works.after(0.005)
    claimed, _ = await works.queue.claim(COLONY, WORKER_2, 5)
    assert [(one.id, one.attempt) for one in claimed] == [(ref.process_id, 2)]
    await works.dispatch(ref.process_id, executor=WORKER_2)
    assert (await works.world.states())[ref.process_id] is State.RUNNING
    (row,) = await works.world.rows("process")
    assert row["backoff_until"] is None
    await works.world.check_ledger()


async def test_each_retry_waits_longer_up_to_the_longest_wait(works: Works) -> None:
    ref, until = await failed(works)
    waits = [4.0]
    for number in range(2, 6):
        await works.after(waits[-1] + 0.001)
        assert await works.claim() == [ref.process_id]
        await works.dispatch(ref.process_id)
        until = await fail(works, AttemptRef(ref.process_id, number))
        waits.append((unix_ms(until) - works.now_ms) / 1000)
    assert waits == [4, 8, 10, 10, 10]
    await works.world.check_ledger()


async def test_losses_and_time_limits_back_off_and_what_was_not_delivered_does_not(works: Works) -> None:
    lost, late, undelivered = (
        await works.world.enter(*[spec(max_retries=1, backoff=BACKOFF, max_exec_ms=1) for _ in range(3)], workflow=False)
    ).process_ids
    await works.dispatch(lost, late, undelivered)
    works.world.clock.advance(seconds=1)
    now = datetime_of(works.world.clock.now_ns())
    await works.world.end(lost, lambda row: endings.lose(row, 1, now), seconds=1)
    await works.world.end(late, lambda row: endings.time_out(row, 1, now), seconds=1)
    await works.world.end(undelivered, lambda row: endings.withdraw_offer(row, 1, now), seconds=1)
    lives = {live.id: live for live in await works.world.tables.lives(COLONY, [lost, late, undelivered])}
    assert [lives[one].backoff_until for one in (lost, late)] == [now + timedelta(seconds=4)] * 2
    assert lives[undelivered].backoff_until is None
    await works.world.check_ledger()


async def test_the_longest_wait_in_the_queue_counts_from_the_end_of_the_back_off(works: Works) -> None:
    ref, until = await failed(works, max_wait_ms=2_000)
    deadline = unix_ms(until) + 2_000
    assert (await works.timers())[keys.wait_timer(ref.process_id, deadline)] == deadline + 1
    await works.after(4.001)
    assert keys.wait_timer(ref.process_id, deadline) in await works.timers()
    await works.after(1.9)
    assert (await works.world.states())[ref.process_id] is State.WAITING
    await works.after(0.101)
    assert (await works.world.states())[ref.process_id] is State.FAILED
    assert await works.claim() == []
    await works.world.check_ledger()


async def test_cancelled_while_it_backs_off_it_is_gone(works: Works) -> None:
    ref, _ = await failed(works, max_wait_ms=2_000)
    changes, _ = await works.world.end(ref.process_id, lambda row: endings.cancel(row, ALICE.identity), seconds=works.seconds)
    await works.queue.apply(COLONY, changes)
    assert await works.timers() == {}
    await works.after(60)
    assert await works.claim() == []
    await works.world.check_ledger()


@pytest.mark.parametrize("seconds", [1.0, 60.0])
async def test_a_rebuilt_queue_knows_who_backs_off(works: Works, seconds: float) -> None:
    """Also when the back-off ends while the queue is away."""
    ref, until = await failed(works)
    works.world.clock.advance(seconds=seconds)
    await works.redis.flushall()
    await works.upkeep.tick()
    if seconds < 4:
        assert await works.claim() == []
        assert keys.ready_timer(ref.process_id, unix_ms(until)) in await works.timers()
        await works.after(4)
    assert await works.claim() == [ref.process_id]


async def test_a_back_off_that_ended_while_nobody_looked_is_seen_to_by_the_next_who_does(works: Works) -> None:
    ref, _ = await failed(works)
    works.world.clock.advance(seconds=600)
    await works.redis.delete(keys.TICKED)
    await works.upkeep.tick()
    assert await works.claim() == [ref.process_id]


async def test_a_lane_that_ran_ahead_gives_no_attempt(works: Works) -> None:
    """Another replica's clock is ahead: the row decides, and what was claimed too early comes when its time has come."""
    ref, _ = await failed(works)
    works.world.clock.advance(seconds=5)
    await works.queue.accord(COLONY, await works.world.tables.lives(COLONY, [ref.process_id]))
    works.world.clock.advance(seconds=-5)
    assert await works.claim() == [ref.process_id]
    assert await works.world.assign(ref.process_id, seconds=works.seconds) == {}
    await works.after(3.5)
    assert await works.claim() == []
    await works.after(0.6)
    assert await works.claim() == [ref.process_id]
    assert await works.world.assign(ref.process_id, seconds=works.seconds) == {ref.process_id: 2}


async def test_a_success_after_a_back_off_unlocks_as_ever(works: Works) -> None:
    ids = (await works.world.enter(spec("a", max_retries=1, backoff=BACKOFF), spec("b", "a"))).process_ids
    await works.world.run(ids[0], RETRYABLE, seconds=1)
    changes = await works.world.run(ids[0], success(b"1"), seconds=6)
    assert [place.id for place in changes.ready] == [ids[1]]
    await works.world.check_ledger()
