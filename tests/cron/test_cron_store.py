"""Crons in Postgres."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from servicekit.clock import ManualClock
from services.cron.domain.cron import Cron, Idle, Settlement, run_digest
from services.cron.domain.schedule import Expression
from services.cron.store.store import PostgresCronStore
from tests.cron.fakes import cron_at, later

pytestmark = pytest.mark.asyncio


async def test_what_is_kept_comes_back(store: PostgresCronStore, clock: ManualClock) -> None:
    by_interval = cron_at(clock, name="i")
    by_expression = cron_at(clock, name="e", schedule=Expression.parse("*/5 * * * *"))
    for cron in (by_interval, by_expression):
        assert await store.add(cron) == cron
        assert await store.find("dev", cron.name) == cron
    assert await store.find("dev", "x") is None
    assert await store.find("other", "i") is None


async def test_a_name_is_given_once_in_a_colony(store: PostgresCronStore, clock: ManualClock) -> None:
    crons = [cron_at(clock) for _ in range(8)]
    kept = await asyncio.gather(*(store.add(cron) for cron in crons))
    assert len({cron.cron_id for cron in kept}) == 1
    elsewhere = cron_at(clock, colony="other")
    assert await store.add(elsewhere) == elsewhere


async def test_pages_are_in_order_of_bytes_and_without_workflows(store: PostgresCronStore, clock: ManualClock) -> None:
    names = ["b", "a.1", "B", "a-1", "a", "a_1", "10", "9"]
    for name in names:
        await store.add(cron_at(clock, name=name))
    await store.add(cron_at(clock, name="stranger", colony="other"))
    first = await store.page("dev", after="", limit=3)
    second = await store.page("dev", after=first[-1].name, limit=100)
    assert [cron.name for cron in first + second] == sorted(names)
    assert {cron.workflow for cron in first + second} == {b""}


async def test_removing(store: PostgresCronStore, clock: ManualClock) -> None:
    cron = await store.add(cron_at(clock))
    assert await store.remove(cron.cron_id)
    assert not await store.remove(cron.cron_id)
    assert await store.find("dev", cron.name) is None


async def test_purging_takes_whole_colonies_and_no_others(store: PostgresCronStore, clock: ManualClock) -> None:
    for colony in ("a", "b", "c"):
        for name in ("x", "y"):
            await store.add(cron_at(clock, colony=colony, name=name))
    assert await store.purge(["a", "c", "never-was"]) == 4
    assert await store.purge(["a", "c"]) == 0
    assert len(await store.page("b", after="", limit=10)) == 2


async def test_the_longest_due_is_first_and_then_the_store_says_how_long_to_wait(
    store: PostgresCronStore, clock: ManualClock
) -> None:
    first = await store.add(cron_at(clock, name="first"))
    clock.advance(seconds=2)
    second = await store.add(cron_at(clock, name="second"))
    fired: list[str] = []

    async def fire(cron: Cron) -> Settlement:
        fired.append(cron.name)
        following = later(cron, seconds=60)
        return Settlement(following, following, 0, cron.next_fire, "w-" + cron.name, "")

    assert await store.fire_next(first.created, fire) == Idle(first.next_fire)
    moment = later(second, seconds=10)
    assert await store.fire_next(moment, fire) is None
    assert await store.fire_next(moment, fire) is None
    assert await store.fire_next(moment, fire) == Idle(later(first, seconds=60))
    assert fired == ["first", "second"]
    assert await store.find("dev", "first") == replace(
        first, next_fire=later(first, seconds=60), last_fire=first.next_fire, last_workflow_id="w-first"
    )


async def test_a_stopped_cron_is_never_due(store: PostgresCronStore, clock: ManualClock) -> None:
    cron = await store.add(cron_at(clock))

    async def stop(cron: Cron) -> Settlement:
        return Settlement(None, None, 0, cron.next_fire, None, "stopped")

    assert await store.fire_next(later(cron, seconds=10), stop) is None
    assert await store.fire_next(later(cron, seconds=10_000), stop) == Idle(None)
    stopped = await store.find("dev", cron.name)
    assert stopped == replace(cron, next_fire=None, last_fire=cron.next_fire, last_error="stopped")


async def test_what_another_has_locked_is_passed_over_and_removing_waits_for_it(
    store: PostgresCronStore, other_store: PostgresCronStore, clock: ManualClock
) -> None:
    cron = await store.add(cron_at(clock))
    moment = later(cron, seconds=10)
    locked, release = asyncio.Event(), asyncio.Event()

    async def slow(cron: Cron) -> Settlement:
        locked.set()
        await release.wait()
        following = moment + timedelta(seconds=10)
        return Settlement(following, following, 0, moment, "w", "")

    async def never(cron: Cron) -> Settlement:
        raise AssertionError

    firing = asyncio.create_task(store.fire_next(moment, slow))
    await locked.wait()
    # Not "due now": that would have everyone spin until the lock is gone.
    assert await other_store.fire_next(moment, never) == Idle(None)
    removing = asyncio.create_task(other_store.remove(cron.cron_id))
    done, _ = await asyncio.wait((removing,), timeout=0.2)
    assert not done
    release.set()
    assert await firing is None
    assert await removing
    assert await store.find("dev", cron.name) is None


async def test_a_repeated_run_does_not_hide_a_later_workflow(store: PostgresCronStore, clock: ManualClock) -> None:
    cron = await store.add(cron_at(clock))
    await store.note_run(cron.cron_id, digest=run_digest("r1"), workflow_id="run")

    async def fire(cron: Cron) -> Settlement:
        return Settlement(cron.next_fire, cron.next_fire, 0, cron.next_fire, "fire", "")

    await store.fire_next(later(cron, seconds=10), fire)
    await store.note_run(cron.cron_id, digest=run_digest("r1"), workflow_id="run")
    kept = await store.find("dev", cron.name)
    assert kept is not None
    assert kept.last_workflow_id == "fire"
    await store.note_run(cron.cron_id, digest=run_digest("r2"), workflow_id="run2")
    kept = await store.find("dev", cron.name)
    assert kept is not None
    assert kept.last_workflow_id == "run2"
