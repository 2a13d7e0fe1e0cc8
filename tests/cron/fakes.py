"""Stand-ins for the scheduler, and crons, for tests of the store and of the loop."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from servicekit.clock import ManualClock, datetime_of
from servicekit.failures import Failure
from services.cron.domain.cron import Cron
from services.cron.domain.schedule import Interval, Schedule

OWNER = "0a" * 32


class FakeScheduler:
    """A WorkflowSubmitter that keeps what it got: like the real one, once for each request id.

    Attributes:
        entered: workflow ids by account and request id.
        asked: how often each request id came.
        refusal: raised by every call while it is set.
        hold: when set, submits wait for this event after they have entered.
    """

    def __init__(self) -> None:
        self.entered: dict[tuple[str, str], str] = {}
        self.asked: Counter[str] = Counter()
        self.refusal: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.came = asyncio.Event()

    @property
    def request_ids(self) -> list[str]:
        """Of what was entered, in that order."""
        return [request_id for _, request_id in self.entered]

    async def check(self, *, colony: str, workflow: bytes, account: str) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def submit(self, *, colony: str, request_id: str, workflow: bytes, account: str) -> str:
        self.asked[request_id] += 1
        if self.refusal is not None:
            self.came.set()
            raise self.refusal
        workflow_id = self.entered.setdefault((account, request_id), str(uuid4()))
        self.came.set()
        if self.hold is not None:
            await self.hold.wait()
        return workflow_id


class Crash(BaseException):
    """The end of a process in the middle of a fire."""


def failing(kind: type[Failure], reason: str, message: str = "no") -> Failure:
    """A failure of this kind."""
    return kind(message, reason=reason)


def cron_at(
    clock: ManualClock,
    *,
    name: str = "c",
    colony: str = "dev",
    schedule: Schedule | None = None,
    cron_id: UUID | None = None,
) -> Cron:
    """A cron added now; every ten seconds unless said otherwise."""
    created = datetime_of(clock.now_ns())
    schedule = schedule or Interval(10_000)
    return Cron(
        cron_id=cron_id or uuid4(),
        colony=colony,
        name=name,
        schedule=schedule,
        workflow=b"\x12\x01w",
        initiator=OWNER,
        initiator_name="alice",
        created=created,
        next_fire=schedule.next_after(created, created=created),
    )


def later(cron: Cron, *, seconds: float) -> datetime:
    """A moment after the cron was added."""
    return cron.created + timedelta(seconds=seconds)
