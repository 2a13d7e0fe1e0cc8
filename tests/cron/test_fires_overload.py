"""The loop that fires crons when others are slow, or a row is beyond it: what can be done is done, for everybody else."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import cycle
from uuid import UUID

import pytest

from servicekit.failures import FailedPrecondition, ResourceExhausted
from services.cron.domain.cron import Outcome
from services.cron.domain.ports import Launch
from tests.cron.fakes import cron_at, failing
from tests.cron.replica import LEASE_S, Replica

pytestmark = pytest.mark.asyncio

NewReplica = Callable[..., Replica]


def slow_down(replica: Replica, *, seconds: float) -> None:
    """From now on each call that submits takes this long, by the test's clock."""
    enter = replica.scheduler.submit_all

    async def slowly(*, colony: str, account: str, launches: Sequence[Launch]) -> None:
        replica.clock.advance(seconds=seconds)
        # The others have their turn.
        await asyncio.sleep(0)
        await enter(colony=colony, account=account, launches=launches)

    replica.scheduler.submit_all = slowly  # type: ignore[method-assign]


async def test_what_was_submitted_is_written_although_another_has_it_in_hand_by_now(
    replica: Replica, new_replica: NewReplica
) -> None:
    cron = await replica.added(cron_at(replica.clock))
    replica.clock.advance(seconds=10)
    replica.scheduler.hold = asyncio.Event()
    slow = asyncio.create_task(replica.fires.work([cron.cron_id]))
    await replica.scheduler.came.wait()
    # The claim runs out, and another takes it in hand and is slow, too.
    other = new_replica()
    other.clock.advance(seconds=LEASE_S)
    now = other.now()
    until = now + timedelta(seconds=LEASE_S)
    begun = await other.fire_store.begin([cron.cron_id], now=now, claim=UUID(int=1), until=until, decide=other.fires._decide)
    assert len(begun.crons) == 1
    replica.scheduler.hold.set()
    assert await slow
    settled = await other.found(cron)
    assert (settled.pending, settled.runs) == (None, 1)
    assert [fire.outcome for fire in await other.record(cron)] == [Outcome.SUBMITTED]


async def test_a_slow_scheduler_is_not_asked_again_and_again(replica: Replica, new_replica: NewReplica) -> None:
    crons = [await replica.added(cron_at(replica.clock, name=f"c{n}", colony=f"colony{n}")) for n in range(40)]
    replica.clock.advance(seconds=10)
    # All of them together take eight times as long as a claim is good.
    slow_down(replica, seconds=1)
    ids = [cron.cron_id for cron in crons]
    replicas, settled = cycle((replica, new_replica())), [0]
    while settled[-1] < len(crons):
        each = next(replicas)
        await each.fires.work(ids)
        settled.append(sum([(await each.found(cron)).runs for cron in crons]))
        # Whoever has no turn while the claim is good is left to the next look; what was done was not in vain.
        assert settled[-2] < settled[-1]
    assert set(replica.scheduler.asked.values()) == {1}


@pytest.mark.parametrize("redis", [True, False])
async def test_a_row_that_cannot_be_begun_keeps_nobody_from_firing(replica: Replica, redis: bool) -> None:
    good = [await replica.added(cron_at(replica.clock, name=f"good{n}")) for n in range(10)]
    bad = await replica.added(cron_at(replica.clock, name="bad"))
    async with replica.store._database.transaction() as connection:
        # As a newer version might write it.
        await connection.execute("UPDATE cron SET overlap = 9 WHERE id = %s", (bad.cron_id,))
    if not redis:
        await replica.client.aclose()
        replica.client.connection_pool.connection_kwargs["port"] = 1
        replica.client.connection_pool.connection_kwargs["retry"] = None
    for _ in range(2):
        replica.clock.advance(seconds=10)
        await replica.fire_due()
    for cron in good:
        assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED] * 2
    assert not await replica.record(bad)


async def test_a_fire_that_cannot_be_settled_keeps_nobody_from_firing(replica: Replica) -> None:
    good = [await replica.added(cron_at(replica.clock, name=f"good{n}")) for n in range(10)]
    bad = await replica.added(cron_at(replica.clock, name="bad"))
    async with replica.store._database.transaction() as connection:
        # Stands for a defect in what is written.
        await connection.execute("ALTER TABLE cron ADD CONSTRAINT never CHECK (name <> 'bad' OR runs = 0)")
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    for cron in good:
        assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED]
    # Its fire is looked at again later, and was submitted once.
    kept = await replica.found(bad)
    assert kept.pending is not None
    looked = await replica.fire_store.upcoming(replica.now() + timedelta(seconds=59), after=None, limit=20)
    assert {each for each, _ in looked} == {cron.cron_id for cron in good}
    assert len(replica.scheduler.entered) == 11


async def test_one_of_many_that_is_refused_is_found_in_few_calls(replica: Replica) -> None:
    good = [await replica.added(cron_at(replica.clock, name=f"good{n}")) for n in range(63)]
    bad = await replica.added(cron_at(replica.clock, name="bad", workflow=b"\x12\x01x"))
    replica.scheduler.refused[bad.workflow] = failing(FailedPrecondition, "Y", "not this one")
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    assert len(replica.scheduler.entered) == len(good)
    assert [fire.error for fire in await replica.record(bad)] == ["not this one"]
    # A half at a time.
    assert len(replica.scheduler.calls) == 1 + 2 * 6


async def test_as_many_are_submitted_as_there_is_room_for(replica: Replica) -> None:
    for n in range(40):
        await replica.added(cron_at(replica.clock, name=f"c{n}"))
    enter = replica.scheduler.submit_all

    async def with_room_for_25(*, colony: str, account: str, launches: Sequence[Launch]) -> None:
        if len(replica.scheduler.entered) + len(launches) > 25:
            replica.scheduler.calls.append(len(launches))
            raise ResourceExhausted("full", reason="QUEUE_FULL", retry_delay_s=5)
        await enter(colony=colony, account=account, launches=launches)

    replica.scheduler.submit_all = with_room_for_25  # type: ignore[method-assign]
    replica.clock.advance(seconds=10)
    await replica.fire_due()
    assert len(replica.scheduler.entered) == 25
    assert len(replica.scheduler.calls) <= 15
