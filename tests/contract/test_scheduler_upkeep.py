"""Upkeep over real tables and a real queue: deadlines fire, claims that came to nothing are taken back, a lost queue is rebuilt."""

from collections.abc import Sequence

import pytest

from services.scheduler.domain import endings
from services.scheduler.domain.ports import Timer, TimerKind
from services.scheduler.domain.records import AttemptRef, Changes, Live
from services.scheduler.domain.states import State
from services.scheduler.queue import keys
from services.scheduler.queue.queue import CLAIM_MS

from .scheduler_records import COLONY, WORKER, WORKER_2, spec
from .scheduler_works import LEASE_S, Works

pytestmark = pytest.mark.asyncio


async def test_a_claim_that_was_never_recorded_comes_back_within_seconds(works: Works) -> None:
    """Whoever claimed it died before the row said so: its offer is short, and the row knows of no attempt."""
    entered = await works.world.enter(spec("a"))
    await works.queue.apply(COLONY, entered.changes)
    assert await works.claim() == list(entered.process_ids)
    assert (await works.queue.loads(COLONY, [WORKER.identity]))[WORKER.identity][1] == 1
    await works.after(CLAIM_MS / 1000 - 0.1)
    assert await works.claim(executor=WORKER_2) == []
    await works.after(0.1)
    assert (await works.queue.loads(COLONY, [WORKER.identity]))[WORKER.identity][1] == 0
    assert await works.claim(executor=WORKER_2) == list(entered.process_ids)
    # It cost no attempt.
    (row,) = await works.world.rows("process")
    assert (row["attempt"], row["undelivered"]) == (0, 0)
    await works.world.check_ledger()


async def test_what_ends_because_it_is_due_is_counted_by_what_was_due(works: Works) -> None:
    entered = await works.world.enter(spec("lost"), spec("undelivered"), spec("long", max_exec_ms=1_000))
    lost, undelivered, long = entered.process_ids
    await works.queue.apply(COLONY, entered.changes)
    await works.claim()
    await works.dispatch(lost, undelivered, long)
    assert await works.heartbeat(lost)
    assert await works.heartbeat(long)
    await works.after(2.0)
    await works.after(LEASE_S)
    fired = works.upkeep.fired
    assert [fired[kind] for kind in (TimerKind.EXEC, TimerKind.LEASE, TimerKind.OFFER, TimerKind.WAIT)] == [1, 1, 1, 0]
    rebuilds = works.upkeep.rebuilds
    await works.queue.invalidate()
    await works.upkeep.tick()
    assert works.upkeep.rebuilds == rebuilds + 1


async def test_a_claim_that_came_back_and_is_made_again_at_once_stays(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same executor, for the same attempt: its offer has the name of the one that ran out."""
    entered = await works.world.enter(spec("a"))
    await works.queue.apply(COLONY, entered.changes)
    assert await works.claim() == list(entered.process_ids)
    done, again = works.queue.done, []

    async def overtaken(colony: str, timers: Sequence[Timer], lives: Sequence[Live] = ()) -> None:
        await done(colony, timers, lives)
        again.extend(await works.claim())
        # The word that it is done with may be said twice.
        await done(colony, timers)

    monkeypatch.setattr(works.queue, "done", overtaken)
    await works.after(CLAIM_MS / 1000)
    assert again == list(entered.process_ids)
    offer = keys.offer_timer(again[0], 1, WORKER.identity)
    assert await works.timers() == {offer: works.now_ms + CLAIM_MS}
    assert (await works.queue.loads(COLONY, [WORKER.identity]))[WORKER.identity][1] == 1


async def test_a_claim_of_what_had_ended_does_not_come_back(works: Works) -> None:
    entered = await works.world.enter(spec("a"))
    await works.queue.apply(COLONY, entered.changes)
    assert await works.claim() == list(entered.process_ids)
    await works.world.end(entered.process_ids[0], lambda row: endings.cancel_open(row, WORKER.identity))
    await works.after(CLAIM_MS / 1000)
    assert await works.claim() == []
    assert await works.timers() == {}


async def test_a_recorded_attempt_that_the_queue_was_never_told_of_is_lost_no_longer_than_the_claim(works: Works) -> None:
    """The replica died between the row and the word to the queue: the short offer of the claim runs out."""
    entered = await works.world.enter(spec("a"))
    (a,) = entered.process_ids
    await works.queue.apply(COLONY, entered.changes)
    await works.claim()
    await works.world.assign(a)
    await works.after(CLAIM_MS / 1000)
    assert (await works.world.states())[a] is State.WAITING
    assert [(one.id, one.attempt) for one in (await works.queue.claim(COLONY, WORKER, 1))[0]] == [(a, 2)]
    await works.world.check_ledger()


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
    await works.queue.apply(COLONY, Changes(ready=list(entered.changes.ready)))
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
