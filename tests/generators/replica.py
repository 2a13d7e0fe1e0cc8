"""A replica's generators without their gRPC: real Postgres, real Redis, the test's clock and the test's scheduler."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from servicekit import redis
from servicekit.caller import Caller, Member, Role
from servicekit.clock import Clock, ManualClock, datetime_of
from servicekit.failures import Failure
from servicekit.postgres import Database
from servicekit.signature import Signed
from services.cron.domain.dispatch import Dispatch
from services.cron.domain.due import DueLoop
from services.cron.domain.generator import Argument, Batch, Generator, Launchable, NewGenerator, Pack, Room
from services.cron.domain.generator_ports import DispatchStore
from services.cron.domain.generator_upkeep import GeneratorUpkeep
from services.cron.domain.generators import Generators
from services.cron.domain.packing import Trigger
from services.cron.domain.ports import Launch, WorkflowSubmitter
from services.cron.domain.telling import Telling
from services.cron.queue.timers import RedisTimers
from services.cron.store.dispatches import PostgresDispatchStore
from services.cron.store.generator_sweeps import PostgresGeneratorSweeps
from services.cron.store.generators import PostgresGeneratorStore
from services.cron.store.packs import PostgresPackStore
from tests.cron.fakes import OWNER, Crash, FakeScheduler

LEASE_S = 5.0
RETENTION = timedelta(days=30)
WORKFLOW = b"\x12\x01w"
ROOM = Room(arguments=1_000, size=1_000_000, keys=50)
_SIGNED = Signed(key="", method="", public_key="", time_ms=0, nonce="", signature="", body=b"", text=b"")


def caller(identity: str = OWNER, *, colony: str = "dev", owns_all: bool = False) -> Caller:
    """A member who calls."""
    member = Member(identity, Role.USER, "alice")
    return Caller(identity, colony, Role.USER, "alice", member, owns_all, _SIGNED)


def arguments(*texts: str, key: str = "", size: int = 1) -> list[Argument]:
    """Arguments whose values are these texts."""
    return [Argument(key, text.encode(), size) for text in texts]


def pack(request_id: str, *packed: Argument, name: str = "g", sender: str = OWNER, colony: str = "dev") -> Pack:
    """A call's pack."""
    return Pack.of(colony, name, sender=sender, request_id=request_id, arguments=packed)


@dataclass
class GeneratorReplica:
    """What the composition root puts together.

    Attributes:
        made: batches, as the metrics were told.
        waited: seconds that the first arguments of submitted batches waited.
        waiting: as the metrics were told.
    """

    database: Database
    client: redis.Client
    scheduler: FakeScheduler
    clock: ManualClock
    real_clock: Clock | None = None
    dispatch_store: DispatchStore | None = None
    submitter: WorkflowSubmitter | None = None
    room: Room = ROOM

    def __post_init__(self) -> None:
        self.made: list[Batch] = []
        self.waited: list[float] = []
        self.waiting: list[int] = []
        clock: Clock = self.real_clock or self.clock
        submitter: WorkflowSubmitter = self.submitter or self.scheduler
        index = PostgresDispatchStore(self.database)
        self.dispatches: DispatchStore = self.dispatch_store or index
        self.dispatch = Dispatch(
            self.dispatches, submitter, clock, lease_s=LEASE_S, on_cut=self.made.extend, on_submitted=self._submitted
        )
        self.loop = DueLoop(
            "dispatches", RedisTimers(self.client, "generators"), index, self.dispatch.work, clock, lease_s=LEASE_S, batch=4
        )
        self.telling = Telling(self.loop, clock)
        self.packs = PostgresPackStore(self.database)
        self.store = PostgresGeneratorStore(self.database)
        self.sweeps = PostgresGeneratorSweeps(self.database)
        self.upkeep = GeneratorUpkeep(self.sweeps, clock, keep_batches=RETENTION, on_waiting=self.waiting.append)
        self.generators = Generators(
            self.store, self.packs, submitter, clock, room=self.room, on_made=self.made.extend,
            on_look=self.telling, on_dropped=self.upkeep.wake, on_packed=lambda _: None,
        )  # fmt: skip

    def _submitted(self, batches: Sequence[Batch], now: datetime) -> None:
        self.waited += [(now - batch.oldest).total_seconds() for batch in batches]

    async def add(
        self, name: str = "g", *, max_count: int = 3, timeout_ms: int = 0, max_bytes: int = 1_000, colony: str = "dev",
        workflow: bytes = WORKFLOW,
    ) -> Generator:  # fmt: skip
        """A generator of the owner's."""
        new = NewGenerator(name, Trigger(max_count, timeout_ms, max_bytes), Launchable(workflow, 1, 1))
        return await self.generators.add(caller(colony=colony), new)

    async def pack(self, request_id: str, *texts: str, key: str = "", size: int = 1, **names: str) -> int:
        """Packs these texts."""
        return await self.generators.pack(pack(request_id, *arguments(*texts, key=key, size=size), **names))

    async def work(self) -> None:
        """Looks until nothing is due, once the timers know what was committed."""
        while self.telling._task is not None:
            await self.telling._task
        while await self.loop.step() == 0:
            pass

    async def crash(self) -> None:
        """Looks until nothing is due, or it dies."""
        with suppress(Crash):
            await self.work()

    async def pass_time(self, *, seconds: float, step_s: float = 1.0) -> None:
        """Lets time pass, and does what comes due on the way."""
        left = seconds
        while left > 0:
            self.clock.advance(seconds=min(step_s, left))
            left -= step_s
            await self.work()

    async def found(self, name: str = "g", colony: str = "dev") -> Generator:
        """As it is now."""
        return await self.generators.get(colony, name)

    async def batches(self, name: str = "g") -> list[Batch]:
        """All batches, in order."""
        batches, more = await self.generators.batches("dev", name, before=2**62, limit=100_000, unsubmitted=False)
        assert not more
        return batches[::-1]

    def now(self) -> datetime:
        """By the test's clock."""
        return datetime_of(self.clock.now_ns())

    def submitted(self) -> list[list[str]]:
        """The arguments of what was submitted, in that order."""
        return [[bytes(value).decode() for value in launch.arguments] for launch in self.scheduler.launches]


class RefusingScheduler(FakeScheduler):
    """Refuses calls that hold one of these arguments, as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.disliked: dict[bytes, Failure] = {}
        self.at_most = 1_000
        self.too_many: Failure | None = None

    async def submit_all(self, *, colony: str, account: str, launches: Sequence[Launch]) -> None:
        if self.too_many is not None and len(launches) > self.at_most:
            self.calls.append(len(launches))
            raise self.too_many
        for launch in launches:
            for value in launch.arguments:
                if value in self.disliked:
                    self.calls.append(len(launches))
                    raise self.disliked[value]
        await super().submit_all(colony=colony, account=account, launches=launches)


# Counters of rows that do not fit the rows that they count.
MISCOUNTED = """
SELECT g.name, g.waiting, g.waiting_bytes, g.bins, g.unsubmitted, g.batched, g.batched_bytes, b.*, m.*, a.*
FROM generator AS g
CROSS JOIN LATERAL (
  SELECT COALESCE(sum(count), 0) AS bin_count, COALESCE(sum(bytes), 0) AS bin_bytes, count(*) AS bin_rows
  FROM bin WHERE generator_id = g.id
) AS b
CROSS JOIN LATERAL (
  SELECT count(*) AS batch_rows, COALESCE(sum(count), 0) AS batch_count, COALESCE(sum(bytes), 0) AS batch_bytes
  FROM batch WHERE generator_id = g.id AND submitted_at IS NULL
) AS m
CROSS JOIN LATERAL (
  SELECT count(*) AS argument_rows, COALESCE(sum(size), 0) AS argument_bytes
  FROM argument AS a
  WHERE generator_id = g.id AND NOT EXISTS (
    SELECT FROM dropped AS d
    WHERE d.generator_id = g.id AND d.key = a.key AND a.sequence BETWEEN d.first_sequence AND d.last_sequence
  )
) AS a
WHERE g.removed_at IS NULL AND (
  g.waiting <> bin_count OR g.waiting_bytes <> bin_bytes OR g.bins <> bin_rows OR g.unsubmitted <> batch_rows
  OR g.batched <> batch_count OR g.batched_bytes <> batch_bytes OR argument_rows <> bin_count + batch_count
  OR argument_bytes <> bin_bytes + batch_bytes
)
"""
# Bins and unsubmitted batches that do not hold just the arguments that they say.
MISPLACED = """
SELECT r.*
FROM (
  SELECT generator_id, key, first_sequence, last_sequence, count, oldest_at FROM bin
  UNION ALL
  SELECT generator_id, key, first_sequence, last_sequence, count, oldest_at FROM batch WHERE submitted_at IS NULL
) AS r
CROSS JOIN LATERAL (
  SELECT count(*) AS found, min(sequence) AS first, max(sequence) AS last, min(packed_at) AS oldest
  FROM argument AS a
  WHERE a.generator_id = r.generator_id AND a.key = r.key AND a.sequence BETWEEN r.first_sequence AND r.last_sequence
) AS a
WHERE found <> r.count OR first <> r.first_sequence OR last <> r.last_sequence OR oldest <> r.oldest_at
"""


async def check_rows(database: Database) -> None:
    """Every counter counts its rows, and every range holds its arguments."""
    assert not await database.statement(MISCOUNTED)
    assert not await database.statement(MISPLACED)


async def rows(database: Database, table: str) -> int:
    """How many rows a table has."""
    (row,) = await database.statement(f"SELECT count(*) AS count FROM {table}")
    return int(row["count"])


async def row_of(database: Database, generator_id: UUID) -> Mapping[str, Any]:
    """A generator's row."""
    (row,) = await database.statement("SELECT * FROM generator WHERE id = %(id)s", {"id": generator_id})
    return row
