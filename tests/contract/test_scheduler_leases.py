"""Offers and leases, and the grace after a time in which nobody looked after the queue."""

from uuid import UUID

import pytest

from services.scheduler.domain.states import Outcome, Reason, State
from services.scheduler.domain.views import AttemptView
from services.scheduler.queue import keys
from services.scheduler.queue.epoch import TICKED_MS
from services.scheduler.store.reads import Reads

from .scheduler_records import COLONY, WORKER, WORKER_2, spec
from .scheduler_works import LEASE_S, Works

pytestmark = pytest.mark.asyncio

MANY = 50


async def running(works: Works, count: int, **fields: int) -> list[UUID]:
    """Processes with confirmed attempts."""
    ids = list((await works.world.enter(*[spec(f"n{n}", **fields) for n in range(count)], workflow=False)).process_ids)
    await works.dispatch(*ids)
    for one in ids:
        assert await works.heartbeat(one)
    return ids


async def in_state(works: Works, state: State) -> set[UUID]:
    return {one for one, found in (await works.world.states()).items() if found is state}


async def attempts(works: Works, process_id: UUID) -> list[AttemptView]:
    return (await Reads(works.world.database).history(COLONY, process_id))[0]


async def test_no_lease_ends_before_it_could_be_extended_after_nobody_looked(works: Works) -> None:
    """Every replica was away, and with them whoever takes heartbeats: fifty executors are not dead for that."""
    ids = await running(works, MANY)
    offered = (await works.world.enter(spec("offered"), workflow=False)).process_ids[0]
    await works.dispatch(offered)
    works.world.clock.advance(seconds=100 * LEASE_S)
    await works.redis.delete(keys.TICKED)
    await works.upkeep.tick()
    assert await in_state(works, State.RUNNING) == {*ids, offered}
    timers = await works.timers()
    until = works.now_ms + LEASE_S * 1000
    assert {timers[keys.lease_timer(one, 1, WORKER.identity)] for one in ids} == {until}
    assert timers[keys.offer_timer(offered, 1, WORKER.identity)] == until
    # It is a grace, not a pardon: who sends no heartbeat in it is lost, the others are not.
    await works.after(LEASE_S / 2)
    alive, dead = ids[:20], ids[20:]
    for one in alive:
        assert await works.heartbeat(one)
    await works.after(LEASE_S / 2)
    assert await in_state(works, State.RUNNING) == set(alive)
    assert await in_state(works, State.FAILED) == set(dead)
    assert await in_state(works, State.WAITING) == {offered}
    assert {(await attempts(works, one))[0].outcome for one in dead} == {Outcome.LOST}
    await works.after(LEASE_S)
    assert await in_state(works, State.FAILED) == set(ids)
    await works.world.check_ledger()


async def test_while_somebody_looks_there_is_no_grace(works: Works) -> None:
    (one,) = await running(works, 1)
    await works.after(LEASE_S / 2)
    assert 0 < await works.redis.pttl(keys.TICKED) <= TICKED_MS
    await works.after(LEASE_S / 2)
    assert await in_state(works, State.FAILED) == {one}


async def test_the_grace_is_given_once(works: Works) -> None:
    """The second replica that takes over must not lengthen it, nor the first with every tick."""
    (one,) = await running(works, 1)
    works.world.clock.advance(seconds=2 * LEASE_S)
    await works.redis.delete(keys.TICKED)
    for _ in range(3):
        await works.upkeep.tick()
        works.world.clock.advance(seconds=LEASE_S / 3)
    assert await in_state(works, State.RUNNING) == {one}
    await works.after(0.01)
    assert await in_state(works, State.FAILED) == {one}


async def test_a_grace_shortens_no_lease(works: Works) -> None:
    (one,) = await running(works, 1)
    works.world.clock.advance(seconds=-3)
    await works.redis.delete(keys.TICKED)
    before = await works.timers()
    await works.upkeep.tick()
    assert await works.timers() == before
    assert keys.lease_timer(one, 1, WORKER.identity) in before


async def test_three_unconfirmed_attempts_cost_no_retry_and_the_fourth_does(works: Works) -> None:
    (one,) = (await works.world.enter(spec("a", max_retries=1), workflow=False)).process_ids
    for number in range(1, 6):
        assert [assigned.live.attempt for assigned in await works.dispatch(one)] == [number]
        await works.after(LEASE_S - 0.001)
        assert await in_state(works, State.RUNNING) == {one}
        await works.after(0.001)
        assert await in_state(works, State.WAITING if number < 5 else State.FAILED) == {one}
        (row,) = await works.world.rows("process")
        assert row["retries"] == (0 if number <= 3 else 1)
        # Back in its lane at once, and only while it is open.
        assert await works.claim() == ([one] if number < 5 else [])
    found = await attempts(works, one)
    assert [attempt.outcome for attempt in found] == [Outcome.UNDELIVERED] * 3 + [Outcome.LOST] * 2
    assert found[0].errors == ["attempt 1 was not confirmed by executor worker-1"]
    lines = [row["reason"] for row in await works.world.rows("ledger") if row["from_state"] == State.RUNNING]
    assert lines == [Reason.UNDELIVERED] * 3 + [Reason.LEASE_EXPIRED] * 2
    await works.world.check_ledger()


async def test_a_heartbeat_confirms_and_from_then_on_a_loss_counts(works: Works) -> None:
    (one,) = (await works.world.enter(spec("a", max_retries=1), workflow=False)).process_ids
    await works.dispatch(one)
    assert not await works.heartbeat(one, executor=WORKER_2), "it confirms nobody else's attempt"
    assert await works.heartbeat(one)
    await works.after(LEASE_S)
    (row,) = await works.world.rows("process")
    assert (row["state"], row["retries"]) == (State.WAITING, 1)
    assert [attempt.outcome for attempt in await attempts(works, one)] == [Outcome.LOST]
    assert not await works.heartbeat(one)
    # Retries that were counted do not use up what is not counted.
    for _ in range(3):
        await works.dispatch(one)
        await works.after(LEASE_S)
        assert await in_state(works, State.WAITING) == {one}
    await works.world.check_ledger()


async def test_an_offer_that_ran_out_and_a_heartbeat_that_comes_too_late(works: Works) -> None:
    (one,) = (await works.world.enter(spec("a"), workflow=False)).process_ids
    await works.dispatch(one)
    await works.after(LEASE_S)
    assert not await works.heartbeat(one)
    await works.dispatch(one, executor=WORKER_2)
    assert not await works.heartbeat(one)
    assert await works.heartbeat(one, 2, WORKER_2)
