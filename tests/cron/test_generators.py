"""Generators on a real Postgres and a real Redis: what is packed, cut and submitted, and what becomes of it when things fail."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from servicekit import redis
from servicekit.clock import ManualClock
from servicekit.failures import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Violation,
)
from servicekit.postgres import Database
from services.cron.domain.generator import Launchable, NewGenerator, Room
from services.cron.domain.packing import Reason, Trigger
from services.cron.domain.ports import ON_BEHALF_REVOKED
from tests.cron.fakes import OWNER, failing
from tests.cron.generator_replica import (
    LEASE_S,
    RETENTION,
    WORKFLOW,
    GeneratorReplica,
    RefusingScheduler,
    arguments,
    caller,
    check_rows,
    pack,
    row_of,
    rows,
)

pytestmark = pytest.mark.asyncio

OTHER = "0b" * 32


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, "cron", connections=16)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def refusing() -> RefusingScheduler:
    return RefusingScheduler()


@pytest_asyncio.fixture
async def new(
    database: Database, redis_url: str, refusing: RefusingScheduler, clock: ManualClock
) -> AsyncIterator[Callable[..., GeneratorReplica]]:
    """Starts replicas, which share everything but their connections to Redis."""
    clients: list[redis.Client] = []

    def start(**options: Any) -> GeneratorReplica:
        clients.append(redis.connect(redis_url))
        return GeneratorReplica(database, clients[-1], refusing, clock, **options)

    yield start
    await check_rows(database)
    for client in clients:
        await client.aclose()


@pytest.fixture
def replica(new: Callable[..., GeneratorReplica]) -> GeneratorReplica:
    return new()


# What is packed


async def test_a_full_batch_is_submitted_with_its_arguments_and_ids_of_its_own(replica: GeneratorReplica) -> None:
    generator = await replica.add(max_count=3)
    assert await replica.pack("1", "a", "b") == 1
    await replica.work()
    assert not replica.scheduler.launches
    assert await replica.pack("2", "c", "d", "e", "f", "g") == 3
    await replica.work()
    assert replica.submitted() == [["a", "b", "c"], ["d", "e", "f"]]
    assert replica.scheduler.calls == [2]
    batches = await replica.batches()
    assert [(each.number, each.first, each.last, each.reason) for each in batches] == [
        (1, 1, 3, Reason.COUNT),
        (2, 4, 6, Reason.COUNT),
    ]
    assert replica.scheduler.workflow_ids == [each.workflow_id for each in batches]
    assert list(replica.scheduler.entered) == [(OWNER, f"generator-{generator.generator_id}-{n}") for n in (1, 2)]
    found = await replica.found()
    assert (found.waiting, found.unsubmitted, found.submitted, found.last_workflow_id) == (
        1, 0, 2, str(batches[1].workflow_id),
    )  # fmt: skip
    assert await rows(replica.database, "argument") == 1


async def test_a_repeated_pack_gets_the_first_answer_and_adds_nothing(replica: GeneratorReplica) -> None:
    await replica.add()
    assert await replica.pack("1", "a", "b") == 1
    assert await replica.pack("2", "c") == 3
    assert await replica.pack("1", "a", "b") == 1
    # Also long after its arguments have gone.
    await replica.work()
    assert await replica.pack("1", "a", "b") == 1
    # Another sender's request of that name is another.
    assert await replica.pack("1", "a", "b", sender=OTHER) == 4
    assert (await replica.found()).waiting == 2
    assert replica.submitted() == [["a", "b", "c"]]


async def test_a_request_id_is_for_one_content(replica: GeneratorReplica) -> None:
    await replica.add()
    await replica.pack("1", "a", "b")
    for other in (arguments("a"), arguments("a", "b", key="k"), arguments("b", "a"), arguments("ab")):
        with pytest.raises(AlreadyExists):
            await replica.generators.pack(pack("1", *other))
    assert (await replica.found()).waiting == 2


async def test_one_request_twice_at_once_is_added_once(replica: GeneratorReplica) -> None:
    await replica.add(max_count=100)
    firsts = await asyncio.gather(*(replica.pack("1", "a", "b") for _ in range(10)), replica.pack("2", "c"))
    assert len(set(firsts[:10])) == 1
    assert (await replica.found()).waiting == 3


async def test_packs_of_many_generators_are_written_together(replica: GeneratorReplica) -> None:
    names = [f"g{index}" for index in range(8)]
    for name in names:
        await replica.add(name, max_count=4)
    outcomes = await asyncio.gather(
        *(replica.pack(f"{name}-{call}", f"{name}:{call}", name=name) for call in range(10) for name in names),
        replica.pack("x", "x", name="nobody"),
        return_exceptions=True,
    )
    assert isinstance(outcomes[-1], NotFound)
    assert sorted(outcomes[:-1]) == sorted(list(range(1, 11)) * 8)  # type: ignore[type-var]
    assert replica.generators._packing.batches < 20
    await replica.work()
    for name in names:
        found = await replica.found(name)
        assert (found.waiting, found.submitted) == (2, 2)
    assert all(len({text[:2] for text in batch}) == 1 for batch in replica.submitted())


async def test_keys_never_share_a_batch(replica: GeneratorReplica) -> None:
    await replica.add(max_count=2)
    mixed = [each for text in "123" for key in ("a", "b", "") for each in arguments(f"{key}{text}", key=key)]
    await replica.generators.pack(pack("1", *mixed))
    await replica.work()
    assert replica.submitted() == [["a1", "a2"], ["b1", "b2"], ["1", "2"]]
    generator = await replica.found()
    _, bins, more = await replica.generators.bins("dev", "g", after=None, limit=2)
    assert ([bin_.key for bin_ in bins], more, generator.bins) == (["", "a"], True, 3)
    _, bins, more = await replica.generators.bins("dev", "g", after="a", limit=2)
    assert ([(bin_.key, bin_.count, bin_.first) for bin_ in bins], more) == ([("b", 1, 8)], False)


async def test_an_argument_larger_than_a_batch_is_refused_and_nothing_is_taken(replica: GeneratorReplica) -> None:
    await replica.add(max_bytes=10)
    too_large = [*arguments("a"), *arguments("b", size=11)]
    with pytest.raises(InvalidArgument) as caught:
        await replica.generators.pack(pack("1", *too_large))
    assert caught.value.violations == (Violation("arguments[1].value", "must be at most 10 bytes, the generator's; it has 11"),)
    assert (await replica.found()).waiting == 0
    assert await replica.pack("1", "a") == 1


@pytest.mark.parametrize(
    ("room", "fits", "too_much"),
    [
        (Room(5, 1_000, 50), arguments("a", "b", "c"), arguments("d", "e", "f")),
        (Room(50, 100, 50), arguments("a", size=60), arguments("b", size=41)),
        (Room(50, 100, 2), [*arguments("a", key="1"), *arguments("b", key="2")], arguments("c", key="3")),
    ],
)
async def test_what_waits_is_bounded(
    new: Callable[..., GeneratorReplica], room: Room, fits: list[Any], too_much: list[Any]
) -> None:
    replica = new(room=room)
    await replica.add(max_count=100)
    await replica.generators.pack(pack("1", *fits))
    before = await replica.found()
    with pytest.raises(ResourceExhausted) as caught:
        await replica.generators.pack(pack("2", *too_much))
    assert (caught.value.reason, caught.value.retry_delay_s > 0) == ("GENERATOR_FULL", True)
    assert await replica.found() == before
    # What was taken before is still answered.
    assert await replica.generators.pack(pack("1", *fits)) == 1
    await replica.generators.flush(caller(), "g", None)
    # Of arguments and bytes, batches that are not submitted take room too.
    if room.keys > 2:
        with pytest.raises(ResourceExhausted):
            await replica.generators.pack(pack("2", *too_much))
    await replica.work()
    assert await replica.generators.pack(pack("2", *too_much)) == len(fits) + 1


# What is cut by time and by hand


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
    assert replica.submitted() == [["kept 0", "kept 1", "kept 2"], ["last"]]
    assert replica.waiting == [4]


# What the scheduler refuses


async def test_with_the_scheduler_away_the_same_batches_are_tried_later_and_later_for_ever(
    replica: GeneratorReplica, refusing: RefusingScheduler
) -> None:
    generator = await replica.add(max_count=1)
    refusing.refusal = failing(Unavailable, "X", "scheduler away")
    await replica.pack("1", "a")
    waits: list[float] = []
    for tries in range(1, 13):
        await replica.work()
        row = await row_of(replica.database, generator.generator_id)
        assert (row["tries"], row["last_error"], row["claimed_until"]) == (tries, "scheduler away", None)
        waits.append((row["due_at"] - replica.now()).total_seconds())
        replica.clock.advance(seconds=waits[-1])
    assert waits == [0.5, 1, 2, 4, 5, 5, 5, 5, 5, 5, 5, 5]
    (batch,) = await replica.batches()
    assert (batch.tries, batch.error) == (12, "scheduler away")
    refusing.refusal = None
    await replica.work()
    assert replica.submitted() == [["a"]]
    assert refusing.asked == {batch.request_id: 13}
    (batch,) = await replica.batches()
    assert (batch.tries, batch.error) == (13, "")
    found = await replica.found()
    assert (found.paused, found.last_error, found.submitted) == (False, "", 1)


async def test_packs_do_not_hurry_what_is_put_off(replica: GeneratorReplica, refusing: RefusingScheduler) -> None:
    await replica.add(max_count=1, timeout_ms=1_000)
    refusing.refusal = ResourceExhausted("full", reason="QUEUE_FULL", retry_delay_s=7.5)
    await replica.pack("1", "a")
    await replica.work()
    for second in range(7):
        await replica.pack(f"again {second}", "b")
        await replica.pass_time(seconds=1)
    assert refusing.calls == [1]
    refusing.refusal = None
    await replica.pass_time(seconds=0.5, step_s=0.5)
    assert replica.submitted() == [["a"], *[["b"]] * 7]
    # One at first, as one was too many; and then more and more.
    assert refusing.calls[1:] == [1, 2, 4, 1]


async def test_one_bad_batch_pauses_the_generator_and_nothing_overtakes_it(
    replica: GeneratorReplica, refusing: RefusingScheduler
) -> None:
    generator = await replica.add(max_count=1)
    refusing.disliked[b"bad"] = InvalidArgument([Violation("submissions[0].workflow", "no")])
    texts = [f"good {index}" for index in range(20)]
    await replica.pack("1", *texts[:13], "bad", *texts[13:])
    await replica.work()
    assert replica.submitted() == [[text] for text in texts[:13]]
    found = await replica.found()
    assert found.paused
    assert found.pause_reason == "batch 14 was refused: submissions[0].workflow: no"
    assert (found.last_error, found.submitted, found.unsubmitted) == ("submissions[0].workflow: no", 13, 8)
    batches = await replica.batches()
    assert [each.number for each in batches if each.error] == [14]
    # It submits nothing, whatever comes.
    calls = len(refusing.calls)
    await replica.pack("2", "later")
    assert await replica.generators.flush(caller(), "g", None) == (1, 1)
    await replica.pass_time(seconds=100, step_s=20)
    assert len(refusing.calls) == calls
    # Tried again, and again refused.
    await replica.generators.resume(caller(), "g")
    await replica.work()
    assert (await replica.found()).paused
    assert len(refusing.calls) > calls
    refusing.disliked.clear()
    await replica.generators.resume(caller(), "g")
    await replica.work()
    assert replica.submitted() == [[text] for text in [*texts[:13], "bad", *texts[13:], "later"]]
    assert (await row_of(replica.database, generator.generator_id))["due_at"] is None


async def test_fewer_go_at_once_where_many_are_too_many(replica: GeneratorReplica, refusing: RefusingScheduler) -> None:
    await replica.add(max_count=1)
    refusing.at_most = 3
    refusing.too_many = ResourceExhausted("full", reason="QUEUE_FULL", retry_delay_s=0.5)
    texts = [f"{index}" for index in range(20)]
    await replica.pack("1", *texts)
    await replica.pass_time(seconds=300)
    assert replica.submitted() == [[text] for text in texts]


async def test_when_its_member_is_revoked_a_generator_pauses_at_once(
    replica: GeneratorReplica, refusing: RefusingScheduler
) -> None:
    await replica.add(max_count=1)
    refusing.refusal = failing(PermissionDenied, ON_BEHALF_REVOKED)
    await replica.pack("1", "a", "b")
    await replica.work()
    found = await replica.found()
    assert (found.paused, found.unsubmitted) == (True, 2)
    assert "none any more" in found.pause_reason
    assert refusing.calls == [2]
    refusing.refusal = None
    await replica.pass_time(seconds=100, step_s=20)
    assert not replica.submitted()
    await replica.generators.resume(caller(), "g")
    await replica.work()
    assert replica.submitted() == [["a"], ["b"]]


async def test_a_workflow_that_is_there_already_was_submitted_before(
    replica: GeneratorReplica, refusing: RefusingScheduler
) -> None:
    await replica.add(max_count=1)
    refusing.disliked[b"old"] = AlreadyExists("taken", reason="WORKFLOW_ID_TAKEN")
    await replica.pack("1", "old", "new")
    await replica.work()
    found = await replica.found()
    assert (found.submitted, found.unsubmitted, found.paused) == (2, 0, False)
    assert replica.submitted() == [["new"]]


async def test_large_batches_go_in_calls_of_a_bounded_size(replica: GeneratorReplica, refusing: RefusingScheduler) -> None:
    await replica.add(max_count=10, max_bytes=3_000_000, workflow=bytes(2_000_000))
    room = Room(1_000, 10**9, 50)
    packs = [pack(f"{n}", *arguments(*"abcdefghij", size=300_000)) for n in range(9)]
    await replica.packs.pack(packs, replica.now(), room)
    await replica.work()
    assert refusing.calls == [3, 3, 3]


async def test_a_call_has_no_more_nodes_than_the_scheduler_enters_in_time(
    replica: GeneratorReplica, refusing: RefusingScheduler
) -> None:
    new = NewGenerator("g", Trigger(1, 0, 1_000), Launchable(WORKFLOW, 3_000, 1))
    await replica.generators.add(caller(), new)
    await replica.pack("1", *"abcdefgh")
    await replica.work()
    assert refusing.calls == [3, 3, 2]


# What dies, and what comes late


async def test_a_late_answer_of_a_submit_whose_lease_is_over_changes_nothing(
    replica: GeneratorReplica, new: Callable[..., GeneratorReplica], refusing: RefusingScheduler
) -> None:
    await replica.add(max_count=1)
    other = new()
    await replica.pack("1", "a", "b")
    refusing.hold = asyncio.Event()
    slow = asyncio.create_task(replica.work())
    await refusing.came.wait()
    # While it is claimed, nobody else submits.
    await other.pass_time(seconds=LEASE_S - 1)
    assert refusing.calls == [2]
    refusing.came.clear()
    replica.clock.advance(seconds=1)
    late = asyncio.create_task(other.work())
    await refusing.came.wait()
    assert refusing.calls == [2, 2]
    refusing.hold.set()
    await asyncio.gather(slow, late)
    found = await replica.found()
    assert (found.submitted, found.unsubmitted) == (2, 0)
    assert replica.submitted() == [["a"], ["b"]]


async def test_a_late_failure_does_not_undo_what_another_replica_did(
    replica: GeneratorReplica, new: Callable[..., GeneratorReplica]
) -> None:
    generator = await replica.add(max_count=1)
    await replica.pack("1", "a")
    now = replica.now()
    store = replica.dispatches
    first: Any = await store.claim(generator.generator_id, now, until=now + timedelta(seconds=5), at_most=64)
    assert await store.claim(generator.generator_id, now, until=now + timedelta(seconds=5), at_most=64) is None
    other = new()
    await other.pass_time(seconds=5)
    assert other.submitted() == [["a"]]
    setback = replica.dispatch._setback(first, first.batches, failing(PermissionDenied, ON_BEHALF_REVOKED))
    assert await store.failed(first, first.batches, setback, replica.now()) is None
    found = await replica.found()
    assert (found.paused, found.last_error, found.submitted) == (False, "", 1)
    assert await store.load(first, first.batches) is None


async def test_removing_waits_for_a_batch_on_its_way(replica: GeneratorReplica, refusing: RefusingScheduler) -> None:
    await replica.add(max_count=1)
    await replica.pack("1", "a")
    refusing.hold = asyncio.Event()
    working = asyncio.create_task(replica.work())
    await refusing.came.wait()
    with pytest.raises(FailedPrecondition) as caught:
        await replica.generators.remove(caller(), "g", force=False)
    assert caught.value.reason == "ARGUMENTS_WAITING"
    removing = asyncio.create_task(replica.generators.remove(caller(), "g", force=True))
    # From now on it is gone for everyone, and its name is free.
    while (await replica.generators.page("dev", after="", limit=10))[0]:
        await asyncio.sleep(0)
    with pytest.raises(NotFound):
        await replica.pack("2", "b")
    assert not removing.done()
    await replica.upkeep.sweep()
    assert await rows(replica.database, "generator") == 1
    refusing.hold.set()
    await asyncio.gather(working, removing)
    again = await replica.add(max_count=1)
    await replica.upkeep.sweep()
    assert [await rows(replica.database, table) for table in ("generator", "batch", "argument", "pack")] == [1, 0, 0, 0]
    assert await replica.pack("1", "a") == 1
    await replica.work()
    assert [str(each) for each in replica.scheduler.workflow_ids[1:]] == [(await replica.found()).last_workflow_id]
    assert again.generator_id == (await replica.found()).generator_id


async def test_removing_does_not_wait_for_ever_for_one_that_died(
    replica: GeneratorReplica, refusing: RefusingScheduler
) -> None:
    await replica.add(max_count=1)
    await replica.pack("1", "a")
    refusing.crash_after = True
    await replica.crash()
    removing = asyncio.create_task(replica.generators.remove(caller(), "g", force=True))
    replica.clock.advance(seconds=LEASE_S)
    await asyncio.wait_for(removing, 20)


async def test_purged_colonies_leave_nothing(replica: GeneratorReplica) -> None:
    for colony in ("dev", "other"):
        await replica.add(max_count=2, colony=colony)
        await replica.pack("1", *"abc", colony=colony)
        await replica.pack("2", "x", key="k", colony=colony)
    assert await replica.upkeep.purge({"other", "nobody"}) == 1
    with pytest.raises(NotFound):
        await replica.pack("3", "a", colony="other")
    await replica.upkeep.sweep()
    await replica.work()
    assert replica.submitted() == [["a", "b"]]
    counts = [await rows(replica.database, table) for table in ("generator", "batch", "bin", "pack", "argument")]
    assert counts == [1, 1, 2, 2, 2]


async def test_records_are_kept_for_their_time(replica: GeneratorReplica) -> None:
    await replica.add(max_count=2)
    await replica.pack("1", *"abc")
    await replica.work()
    await replica.generators.pause(caller(), "g")
    await replica.generators.flush(caller(), "g", None)
    replica.clock.advance(seconds=24 * 3600 - 1)
    await replica.upkeep.sweep()
    assert await replica.pack("1", *"abc") == 1
    replica.clock.advance(seconds=2)
    await replica.upkeep.sweep()
    assert await rows(replica.database, "pack") == 0
    assert await rows(replica.database, "batch") == 2
    replica.clock.advance(seconds=RETENTION.total_seconds())
    await replica.upkeep.sweep()
    # What is not submitted stays.
    assert [each.number for each in await replica.batches()] == [2]


# Whose they are


async def test_adding_again_changes_nothing_and_another_of_its_name_is_refused(replica: GeneratorReplica) -> None:
    added = await replica.add(max_count=3)
    assert await replica.add(max_count=3) == added
    with pytest.raises(AlreadyExists):
        await replica.add(max_count=4)
    assert (await replica.add(max_count=4, colony="other")).generator_id != added.generator_id


async def test_only_its_initiator_and_the_owner_may_change_it(replica: GeneratorReplica) -> None:
    await replica.add(max_count=3)
    await replica.pack("1", "a", sender=OTHER)
    stranger, generators = caller(OTHER), replica.generators
    for call in (
        generators.flush(stranger, "g", None),
        generators.drop(stranger, "g", None),
        generators.pause(stranger, "g"),
        generators.resume(stranger, "g"),
        generators.remove(stranger, "g", force=True),
    ):
        with pytest.raises(PermissionDenied):
            await call
    found = await replica.found()
    assert (found.waiting, found.paused) == (1, False)
    await generators.remove(caller(OTHER, owns_all=True), "g", force=True)


async def test_what_is_not_there_is_not_found(replica: GeneratorReplica) -> None:
    generators = replica.generators
    await replica.add(colony="other")
    for call in (
        generators.get("dev", "g"),
        generators.bins("dev", "g", after=None, limit=1),
        generators.batches("dev", "g", before=1, limit=1, unsubmitted=False),
        generators.flush(caller(), "g", None),
        generators.drop(caller(), "g", None),
        generators.pause(caller(), "g"),
        generators.resume(caller(), "g"),
        generators.remove(caller(), "g", force=True),
        replica.pack("1", "a"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_lists_go_on_where_the_page_before_ended(replica: GeneratorReplica) -> None:
    for name in ("c", "a", "b"):
        await replica.add(name, max_count=1)
    first, more = await replica.generators.page("dev", after="", limit=2)
    assert ([each.name for each in first], more) == (["a", "b"], True)
    assert {each.launchable.workflow for each in first} == {b""}
    last, more = await replica.generators.page("dev", after="b", limit=2)
    assert ([each.name for each in last], more) == (["c"], False)
    await replica.pack("1", *"xyz", name="a")
    batches, more = await replica.generators.batches("dev", "a", before=3, limit=1, unsubmitted=True)
    assert ([each.number for each in batches], more) == ([2], True)
    await replica.work()
    assert await replica.generators.batches("dev", "a", before=9, limit=9, unsubmitted=True) == ([], False)
