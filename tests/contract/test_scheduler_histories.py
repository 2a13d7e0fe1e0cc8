"""Whatever happens to a workflow in whatever order, and at once: its ledger is legal, its counts are right, nobody deadlocks."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from servicekit.failures import Failure, Unavailable
from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.ports import Lost
from services.scheduler.domain.records import AttemptRef, Claim, Edge, Family
from services.scheduler.domain.spec import ParentPolicy, Selector, Spec
from services.scheduler.domain.states import FINAL, State
from services.scheduler.store.reads import Reads

from .scheduler_records import ALICE, COLONY, START_NS, WORKER, WORKER_2, World, at, spec, submission, success
from .scheduler_works import LEASE_S, Works

pytestmark = pytest.mark.asyncio

CLOSINGS = (
    success(b"1"),
    success(b"1", b"2"),
    Closing(successful=False, errors=("broken",)),
    Closing(successful=False, errors=("again",), retryable=True),
)
# More often with COLONIES_TEST_REPEATS, when a race is being looked for.
REPEATS = int(os.environ.get("COLONIES_TEST_REPEATS", "10"))


def nodes(chance: random.Random, size: int, prefix: str = "n") -> list[Spec]:
    """A graph in which every node waits for some before it, each in its own way."""
    return [
        spec(
            f"{prefix}{place}",
            *(f"{prefix}{one}" for one in chance.sample(range(place), min(place, chance.randrange(3)))),
            parent_policy=chance.choice([ParentPolicy.ALL_SUCCESSFUL] * 2 + [ParentPolicy.ALL_DONE, ParentPolicy.ANY_DONE]),
            max_retries=chance.choice([0, 1, -1]),
            backoff=chance.choice([(), (500.0, 2.0, 5_000.0, 0.5)]),
        )
        for place in range(size)
    ]


class History:
    """Things that happen to one workflow. Refusals are part of it, outages are not."""

    def __init__(self, world: World, workflow_id: UUID, chance: random.Random, *, pace: float = 1) -> None:
        self.world = world
        self.workflow_id = workflow_id
        self.chance = chance
        self.seconds = 1.0
        # 0: time stands still, so that the times of those who act at once do not cross.
        self.pace = pace

    async def step(self) -> None:
        """One of them."""
        self.seconds += self.pace * self.chance.random()
        happenings: list[Callable[[], Awaitable[object]]] = [
            *[self.assign] * 4,
            *[self.close] * 5,
            self.lose,
            self.give_back,
            self.cancel,
            self.add,
            *([self.retry, self.cancel_all] if self.chance.random() < 0.2 else []),
        ]
        try:
            await self.chance.choice(happenings)()
        except Unavailable:
            raise
        except Failure:
            return

    async def ids(self, *states: State) -> list[UUID]:
        """Some of those in these states, in any order."""
        found = [one for one, state in (await self.world.states()).items() if state in states]
        return self.chance.sample(found, self.chance.randint(min(1, len(found)), len(found)))

    async def attempts(self, *states: State) -> list[AttemptRef]:
        lives = await self.world.tables.lives(COLONY, (await self.ids(*states))[:3])
        return [AttemptRef(live.id, live.attempt) for live in lives]

    async def assign(self) -> None:
        executor = self.chance.choice([WORKER, WORKER_2])
        await self.world.assign(*(await self.ids(State.WAITING)), executor=executor, seconds=self.seconds)

    async def close(self) -> None:
        closes = {ref: self.chance.choice(CLOSINGS) for ref in await self.attempts(State.RUNNING)}
        if closes:
            executor = self.chance.choice([WORKER, WORKER_2])
            await self.world.close_all(closes, executor=executor, seconds=self.seconds)

    async def lose(self) -> None:
        now = at(self.seconds)
        for ref in await self.attempts(State.RUNNING):
            # As upkeep does: what somebody is at is left for the next time.
            await self.world.tables.end(
                COLONY, [ref], lambda row: endings.lose(row, row.attempt, now), now, skip_locked=self.chance.random() < 0.5
            )

    async def give_back(self) -> None:
        for ref in await self.attempts(State.RUNNING):
            await self.world.end(
                ref.process_id, lambda row: endings.give_back(row, row.attempt, WORKER.identity), seconds=self.seconds
            )

    async def cancel(self) -> None:
        for one in (await self.ids(State.WAITING, State.RUNNING))[:1]:
            await self.world.end(one, lambda row: endings.cancel(row, ALICE.identity), seconds=self.seconds)

    async def cancel_all(self) -> None:
        await self.world.cancel_workflow(self.workflow_id, seconds=self.seconds)

    async def retry(self) -> None:
        await self.world.retry_workflow(self.workflow_id, seconds=self.seconds)

    async def add(self) -> None:
        refs = await self.attempts(State.RUNNING)
        if not refs or len(await self.world.states()) > 40:
            return
        new = nodes(self.chance, 2, uuid4().hex)
        given = submission(*new, workflow=True, actor=self.chance.choice([WORKER, WORKER_2]).identity)
        hanging = {edge.child for edge in given.edges}
        edges = [Edge(refs[0].process_id, one.id, 0, Selector.ALL, 0, 0) for one in given.processes if one.id not in hanging]
        awaited = [edge.parent for edge in given.edges]
        lasts = [one.id for one in given.processes if one.id not in awaited]
        processes = [one if one.id in hanging else replace(one, pending_parents=1) for one in given.processes]
        whole = type(given)(
            colony=COLONY,
            request_id=given.request_id,
            digest=given.digest,
            account=given.account,
            actor=given.actor,
            at=at(self.seconds),
            processes=processes,
            edges=given.edges + edges,
            receipt=given.receipt,
        )
        await self.world.tables.add_children(Family(refs[0], whole, lasts if self.chance.random() < 0.5 else []))


async def drained(world: World, history: History) -> None:
    """Runs what is left: whoever waits for parents that have all ended would wait for ever."""
    for _ in range(200):
        history.seconds += 100
        waiting = [one for one, state in (await world.states()).items() if state is State.WAITING]
        running = [one for one, state in (await world.states()).items() if state is State.RUNNING]
        if not waiting and not running:
            return
        begun = await world.assign(*waiting, seconds=history.seconds)
        assert begun or running, "nobody is ready, and nobody runs"
        for live in await world.tables.lives(COLONY, [*begun, *running]):
            executor = WORKER if live.executor_id == WORKER.identity else WORKER_2
            await world.close(live.id, success(b"1"), number=live.attempt, executor=executor, seconds=history.seconds + 1)
    pytest.fail("it never comes to an end")


async def check(world: World, history: History) -> None:
    await world.check_ledger()
    view = await Reads(world.database).workflow(COLONY, history.workflow_id)
    assert sum(view.counts.values()) == len(await world.states())


@pytest.mark.parametrize("seed", range(REPEATS))
async def test_one_thing_after_the_other(world: World, seed: int) -> None:
    chance = random.Random(seed)
    entered = await world.enter(*nodes(chance, 8))
    assert entered.workflow_id is not None
    history = History(world, entered.workflow_id, chance)
    for _ in range(25):
        await history.step()
        await check(world, history)
    await drained(world, history)
    await check(world, history)


@pytest.mark.parametrize("seed", range(REPEATS))
@pytest.mark.usefixtures("no_deadlocks")
async def test_everything_at_once(world: World, seed: int) -> None:
    chance = random.Random(seed)
    entered = await world.enter(*nodes(chance, 12))
    assert entered.workflow_id is not None
    histories = [History(world, entered.workflow_id, random.Random(seed * 100 + one), pace=0) for one in range(8)]

    async def live(history: History) -> None:
        for _ in range(8):
            await history.step()

    await asyncio.gather(*map(live, histories))
    await check(world, histories[0])
    await drained(world, histories[0])
    await check(world, histories[0])


async def run_from_the_queue(works: Works) -> None:
    """One round of an executor that succeeds with everything, as dispatch and close do it."""
    claimed, _ = await works.queue.claim(COLONY, WORKER, 100)
    if not claimed:
        return
    (begun,) = await works.world.tables.assign([Claim(COLONY, WORKER, claimed)], at(works.seconds))
    lives = [one.live for one in begun.assigned]
    undone = [one for one in claimed if one.id not in {live.id for live in lives}]
    await works.queue.confirm(COLONY, WORKER.identity, lives, undone)
    await works.aftermath.settle(COLONY, [one.id for one in undone])
    if lives:
        closes = {AttemptRef(live.id, live.attempt): success(b"1") for live in lives}
        changes, _ = await works.world.close_all(closes, seconds=works.seconds)
        await works.aftermath.changed(COLONY, changes)


@pytest.mark.parametrize("seed", range(REPEATS))
@pytest.mark.parametrize("way", ["recovered", "rebuilt", "patrolled"])
async def test_a_queue_that_was_told_nothing_gives_out_everything_in_the_end(works: Works, seed: int, way: str) -> None:
    """Whatever happened to the rows: from them the queue is made, and once all has ended nothing is left in it."""
    chance = random.Random(seed)
    entered = await works.world.enter(*nodes(chance, 10))
    assert entered.workflow_id is not None
    history = History(works.world, entered.workflow_id, chance, pace=0)
    # Some of it was told.
    await works.aftermath.changed(COLONY, entered.changes)
    for _ in range(25):
        await history.step()
    works.world.clock.advance(seconds=history.seconds)
    match way:
        case "recovered":
            await works.recovery.recover(Lost("dead", START_NS // 1_000_000, 0))
        case "rebuilt":
            await works.queue.invalidate()
            await works.upkeep.tick()
        case _:
            await works.patrol.round()
    for _ in range(100):
        await run_from_the_queue(works)
        await works.after(2)
        if set((await works.world.states()).values()) <= FINAL:
            break
    else:
        pytest.fail("something is left, and the queue does not give it out")
    await check(works.world, history)
    await run_from_the_queue(works)
    await works.after(LEASE_S)
    assert await works.timers() == {}
    loads = await works.queue.loads(COLONY, [WORKER.identity, WORKER_2.identity])
    assert [count for _, count in loads.values()] == [0, 0]


@pytest.mark.parametrize("how", ["offer", "cancel", "workflow"])
async def test_nothing_ends_before_it_began(world: World, how: str) -> None:
    """Whoever ends an attempt may have read the clock before it was assigned, and had its row after that."""
    entered = await world.enter(spec("a", max_wait_ms=10_000))
    (one,) = entered.process_ids
    await world.assign(one, seconds=5)
    if how == "offer":
        changes, _ = await world.end(one, lambda row: endings.withdraw_offer(row, 1, at(4)), seconds=4)
        assert [place.wait_deadline for place in changes.ready] == [at(15)]
        assert [row["ready_at"] for row in await world.rows("process")] == [at(5)]
    elif how == "cancel":
        await world.end(one, lambda row: endings.cancel(row, ALICE.identity), seconds=4)
    else:
        assert entered.workflow_id is not None
        await world.tables.cancel_workflow(COLONY, entered.workflow_id, lambda _: None, ALICE.identity, at(4))
    lines = sorted(await world.rows("ledger"), key=lambda row: int(row["id"]))
    assert [line["at"] for line in lines][1:] == [at(5), at(5)]
    await world.check_ledger()
