"""The loop and its timers on a real Redis: what is told while somebody looks is not forgotten by what the look gives."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from servicekit import redis
from servicekit.clock import ManualClock, datetime_of
from services.cron.domain.due import DueLoop, DueRows, Looks
from services.cron.queue.timers import RedisTimers

pytestmark = pytest.mark.asyncio

ONE = uuid4()
SECOND = timedelta(seconds=1)


class NoRows(DueRows):
    """An index of nothing."""

    async def upcoming(
        self, until: datetime, *, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[tuple[UUID, datetime]]:
        return []


class Rig:
    """Two replicas' loops over the same timers. `work` is what both do; `looked` what they were given."""

    def __init__(self, redis_url: str, clock: ManualClock) -> None:
        self.clock = clock
        self.clients = [redis.connect(redis_url) for _ in range(2)]
        self.looked: list[UUID] = []
        self.work: Callable[[], Awaitable[datetime | None]] = self.nothing
        self.loop, self.other = (
            DueLoop("test", RedisTimers(client, "test"), NoRows(), self._work, clock, lease_s=5) for client in self.clients
        )

    async def nothing(self) -> datetime | None:
        return None

    async def _work(self, ids: Sequence[UUID]) -> Looks:
        self.looked += ids
        return {each: await self.work() for each in ids}

    def now(self) -> datetime:
        return datetime_of(self.clock.now_ns())

    async def rest(self) -> list[UUID]:
        """Looks until nothing is due; gives what was looked at."""
        self.looked.clear()
        while await self.loop.step() == 0:
            pass
        return self.looked


@pytest_asyncio.fixture
async def rig(redis_url: str, clock: ManualClock) -> AsyncIterator[Rig]:
    made = Rig(redis_url, clock)
    await made.rest()
    yield made
    for client in made.clients:
        await client.aclose()


@pytest.mark.parametrize("replica", ["loop", "other"])
@pytest.mark.parametrize("begin", ["woken", "told"])
@pytest.mark.parametrize("look", [None, 3 * SECOND])
async def test_what_is_told_during_a_look_is_looked_at_in_time(
    rig: Rig, replica: str, begin: str, look: timedelta | None
) -> None:
    async def work() -> datetime | None:
        # The look at the row is over, and other ones keep this from telling: a pack comes in.
        rig.work = rig.nothing
        await getattr(rig, replica).tell({ONE: rig.now() + SECOND})
        return None if look is None else rig.now() + look

    rig.work = work
    if begin == "woken":
        rig.loop.wake([ONE])
    else:
        await rig.loop.tell({ONE: rig.now()})
    assert await rig.rest() == [ONE]
    rig.clock.advance(seconds=1)
    assert await rig.rest() == [ONE]
    rig.clock.advance(seconds=9)
    assert await rig.rest() == []


async def test_a_look_that_gives_never_ends_its_timer(rig: Rig) -> None:
    await rig.loop.tell({ONE: rig.now()})
    assert await rig.rest() == [ONE]
    rig.clock.advance(seconds=60)
    assert await rig.rest() == []


async def test_of_two_that_tell_the_sooner_holds(rig: Rig) -> None:
    await rig.loop.tell({ONE: rig.now() + SECOND})
    await rig.other.tell({ONE: rig.now() + 2 * SECOND})
    rig.clock.advance(seconds=1)
    assert await rig.rest() == [ONE]


async def test_one_that_died_is_followed_after_its_lease(rig: Rig) -> None:
    async def die() -> datetime | None:
        rig.work = rig.nothing
        raise RuntimeError

    rig.work = die
    await rig.loop.tell({ONE: rig.now()})
    with pytest.raises(RuntimeError):
        await rig.rest()
    rig.clock.advance(seconds=4.9)
    assert await rig.rest() == []
    rig.clock.advance(seconds=0.1)
    assert await rig.rest() == [ONE]


async def test_what_is_woken_again_and_again_does_not_keep_the_timers_waiting(rig: Rig) -> None:
    busy = uuid4()

    async def work() -> datetime | None:
        rig.loop.wake([busy])
        rig.clock.advance(seconds=0.02)
        return None

    rig.work = work
    rig.loop.wake([busy])
    await rig.loop.tell({ONE: rig.now()})
    for _ in range(20):
        await rig.loop.step()
    # Soon, and only then; and what is woken goes first.
    assert rig.looked.count(ONE) == 1
    assert rig.looked[0] == busy
    assert rig.looked.count(busy) > 10
