"""The queue's timers against a real server: offers and leases, deadlines, back-offs."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from servicekit import redis as servicekit_redis
from servicekit.clock import unix_ms
from services.scheduler.domain.ports import Timer, TimerKind
from services.scheduler.domain.records import AttemptRef, Changes, Live, Over
from services.scheduler.domain.states import State
from services.scheduler.queue import keys
from services.scheduler.queue.queue import AGAIN_MS, CLAIM_MS, Queue
from services.scheduler.queue.wakeups import Wakeups

from .scheduler_line import (
    COLONY,
    LEASE_MS,
    START,
    START_MS,
    WORKER,
    WORKER_2,
    Line,
    assigned,
    line_over,
    over_of,
    place,
    ref_of,
    running,
)

pytestmark = pytest.mark.asyncio


async def offered(line: Line, *lives: Live) -> None:
    """Puts attempts on offer."""
    await line.queue.accord(COLONY, lives)


async def test_accord_twice_changes_nothing(line: Line) -> None:
    lives = [
        running(1, max_exec_ms=60_000),
        running(2, max_wait_ms=5_000, state=State.WAITING, attempt=0, executor_id=""),
        running(3, state=State.WAITING, pending_parents=1, attempt=0, executor_id=""),
        running(4, state=State.SUCCESSFUL),
    ]
    await line.queue.accord(COLONY, lives)
    once = await line.everything()
    await line.queue.accord(COLONY, lives)
    assert await line.everything() == once
    assert await line.timers() == {
        keys.offer_timer(lives[0].id, 1, WORKER.identity): START_MS + LEASE_MS,
        keys.exec_timer(lives[0].id, 1): START_MS + 60_001,
        keys.wait_timer(lives[1].id, START_MS + 5_000): START_MS + 5_001,
    }
    assert await line.claim() == [lives[1].id]


async def test_accord_leaves_offers_and_leases_as_they_are_and_ends_those_of_what_is_over(line: Line) -> None:
    """It reads rows without locking them: what it read may be out of date, and must neither shorten nor lengthen anything."""
    live = running(max_exec_ms=60_000)
    offer, lease = keys.offer_timer(live.id, 1, WORKER.identity), keys.lease_timer(live.id, 1, WORKER.identity)
    limit = {keys.exec_timer(live.id, 1): START_MS + 60_001}
    await offered(line, live)
    line.clock.advance(seconds=3)
    await line.queue.accord(COLONY, [live])
    assert await line.timers() == {offer: START_MS + LEASE_MS, **limit}
    assert await line.queue.extend(COLONY, [ref_of(live)], WORKER.identity) == []
    line.clock.advance(seconds=3)
    await line.queue.accord(COLONY, [live])
    assert await line.timers() == {lease: START_MS + 3_000 + LEASE_MS, **limit}
    # Of an attempt that is over nothing stays, whether it was on offer or leased.
    await line.queue.accord(COLONY, [replace(live, state=State.CANCELLED)], [over_of(live)])
    assert await line.timers() == {}
    await line.queue.accord(COLONY, [live])
    assert set(await line.timers()) == {offer, *limit}
    await line.queue.accord(COLONY, [], [over_of(live)])
    assert await line.timers() == {}
    assert await line.queue.extend(COLONY, [ref_of(live)], WORKER.identity) == [ref_of(live)]


async def test_an_old_attempt_that_is_over_takes_nothing_from_the_live_one(line: Line) -> None:
    live = running(attempt=2, max_exec_ms=60_000)
    await offered(line, live)
    before = await line.everything()
    await line.queue.accord(COLONY, [live], [Over(live.id, 1, WORKER.identity)])
    assert await line.everything() == before


async def test_a_claim_is_on_offer_for_a_while_and_when_confirmed_for_a_lease(line: Line) -> None:
    one = place(1, wait_deadline=START + timedelta(seconds=60))
    await line.ready(one)
    (claimed,) = await line.claimed()
    offer, wait = keys.offer_timer(one.id, 1, WORKER.identity), keys.wait_timer(one.id, START_MS + 60_000)
    assert await line.timers() == {offer: START_MS + CLAIM_MS, wait: START_MS + 60_001}
    line.clock.advance(seconds=1)
    live = assigned(one, claimed, max_exec_ms=5_000, max_wait_ms=60_000)
    for _ in range(2):
        await line.queue.confirm(COLONY, WORKER.identity, [live], [])
        assert await line.timers() == {
            offer: START_MS + 1_000 + LEASE_MS,
            keys.exec_timer(one.id, 1): START_MS + 5_001,
        }


async def test_the_first_heartbeat_makes_an_offer_a_lease(line: Line) -> None:
    live = running()
    ref = ref_of(live)
    await offered(line, live)
    assert await line.timers() == {keys.offer_timer(live.id, 1, WORKER.identity): START_MS + LEASE_MS}
    # Not by another's heartbeat.
    assert await line.queue.extend(COLONY, [ref], WORKER_2.identity) == [ref]
    assert await line.timers() == {keys.offer_timer(live.id, 1, WORKER.identity): START_MS + LEASE_MS}
    line.clock.advance(seconds=1)
    for _ in range(2):
        assert await line.queue.extend(COLONY, [ref], WORKER.identity) == []
        assert await line.timers() == {keys.lease_timer(live.id, 1, WORKER.identity): START_MS + 1_000 + LEASE_MS}


async def test_extending_leases_tells_which_are_missing(line: Line) -> None:
    held, over = running(1), running(2)
    await offered(line, held)
    refs = [AttemptRef(over.id, 1), AttemptRef(held.id, 1), AttemptRef(held.id, 2)]
    line.clock.advance(seconds=4)
    assert await line.queue.extend(COLONY, refs, WORKER.identity) == [refs[0], refs[2]]
    assert await line.timers() == {keys.lease_timer(held.id, 1, WORKER.identity): START_MS + 4_000 + LEASE_MS}
    # Nobody extends another's lease, nor makes one shorter.
    assert await line.queue.extend(COLONY, refs[1:2], WORKER_2.identity) == refs[1:2]
    line.clock.advance(seconds=-3)
    assert await line.queue.extend(COLONY, refs[1:2], WORKER.identity) == []
    assert list((await line.timers()).values()) == [START_MS + 4_000 + LEASE_MS]


async def test_a_renewed_lease_is_a_lease_whatever_was_there(line: Line) -> None:
    live = running()
    await line.queue.renew(COLONY, [live])
    assert await line.timers() == {keys.lease_timer(live.id, 1, WORKER.identity): START_MS + LEASE_MS}
    assert await line.load() == ({"p": 1}, 1)
    line.clock.advance(seconds=2)
    await line.queue.renew(COLONY, [live])
    assert await line.timers() == {keys.lease_timer(live.id, 1, WORKER.identity): START_MS + 2_000 + LEASE_MS}
    await line.released(live)
    await offered(line, live)
    await line.queue.renew(COLONY, [live])
    assert await line.timers() == {keys.lease_timer(live.id, 1, WORKER.identity): START_MS + 2_000 + LEASE_MS}
    assert await line.load() == ({"p": 1}, 1)


async def test_grace_lengthens_leases_and_offers_and_touches_nothing_else(line: Line) -> None:
    leased, on_offer, fresh = running(1), running(2, max_exec_ms=1_000), running(3)
    waiting = place(4, wait_deadline=START)
    away = place(5, not_before=START + timedelta(seconds=1))
    await line.queue.renew(COLONY, [leased])
    await offered(line, on_offer)
    await line.ready(waiting, away)
    line.clock.advance(seconds=3 * LEASE_MS / 1000)
    now_ms = START_MS + 3 * LEASE_MS
    await line.queue.renew(COLONY, [fresh])
    before = await line.timers()
    assert await line.queue.grace(COLONY) == 2
    longer = {
        keys.lease_timer(leased.id, 1, WORKER.identity): now_ms + LEASE_MS,
        keys.offer_timer(on_offer.id, 1, WORKER.identity): now_ms + LEASE_MS,
    }
    assert await line.timers() == {**before, **longer}
    assert await line.queue.grace("umbrella") == 0


async def test_due_timers_go_to_one_replica_and_come_again(line: Line, redis_url: str) -> None:
    lives = [running(n) for n in range(20)]
    await offered(line, *lives)
    line.clock.advance(seconds=LEASE_MS / 1000, ns=-1_000_000)
    assert await line.queue.due(COLONY, 100) == []
    line.clock.advance(ns=1_000_000)
    client = servicekit_redis.connect(redis_url)
    other = line_over(client, line.clock).queue
    mine, theirs = await asyncio.gather(line.queue.due(COLONY, 13), other.due(COLONY, 13))
    seen = [timer.process_id for due in (mine, theirs) for timer in due]
    assert sorted(map(str, seen)) == sorted(str(live.id) for live in lives)
    assert await line.queue.due(COLONY, 100) == []
    line.clock.advance(seconds=AGAIN_MS / 1000 + 0.001)
    assert len(await line.queue.due(COLONY, 100)) == 20
    await client.aclose()


async def test_done_takes_away_what_was_taken_care_of(line: Line) -> None:
    ended, fresh = running(1), running(2)
    await offered(line, ended)
    line.clock.advance(seconds=LEASE_MS / 1000)
    due = await line.queue.due(COLONY, 100)
    # The next attempt began while its process's timers were taken care of: it has timers, and a cost, of its own.
    await offered(line, fresh, replace(ended, attempt=2))
    await line.queue.done(COLONY, due)
    now_ms = START_MS + LEASE_MS
    assert await line.timers() == {
        keys.offer_timer(ended.id, 2, WORKER.identity): now_ms + LEASE_MS,
        keys.offer_timer(fresh.id, 1, WORKER.identity): now_ms + LEASE_MS,
    }
    assert await line.load() == ({"p": 2}, 2)


async def test_each_stay_in_the_queue_has_a_deadline_of_its_own(line: Line) -> None:
    """A timer of an earlier stay that is handed out late must not take that of the next stay away with it."""
    first = place(1, wait_deadline=START + timedelta(seconds=1))
    again = replace(first, wait_deadline=START + timedelta(seconds=9))
    await line.ready(first)
    line.clock.advance(seconds=2)
    due = await line.queue.due(COLONY, 100)
    await line.ready(again)
    await line.queue.done(COLONY, due)
    assert await line.timers() == {keys.wait_timer(first.id, START_MS + 9_000): START_MS + 9_001}


async def test_every_kind_of_timer_is_read_back_as_it_was_set(line: Line) -> None:
    live = running(attempt=3, max_exec_ms=1)
    on_offer, waiting = running(attempt=7), place(2, wait_deadline=START)
    away = place(3, not_before=START + timedelta(seconds=1))
    await offered(line, live, on_offer)
    assert await line.queue.extend(COLONY, [AttemptRef(live.id, 3)], WORKER.identity) == []
    await line.ready(waiting, away)
    line.clock.advance(seconds=3600)
    due = await line.queue.due(COLONY, 100)
    assert {timer.member for timer in due} == set(await line.timers())
    assert {timer.again_ms for timer in due} == {line.clock.now_ns() // 1_000_000 + AGAIN_MS + 0.5}
    assert {timer.kind: replace(timer, member="", again_ms=0) for timer in due} == {
        TimerKind.OFFER: Timer("", TimerKind.OFFER, on_offer.id, attempt=7),
        TimerKind.LEASE: Timer("", TimerKind.LEASE, live.id, attempt=3),
        TimerKind.EXEC: Timer("", TimerKind.EXEC, live.id, attempt=3),
        TimerKind.WAIT: Timer("", TimerKind.WAIT, waiting.id),
        TimerKind.READY: Timer("", TimerKind.READY, away.id),
    }
    assert len(due) == len(TimerKind)


async def test_a_deadline_never_fires_early(line: Line) -> None:
    deadline = START + timedelta(milliseconds=1_234, microseconds=567)
    one = place(1, wait_deadline=deadline)
    await line.ready(one)
    line.clock.advance(ns=1_234_000_000)
    assert await line.queue.due(COLONY, 100) == []
    line.clock.advance(ns=1_000_000)
    assert [timer.process_id for timer in await line.queue.due(COLONY, 100)] == [one.id]
    assert unix_ms(deadline) < line.clock.now_ns() // 1_000_000


async def test_a_colony_that_the_server_forgot_is_looked_after_again(line: Line, redis_url: str) -> None:
    """Each replica remembers which colonies it has told of; the server, or another replica, may have lost them since."""
    await line.ready(place(1))
    assert await line.queue.colonies() == [COLONY]
    await line.redis.flushall()
    assert await line.queue.colonies() == []
    await line.claim()
    assert await line.queue.colonies() == [COLONY]
    client = servicekit_redis.connect(redis_url)
    await line_over(client, line.clock).queue.forget(COLONY)
    await client.aclose()
    assert await line.queue.colonies() == []
    await line.ready(place(1))
    assert await line.queue.colonies() == [COLONY]


async def test_thousands_at_once(line: Line) -> None:
    """More than Lua hands to one command."""
    deadline = START + timedelta(seconds=1)
    places = [place(n, wait_deadline=deadline) for n in range(4_321)]
    await line.ready(*places)
    assert len(await line.timers()) == len(places)
    claimed = await line.claimed(4_000)
    assert [one.id for one in claimed] == [one.id for one in places[:4_000]]
    assert await line.load() == ({"p": 4_000}, 4_000)
    lives = [assigned(one, taken, max_wait_ms=1_000) for one, taken in zip(places, claimed, strict=False)]
    await line.queue.confirm(COLONY, WORKER.identity, lives, [])
    await line.released(*lives)
    await line.queue.apply(COLONY, Changes(withdrawn=places[4_000:]))
    assert await line.keys_of_colony() == set()


async def test_a_colony_whose_timers_came_after_the_server_lost_everything_is_found(line: Line) -> None:
    """By a replica that had known the colony, and nothing of the loss."""
    await line.ready(place(1, wait_deadline=START + timedelta(seconds=1)))
    await line.redis.flushdb()
    other = Queue(line.redis, line.clock, Wakeups(line.redis), lease_ms=LEASE_MS)
    await line.ready(place(2, wait_deadline=START + timedelta(seconds=1)))
    assert await other.colonies() == []
    assert await line.queue.colonies() == [COLONY]
    assert await other.colonies() == [COLONY]


async def test_a_forgotten_colony_does_not_come_back(line: Line) -> None:
    await line.ready(place(1, wait_deadline=START + timedelta(seconds=1)))
    await Queue(line.redis, line.clock, Wakeups(line.redis), lease_ms=LEASE_MS).forget(COLONY)
    assert [await line.queue.colonies() for _ in range(3)] == [[], [], []]
