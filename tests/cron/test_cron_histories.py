"""Random histories of two replicas: whatever fails in between, each moment stands in the record once and is submitted once."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest

from servicekit.failures import Failure, ResourceExhausted, Unavailable
from services.cron.domain.cron import Cron, Kind, Missed, NewCron, Outcome, Overlap, Policy, State
from services.cron.domain.schedule import Expression, Interval, RandomInterval, Schedule, When
from tests.cron.fakes import failing
from tests.cron.replica import Replica
from tests.cron.test_cron_policies import all_accounted_for, moments_of
from tests.cron.test_crons import ALICE

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

NewReplica = Callable[..., Replica]
CRONS = tuple(f"c{number}" for number in range(6))
STEPS = 120


class History:
    """Two replicas, what happens to them, and what members do, as a seed says."""

    def __init__(self, seed: int, *replicas: Replica) -> None:
        self.random = Random(seed)
        self.replicas = replicas
        self.scheduler, self.clock = replicas[0].scheduler, replicas[0].clock

    def new(self, name: str) -> NewCron:
        """A cron of any kind."""
        pick = self.random.choice
        whens: list[When] = [Interval(1_000), Interval(7_000), RandomInterval(3_000), Expression("*/3 * * * * *")]
        policy = Policy(
            overlap=pick(list(Overlap)),
            missed=pick(list(Missed)),
            missed_at_most=pick([1, 3, 100]),
            missed_after_ms=pick([1_000, 10_000]),
            feed_outputs=pick([True, False]),
            max_failures=1_000,
        )
        return NewCron(
            name, Schedule(pick(whens), max_runs=pick([0, 0, 25]), jitter_ms=pick([0, 0, 2_500, 20_000])), policy, b"\x12\x01w"
        )

    async def happen(self, *, changes: bool) -> None:
        """Something, and then some time."""
        replica, name = self.random.choice(self.replicas), self.random.choice(CRONS)
        happening = self.random.choices(
            ["change", "run", "answer", "crash", "end", "downtime", "flush", "nothing"], [8, 4, 6, 4, 8, 3, 2, 20]
        )
        with suppress(Failure):
            match happening[0]:
                case "change" if changes:
                    await self._change(replica, name)
                case "run":
                    await replica.crons.run(ALICE, name, f"r{self.random.random()}")
                case "answer":
                    limit = ResourceExhausted("full", reason="QUEUE_FULL", retry_delay_s=0.5)
                    away, refusal = failing(Unavailable, "X"), failing(Failure, "Y")
                    self.scheduler.refusal = self.random.choice([None, None, None, away, refusal, limit])
                case "crash":
                    await replica.die_in_submit()
                case "end":
                    for workflow_id in list(self.scheduler._open):
                        if self.random.random() < 0.5:
                            self.scheduler.end(workflow_id, b"1", successful=self.random.random() < 0.7)
                case "downtime":
                    self.clock.advance(seconds=self.random.choice([30, 60]))
                case "flush":
                    await replica.client.flushall()
        self.clock.advance(seconds=self.random.choice([0.3, 1, 2]))
        await asyncio.gather(*(each.fire_due() for each in self.random.choice([self.replicas, (replica,)])))

    async def _change(self, replica: Replica, name: str) -> None:
        match self.random.choice(["pause", "resume", "resume", "update"]):
            case "pause":
                await replica.crons.pause(ALICE, name)
            case "resume":
                await replica.crons.resume(ALICE, name)
            case "update":
                await replica.crons.update(ALICE, self.new(name))

    async def run(self, *, changes: bool) -> list[Cron]:
        """All of it, and then a time in which nothing fails. Returns the crons as they are then."""
        for name in CRONS:
            await self.replicas[0].crons.add(ALICE, self.new(name))
        for _ in range(STEPS):
            await self.happen(changes=changes)
        self.scheduler.refusal = None
        for _ in range(100):
            self.scheduler.end_all()
            self.clock.advance(seconds=2)
            await self.replicas[0].fire_due()
        return [await self.replicas[0].crons.get("dev", name) for name in CRONS]


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("seed", range(6))
async def test_each_moment_once(replica: Replica, new_replica: NewReplica, seed: int, changes: bool) -> None:
    history = History(seed, replica, new_replica())
    records = [(cron, await replica.record(cron)) for cron in await history.run(changes=changes)]
    entered = set(replica.scheduler.workflow_ids)
    # What the scheduler has is in the record, as submitted, and nothing else is.
    submitted = {fire.fire_id for _, fires in records for fire in fires if fire.outcome is Outcome.SUBMITTED}
    pending = {fire.fire_id for _, fires in records for fire in fires if fire.outcome is Outcome.PENDING}
    assert submitted <= entered <= submitted | pending
    for cron, fires in records:
        scheduled = [fire for fire in fires if fire.kind is Kind.SCHEDULED]
        assert cron.runs == sum(fire.outcome is Outcome.SUBMITTED for fire in scheduled)
        moments = moments_of(cron, replica.now())
        if not changes:
            all_accounted_for(replica, scheduled, moments[: sum(fire.moments for fire in scheduled)])
        if cron.state is State.ACTIVE:
            # None is stuck: it was looked at in the last half minute, jitter included.
            last = max(fire.due for fire in scheduled)
            assert (replica.now() - last).total_seconds() < 30 + cron.schedule.jitter_ms / 1_000
