"""Controls in the table, and what they do to the queue."""

import asyncio
from datetime import datetime
from uuid import UUID

import pytest

from servicekit.failures import Unavailable
from services.scheduler.domain.controls import Controlling, Controls, ControlsChange
from services.scheduler.domain.limits import Waiting
from services.scheduler.domain.statistics import Counting
from services.scheduler.queue import keys
from services.scheduler.store.controls import ControlStore
from services.scheduler.store.statistics import StatisticsStore

from .scheduler_records import COLONY, START, World, at, spec, success
from .scheduler_works import Works

pytestmark = pytest.mark.asyncio

PAUSE, RESUME = ControlsChange(paused=True), ControlsChange(paused=False)


async def ready(works: Works, count: int = 3) -> list[UUID]:
    """Processes in the queue."""
    entered = await works.world.enter(*[spec() for _ in range(count)], workflow=False)
    await works.aftermath.changed(COLONY, entered.changes)
    return list(entered.process_ids)


async def test_what_is_not_set_stays_as_it_is(world: World) -> None:
    store = ControlStore(world.database)
    assert await store.controls(COLONY) == Controls()
    assert await store.update_controls(COLONY, ControlsChange(), START) == Controls()
    first = await store.update_controls(COLONY, ControlsChange(paused=True, max_waiting=10**12), START)
    assert first == Controls(paused=True, max_waiting=10**12)
    keeps = ControlsChange(keep_successful_ms=1, keep_failed_ms=2, keep_cancelled_ms=3)
    second = await store.update_controls(COLONY, keeps, START)
    assert second == await store.controls(COLONY) == Controls(True, 10**12, 1, 2, 3)
    back = ControlsChange(paused=False, max_waiting=0, keep_successful_ms=0, keep_failed_ms=0, keep_cancelled_ms=0)
    assert await store.update_controls(COLONY, back, START) == await store.controls("other") == Controls()


async def test_changes_at_once_are_all_there(world: World) -> None:
    store = ControlStore(world.database)
    changes = [
        ControlsChange(paused=True),
        ControlsChange(max_waiting=5),
        ControlsChange(keep_successful_ms=1),
        ControlsChange(keep_failed_ms=2),
        ControlsChange(keep_cancelled_ms=3),
    ]
    await asyncio.gather(*(store.update_controls(COLONY, change, START) for change in changes))
    assert await store.controls(COLONY) == Controls(True, 5, 1, 2, 3)


async def test_a_pause_holds_at_once_and_until_its_end(works: Works) -> None:
    ids = await ready(works)
    assert (await works.controlling.update(COLONY, PAUSE)).paused
    assert await works.claim() == []
    assert await works.claim(colony="other") == []
    later = await ready(works, 1)
    assert await works.claim() == []
    assert not (await works.controlling.update(COLONY, RESUME)).paused
    assert sorted(await works.claim()) == sorted([*ids, *later])


async def test_a_pause_survives_the_queue(works: Works) -> None:
    ids = await ready(works)
    await works.controlling.update(COLONY, PAUSE)
    await works.redis.flushall()
    await works.upkeep.tick()
    assert await works.claim() == []
    await works.controlling.update(COLONY, RESUME)
    assert sorted(await works.claim()) == sorted(ids)


class Deaf:
    """A queue that cannot be told."""

    async def set_paused(self, colony: str, *, paused: bool) -> None:
        raise Unavailable("gone", reason="QUEUE_UNAVAILABLE")


async def nothing() -> None:
    """No copies to refresh."""


@pytest.mark.parametrize("change", [PAUSE, RESUME])
async def test_whoever_dies_before_the_queue_is_told_leaves_it_to_the_others(works: Works, change: ControlsChange) -> None:
    ids = await ready(works)
    before = RESUME if change.paused else PAUSE
    await works.controlling.update(COLONY, before)
    dying = Controlling(ControlStore(works.world.database), Deaf(), works.world.clock, changed=nothing)
    with pytest.raises(Unavailable):
        await dying.update(COLONY, change)
    works.world.clock.advance(seconds=30)
    await works.controlling.tell_pauses()
    assert sorted(await works.claim()) == ([] if change.paused else sorted(ids))


async def test_a_resume_that_nobody_told_for_long_is_told_in_a_full_round(works: Works) -> None:
    await ready(works, 1)
    await works.controlling.update(COLONY, PAUSE)
    dying = Controlling(ControlStore(works.world.database), Deaf(), works.world.clock, changed=nothing)
    with pytest.raises(Unavailable):
        await dying.update(COLONY, RESUME)
    works.world.clock.advance(seconds=3_600)
    await works.controlling.tell_pauses()
    assert await works.claim() == []
    await works.controlling.tell_pauses(everything=True)
    assert len(await works.claim()) == 1


async def test_resuming_wakes_who_waits_and_telling_again_does_not(works: Works) -> None:
    pubsub = works.redis.pubsub(ignore_subscribe_messages=True)
    await pubsub.psubscribe("colonies:ready:*")

    async def heard() -> list[str]:
        await works.redis.publish("colonies:ready:end", "end")
        messages = []
        while (message := await pubsub.get_message(timeout=5)) is None or message["data"] != "end":
            messages += [message["data"]] if message else []
        return messages

    await works.controlling.update(COLONY, PAUSE)
    assert await heard() == []
    await works.controlling.update(COLONY, RESUME)
    assert await heard() == [f"{works.wakeups.replica}\n{keys.ANY}\n"]
    await works.controlling.tell_pauses(everything=True)
    assert await heard() == []
    await pubsub.aclose()  # type: ignore[no-untyped-call]


async def test_how_many_wait_is_known_before_it_is_counted(world: World) -> None:
    store = ControlStore(world.database)
    assert await store.limited() == []
    await store.update_controls(COLONY, ControlsChange(max_waiting=7), START)
    await store.update_controls("other", ControlsChange(max_waiting=1), START)

    async def waiting() -> int:
        found = {one.colony: one for one in await store.limited()}
        assert found.keys() == {COLONY, "other"}
        assert found["other"] == Waiting("other", 1, 0)
        return found[COLONY].waiting

    assert await waiting() == 0
    flow = await world.enter(spec("a"), spec("b", "a"))
    assert await waiting() == 2
    counting = Counting(StatisticsStore(world.database), world.clock)
    await counting.round(full=True)
    assert await waiting() == 2
    await world.run(flow.process_ids[0], success())
    assert await waiting() == 1
    await counting.round(full=True)
    assert await waiting() == 1
    async with world.database.transaction() as older:
        await older.execute(b"SELECT pg_current_xact_id()")
        await world.enter(spec(), workflow=False)
        await counting.round(full=True)
        assert await waiting() == 2


async def test_pauses_name_who_is_paused_and_who_was_lately(world: World) -> None:
    store = ControlStore(world.database)
    for name, change, moment in (("a", PAUSE, at(0)), ("b", RESUME, at(0)), ("c", PAUSE, at(100)), ("d", RESUME, at(100))):
        await store.update_controls(name, change, moment)

    async def told(since: datetime | None) -> list[tuple[str, bool]]:
        return list(await store.pauses(since))

    assert await told(at(50)) == [("a", True), ("c", True), ("d", False)]
    assert await told(None) == [("a", True), ("b", False), ("c", True), ("d", False)]
