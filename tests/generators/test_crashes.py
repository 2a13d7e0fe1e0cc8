"""Whatever dies and whatever answer is lost: each argument is in exactly one workflow, in its sender's order, none too large."""

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import pytest
import pytest_asyncio

from servicekit import redis
from servicekit.clock import ManualClock
from servicekit.failures import Unavailable
from servicekit.postgres import Database
from services.cron.domain.generator import Argument, Batch, Pack, Room
from services.cron.domain.generator_ports import Cargo, Claim, DispatchStore, Look, Packed, Setback
from services.cron.domain.ports import Launch
from services.cron.store.dispatches import PostgresDispatchStore
from services.cron.store.packs import PostgresPackStore
from tests.cron.fakes import Crash, FakeScheduler
from tests.generators.replica import LEASE_S, GeneratorReplica, check_rows, pack

pytestmark = pytest.mark.asyncio

T = TypeVar("T")

# Every step of a dispatch.
STEPS = ("claim", "load", "submit", "submitted", "failed")
ROOM = Room(arguments=100_000, size=10_000_000, keys=100)


class Fate:
    """Decides what dies: before or after which step."""

    def __init__(self, choose: Callable[[str], bool]) -> None:
        self._choose = choose

    async def over(self, step: str, call: Callable[[], Awaitable[T]]) -> T:
        """A step, if it is to be."""
        if self._choose(f"before {step}"):
            raise Crash
        result = await call()
        if self._choose(f"after {step}"):
            raise Crash
        return result


class FragileDispatches(DispatchStore):
    """A store whose process may die at each of its steps."""

    def __init__(self, database: Database, fate: Fate) -> None:
        self._store = PostgresDispatchStore(database)
        self._fate = fate

    async def claim(self, generator_id: UUID, now: datetime, *, until: datetime, at_most: int) -> Claim | Look | None:
        return await self._fate.over("claim", lambda: self._store.claim(generator_id, now, until=until, at_most=at_most))

    async def load(self, claim: Claim, batches: Sequence[Batch]) -> Cargo | None:
        return await self._fate.over("load", lambda: self._store.load(claim, batches))

    async def submitted(self, claim: Claim, batches: Sequence[Batch], now: datetime) -> Look | None:
        return await self._fate.over("submitted", lambda: self._store.submitted(claim, batches, now))

    async def failed(self, claim: Claim, batches: Sequence[Batch], setback: Setback, now: datetime) -> Look | None:
        return await self._fate.over("failed", lambda: self._store.failed(claim, batches, setback, now))


class FragileScheduler(FakeScheduler):
    """A scheduler that is called by a process that may die, and that is away now and then."""

    def __init__(self, fate: Fate, is_away: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._fate = fate
        self._is_away = is_away

    async def submit_all(self, *, colony: str, account: str, launches: Sequence[Launch]) -> None:
        if self._is_away():
            msg = "away"
            raise Unavailable(msg, reason="AWAY")
        submit = super().submit_all
        await self._fate.over("submit", lambda: submit(colony=colony, account=account, launches=launches))
        if self._is_away():
            msg = "the answer is lost"
            raise Unavailable(msg, reason="AWAY")


class LosingPacks(PostgresPackStore):
    """Loses requests before, and answers after they were committed."""

    def __init__(self, database: Database, loses: Callable[[], bool]) -> None:
        super().__init__(database)
        self._loses = loses

    async def pack(self, packs: Sequence[Pack], now: datetime, room: Room) -> Packed:
        msg = "lost"
        if self._loses():
            raise Unavailable(msg, reason="LOST")
        packed = await super().pack(packs, now, room)
        if self._loses():
            raise Unavailable(msg, reason="LOST")
        return packed


@pytest_asyncio.fixture
async def open_replica(
    database_url: str, redis_url: str, clock: ManualClock
) -> AsyncIterator[Callable[..., Awaitable[GeneratorReplica]]]:
    """Starts replicas with connections of their own."""
    ends: list[Callable[[], Awaitable[None]]] = []

    async def start(scheduler: FakeScheduler, fate: Fate | None = None) -> GeneratorReplica:
        database = Database(database_url, "cron", connections=10)
        await database.open()
        client = redis.connect(redis_url)
        ends.extend((client.aclose, database.close))
        fragile = None if fate is None else FragileDispatches(database, fate)
        return GeneratorReplica(database, client, scheduler, clock, dispatch_store=fragile, room=ROOM)

    yield start
    for end in ends:
        await end()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_who_dies_between_two_steps_is_followed_by_another(
    open_replica: Callable[..., Awaitable[GeneratorReplica]], step: str, when: str
) -> None:
    died: list[str] = []
    away = {"failed"} & {step}

    def choose(moment: str) -> bool:
        if moment != f"{when} {step}" or died:
            return False
        died.append(moment)
        return True

    fate = Fate(choose)
    scheduler = FragileScheduler(fate, lambda: bool(away))
    first = await open_replica(scheduler, fate)
    second = await open_replica(scheduler)
    await first.add(max_count=2, timeout_ms=1_000)
    await first.pack("1", *"abcde")
    await first.crash()
    assert died
    away.clear()
    # A second sender goes on meanwhile.
    await second.pack("2", *"xy")
    await second.pass_time(seconds=LEASE_S + 2)
    batches = await second.batches()
    assert second.submitted() == [["a", "b"], ["c", "d"], ["e", "x"], ["y"]]
    assert scheduler.workflow_ids == [batch.workflow_id for batch in batches]
    found = await second.found()
    assert (found.waiting, found.unsubmitted, found.submitted) == (0, 0, 4)
    await check_rows(second.database)


class Chaos:
    """Packers, replicas that die, and what is to come of it."""

    def __init__(self, seed: int, replicas: Sequence[GeneratorReplica], clock: ManualClock) -> None:
        self._random = random.Random(seed)
        self._replicas = replicas
        self._clock = clock
        self._packing = 0
        self.deaths = 0
        self.lost = 0
        self.sent: defaultdict[tuple[int, str], list[str]] = defaultdict(list)

    async def pack(self, sender: int, calls: int) -> None:
        """Sends calls one after the other; each again until it is answered."""
        self._packing += 1
        for call in range(calls):
            arguments = [self._argument(sender) for _ in range(self._random.randint(1, 9))]
            asked = pack(f"{call}", *arguments, sender=f"{sender:064}")
            while True:
                try:
                    await self._random.choice(self._replicas).generators.pack(asked)
                    break
                except Unavailable:
                    self.lost += 1
        self._packing -= 1

    def _argument(self, sender: int) -> Argument:
        key = self._random.choice(["", "k"])
        text = f"{sender} {key} {len(self.sent[sender, key])}"
        self.sent[sender, key].append(text)
        return Argument(key, text.encode(), self._random.randint(1, 30))

    async def work(self, replica: GeneratorReplica) -> None:
        """Looks until all is done, and lives again after each death. Time passes where there is nothing to do."""
        while True:
            try:
                pause_s = await replica.loop.step()
            except Crash:
                self.deaths += 1
                # Nobody remembers what it was woken for.
                replica.loop._urgent.clear()
                continue
            if pause_s:
                found = await replica.found()
                if not self._packing and found.waiting == found.unsubmitted == 0:
                    return
                self._clock.advance(seconds=0.1)
                await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.timeout(120)
async def test_each_argument_is_in_one_workflow_and_in_order_whatever_dies(
    open_replica: Callable[..., Awaitable[GeneratorReplica]], clock: ManualClock, seed: int
) -> None:
    dice = random.Random(seed)
    moments = itertools.count()
    # By chance; and once for certain.
    fate = Fate(lambda _: next(moments) == 6 or dice.random() < 0.04)
    scheduler = FragileScheduler(fate, lambda: dice.random() < 0.03)
    replicas = [await open_replica(scheduler, fate) for _ in range(2)]
    for replica in replicas:
        replica.generators._packs = LosingPacks(replica.database, lambda: dice.random() < 0.1)
    generator = await replicas[0].add(max_count=7, timeout_ms=700, max_bytes=120)
    chaos = Chaos(seed, replicas, clock)
    await asyncio.gather(*(chaos.pack(sender, 12) for sender in range(16)), *map(chaos.work, replicas))
    assert chaos.deaths > 0
    assert chaos.lost > 0
    batches = await replicas[0].batches()
    assert [batch.number for batch in batches] == list(range(1, len(batches) + 1))
    assert [launch.request_id for launch in scheduler.launches] == [batch.request_id for batch in batches]
    assert [launch.workflow_id for launch in scheduler.launches] == [batch.workflow_id for batch in batches]
    came: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for batch, launch in zip(batches, scheduler.launches, strict=True):
        assert len(launch.arguments) == batch.count <= 7
        assert batch.size <= 120
        for value in launch.arguments:
            text = bytes(value).decode()
            sender, key, _ = text.split(" ")
            assert key == batch.key
            came[int(sender), key].append(text)
    assert came == {each: texts for each, texts in chaos.sent.items() if texts}
    found = await replicas[0].found()
    total = sum(map(len, chaos.sent.values()))
    assert (found.generator_id, found.submitted, sum(batch.count for batch in batches)) == (
        generator.generator_id, len(batches), total,
    )  # fmt: skip
    await check_rows(replicas[0].database)


async def test_a_lost_answer_is_given_again_and_never_a_second_one(
    open_replica: Callable[..., Awaitable[GeneratorReplica]],
) -> None:
    scheduler = FakeScheduler()
    replica, other = await open_replica(scheduler), await open_replica(scheduler)
    await replica.add(max_count=2)
    answers: Any = iter([False, True, True, False, False])
    replica.generators._packs = LosingPacks(replica.database, lambda: next(answers))
    # Committed, and its answer lost; then lost on its way; then answered, by either.
    for _ in range(2):
        with pytest.raises(Unavailable):
            await replica.pack("1", "a", "b", "c")
    assert await replica.pack("1", "a", "b", "c") == 1
    assert await other.pack("1", "a", "b", "c") == 1
    # The one that committed had no time to wake its loop: the row says that it is due.
    await other.pass_time(seconds=6)
    assert other.submitted() == [["a", "b"]]
    assert (await other.found()).waiting == 1
