"""What becomes a batch by time and by hand, and when the loop hears of it."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from services.cron.domain.packing import Reason
from tests.generators.replica import (
    GeneratorReplica,
    caller,
    check_rows,
    row_of,
    rows,
)

pytestmark = pytest.mark.asyncio

OTHER = "0b" * 32


async def test_the_timeout_counts_from_the_first_argument_of_each_key(replica: GeneratorReplica) -> None:
    await replica.add(max_count=100, timeout_ms=2_000)
    await replica.pack("1", "a", key="a")
    replica.clock.advance(seconds=1.5)
    await replica.pack("2", "b", key="a")
    await replica.pack("3", "c", key="c")
    generator = await replica.found()
    assert generator.next_deadline == generator.created + timedelta(seconds=2)
    await replica.pass_time(seconds=0.499, step_s=0.499)
    assert not replica.submitted()
    await replica.pass_time(seconds=0.001)
    assert replica.submitted() == [["a", "b"]]
    await replica.pass_time(seconds=1.499, step_s=1.499)
    assert len(replica.submitted()) == 1
    await replica.pass_time(seconds=0.001)
    assert replica.submitted() == [["a", "b"], ["c"]]
    assert [each.reason for each in replica.made] == [Reason.TIMEOUT] * 2
    assert replica.waited == [2.0, 2.0]
    assert (await row_of(replica.database, generator.generator_id))["due_at"] is None


async def test_a_timeout_is_found_by_another_replica_without_its_redis(
    replica: GeneratorReplica, new: Callable[..., GeneratorReplica]
) -> None:
    await replica.add(max_count=100, timeout_ms=30_000)
    await replica.pack("1", "a")
    await replica.client.flushall()
    other = new()
    await other.pass_time(seconds=31)
    assert replica.submitted() == [["a"]]


async def test_paused_it_takes_arguments_and_makes_no_batches(replica: GeneratorReplica) -> None:
    await replica.add(max_count=2, timeout_ms=1_000)
    paused = await replica.generators.pause(caller(), "g")
    assert (paused.paused, paused.pause_reason) == (True, "by alice")
    assert (await replica.generators.pause(caller(OTHER, owns_all=True), "g")) == paused
    await replica.pack("1", *"abcde")
    await replica.pack("2", "x", key="k")
    await replica.pass_time(seconds=5)
    found = await replica.found()
    assert (found.waiting, found.next_deadline, replica.submitted()) == (6, None, [])
    resumed = await replica.generators.resume(caller(), "g")
    assert (resumed.paused, resumed.pause_reason) == (False, "")
    await replica.work()
    assert replica.submitted() == [["a", "b"], ["c", "d"], ["e"], ["x"]]
    assert [each.reason for each in replica.made] == [Reason.COUNT] * 2 + [Reason.TIMEOUT] * 2
    # Resuming what is not paused changes nothing.
    before = await row_of(replica.database, found.generator_id)
    await replica.generators.resume(caller(), "g")
    assert await row_of(replica.database, found.generator_id) == before


async def test_after_a_pause_what_is_packed_follows_what_waited(replica: GeneratorReplica) -> None:
    await replica.add(max_count=3)
    await replica.generators.pause(caller(), "g")
    await replica.pack("1", *"abcd")
    await replica.generators.resume(caller(), "g")
    # Before any loop has looked.
    await replica.pack("2", *"ef")
    await replica.work()
    await replica.pack("3", *"ghi")
    await replica.work()
    assert replica.submitted() == [["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"]]


async def test_a_flush_makes_batches_of_all_or_of_one_key_paused_or_not(replica: GeneratorReplica) -> None:
    await replica.add(max_count=3)
    await replica.generators.pause(caller(), "g")
    await replica.pack("1", *"abcdefg", key="k")
    await replica.pack("2", "x", key="l")
    assert await replica.generators.flush(caller(), "g", "k") == (3, 7)
    await replica.work()
    assert replica.submitted() == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert await replica.generators.flush(caller(), "g", None) == (1, 1)
    assert await replica.generators.flush(caller(), "g", None) == (0, 0)
    await replica.work()
    assert {each.reason for each in await replica.batches()} == {Reason.FLUSH}
    assert replica.submitted()[3:] == [["x"]]


async def test_a_flush_and_a_resume_go_in_portions(replica: GeneratorReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.cron.store.packs.BINS_AT_ONCE", 3)
    monkeypatch.setattr("services.cron.store.dispatches.BINS_AT_ONCE", 3)
    monkeypatch.setattr("services.cron.store.packs.SIZES_AT_ONCE", 7)
    await replica.add(max_count=3)
    for way in ("flush", "resume"):
        await replica.generators.pause(caller(), "g")
        texts = [f"{way}{index:02}" for index in range(23)]
        await replica.pack(way, *texts)
        for key in "pqrstuvw":
            await replica.pack(way + key, way + key, *[f"{way}{key}{n}" for n in range(3)], key=key)
        if way == "flush":
            assert await replica.generators.flush(caller(), "g", None) == (8 + 8 * 2, 23 + 8 * 4)
        else:
            await replica.generators.resume(caller(), "g")
        await replica.work()
        packed = [text for batch in replica.submitted() for text in batch if text in texts]
        assert packed == (texts if way == "flush" else texts[:21])
        await check_rows(replica.database)
    assert (await replica.found()).waiting == 2 + 8


async def test_what_is_dropped_is_gone_and_swept(replica: GeneratorReplica) -> None:
    await replica.add(max_count=3)
    await replica.pack("1", *"abcde")
    await replica.pack("2", "x", "y", key="k")
    assert await replica.generators.drop(caller(), "g", "k") == 2
    assert await replica.generators.drop(caller(), "g", "nothing") == 0
    found = await replica.found()
    assert (found.waiting, found.bins) == (2, 1)
    # What is packed from then on waits anew.
    await replica.pack("3", "z", key="k")
    assert await replica.generators.drop(caller(), "g", None) == 3
    await replica.work()
    # Batches are not thrown away.
    assert replica.submitted() == [["a", "b", "c"]]
    assert await rows(replica.database, "argument") == 5
    await replica.upkeep.sweep()
    assert await rows(replica.database, "argument") == await rows(replica.database, "dropped") == 0
    assert await replica.pack("4", *"fgh") == 9
    await replica.work()
    assert replica.submitted()[1:] == [["f", "g", "h"]]


async def test_a_sweep_of_what_was_dropped_leaves_what_came_since(
    replica: GeneratorReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cron.domain.generator_upkeep.PAGE", 2)
    await replica.add(max_count=100)
    for turn in range(3):
        await replica.pack(f"{turn}", *"abcde")
        await replica.generators.drop(caller(), "g", "")
        await replica.pack(f"{turn}-kept", f"kept {turn}", key="kept")
    await replica.pack("last", "last")
    await replica.upkeep.sweep()
    assert await rows(replica.database, "argument") == 4
    await replica.generators.flush(caller(), "g", None)
    await replica.work()
    assert replica.submitted() == [["last"], ["kept 0", "kept 1", "kept 2"]]
    assert replica.waiting == [4]


async def test_a_full_batch_wakes_the_loop_and_a_new_deadline_is_told_to_the_timers(replica: GeneratorReplica) -> None:
    generator = await replica.add(max_count=3, timeout_ms=4_000)
    timers = "colonies:{cron}:timers:generators"
    await replica.pack("1", "a")
    assert not replica.loop._urgent
    await replica.work()
    deadline = await replica.client.zscore(timers, str(generator.generator_id))
    assert deadline == (replica.now() + timedelta(seconds=4)).timestamp() * 1_000
    # Nothing is sooner by what joins it.
    replica.clock.advance(seconds=1)
    await replica.pack("2", "b")
    assert replica.telling._task is None
    await replica.pack("3", "c")
    assert list(replica.loop._urgent) == [generator.generator_id]
    await replica.work()
    assert replica.submitted() == [["a", "b", "c"]]
    # The timer that is not needed any more costs a look, and goes with it.
    replica.clock.advance(seconds=4)
    await replica.work()
    assert await replica.client.zscore(timers, str(generator.generator_id)) is None
