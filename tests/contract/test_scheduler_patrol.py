"""The patrol and its like: whatever went wrong in the queue, it comes right; and nobody's trouble is another's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from services.scheduler.domain import endings
from services.scheduler.domain import patrol as patrol_module
from services.scheduler.domain import upkeep as upkeep_module
from services.scheduler.domain.dispatching import Dispatching
from services.scheduler.domain.kin import Kin
from services.scheduler.domain.records import AttemptRef, Live
from services.scheduler.domain.states import State
from services.scheduler.queue import keys
from services.scheduler.queue.queue import AGAIN_MS
from tests.harness.calls import eventually

from .scheduler_records import ALICE, COLONY, WORKER, WORKER_2, at, spec, success
from .scheduler_works import LEASE_S, Works

pytestmark = pytest.mark.asyncio

OTHER = "umbrella"


@asynccontextmanager
async def patrolling(works: Works, monkeypatch: pytest.MonkeyPatch, *, page: int = 1_000) -> AsyncIterator[None]:
    """The patrol walks, without its pauses."""
    monkeypatch.setattr(patrol_module, "PATROL_S", 0)
    monkeypatch.setattr(patrol_module, "PAGE", page)
    monkeypatch.setattr(upkeep_module, "PAGE", page)
    walking = asyncio.create_task(works.patrol.run())
    try:
        yield
    finally:
        # Again until it ends: a cancellation that falls together with an answer of Postgres is lost in asyncio.wait_for
        # before Python 3.12, and this loop is never at rest.
        while not walking.done():
            walking.cancel()
            await asyncio.wait((walking,), timeout=0.1)
        assert walking.cancelled(), walking.exception()


def are_there(works: Works, wanted: set[str]) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        found = await works.timers()
        return wanted <= set(found)

    return there


@pytest.mark.parametrize("page", [1, 3, 10, 1_000])
async def test_the_patrol_heals_lanes_and_attempts_again_and_again(
    works: Works, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """Pages that the open processes fill exactly, and pages that they do not."""
    entered = await works.world.enter(*[spec(f"n{n}", priority=n % 2, max_exec_ms=60_000) for n in range(10)], workflow=False)
    held, waiting = entered.process_ids[:4], entered.process_ids[4:]
    await works.world.assign(*held)
    wanted = {timer for one in held for timer in (keys.offer_timer(one, 1, WORKER.identity), keys.exec_timer(one, 1))}
    in_order = sorted(entered.changes.ready, key=lambda place: (place.priority_time, place.sequence))
    places = [place for place in in_order if place.id in waiting]
    lane = keys.lane_key(COLONY, keys.lane(places[0]))
    index = keys.prefix(COLONY) + keys.indexes(keys.lane(places[0]))[0]
    async with patrolling(works, monkeypatch, page=page):
        for lost in ([lane], [keys.timers(COLONY)], [lane, index, keys.timers(COLONY)], [index]):
            await eventually(are_there(works, wanted))

            async def whole() -> bool:
                return bool(await works.redis.zcard(lane) == len(waiting)) and bool(await works.redis.exists(index))

            await eventually(whole)
            await works.redis.delete(*lost)
        await eventually(are_there(works, wanted))
        await eventually(whole)
    assert await works.claim() == [place.id for place in places]


async def test_the_patrol_confirms_and_lengthens_nothing(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """It walks past offers and leases all the time: an attempt whose executor is dead must end all the same."""
    ids = (await works.world.enter(spec("offered"), spec("leased"), workflow=False)).process_ids
    await works.dispatch(*ids)
    assert await works.heartbeat(ids[1])
    before = await works.timers()
    seen: list[int] = []
    open_page = works.world.tables.open_page

    async def counted(after: int, limit: int) -> list[Live]:
        seen.append(after)
        return await open_page(after, limit)

    monkeypatch.setattr(works.world.tables, "open_page", counted)
    works.world.clock.advance(seconds=LEASE_S / 2)
    async with patrolling(works, monkeypatch):

        async def twice() -> bool:
            return len(seen) > 2

        await eventually(twice)
    assert await works.timers() == before
    await works.after(LEASE_S / 2)
    assert await works.world.states() == {ids[0]: State.WAITING, ids[1]: State.FAILED}


async def cancelled(works: Works, process_id: UUID) -> None:
    """Somebody cancels a process, and the queue is told."""
    changes, _ = await works.world.end(process_id, lambda row: endings.cancel(row, ALICE.identity), seconds=works.seconds)
    await works.aftermath.changed(COLONY, changes)


async def test_what_ends_between_the_patrols_look_and_its_word_gets_no_offer(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an offer its executor would extend it for ever and never learn that it was cancelled."""
    one, other = (await works.world.enter(spec("a"), spec("b"), workflow=False)).process_ids
    await works.dispatch(one, other)
    assert await works.heartbeat(one)
    open_page = works.world.tables.open_page

    async def overtaken(after: int, limit: int) -> list[Live]:
        page = await open_page(after, limit)
        if one in {live.id for live in page}:
            await cancelled(works, one)
        return page

    monkeypatch.setattr(works.world.tables, "open_page", overtaken)
    await works.upkeep.accord_page(0)
    assert (await works.world.states())[one] is State.CANCELLED
    assert not await works.heartbeat(one)
    assert await works.heartbeat(other)


async def forgotten(works: Works, *ids: UUID) -> None:
    """Postgres crashed, and what was written last with it: the assignments of these processes."""
    async with works.world.database.transaction() as connection:
        await connection.execute(
            "UPDATE process SET state = 1, attempt = 0, executor_id = '', executor_name = '' WHERE id = ANY(%s)", (list(ids),)
        )
        await connection.execute("DELETE FROM ledger WHERE process_id = ANY(%s) AND to_state = 2", (list(ids),))


async def test_an_assignment_that_postgres_forgot_is_taken_from_its_executor(works: Works) -> None:
    """Its lease lives in the queue, and heartbeats would keep it there while nobody else may run the process."""
    entered = await works.world.enter(*[spec(f"n{n}", max_exec_ms=60_000) for n in range(3)], workflow=False)
    again, waiting, kept = entered.process_ids
    await works.dispatch(again, waiting, kept)
    for one in (again, waiting, kept):
        assert await works.heartbeat(one)
    await forgotten(works, again, waiting)
    # One begins anew, with the same number, on another executor.
    await works.dispatch(again, executor=WORKER_2)
    await works.patrol.round()
    assert [await works.heartbeat(one) for one in (again, waiting, kept)] == [False, False, True]
    assert await works.heartbeat(again, executor=WORKER_2)
    timers = await works.timers()
    assert {one for one in (again, waiting, kept) if keys.exec_timer(one, 1) in timers} == {again, kept}
    loads = await works.queue.loads(COLONY, [WORKER.identity, WORKER_2.identity])
    assert [count for _, count in loads.values()] == [1, 1]
    assert await works.claim() == [waiting]


async def test_a_claim_that_is_not_written_yet_stays_on_offer(works: Works) -> None:
    (one,) = (await works.world.enter(spec("a"), workflow=False)).process_ids
    await works.upkeep.accord_page(0)
    assert await works.claim() == [one]
    await works.patrol.round()
    assert keys.offer_timer(one, 1, WORKER.identity) in await works.timers()


@asynccontextmanager
async def locked(works: Works, process_id: UUID) -> AsyncIterator[None]:
    """Somebody else's transaction is at a row."""
    async with works.world.database.transaction() as connection:
        await connection.execute("SELECT id FROM process WHERE id = %s FOR UPDATE", (process_id,))
        yield


async def test_a_locked_row_stops_nobody_elses_deadline(works: Works) -> None:
    names = [f"n{n}" for n in range(3)]
    mine = (await works.world.enter(*map(spec, names), workflow=False)).process_ids
    theirs = (await works.world.enter(*map(spec, names), workflow=False, colony=OTHER)).process_ids
    await works.dispatch(*mine)
    await works.dispatch(*theirs, colony=OTHER)
    timer = keys.offer_timer(theirs[0], 1, WORKER.identity)
    async with locked(works, theirs[0]):
        await works.after(LEASE_S)
        states: dict[UUID, Any] = await works.world.states()
        assert {states[one] for one in (*mine, *theirs[1:])} == {State.WAITING}
        assert states[theirs[0]] is State.RUNNING
        # Its timer stays, and comes again.
        assert (await works.timers(OTHER))[timer] == works.now_ms + AGAIN_MS
        await works.after(AGAIN_MS / 1000)
        assert (await works.world.states())[theirs[0]] is State.RUNNING
    await works.after(AGAIN_MS / 1000)
    assert (await works.world.states())[theirs[0]] is State.WAITING
    assert timer not in await works.timers(OTHER)
    await works.world.check_ledger()


async def test_one_colonys_failure_stops_nobody_elses_deadline(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is: it is told, and comes again; the others are looked after."""
    mine = (await works.world.enter(spec("a"), workflow=False)).process_ids
    theirs = (await works.world.enter(spec("b"), workflow=False, colony="aaa")).process_ids
    await works.dispatch(*mine)
    await works.dispatch(*theirs, colony="aaa")
    due = works.queue.due

    async def broken(colony: str, at_most: int) -> list[Any]:
        if colony == "aaa":
            raise ZeroDivisionError
        return await due(colony, at_most)

    monkeypatch.setattr(works.queue, "due", broken)
    await works.after(LEASE_S)
    states = await works.world.states()
    assert (states[mine[0]], states[theirs[0]]) == (State.WAITING, State.RUNNING)


async def test_a_heartbeat_that_renews_while_its_attempt_is_cancelled_leaves_no_lease(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue had forgotten the attempt: the row is read, and between that and the new lease it is cancelled."""
    one, other = (await works.world.enter(spec("a"), spec("b"), workflow=False)).process_ids
    await works.world.assign(one, other)
    refs = [AttemptRef(one, 1), AttemptRef(other, 1)]
    unused: Any = Unused()
    dispatching = Dispatching(
        tables=works.world.tables,
        queue=works.queue,
        aftermath=works.aftermath,
        wakeups=unused,
        executors=unused,
        heard=unused,
        kin=Kin(),
        steps=works.steps,
        drain=unused,
        clock=works.world.clock,
    )
    renew = works.queue.renew

    async def overtaken(colony: str, lives: Sequence[Live]) -> None:
        await cancelled(works, one)
        await renew(colony, lives)

    monkeypatch.setattr(works.queue, "renew", overtaken)
    assert await dispatching.heartbeat(COLONY, WORKER.identity, refs) == []
    monkeypatch.undo()
    assert await dispatching.heartbeat(COLONY, WORKER.identity, refs) == [(refs[0], State.CANCELLED)]
    assert keys.lease_timer(other, 1, WORKER.identity) in await works.timers()


async def test_the_patrol_takes_away_leases_of_attempts_that_are_over(works: Works) -> None:
    """Whatever way they were left: their executors would extend them for ever, and count as busy with them."""
    names = ("running", "ended", "again", "elsewhere", "gone")
    ids = (await works.world.enter(*[spec(name, max_retries=1) for name in names], workflow=False)).process_ids
    await works.dispatch(*ids)
    for one in ids:
        assert await works.heartbeat(one)
    _, ended, again, elsewhere, gone = ids
    await works.world.close(ended, success(b"1"))
    for one in (again, elsewhere):
        await works.world.end(one, lambda row: endings.lose(row, 1, at(2)))
    await works.world.assign(elsewhere, executor=WORKER_2, seconds=3)
    await works.world.close(gone, success(b"1"))
    await works.world.tables.remove_process(COLONY, gone, lambda _initiator: None)
    await works.patrol.round()
    assert [await works.heartbeat(one) for one in ids] == [True, False, False, False, False]
    used = await works.queue.loads(COLONY, [WORKER.identity, WORKER_2.identity])
    assert [count for _, count in used.values()] == [1, 1]
    # The attempt elsewhere, which the queue had not heard of, is on offer.
    assert await works.heartbeat(elsewhere, 2, WORKER_2)
    assert await works.claim() == [again]


async def test_the_patrol_leaves_claims_that_are_being_recorded(works: Works) -> None:
    entered = await works.world.enter(spec("a"), workflow=False)
    await works.queue.apply(COLONY, entered.changes)
    assert await works.claim() == list(entered.process_ids)
    before = await works.timers()
    await works.patrol.round()
    assert await works.timers() == before
    assert (await works.queue.loads(COLONY, [WORKER.identity]))[WORKER.identity][1] == 1


async def test_the_patrol_walks_all_leases_however_many_pages_they_fill(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """More timers than the server keeps in one small list, so that a page is only a part."""
    many = 300
    ids = (await works.world.enter(*[spec() for _ in range(many)], workflow=False)).process_ids
    await works.dispatch(*ids)
    await works.world.close_all({AttemptRef(one, 1): success(b"1") for one in ids})
    monkeypatch.setattr(patrol_module, "PAGE", 20)
    rounds = 0
    while await works.timers():
        await works.patrol.round()
        rounds += 1
        assert rounds < many
    assert rounds > 1


class Unused:
    """What a heartbeat needs of the other parts: only that somebody was heard."""

    def note(self, colony: str, identity: str) -> None:
        """Takes no note."""
