"""Claims on generators: what comes late, what is removed meanwhile, and what is kept."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from servicekit.failures import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
)
from services.cron.domain.generator_ports import Claim
from services.cron.domain.ports import ON_BEHALF_REVOKED
from tests.cron.fakes import failing
from tests.generators.replica import (
    LEASE_S,
    RETENTION,
    GeneratorReplica,
    RefusingScheduler,
    caller,
    rows,
)

pytestmark = pytest.mark.asyncio


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


async def test_of_many_that_claim_at_once_one_gets_it(replica: GeneratorReplica) -> None:
    generator = await replica.add(max_count=1)
    for turn in range(5):
        await replica.pack(f"{turn}", "a")
        now = replica.now()
        until = now + timedelta(seconds=LEASE_S)
        claims = await asyncio.gather(
            *(replica.dispatches.claim(generator.generator_id, now, until=until, at_most=64) for _ in range(12))
        )
        (claim,) = [each for each in claims if isinstance(each, Claim)]
        assert claims.count(None) == 11
        await replica.dispatches.submitted(claim, claim.batches, now)


@pytest.mark.parametrize("step", ["pack", "claim", "flush", "drop", "resume", "remove"])
async def test_whoever_changes_a_generator_waits_for_its_row(replica: GeneratorReplica, step: str) -> None:
    generator = await replica.add(max_count=2)
    await replica.pack("1", "a")
    await replica.generators.pause(caller(), "g")
    now, generators = replica.now(), replica.generators
    steps: dict[str, Callable[[], Any]] = {
        "pack": lambda: replica.pack("2", "b"),
        "claim": lambda: replica.dispatches.claim(generator.generator_id, now, until=now + timedelta(seconds=5), at_most=64),
        "flush": lambda: generators.flush(caller(), "g", None),
        "drop": lambda: generators.drop(caller(), "g", None),
        "resume": lambda: generators.resume(caller(), "g"),
        "remove": lambda: generators.remove(caller(), "g", force=True),
    }
    values = {"id": generator.generator_id}
    async with replica.database.transaction() as connection:
        await connection.execute("SELECT FROM generator WHERE id = %(id)s FOR UPDATE", values)
        waiting = asyncio.create_task(steps[step]())
        while not await replica.database.statement("SELECT pid FROM pg_locks WHERE NOT granted"):
            assert not waiting.done()
            await asyncio.sleep(0.01)
    await waiting
