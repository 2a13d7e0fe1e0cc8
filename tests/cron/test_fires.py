"""The loop that fires crons, over a real Postgres: never twice, never missed, whatever dies."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from deploy.local.postgres import Postgres
from servicekit.clock import ManualClock, SystemClock
from servicekit.failures import FailedPrecondition, InvalidArgument, PermissionDenied, Unavailable, Violation
from services.cron.domain.cron import Cron, Idle, Settlement, fire_request_id
from services.cron.domain.fires import LONGEST_RETRY_S, Fires
from services.cron.domain.ports import ON_BEHALF_REVOKED, CronStore
from services.cron.domain.schedule import Expression, Interval
from services.cron.store.store import PostgresCronStore
from tests.cron.fakes import Crash, FakeScheduler, cron_at, failing, later

pytestmark = pytest.mark.asyncio


def fires_of(store: CronStore, scheduler: FakeScheduler, clock: ManualClock, **options: Any) -> Fires:
    return Fires(store, scheduler, clock, **{"workers": 1, "on_fire": lambda _outcome, _late: None, **options})


async def found(store: PostgresCronStore, cron: Cron) -> Cron:
    kept = await store.find(cron.colony, cron.name)
    assert kept is not None
    return kept


async def test_a_due_cron_is_submitted_and_its_next_moment_written(store: PostgresCronStore, clock: ManualClock) -> None:
    scheduler, outcomes = FakeScheduler(), []
    fires = fires_of(store, scheduler, clock, on_fire=lambda outcome, late: outcomes.append((outcome, late)))
    cron = await store.add(cron_at(clock))
    assert await fires.fire_next() == Idle(later(cron, seconds=10))
    clock.advance(seconds=10.25)
    assert await fires.fire_next() is None
    assert await fires.fire_next() == Idle(later(cron, seconds=20))
    ((account, request_id), workflow_id) = next(iter(scheduler.entered.items()))
    assert account == cron.initiator
    assert request_id == fire_request_id(cron.cron_id, later(cron, seconds=10))
    assert await found(store, cron) == replace(
        cron,
        next_fire=later(cron, seconds=20),
        last_fire=later(cron, seconds=10),
        last_workflow_id=workflow_id,
    )
    assert outcomes == [("submitted", 0.25)]


@pytest.mark.parametrize("schedule", [Interval(10_000), Expression.parse("*/10 * * * * *")])
async def test_after_downtime_there_is_one_fire_for_all_that_was_missed(
    store: PostgresCronStore, clock: ManualClock, schedule: Interval | Expression
) -> None:
    scheduler = FakeScheduler()
    fires = fires_of(store, scheduler, clock)
    cron = await store.add(cron_at(clock, schedule=schedule))
    assert cron.next_fire is not None
    clock.advance(seconds=86_400)
    assert await fires.fire_next() is None
    assert isinstance(await fires.fire_next(), Idle)
    assert scheduler.request_ids == [fire_request_id(cron.cron_id, cron.next_fire)]
    after = await found(store, cron)
    assert after.next_fire is not None
    assert later(cron, seconds=86_400) < after.next_fire <= later(cron, seconds=86_410)


class CrashingStore(PostgresCronStore):
    """Dies between the submit and the update."""

    async def fire_next(self, now: datetime, fire: Callable[[Cron], Awaitable[Settlement]]) -> Idle | None:
        async def fire_and_die(cron: Cron) -> Settlement:
            await fire(cron)
            raise Crash

        return await super().fire_next(now, fire_and_die)


async def test_a_crash_after_the_submit_submits_again_under_the_same_request_id(
    store: PostgresCronStore, clock: ManualClock
) -> None:
    scheduler = FakeScheduler()
    cron = await store.add(cron_at(clock))
    clock.advance(seconds=10)
    with pytest.raises(Crash):
        await fires_of(CrashingStore(store._database), scheduler, clock).fire_next()
    assert await found(store, cron) == cron
    # Somebody else finds it, later: the moment's name stays.
    clock.advance(seconds=35)
    assert await fires_of(store, scheduler, clock).fire_next() is None
    request_id = fire_request_id(cron.cron_id, later(cron, seconds=10))
    assert scheduler.asked == {request_id: 2}
    assert scheduler.request_ids == [request_id]
    assert (await found(store, cron)).next_fire == later(cron, seconds=50)


async def test_with_the_scheduler_away_the_same_moment_is_tried_later_and_later(
    store: PostgresCronStore, clock: ManualClock
) -> None:
    scheduler = FakeScheduler()
    scheduler.refusal = failing(Unavailable, "X", "scheduler away")
    fires = fires_of(store, scheduler, clock)
    cron = await store.add(cron_at(clock))
    clock.advance(seconds=10)
    waits: list[float] = []
    for tries in range(1, 11):
        assert await fires.fire_next() is None
        idle = await fires.fire_next()
        assert idle is not None
        assert idle.next_due is not None
        kept = await found(store, cron)
        assert (kept.next_fire, kept.tries, kept.last_error) == (later(cron, seconds=10), tries, "scheduler away")
        assert kept.last_fire is None
        now = later(cron, seconds=10) + timedelta(seconds=sum(waits))
        waits.append((idle.next_due - now).total_seconds())
        clock.advance(seconds=waits[-1])
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(waits) == LONGEST_RETRY_S
    scheduler.refusal = None
    assert await fires.fire_next() is None
    request_id = fire_request_id(cron.cron_id, later(cron, seconds=10))
    assert scheduler.asked == {request_id: 11}
    kept = await found(store, cron)
    assert (kept.tries, kept.last_error, kept.last_fire) == (0, "", later(cron, seconds=10))
    assert kept.next_fire is not None
    assert kept.next_fire > later(cron, seconds=10) + timedelta(seconds=sum(waits))


async def test_when_its_owner_is_revoked_a_cron_stops(store: PostgresCronStore, clock: ManualClock) -> None:
    scheduler = FakeScheduler()
    scheduler.refusal = failing(PermissionDenied, ON_BEHALF_REVOKED)
    fires = fires_of(store, scheduler, clock)
    cron = await store.add(cron_at(clock))
    clock.advance(seconds=10)
    assert await fires.fire_next() is None
    clock.advance(seconds=1_000)
    assert await fires.fire_next() == Idle(None)
    kept = await found(store, cron)
    assert kept.next_fire is None
    assert "none any more" in kept.last_error
    assert sum(scheduler.asked.values()) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        failing(PermissionDenied, "ROLE_NOT_ALLOWED"),
        failing(FailedPrecondition, "X"),
        InvalidArgument([Violation("workflow.nodes[0].func_name", "no")]),
    ],
)
async def test_what_the_scheduler_refuses_is_told_and_the_next_moment_comes(
    store: PostgresCronStore, clock: ManualClock, refusal: Exception
) -> None:
    scheduler = FakeScheduler()
    scheduler.refusal = refusal
    fires = fires_of(store, scheduler, clock)
    cron = await store.add(cron_at(clock))
    clock.advance(seconds=10)
    assert await fires.fire_next() is None
    kept = await found(store, cron)
    assert (kept.next_fire, kept.last_fire) == (later(cron, seconds=20), later(cron, seconds=10))
    assert "no" in kept.last_error
    scheduler.refusal = None
    clock.advance(seconds=10)
    assert await fires.fire_next() is None
    assert (await found(store, cron)).last_error == ""


async def test_a_defect_in_one_cron_leaves_the_others_firing(store: PostgresCronStore, clock: ManualClock) -> None:
    class Broken(FakeScheduler):
        async def submit(self, *, colony: str, request_id: str, workflow: bytes, account: str) -> str:
            if colony == "broken":
                msg = "secret detail"
                raise ZeroDivisionError(msg)
            return await super().submit(colony=colony, request_id=request_id, workflow=workflow, account=account)

    scheduler = Broken()
    fires = fires_of(store, scheduler, clock)
    broken = await store.add(cron_at(clock, colony="broken"))
    await store.add(cron_at(clock, colony="sound"))
    clock.advance(seconds=10)
    while await fires.fire_next() is None:
        pass
    assert len(scheduler.entered) == 1
    assert (await found(store, broken)).last_error == "internal error"


async def test_clocks_that_differ_never_fire_a_moment_twice(
    store: PostgresCronStore, other_store: PostgresCronStore, clock: ManualClock
) -> None:
    scheduler = FakeScheduler()
    ahead = ManualClock(clock.now_ns() + 3_000_000_000)
    cron = await store.add(cron_at(clock, schedule=Interval(1_000)))
    for _ in range(40):
        for replica in (fires_of(store, scheduler, clock), fires_of(other_store, scheduler, ahead)):
            while await replica.fire_next() is None:
                pass
        clock.advance(seconds=0.25)
        ahead.advance(seconds=0.25)
    assert set(scheduler.asked.values()) == {1}
    # By the clock that is ahead, seconds 1 to 3 had passed when it began: one fire; then one for each of 4 to 12.
    assert len(scheduler.entered) == 1 + 9
    assert (await found(store, cron)).last_error == ""


async def test_a_clock_that_is_set_back_while_a_fire_is_under_way_does_not_bring_its_moment_back(
    store: PostgresCronStore, clock: ManualClock
) -> None:
    class SetBack(FakeScheduler):
        async def submit(self, *, colony: str, request_id: str, workflow: bytes, account: str) -> str:
            clock.advance(seconds=-5)
            return await super().submit(colony=colony, request_id=request_id, workflow=workflow, account=account)

    cron = await store.add(cron_at(clock))
    clock.advance(seconds=10)
    assert await fires_of(store, SetBack(), clock).fire_next() is None
    assert (await found(store, cron)).next_fire == later(cron, seconds=20)


async def test_two_replicas_at_full_speed_submit_each_moment_once(
    store: PostgresCronStore, other_store: PostgresCronStore, clock: ManualClock
) -> None:
    scheduler = FakeScheduler()
    crons = [await store.add(cron_at(clock, name=f"c{index}", schedule=Interval(1_000))) for index in range(20)]
    replicas = [fires_of(each, scheduler, clock) for each in (store, other_store) for _ in range(3)]

    async def drain(fires: Fires) -> None:
        while await fires.fire_next() is None:
            pass

    for _ in range(15):
        clock.advance(seconds=1)
        await asyncio.gather(*map(drain, replicas))
    moments = {fire_request_id(cron.cron_id, later(cron, seconds=n)) for cron in crons for n in range(1, 16)}
    assert set(scheduler.request_ids) == moments
    assert scheduler.asked.total() == len(moments)


class Running:
    """The loop of a replica, under way."""

    def __init__(self, fires: Fires) -> None:
        self._fires = fires

    async def __aenter__(self) -> Fires:
        self._task = asyncio.create_task(self._fires.run())
        return self._fires

    async def __aexit__(self, *_exc: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


@pytest.mark.timeout(30)
async def test_running_loops_fire_every_second_on_time_and_a_dead_one_is_replaced(
    store: PostgresCronStore, other_store: PostgresCronStore
) -> None:
    scheduler, clock, late = FakeScheduler(), SystemClock(), []

    def replica(each: PostgresCronStore) -> Fires:
        return Fires(each, scheduler, clock, workers=2, on_fire=lambda _outcome, seconds: late.append(seconds))

    crons = []
    async with Running(replica(store)) as survivor:
        async with Running(replica(other_store)):
            for index in range(10):
                now = ManualClock(clock.now_ns() // 1_000_000 * 1_000_000)
                crons.append(await store.add(cron_at(now, name=f"c{index}", schedule=Interval(1_000))))
            survivor.wake()
            async with asyncio.timeout(10):
                while len(scheduler.entered) < 25:
                    scheduler.came.clear()
                    await scheduler.came.wait()
        # The other one is gone, in the middle of whatever it did.
        async with asyncio.timeout(10):
            while len(scheduler.entered) < 45:
                scheduler.came.clear()
                await scheduler.came.wait()
    moments = {fire_request_id(cron.cron_id, later(cron, seconds=n)) for cron in crons for n in range(1, 20)}
    assert set(scheduler.request_ids) <= moments
    assert sorted(late)[len(late) // 2] < 0.25


class TellingStore(PostgresCronStore):
    """Tells when it has been looked at in vain."""

    def __init__(self, store: PostgresCronStore) -> None:
        super().__init__(store._database)
        self.looked_in_vain = asyncio.Event()

    async def fire_next(self, now: datetime, fire: Callable[[Cron], Awaitable[Settlement]]) -> Idle | None:
        idle = await super().fire_next(now, fire)
        if idle is not None:
            self.looked_in_vain.set()
        return idle


@pytest.mark.timeout(30)
async def test_a_cron_that_is_added_wakes_the_loop_at_once(
    store: PostgresCronStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Looking now and then would find it too, but not within this test's patience.
    monkeypatch.setattr("services.cron.domain.fires.LONGEST_WAIT_S", 600.0)
    scheduler, telling = FakeScheduler(), TellingStore(store)
    async with Running(fires_of(telling, scheduler, clock)) as fires:
        await asyncio.wait_for(telling.looked_in_vain.wait(), 10)
        await store.add(cron_at(ManualClock(clock.now_ns() - 20_000_000_000)))
        fires.wake()
        await asyncio.wait_for(scheduler.came.wait(), 10)


@pytest.mark.timeout(30)
async def test_a_slow_submit_does_not_keep_other_crons_waiting(store: PostgresCronStore, clock: ManualClock) -> None:
    class SlowForOne(FakeScheduler):
        async def submit(self, *, colony: str, request_id: str, workflow: bytes, account: str) -> str:
            if colony == "slow":
                await asyncio.Event().wait()
            return await super().submit(colony=colony, request_id=request_id, workflow=workflow, account=account)

    scheduler = SlowForOne()
    await store.add(cron_at(clock, colony="slow"))
    quick = [await store.add(cron_at(clock, name=f"q{index}")) for index in range(5)]
    clock.advance(seconds=10)
    async with Running(fires_of(store, scheduler, clock, workers=2)):
        async with asyncio.timeout(5):
            while len(scheduler.entered) < len(quick):
                scheduler.came.clear()
                await scheduler.came.wait()


@pytest.mark.timeout(60)
async def test_the_loop_outlives_the_database(
    store: PostgresCronStore, clock: ManualClock, database_url: str, postgres_server: Postgres
) -> None:
    scheduler = FakeScheduler()
    await store.add(cron_at(clock))
    async with Running(fires_of(store, scheduler, clock)) as fires:
        name = database_url.rpartition("/")[2]
        with psycopg.connect(postgres_server.superuser_url(), autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        clock.advance(seconds=10)
        fires.wake()
        await asyncio.wait_for(scheduler.came.wait(), 15)
