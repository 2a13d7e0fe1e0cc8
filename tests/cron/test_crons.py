"""What members do with crons, over a real Postgres."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest

from servicekit.caller import Caller, Member, Role
from servicekit.clock import ManualClock
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
from services.cron.domain.cron import NewCron, run_digest, run_request_id
from services.cron.domain.crons import Crons
from services.cron.domain.ports import ON_BEHALF_REVOKED
from services.cron.domain.purge import Purge
from services.cron.domain.schedule import Interval
from services.cron.store.store import PostgresCronStore
from tests.cron.fakes import FakeScheduler, cron_at, failing

pytestmark = pytest.mark.asyncio

NEW = NewCron("nightly", Interval(60_000), b"\x12\x01w")


def member(number: int, *, colony: str = "dev", owns_all: bool = False) -> Caller:
    identity = f"{number:064x}"
    call = Signed(identity, "/test/Call", "", 0, "", "", b"", b"")
    return Caller(identity, colony, Role.USER, f"m{number}", Member(identity, Role.USER, f"m{number}"), owns_all, call)


ALICE, BOB, OWNER = member(1), member(2), member(3, owns_all=True)


class World:
    """The domain over a store, and what it asked of the scheduler and the loop."""

    def __init__(self, store: PostgresCronStore, clock: ManualClock) -> None:
        self.store = store
        self.scheduler = FakeScheduler()
        self.wakes = 0
        self.crons = Crons(store, self.scheduler, clock, on_added=self._wake)

    def _wake(self) -> None:
        self.wakes += 1


@pytest.fixture
def world(store: PostgresCronStore, clock: ManualClock) -> World:
    return World(store, clock)


async def test_adding_wakes_the_loop_and_repeating_it_changes_nothing(world: World, clock: ManualClock) -> None:
    first = await world.crons.add(ALICE, NEW)
    assert (first.initiator, first.initiator_name, first.colony) == (ALICE.identity, "m1", "dev")
    assert first.next_fire is not None
    assert (first.next_fire - first.created).total_seconds() == 60
    clock.advance(seconds=5)
    # Repeating needs no scheduler: what is there was checked.
    world.scheduler.refusal = failing(Unavailable, "X")
    assert await world.crons.add(ALICE, NEW) == first
    assert world.wakes == 1


async def test_the_first_moment_is_in_whole_milliseconds(world: World, clock: ManualClock) -> None:
    clock.advance(ns=123_456_789)
    cron = await world.crons.add(ALICE, NEW)
    assert cron.created.microsecond == 123_000
    assert await world.crons.get("dev", NEW.name) == cron


@pytest.mark.parametrize(
    ("caller", "new"),
    [
        (BOB, NEW),
        (ALICE, replace(NEW, schedule=Interval(60_001))),
        (ALICE, replace(NEW, workflow=b"\x12\x01x")),
    ],
)
async def test_a_name_that_means_something_else(world: World, caller: Caller, new: NewCron) -> None:
    await world.crons.add(ALICE, NEW)
    with pytest.raises(AlreadyExists) as caught:
        await world.crons.add(caller, new)
    assert caught.value.reason == "CRON_EXISTS"


async def test_adding_the_same_at_the_same_time_gives_one(world: World) -> None:
    crons = await asyncio.gather(*(world.crons.add(ALICE, NEW) for _ in range(6)))
    assert len({cron.cron_id for cron in crons}) == 1
    assert world.wakes == 1


async def test_what_the_scheduler_would_not_take_is_not_kept(world: World) -> None:
    world.scheduler.refusal = InvalidArgument([Violation("workflow.nodes[0].func_name", "must be printable")])
    with pytest.raises(InvalidArgument) as caught:
        await world.crons.add(ALICE, NEW)
    assert caught.value.violations[0].field == "workflow.nodes[0].func_name"
    with pytest.raises(NotFound):
        await world.crons.get("dev", NEW.name)


async def test_running_is_on_the_initiators_account_and_once_for_each_request_id(world: World) -> None:
    cron = await world.crons.add(ALICE, NEW)
    by_owner = await world.crons.run(OWNER, NEW.name, "r1")
    assert await world.crons.run(ALICE, NEW.name, "r1") == by_owner
    assert await world.crons.run(ALICE, NEW.name, "r2") != by_owner
    ids = [(ALICE.identity, run_request_id(cron.cron_id, run_digest(each))) for each in ("r1", "r2")]
    assert list(world.scheduler.entered) == ids
    assert all(len(request_id) <= 128 for _, request_id in ids)
    after = await world.crons.get("dev", NEW.name)
    assert after == replace(cron, last_workflow_id=world.scheduler.entered[ids[1]])


async def test_running_for_a_revoked_member(world: World) -> None:
    await world.crons.add(ALICE, NEW)
    world.scheduler.refusal = failing(PermissionDenied, ON_BEHALF_REVOKED)
    with pytest.raises(FailedPrecondition) as caught:
        await world.crons.run(OWNER, NEW.name, "r1")
    assert caught.value.reason == "OWNER_REVOKED"


async def test_others_may_neither_run_nor_remove(world: World) -> None:
    await world.crons.add(ALICE, NEW)
    for act in (world.crons.run(BOB, NEW.name, "r1"), world.crons.remove(BOB, NEW.name)):
        with pytest.raises(PermissionDenied) as caught:
            await act
        assert caught.value.reason == "NOT_THE_INITIATOR"
    assert not world.scheduler.entered
    await world.crons.remove(OWNER, NEW.name)


async def test_other_colonies_see_nothing(world: World) -> None:
    await world.crons.add(ALICE, NEW)
    stranger = member(1, colony="other", owns_all=True)
    with pytest.raises(NotFound):
        await world.crons.get("other", NEW.name)
    for act in (world.crons.run(stranger, NEW.name, "r1"), world.crons.remove(stranger, NEW.name)):
        with pytest.raises(NotFound):
            await act
    assert await world.crons.page("other", after="", limit=10) == ([], False)
    assert (await world.crons.add(stranger, NEW)).colony == "other"


async def test_what_is_removed_is_gone_and_its_name_free(world: World) -> None:
    first = await world.crons.add(ALICE, NEW)
    await world.crons.remove(ALICE, NEW.name)
    with pytest.raises(NotFound):
        await world.crons.remove(ALICE, NEW.name)
    assert (await world.crons.add(BOB, NEW)).cron_id != first.cron_id


async def test_pages_say_whether_there_is_more(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.crons.add(ALICE, replace(NEW, name=name))
    crons, more = await world.crons.page("dev", after="", limit=2)
    assert ([cron.name for cron in crons], more) == (["a", "b"], True)
    crons, more = await world.crons.page("dev", after="b", limit=2)
    assert ([cron.name for cron in crons], more) == (["c"], False)


class FlakyStore(PostgresCronStore):
    """Out of reach for the first two purges; tells when one went through."""

    def __init__(self, store: PostgresCronStore) -> None:
        super().__init__(store._database)
        self.failures = 2
        self.purged = asyncio.Event()

    async def purge(self, colonies: Collection[str]) -> int:
        if self.failures:
            self.failures -= 1
            raise failing(Unavailable, "DATABASE_UNAVAILABLE")
        crons = await super().purge(colonies)
        self.purged.set()
        return crons


async def test_removed_colonies_are_purged_even_if_it_takes_more_than_one_try(
    store: PostgresCronStore, clock: ManualClock
) -> None:
    await store.add(cron_at(clock, colony="gone"))
    await store.add(cron_at(clock, colony="stays"))
    flaky = FlakyStore(store)
    purge = Purge(flaky)
    task = asyncio.create_task(purge.run())
    purge.colony_removed("gone")
    purge.colony_removed("gone")
    await asyncio.wait_for(flaky.purged.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await store.page("gone", after="", limit=1) == []
    assert len(await store.page("stays", after="", limit=1)) == 1
