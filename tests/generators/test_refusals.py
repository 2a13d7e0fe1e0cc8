"""What the scheduler refuses or cannot take now: tried again, and nothing overtaken or lost."""

import pytest

from servicekit.failures import (
    AlreadyExists,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Violation,
)
from services.cron.domain.generator import Launchable, NewGenerator, Room
from services.cron.domain.packing import Trigger
from services.cron.domain.ports import ON_BEHALF_REVOKED
from tests.cron.fakes import failing
from tests.generators.replica import (
    WORKFLOW,
    GeneratorReplica,
    RefusingScheduler,
    arguments,
    caller,
    pack,
    row_of,
)

pytestmark = pytest.mark.asyncio


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
