"""Wake-ups between replicas over a real server: what is published, who hears it, and what becomes of it when the line breaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from servicekit import redis as servicekit_redis
from services.scheduler.domain.records import Changes
from services.scheduler.queue import keys, subscriptions

from .scheduler_line import (
    COLONY,
    WORKER,
    WORKER_2,
    Line,
    assigned,
    executor,
    line_over,
    listening,
    needs,
    offer,
    over_of,
    place,
)

pytestmark = pytest.mark.asyncio

SOON_S = 5.0


@asynccontextmanager
async def another(line: Line, redis_url: str) -> AsyncIterator[Line]:
    """A second replica that listens."""
    client = servicekit_redis.connect(redis_url)
    try:
        other = line_over(client, line.clock)
        async with listening(other):
            yield other
    finally:
        await client.aclose()


@asynccontextmanager
async def overheard(line: Line, *channels: str) -> AsyncIterator[Any]:
    """Reads what is published: `await read(n)` gives n messages, and there are no more of them."""
    end = uuid4().hex
    pubsub = line.redis.pubsub()
    await pubsub.subscribe(*channels, end)
    for _ in range(len(channels) + 1):
        assert (await pubsub.get_message(timeout=SOON_S))["type"] == "subscribe"

    async def read() -> list[str]:
        await line.redis.publish(end, "")
        found: list[str] = []
        while True:
            message = await pubsub.get_message(timeout=SOON_S)
            assert message is not None
            if message["channel"] == end:
                return found
            found.append(message["data"])

    yield read
    await pubsub.aclose()  # type: ignore[no-untyped-call]


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(SOON_S):
        await event.wait()


async def heard(line: Line, channel: str) -> None:
    """Once its replica is subscribed."""
    line.wakeups._subscriptions.acquire(channel)
    assert await line.wakeups._subscriptions.subscribed(channel)
    line.wakeups._subscriptions.release(channel)


async def test_what_nobody_here_takes_is_published_once_with_how_many_are_new(line: Line) -> None:
    async with overheard(line, keys.READY_CHANNEL + COLONY) as read:
        places = [place(1), place(2), place(3, location="home", needs=needs(c=1))]
        await line.ready(*places)
        await line.ready(*places)
        await line.ready(place(4), places[0])
        mine = line.wakeups.replica
        assert await read() == [f"{mine}\ncli|||\n2", f'{mine}\ncli||home|{{"c":1}}\n1', f"{mine}\ncli|||\n1"]


async def test_who_waits_here_is_woken_without_the_server(line: Line) -> None:
    async with overheard(line, keys.READY_CHANNEL + COLONY) as read:
        with line.wakeups.waiting(COLONY, WORKER) as first, line.wakeups.waiting(COLONY, WORKER_2) as second:
            await line.ready(place(1))
            assert (first.event.is_set(), second.event.is_set()) == (True, False)
            assert await read() == []
            await line.ready(place(2), place(3), place(4))
            assert second.event.is_set()
            assert await read() == [f"{line.wakeups.replica}\ncli|||\n2"]


async def test_what_is_in_its_lane_already_wakes_nobody(line: Line) -> None:
    one = place(1)
    await line.ready(one)
    with line.wakeups.waiting(COLONY, WORKER) as waiter:
        await line.ready(one)
        assert not waiter.event.is_set()
        await line.ready(one, place(2))
        assert waiter.event.is_set()


async def test_a_waiter_of_another_replica_is_woken(line: Line, redis_url: str) -> None:
    async with another(line, redis_url) as other:
        with other.wakeups.waiting(COLONY, WORKER) as waiter, other.wakeups.waiting(COLONY, WORKER_2) as next_one:
            # Once the channel is heard, everyone looks: before that a message may have gone by.
            await soon(waiter.event)
            for one in (waiter, next_one):
                one.look()
                one.got([])
            await line.ready(place(1))
            await soon(waiter.event)
            assert not next_one.event.is_set()


async def test_a_wake_nobody_can_use_here_goes_to_another_replica(line: Line, redis_url: str) -> None:
    full, roomy = executor("full", offer=offer(c=2)), executor("roomy", offer=offer(c=2))
    async with another(line, redis_url) as other, listening(line):
        await line.ready(place(1, needs=needs(c=2)))
        assert len(await line.claim(1, full)) == 1
        with line.wakeups.waiting(COLONY, full) as turned_away, other.wakeups.waiting(COLONY, roomy) as waiter:
            await soon(waiter.event)
            await heard(line, keys.READY_CHANNEL + COLONY)
            for one in (turned_away, waiter):
                one.look()
                one.got([])
            await line.ready(place(2, needs=needs(c=1)))
            assert turned_away.event.is_set()
            turned_away.look()
            assert await line.claim(1, full) == []
            turned_away.got([])
            await soon(waiter.event)
            assert len(await other.claim(1, roomy)) == 1


async def test_room_is_told_to_who_waits_here_and_published_only_for_who_was_short_of_it(line: Line, redis_url: str) -> None:
    box = executor("box", offer=offer(c=2))
    places = [place(n, needs=needs(c=1)) for n in range(4)]
    await line.ready(*places)
    lives = [assigned(one, claimed, box) for one, claimed in zip(places, await line.claimed(2, box), strict=False)]
    channel = keys.READY_CHANNEL + COLONY
    async with overheard(line, channel) as read:
        with line.wakeups.waiting(COLONY, box) as waiter:
            await line.released(lives[0])
            assert waiter.event.is_set()
        lives.append(assigned(places[2], (await line.claimed(1, box))[0], box))
        await line.released(lives[1])
        assert await read() == [], "nobody had asked for more than there was room for"
        lives.append(assigned(places[3], (await line.claimed(5, box))[0], box))
        late = place(9, needs=needs(c=2))
        await line.ready(late)
        await read()
        assert await line.claim(5, box) == []
        async with another(line, redis_url) as other:
            with other.wakeups.waiting(COLONY, box) as far:
                await soon(far.event)
                far.look()
                far.got([])
                await line.released(lives[2])
                await soon(far.event)
                assert await read() == [f"{line.wakeups.replica}\n\n{box.identity}"]
        await line.released(lives[3])
        assert await read() == [], "it was told, and has not been short of room since"


async def test_whoever_reached_its_limit_is_told_of_room(line: Line) -> None:
    places = [place(n) for n in range(3)]
    await line.ready(*places)
    (claimed,) = await line.claimed(5, WORKER, 1)
    async with overheard(line, keys.READY_CHANNEL + COLONY) as read:
        await line.released(assigned(places[0], claimed))
        assert await read() == [f"{line.wakeups.replica}\n\n{WORKER.identity}"]


async def test_everyone_looks_when_a_colony_goes_on(line: Line, redis_url: str) -> None:
    async with another(line, redis_url) as other:
        with line.wakeups.waiting(COLONY, WORKER) as here, other.wakeups.waiting(COLONY, WORKER_2) as there:
            await soon(there.event)
            there.look()
            await line.queue.set_paused(COLONY, paused=True)
            assert not here.event.is_set()
            await line.queue.set_paused(COLONY, paused=False)
            assert here.event.is_set()
            await soon(there.event)


async def test_news_reach_those_who_follow_here_and_elsewhere_and_nobody_else(line: Line, redis_url: str) -> None:
    one, workflow, foreign = uuid4(), uuid4(), uuid4()
    async with (
        another(line, redis_url) as other,
        listening(line),
        line.wakeups.following(COLONY, str(one)) as here,
        line.wakeups.following(COLONY, str(foreign)) as unconcerned,
        other.wakeups.following(COLONY, str(workflow)) as there,
        other.wakeups.following(COLONY, None) as whole,
        other.wakeups.following("umbrella", None) as foreigner,
    ):
        events = (here, unconcerned, there, whole, foreigner)
        for event in events:
            event.clear()
        await line.queue.apply(COLONY, Changes(touched={one, workflow}))
        assert here.is_set()
        await soon(there)
        await soon(whole)
        for event in events:
            event.clear()
        await line.queue.announce(COLONY, [one])
        assert here.is_set()
        await soon(whole)
        assert (unconcerned.is_set(), there.is_set(), foreigner.is_set()) == (False, False, False)
    assert not line.wakeups._followers
    assert not other.wakeups._followers


async def test_nothing_falls_between_following_and_looking(line: Line, redis_url: str) -> None:
    """Once following() has returned, what is told elsewhere is heard; many begin and end at once."""

    async def follow(other: Line) -> None:
        one = uuid4()
        async with other.wakeups.following(COLONY, str(one)) as event:
            event.clear()
            await line.queue.announce(COLONY, [one])
            await soon(event)

    async with another(line, redis_url) as other:
        for _ in range(5):
            await asyncio.gather(*(follow(other) for _ in range(20)))


async def test_a_replica_hears_only_what_somebody_there_waits_for(
    line: Line, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "LINGER_S", 0.05)

    async def channels() -> set[str]:
        return {str(channel) for channel in await line.redis.pubsub_channels("colonies:*")}

    idle = {subscriptions.IDLE_CHANNEL}
    async with another(line, redis_url) as other:
        one = str(uuid4())
        async with other.wakeups.following(COLONY, one), other.wakeups.following(COLONY, one):
            with other.wakeups.waiting(COLONY, WORKER):
                await heard(other, keys.READY_CHANNEL + COLONY)
                assert await channels() == {*idle, keys.NEWS_CHANNEL + one, keys.READY_CHANNEL + COLONY}
        async with asyncio.timeout(SOON_S):
            while await channels() != idle:
                await asyncio.sleep(0.01)
        # What was given up is heard again when somebody needs it.
        with other.wakeups.waiting(COLONY, WORKER) as waiter:
            await soon(waiter.event)
            assert await channels() == {*idle, keys.READY_CHANNEL + COLONY}


async def test_when_the_line_broke_everyone_looks_once_and_hears_again(line: Line, redis_url: str) -> None:
    one = uuid4()
    async with another(line, redis_url) as other, other.wakeups.following(COLONY, str(one)) as event:
        with other.wakeups.waiting(COLONY, WORKER) as waiter:
            await soon(waiter.event)
            for _ in range(2):
                waiter.look()
                event.clear()
                assert await line.redis.client_kill_filter(_type="pubsub") == 1
                await soon(waiter.event)
                await soon(event)
                waiter.look()
                event.clear()
                await line.ready(place(1))
                await soon(waiter.event)
                await line.queue.announce(COLONY, [one])
                await soon(event)
                await line.claim()


async def test_a_silent_line_is_asked_whether_it_lives_and_kept_if_it_does(
    line: Line, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "SILENCE_S", 0.02)
    async with another(line, redis_url) as other, other.wakeups.following(COLONY, None) as event:
        event.clear()
        for _ in range(20):
            await asyncio.sleep(0.02)
        assert not event.is_set(), "the connection was not given up"
        await line.queue.announce(COLONY, [uuid4()])
        await soon(event)


async def test_following_does_not_hang_while_the_server_is_away(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: it goes on without, and looks now and then."""
    monkeypatch.setattr(subscriptions, "LIVE_WITHIN_S", 0.01)
    async with line.wakeups.following(COLONY, str(uuid4())) as event:
        assert not event.is_set()


async def test_many_executors_and_processes_over_two_replicas_leave_nobody_waiting(line: Line, redis_url: str) -> None:
    """Executors of two cores, processes of one or two: each process is run by somebody who was woken, none by looking again."""
    done: list[Any] = []
    everything = asyncio.Event()
    places = [place(n, needs=needs(c=1 + n % 2)) for n in range(60)]
    by_id = {one.id: one for one in places}

    async def work(mine: Line, name: str) -> None:
        by = executor(name, offer=offer(c=2))
        with mine.wakeups.waiting(COLONY, by) as waiter:
            while True:
                waiter.look()
                got = await mine.claimed(1, by)
                waiter.got([by_id[one.id] for one in got])
                if not got:
                    await waiter.event.wait()
                    continue
                await asyncio.sleep(0)
                live = assigned(by_id[got[0].id], got[0], by)
                await mine.queue.apply(COLONY, Changes(released=[over_of(live)]))
                done.append(live.id)
                if len(done) == len(places):
                    everything.set()

    async with another(line, redis_url) as other, listening(line):
        workers = [asyncio.create_task(work(mine, f"{n}")) for n, mine in enumerate([line, other] * 4)]
        try:
            for at in range(0, 60, 3):
                await (line if at % 2 else other).ready(*places[at : at + 3])
            await soon(everything)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(done) == sorted(by_id)
