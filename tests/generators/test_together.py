"""All that can be done to generators, at the same time, by two replicas: nothing is lost, doubled, reordered or miscounted."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from servicekit import redis
from servicekit.clock import ManualClock, SystemClock
from servicekit.failures import FailedPrecondition, ResourceExhausted, Unavailable
from servicekit.postgres import Database
from services.cron.domain.generator import Argument, Room
from services.cron.store import dispatches, packs
from tests.generators.replica import MISCOUNTED, GeneratorReplica, caller, check_rows, pack
from tests.generators.test_crashes import Fate, FragileScheduler, LosingPacks

pytestmark = pytest.mark.asyncio

SENDERS = 12
CALLS = 25
NAMES = ("g", "h")
KEYS = ("", "k", "l")
MAX_COUNT = 7
MAX_BYTES = 120
ROOM = Room(arguments=80, size=20_000, keys=3)


class Members:
    """What members do to two generators, and what they were told. A third one comes and goes."""

    def __init__(self, dice: random.Random, replicas: Sequence[GeneratorReplica]) -> None:
        self._dice = dice
        self._replicas = replicas
        self._sending = SENDERS
        self.sent: defaultdict[tuple[str, int, str], list[str]] = defaultdict(list)
        self.dropped: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    def replica(self) -> GeneratorReplica:
        """Either."""
        return self._dice.choice(self._replicas)

    async def pack(self, sender: int) -> None:
        """Sends calls one after the other, each again until it is answered; now and then at two replicas at once."""
        for call in range(CALLS):
            name = self._dice.choice(NAMES)
            arguments = [self._argument(name, sender) for _ in range(self._dice.randint(1, 9))]
            asked = pack(f"{call}", *arguments, name=name, sender=f"{sender:064}")
            while True:
                tries = [self.replica().generators.pack(asked) for _ in range(self._dice.choice((1, 1, 2)))]
                results = await asyncio.gather(*tries, return_exceptions=True)
                answers = [result for result in results if not isinstance(result, BaseException)]
                assert len(set(answers)) <= 1
                if answers:
                    break
                self._note(results)
                await asyncio.sleep(0.01)
        self._sending -= 1

    def _note(self, results: Sequence[object]) -> None:
        for result in results:
            assert isinstance(result, Unavailable | ResourceExhausted)
            self.done[type(result).__name__] += 1

    def _argument(self, name: str, sender: int) -> Argument:
        key = self._dice.choice(KEYS)
        sent = self.sent[name, sender, key]
        sent.append(f"{name} {sender} {key} {len(sent)}")
        return Argument(key, sent[-1].encode(), self._dice.randint(1, 30))

    async def meddle(self) -> None:
        """Does this and that, as long as somebody sends."""
        actions = (self.flush, self.drop, self.pause, self.resume, self.resume, self.come_and_go, self.sweep, self.check)
        while self._sending:
            action = self._dice.choice(actions)
            await action(self._dice.choice(NAMES), self._dice.choice((None, *KEYS)))
            self.done[action.__name__] += 1
            await asyncio.sleep(self._dice.random() * 0.02)

    async def flush(self, name: str, key: str | None) -> None:
        """Makes batches."""
        await self.replica().generators.flush(caller(), name, key)

    async def drop(self, name: str, key: str | None) -> None:
        """Throws away."""
        dropped = await self.replica().generators.drop(caller(), name, key)
        self.dropped[name] += dropped

    async def pause(self, name: str, _: str | None) -> None:
        """Pauses."""
        await self.replica().generators.pause(caller(), name)

    async def resume(self, name: str, _: str | None) -> None:
        """Resumes."""
        await self.replica().generators.resume(caller(), name)

    async def sweep(self, _: str, __: str | None) -> None:
        """Sweeps."""
        await self.replica().upkeep.sweep()

    async def check(self, _: str, __: str | None) -> None:
        """In one moment, every counter counts its rows."""
        assert not await self.replica().database.statement(MISCOUNTED)

    async def come_and_go(self, _: str, __: str | None) -> None:
        """Adds a generator, and removes it with what was packed."""
        name = f"passing-{self.done['come_and_go']}-{self._dice.random()}"
        await self.replica().add(name, max_count=2)
        replica = self.replica()
        await replica.packs.pack([pack("1", Argument("", b"x", 1), name=name)], replica.now(), ROOM)
        with pytest.raises(FailedPrecondition):
            await self.replica().generators.remove(caller(), name, force=False)
        await self.replica().generators.remove(caller(), name, force=True)


@pytest_asyncio.fixture
async def replicas(
    database_url: str, redis_url: str, dice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[GeneratorReplica]]:
    """Two, with connections of their own; packs and submits get lost now and then."""
    # Pages so small that there are several.
    monkeypatch.setattr(packs, "BINS_AT_ONCE", 2)
    monkeypatch.setattr(dispatches, "BINS_AT_ONCE", 2)
    monkeypatch.setattr(packs, "SIZES_AT_ONCE", 3 * MAX_COUNT)
    scheduler = FragileScheduler(Fate(lambda _: False), lambda: dice.random() < 0.03)
    started = []
    for _ in range(2):
        database = Database(database_url, "cron", connections=10)
        await database.open()
        client = redis.connect(redis_url)
        replica = GeneratorReplica(database, client, scheduler, ManualClock(), SystemClock(), room=ROOM)
        replica.generators._packs = LosingPacks(database, lambda: dice.random() < 0.05)
        started.append(replica)
    yield started
    for replica in started:
        await replica.client.aclose()
        await replica.database.close()


@pytest.fixture(params=range(3))
def dice(request: pytest.FixtureRequest) -> random.Random:
    """One for all, from a seed."""
    return random.Random(request.param)


async def drained(replica: GeneratorReplica, name: str) -> None:
    """All that waits is submitted."""
    await replica.generators.resume(caller(), name)
    while (found := await replica.found(name)).waiting or found.unsubmitted:
        await replica.generators.flush(caller(), name, None)
        await asyncio.sleep(0.02)


@pytest.mark.timeout(120)
async def test_whatever_is_done_at_the_same_time_nothing_is_lost_or_doubled(
    replicas: list[GeneratorReplica], dice: random.Random
) -> None:
    generators = {name: await replicas[0].add(name, max_count=MAX_COUNT, timeout_ms=50, max_bytes=MAX_BYTES) for name in NAMES}
    members = Members(dice, replicas)
    loops = [asyncio.create_task(replica.loop.run()) for replica in replicas]
    try:
        async with asyncio.TaskGroup() as group:
            for sender in range(SENDERS):
                group.create_task(members.pack(sender))
            for _ in range(4):
                group.create_task(members.meddle())
        for name in NAMES:
            await drained(replicas[0], name)
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
    await check_rows(replicas[0].database)
    assert min(members.done.values()) > 0
    for name, generator in generators.items():
        launches = [launch for launch in replicas[0].scheduler.launches if str(generator.generator_id) in launch.request_id]
        batches = await replicas[0].batches(name)
        assert [launch.request_id for launch in launches] == [batch.request_id for batch in batches]
        assert max(batch.count for batch in batches) <= MAX_COUNT
        assert max(batch.size for batch in batches) <= MAX_BYTES
        came: defaultdict[tuple[str, int, str], list[int]] = defaultdict(list)
        for launch in launches:
            for value in launch.arguments:
                _, of, key, number = bytes(value).decode().split(" ")
                came[name, int(of), key].append(int(number))
        for numbers in came.values():
            # Each once, and in the order in which they were sent.
            assert numbers == sorted(set(numbers))
        sent = sum(len(texts) for each, texts in members.sent.items() if each[0] == name)
        assert sum(map(len, came.values())) + members.dropped[name] == sent
