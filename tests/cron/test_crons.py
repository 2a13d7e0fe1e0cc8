"""What members do with crons, over a real Postgres."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from servicekit.caller import Caller, Member, Role
from servicekit.failures import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Violation,
)
from servicekit.signature import Signed
from services.cron.domain.cron import Kind, NewCron, Outcome, Overlap, Policy, State
from services.cron.domain.ports import ON_BEHALF_REVOKED
from services.cron.domain.purge import Purge
from services.cron.domain.schedule import Expression, Interval, Schedule
from services.cron.store.crons import PostgresCronStore
from tests.cron.fakes import Crash, cron_at, failing, later
from tests.cron.replica import Replica

pytestmark = pytest.mark.asyncio

NEW = NewCron("nightly", Schedule(Interval(60_000)), Policy(), b"\x12\x01w")


def member(number: int, *, colony: str = "dev", owns_all: bool = False) -> Caller:
    identity = f"{number:064x}"
    call = Signed(identity, "/test/Call", "", 0, "", "", b"", b"")
    return Caller(identity, colony, Role.USER, f"m{number}", Member(identity, Role.USER, f"m{number}"), owns_all, call)


ALICE, BOB, OWNER = member(1), member(2), member(3, owns_all=True)


async def test_adding_tells_the_timers_and_repeating_it_changes_nothing(replica: Replica) -> None:
    new = replace(NEW, schedule=Schedule(Interval(10_000)))
    first = await replica.crons.add(ALICE, new)
    assert list(await replica.timers()) == [first.cron_id]
    assert (first.initiator, first.initiator_name, first.colony) == (ALICE.identity, "m1", "dev")
    assert first.next_fire is not None
    assert (first.next_fire - first.created).total_seconds() == 10
    replica.clock.advance(seconds=5)
    # Repeating needs no scheduler: what is there was checked.
    replica.scheduler.refusal = failing(Unavailable, "X")
    assert await replica.crons.add(ALICE, new) == first


async def test_the_first_moment_is_in_whole_milliseconds(replica: Replica) -> None:
    replica.clock.advance(ns=123_456_789)
    cron = await replica.crons.add(ALICE, NEW)
    assert cron.created.microsecond == 123_000
    assert await replica.crons.get("dev", NEW.name) == cron


@pytest.mark.parametrize(
    ("caller", "new"),
    [
        (BOB, NEW),
        (ALICE, replace(NEW, schedule=Schedule(Interval(60_001)))),
        (ALICE, replace(NEW, policy=Policy(overlap=Overlap.SKIP))),
        (ALICE, replace(NEW, workflow=b"\x12\x01x")),
    ],
)
async def test_a_name_that_means_something_else(replica: Replica, caller: Caller, new: NewCron) -> None:
    await replica.crons.add(ALICE, NEW)
    with pytest.raises(AlreadyExists) as caught:
        await replica.crons.add(caller, new)
    assert caught.value.reason == "CRON_EXISTS"


async def test_adding_the_same_at_the_same_time_gives_one(replica: Replica) -> None:
    crons = await asyncio.gather(*(replica.crons.add(ALICE, NEW) for _ in range(6)))
    assert len({cron.cron_id for cron in crons}) == 1


async def test_what_the_scheduler_would_not_take_is_not_kept(replica: Replica) -> None:
    replica.scheduler.refusal = InvalidArgument([Violation("workflow.nodes[0].func_name", "must be printable")])
    with pytest.raises(InvalidArgument) as caught:
        await replica.crons.add(ALICE, NEW)
    assert caught.value.violations[0].field == "workflow.nodes[0].func_name"
    with pytest.raises(NotFound):
        await replica.crons.get("dev", NEW.name)


async def test_running_is_on_the_initiators_account_and_once_for_each_request_id(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, NEW)
    by_owner = await replica.crons.run(OWNER, NEW.name, "r1")
    assert await replica.crons.run(ALICE, NEW.name, "r1") == by_owner
    assert await replica.crons.run(ALICE, NEW.name, "r2") != by_owner
    assert len(replica.scheduler.entered) == 2
    assert {account for account, _ in replica.scheduler.entered} == {ALICE.identity}
    assert all(len(request_id) <= 128 for _, request_id in replica.scheduler.entered)
    last = replica.scheduler.workflow_ids[1]
    assert await replica.crons.get("dev", NEW.name) == replace(cron, last_workflow_id=last)
    fires = await replica.record(cron)
    assert [(fire.fire_id, fire.kind, fire.outcome) for fire in fires] == [
        (each, Kind.RUN, Outcome.SUBMITTED) for each in sorted(replica.scheduler.workflow_ids)
    ]


async def test_a_repeated_run_does_not_hide_a_later_workflow(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, NEW)
    first = await replica.crons.run(ALICE, NEW.name, "r1")
    second = await replica.crons.run(ALICE, NEW.name, "r2")
    assert await replica.crons.run(ALICE, NEW.name, "r1") == first
    assert (await replica.found(cron)).last_workflow_id == second


async def test_a_run_that_got_no_answer_is_made_once(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, NEW)
    replica.scheduler.crash_after = True
    with pytest.raises(Crash):
        await replica.crons.run(ALICE, NEW.name, "r1")
    (pending,) = await replica.record(cron)
    assert pending.outcome is Outcome.PENDING
    replica.scheduler.crash_after = False
    replica.clock.advance(seconds=5)
    assert await replica.crons.run(ALICE, NEW.name, "r1") == pending.fire_id
    assert replica.scheduler.workflow_ids == [pending.fire_id]


@pytest.mark.parametrize("entered", [True, False])
async def test_a_run_that_nobody_asks_for_again_is_settled_by_what_is_there(replica: Replica, entered: bool) -> None:
    cron = await replica.crons.add(ALICE, NEW)
    replica.scheduler.crash_after = entered
    replica.scheduler.refusal = None if entered else failing(Unavailable, "X")
    with pytest.raises(Crash if entered else Unavailable):
        await replica.crons.run(ALICE, NEW.name, "r1")
    replica.scheduler.refusal = None
    await replica.upkeep.step()
    assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.PENDING]
    replica.clock.advance(seconds=601)
    await replica.upkeep.step()
    assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED if entered else Outcome.REFUSED]
    # Even then it may be asked for again.
    replica.scheduler.crash_after = False
    run = await replica.crons.run(ALICE, NEW.name, "r1")
    assert replica.scheduler.workflow_ids == [run]
    assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED]


async def test_running_for_a_revoked_member(replica: Replica) -> None:
    await replica.crons.add(ALICE, NEW)
    replica.scheduler.refusal = failing(PermissionDenied, ON_BEHALF_REVOKED)
    with pytest.raises(FailedPrecondition) as caught:
        await replica.crons.run(OWNER, NEW.name, "r1")
    assert caught.value.reason == "OWNER_REVOKED"


async def test_others_may_neither_run_nor_remove(replica: Replica) -> None:
    await replica.crons.add(ALICE, NEW)
    for act in (replica.crons.run(BOB, NEW.name, "r1"), replica.crons.remove(BOB, NEW.name)):
        with pytest.raises(PermissionDenied) as caught:
            await act
        assert caught.value.reason == "NOT_THE_INITIATOR"
    assert not replica.scheduler.entered
    await replica.crons.remove(OWNER, NEW.name)


async def test_other_colonies_see_nothing(replica: Replica) -> None:
    await replica.crons.add(ALICE, NEW)
    stranger = member(1, colony="other", owns_all=True)
    with pytest.raises(NotFound):
        await replica.crons.get("other", NEW.name)
    for act in (replica.crons.run(stranger, NEW.name, "r1"), replica.crons.remove(stranger, NEW.name)):
        with pytest.raises(NotFound):
            await act
    assert await replica.crons.page("other", after="", limit=10) == ([], False)
    assert (await replica.crons.add(stranger, NEW)).colony == "other"


async def test_what_is_removed_is_gone_and_its_name_free(replica: Replica) -> None:
    first = await replica.crons.add(ALICE, NEW)
    await replica.crons.remove(ALICE, NEW.name)
    with pytest.raises(NotFound):
        await replica.crons.remove(ALICE, NEW.name)
    assert (await replica.crons.add(BOB, NEW)).cron_id != first.cron_id


async def test_pages_say_whether_there_is_more(replica: Replica) -> None:
    for name in ("a", "b", "c"):
        await replica.crons.add(ALICE, replace(NEW, name=name))
    crons, more = await replica.crons.page("dev", after="", limit=2)
    assert ([cron.name for cron in crons], more) == (["a", "b"], True)
    crons, more = await replica.crons.page("dev", after="b", limit=2)
    assert ([cron.name for cron in crons], more) == (["c"], False)


async def test_pausing_and_resuming(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, NEW)
    await replica.pass_time(seconds=120, step_s=10)
    paused = await replica.crons.pause(OWNER, NEW.name)
    assert (paused.state, paused.pause_reason, paused.next_fire) == (State.PAUSED, "by m3", None)
    assert await replica.crons.pause(ALICE, NEW.name) == paused
    await replica.pass_time(seconds=90, step_s=10)
    resumed = await replica.crons.resume(ALICE, NEW.name)
    assert (resumed.state, resumed.pause_reason, resumed.next_fire) == (State.ACTIVE, "", later(cron, seconds=240))
    assert await replica.crons.resume(ALICE, NEW.name) == resumed
    await replica.pass_time(seconds=60, step_s=10)
    assert [fire.due for fire in await replica.record(cron)] == [later(cron, seconds=n) for n in (60, 120, 240)]


async def test_pausing_gives_up_a_fire_that_waits_for_the_run_before_it(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, replace(NEW, policy=Policy(overlap=Overlap.QUEUE_ONE)))
    await replica.pass_time(seconds=245, step_s=5)
    waiting = await replica.found(cron)
    assert waiting.pending is not None
    assert waiting.pending.waits_for == waiting.last_workflow_id
    paused = await replica.crons.pause(ALICE, NEW.name)
    assert paused.pending is None
    replica.scheduler.end_all()
    await replica.pass_time(seconds=300, step_s=10)
    # What has passed while it waited is told, too.
    assert [(fire.due, fire.outcome, fire.moments) for fire in await replica.record(cron)] == [
        (later(cron, seconds=60), Outcome.SUBMITTED, 1),
        (later(cron, seconds=120), Outcome.SKIPPED, 1),
        (later(cron, seconds=180), Outcome.SKIPPED, 2),
    ]
    assert (await replica.found(cron)).last_fire == later(cron, seconds=180)
    assert len(replica.scheduler.entered) == 1


async def test_a_fire_that_ends_after_its_cron_was_paused_is_not_its_last(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    cron = await replica.crons.add(ALICE, replace(NEW, policy=Policy(overlap=Overlap.QUEUE_ONE)))
    await replica.pass_time(seconds=245, step_s=5)
    look = replica.scheduler.runs

    async def runs(**asked: Any) -> Any:
        # The fire that waits is in hand.
        await replica.crons.pause(ALICE, NEW.name)
        return await look(**asked)

    monkeypatch.setattr(replica.scheduler, "runs", runs)
    await replica.pass_time(seconds=10, step_s=5)
    assert [(fire.due, fire.outcome, fire.moments) for fire in await replica.record(cron)] == [
        (later(cron, seconds=60), Outcome.SUBMITTED, 1),
        (later(cron, seconds=120), Outcome.SKIPPED, 1),
        (later(cron, seconds=180), Outcome.SKIPPED, 2),
    ]
    after = await replica.found(cron)
    assert (after.pending, after.last_fire) == (None, later(cron, seconds=180))
    assert after.last_error.startswith("another fire waited")


async def test_the_last_fire_is_the_one_of_the_latest_moment(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, replace(NEW, policy=Policy(overlap=Overlap.QUEUE_ONE)))
    await replica.pass_time(seconds=235, step_s=5)
    replica.scheduler.end_all()
    await replica.pass_time(seconds=5, step_s=5)
    newest = (await replica.record(cron))[-1]
    assert (newest.due, newest.outcome) == (later(cron, seconds=180), Outcome.SKIPPED)
    after = await replica.found(cron)
    assert (after.last_fire, after.last_error) == (newest.due, newest.error)


async def test_updating_tells_of_the_moments_that_passed_while_a_fire_waited(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, replace(NEW, policy=Policy(overlap=Overlap.QUEUE_ONE)))
    await replica.pass_time(seconds=245, step_s=5)
    await replica.crons.update(ALICE, replace(NEW, schedule=Schedule(Interval(90_000))))
    await replica.pass_time(seconds=100, step_s=5)
    assert [(fire.due, fire.outcome, fire.moments) for fire in await replica.record(cron)] == [
        (later(cron, seconds=60), Outcome.SUBMITTED, 1),
        (later(cron, seconds=120), Outcome.SUBMITTED, 1),
        (later(cron, seconds=180), Outcome.SKIPPED, 2),
        (later(cron, seconds=335), Outcome.SUBMITTED, 1),
    ]


async def test_a_fire_under_way_ends_although_its_cron_is_paused(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, NEW)
    replica.scheduler.hold = asyncio.Event()
    replica.clock.advance(seconds=60)
    firing = asyncio.create_task(replica.fires.work([cron.cron_id]))
    await replica.scheduler.came.wait()
    await replica.crons.pause(ALICE, NEW.name)
    replica.scheduler.hold.set()
    assert await firing == {cron.cron_id: None}
    after = await replica.found(cron)
    assert (after.state, after.pending, after.runs, after.next_fire) == (State.PAUSED, None, 1, None)
    assert [fire.outcome for fire in await replica.record(cron)] == [Outcome.SUBMITTED]


async def test_updating_begins_a_new_schedule_and_keeps_the_record(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, NEW)
    await replica.pass_time(seconds=70, step_s=10)
    new = replace(NEW, schedule=Schedule(Interval(100_000)), workflow=b"\x12\x01z")
    updated = await replica.crons.update(ALICE, new)
    assert (updated.cron_id, updated.created, updated.runs) == (cron.cron_id, cron.created, 1)
    assert updated.next_fire == later(cron, seconds=170)
    assert await replica.crons.update(ALICE, new) == await replica.crons.get("dev", NEW.name)
    await replica.pass_time(seconds=100, step_s=10)
    assert [fire.due for fire in await replica.record(cron)] == [later(cron, seconds=60), later(cron, seconds=170)]
    assert [launch.workflow for launch in replica.scheduler.launches] == [NEW.workflow, new.workflow]


async def test_only_its_member_may_update_a_cron(replica: Replica) -> None:
    await replica.crons.add(ALICE, NEW)
    with pytest.raises(PermissionDenied):
        await replica.crons.update(BOB, replace(NEW, workflow=b"\x12\x01z"))
    replica.scheduler.refusal = InvalidArgument([Violation("workflow.nodes[0].func_name", "must be printable")])
    with pytest.raises(InvalidArgument):
        await replica.crons.update(ALICE, replace(NEW, workflow=b"\x12\x01z"))
    assert (await replica.crons.get("dev", NEW.name)).workflow == NEW.workflow


async def test_what_has_ended_says_so_and_an_update_revives_it(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, replace(NEW, schedule=Schedule(Interval(60_000), max_runs=2)))
    await replica.pass_time(seconds=300, step_s=10)
    ended = await replica.found(cron)
    assert (ended.state, ended.runs, ended.next_fire) == (State.ENDED, 2, None)
    for act in (replica.crons.pause(ALICE, NEW.name), replica.crons.resume(ALICE, NEW.name)):
        with pytest.raises(FailedPrecondition) as caught:
            await act
        assert caught.value.reason == "CRON_ENDED"
    revived = await replica.crons.update(ALICE, replace(NEW, schedule=Schedule(Interval(60_000), max_runs=3)))
    assert revived.state is State.ACTIVE
    await replica.pass_time(seconds=300, step_s=10)
    assert len(await replica.record(cron)) == 3
    assert (await replica.found(cron)).state is State.ENDED


async def test_removing_waits_for_a_fire_under_way(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, NEW)
    replica.scheduler.hold = asyncio.Event()
    replica.clock.advance(seconds=60)
    firing = asyncio.create_task(replica.fires.work([cron.cron_id]))
    await replica.scheduler.came.wait()
    removing = asyncio.create_task(replica.crons.remove(ALICE, NEW.name))
    done, _ = await asyncio.wait((removing,), timeout=0.2)
    assert not done
    replica.scheduler.hold.set()
    await asyncio.gather(firing, removing)
    assert await replica.store.find("dev", NEW.name) is None


async def test_a_preview_of_what_is_and_of_what_might_be(replica: Replica) -> None:
    cron = await replica.crons.add(ALICE, replace(NEW, schedule=Schedule(Interval(60_000), max_runs=2)))
    moments, words = await replica.crons.preview("dev", NEW.name, after=None, count=10)
    assert list(moments) == [later(cron, seconds=60), later(cron, seconds=120)]
    assert words == "Every minute, at most 2 times"
    daily = Schedule(Expression.parse("0 30 4 * * *", "Europe/Stockholm"))
    moments, _ = await replica.crons.preview("dev", daily, after=datetime(2026, 3, 28, tzinfo=UTC), count=3)
    assert [f"{moment:%d %H:%M}" for moment in moments] == ["28 03:30", "29 02:30", "30 02:30"]
    rare = Schedule(Expression.parse("0 0 0 29 2 *"))
    assert len((await replica.crons.preview("dev", rare, after=None, count=1_000))[0]) == 24


class FlakyStore(PostgresCronStore):
    """Out of reach for the first two purges; tells when one went through."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica.store._database)
        self.failures = 2
        self.purged = asyncio.Event()

    async def purge(self, colonies: Collection[str]) -> int:
        if self.failures:
            self.failures -= 1
            raise failing(Unavailable, "DATABASE_UNAVAILABLE")
        crons = await super().purge(colonies)
        self.purged.set()
        return crons


async def test_removed_colonies_are_purged_even_if_it_takes_more_than_one_try(replica: Replica) -> None:
    await replica.added(cron_at(replica.clock, colony="gone"))
    await replica.added(cron_at(replica.clock, colony="stays"))
    flaky = FlakyStore(replica)
    purge = Purge(flaky)
    task = asyncio.create_task(purge.run())
    purge.colony_removed("gone")
    purge.colony_removed("gone")
    await asyncio.wait_for(flaky.purged.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await replica.store.page("gone", after="", limit=1) == []
    assert len(await replica.store.page("stays", after="", limit=1)) == 1
