"""Random lives of processes in one colony, and an account of them that was kept by other means."""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.scheduler.domain import endings
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.quantiles import UPPERS, Quantiles
from services.scheduler.domain.records import AttemptRef, Claim, Claimed, Ending, Live
from services.scheduler.domain.states import FINAL, State
from services.scheduler.domain.statistics import Rates, Statistics, oldest_minute
from services.scheduler.store.statistics import StatisticsStore

from .scheduler_records import START, WORKER, World, spec, submission

TYPES = ("cli", "gpu")
STEPS = (
    *(
        "submit",
        "workflow",
        "assign",
        "succeed",
        "fail",
        "retry",
        "cancel",
        "again",
        "remove",
        "remove_workflow",
        "count",
        "pass",
    ),
)


def anyone(_initiator: str) -> None:
    """Whoever it is may."""


class History:
    """What happens in a colony, step by step; `lines` are all ledger lines that there ever were."""

    def __init__(self, world: World, colony: str, seed: int = 0) -> None:
        self.world = world
        self.colony = colony
        self.counts = StatisticsStore(world.database)
        self.now: datetime = START
        self.lines: dict[int, dict[str, Any]] = {}
        self._random = random.Random(seed)
        self._removed: set[UUID] = set()

    async def step(self, name: str) -> None:
        """One step, on something that it fits."""
        self.now += timedelta(milliseconds=self._random.choice((0, 1, 7, 400, 900, 20_000)))
        await getattr(self, f"_{name}")()
        await self.record()

    async def record(self) -> None:
        """Keeps the lines as they are: removals will take them."""
        for row in await self.world.rows("ledger"):
            if row["colony"] == self.colony:
                self.lines[row["id"]] = row

    async def processes(self, *states: State, single: bool = False) -> list[dict[str, Any]]:
        """Rows of the colony in these states."""
        return [
            row
            for row in await self.world.rows("process")
            if row["colony"] == self.colony and row["state"] in states and not (single and row["workflow_id"])
        ]

    async def _submit(self) -> None:
        specs = [spec(executor_type=self._random.choice(TYPES), max_retries=2) for _ in range(self._random.randint(1, 4))]
        await self.world.submit(submission(*specs, colony=self.colony, at=self.now))

    async def _workflow(self) -> None:
        nodes = [spec("a", max_retries=1), spec("b", "a", executor_type="gpu"), spec("c", "a"), spec("d", "b", "c")]
        await self.world.submit(submission(*nodes, workflow=True, colony=self.colony, at=self.now))

    async def _assign(self) -> None:
        ready = [row for row in await self.processes(State.WAITING) if not row["pending_parents"]]
        claimed = [Claimed(row["id"], row["attempt"] + 1) for row in self._random.sample(ready, min(len(ready), 3))]
        await self.world.tables.assign([Claim(self.colony, WORKER, claimed)], self.now)

    async def _end(self, state: State, decide: Callable[[Live], Ending | None]) -> None:
        rows = await self.processes(state)
        if rows:
            refs = [AttemptRef(self._random.choice(rows)["id"], 0)]
            await self.world.tables.end(self.colony, refs, decide, self.now)

    async def _close(self, closing: Closing) -> None:
        await self._end(State.RUNNING, lambda row: endings.close(row, row.attempt, WORKER.identity, closing, None, self.now))

    async def _succeed(self) -> None:
        await self._close(Closing(successful=True))

    async def _fail(self) -> None:
        await self._close(Closing(successful=False, errors=("no",)))

    async def _retry(self) -> None:
        await self._close(Closing(successful=False, errors=("no",), retryable=True))

    async def _cancel(self) -> None:
        state = self._random.choice((State.WAITING, State.RUNNING))
        await self._end(state, lambda row: endings.cancel(row, WORKER.identity))

    async def _again(self) -> None:
        rows = await self.processes(State.FAILED, State.CANCELLED)
        failed = [row["workflow_id"] for row in rows if row["workflow_id"] and row["workflow_id"] not in self._removed]
        if failed:
            chosen = self._random.choice(failed)
            await self.world.tables.retry_workflow(self.colony, chosen, anyone, WORKER.identity, self.now)

    async def _remove(self) -> None:
        rows = await self.processes(*FINAL, single=True)
        if rows:
            await self.world.tables.remove_process(self.colony, self._random.choice(rows)["id"], anyone)

    async def _remove_workflow(self) -> None:
        states: dict[UUID, set[State]] = defaultdict(set)
        for row in await self.processes(*State):
            if row["workflow_id"]:
                states[row["workflow_id"]].add(State(row["state"]))
        for workflow_id in [one for one, held in states.items() if held <= FINAL and one not in self._removed][:1]:
            await self.world.tables.remove_workflow(self.colony, workflow_id, anyone)
            # Its processes follow when they are asked to.
            self._removed.add(workflow_id)

    async def _count(self) -> None:
        await self.counts.count(self.colony, oldest_minute(self.now), 3)

    async def _pass(self) -> None:
        self.now += timedelta(seconds=self._random.choice((1, 50, 600)))

    async def check(self, found: Statistics) -> None:
        """Fails unless these statistics are what a recount gives."""
        assert found.at == self.now
        counts: Counter[tuple[str, State]] = Counter()
        for row in await self.processes(*State):
            counts[row["executor_type"], State(row["state"])] += 1
        assert {(one.executor_type, state): n for one in found.types for state, n in one.counts.items()} == counts
        minute = self.now.replace(second=0, microsecond=0)
        last_minute = self._rates(minute - timedelta(minutes=1), minute)
        last_hour = self._rates(minute - timedelta(minutes=60), minute)
        for one in found.types:
            assert one.last_minute == last_minute.get(one.executor_type, Rates())
            assert one.last_hour == last_hour.get(one.executor_type, Rates())
            times = self._times(one.executor_type, minute)
            assert (one.wait_ms, one.run_ms) == (times[0], times[1])
        assert set(last_hour) <= {one.executor_type for one in found.types}

    def _between(self, since: datetime, until: datetime) -> list[dict[str, Any]]:
        return [line for line in self.lines.values() if since <= line["at"] < until]

    def _rates(self, since: datetime, until: datetime) -> dict[str, Rates]:
        steps: dict[str, Counter[str]] = defaultdict(Counter)
        for line in self._between(since, until):
            name = {2: "assigned", 3: "successful", 4: "failed", 5: "cancelled"}.get(line["to_state"])
            steps[line["executor_type"]][name or ("retried" if line["from_state"] else "submitted")] += 1
        return {one: Rates(**counter) for one, counter in steps.items()}

    def _times(self, executor_type: str, until: datetime) -> tuple[Quantiles, Quantiles]:
        hour = [one for one in self._between(until - timedelta(minutes=60), until) if one["executor_type"] == executor_type]
        waits = [line["took_ms"] for line in hour if line["to_state"] == State.RUNNING]
        runs = [line["took_ms"] for line in hour if line["from_state"] == State.RUNNING]
        return exact(waits), exact(runs)


def exact(values: Sequence[int]) -> Quantiles:
    """Quantiles from the values themselves, each rounded up to the end of its class."""
    ordered = sorted(values)
    if not ordered:
        return Quantiles()
    ranks = [-(-len(ordered) * percent // 100) for percent in (50, 90, 99)]
    return Quantiles(len(ordered), *(float(next(u for u in UPPERS if u >= ordered[rank - 1])) for rank in ranks))


numbers = itertools.count(1)
