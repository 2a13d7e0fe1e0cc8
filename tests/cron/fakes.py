"""A stand-in for the scheduler, and what crons are made of, for tests of the store and of the loop."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from servicekit.clock import ManualClock, datetime_of
from servicekit.failures import AlreadyExists, Failure
from services.cron.domain.cron import Cron, Policy, State, due_of
from services.cron.domain.ports import Launch, Run
from services.cron.domain.schedule import Interval, Schedule, Timetable

OWNER = "0a" * 32
EVERY_TEN_SECONDS = Schedule(Interval(10_000))


class Crash(BaseException):
    """The end of a process in the middle of a fire."""


class FakeScheduler:
    """A WorkflowSubmitter that keeps what it got: like the real one, once for each request id, and all of a call or nothing.

    Attributes:
        entered: launches by account and request id, in the order in which they came in.
        asked: how often each request id came.
        calls: how many launches each call had.
        refusal: raised by every call while it is set.
        refused: raised for calls that hold a launch of this workflow.
        crash_after: a submit dies after it has entered everything.
        hold: when set, submits wait for this event after they have entered.
        cancelled: what was cancelled.
    """

    def __init__(self) -> None:
        self.entered: dict[tuple[str, str], Launch] = {}
        self.asked: Counter[str] = Counter()
        self.calls: list[int] = []
        self.refusal: Exception | None = None
        self.refused: dict[bytes, Exception] = {}
        self.crash_after = False
        self.hold: asyncio.Event | None = None
        self.came = asyncio.Event()
        self.cancelled: list[UUID] = []
        self._open: set[UUID] = set()
        self._outputs: dict[UUID, Sequence[bytes]] = {}

    @property
    def launches(self) -> list[Launch]:
        """What was entered, in that order."""
        return list(self.entered.values())

    @property
    def workflow_ids(self) -> list[UUID]:
        """Of what was entered, in that order."""
        return [launch.workflow_id for launch in self.launches]

    def end(self, workflow_id: UUID, *outputs: bytes, successful: bool = True) -> None:
        """Ends a workflow."""
        self._open.discard(workflow_id)
        if successful:
            self._outputs[workflow_id] = outputs

    def end_all(self) -> None:
        """Ends all workflows, successfully."""
        for workflow_id in list(self._open):
            self.end(workflow_id)

    async def check(self, *, colony: str, workflow: bytes, account: str) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def submit_all(self, *, colony: str, account: str, launches: Sequence[Launch]) -> None:
        self.calls.append(len(launches))
        self.asked.update(launch.request_id for launch in launches)
        self.came.set()
        if self.refusal is not None:
            raise self.refusal
        for launch in launches:
            if launch.workflow in self.refused:
                raise self.refused[launch.workflow]
            if self.entered.get((account, launch.request_id), launch) != launch:
                msg = f"{launch.request_id} was used for something else"
                raise AlreadyExists(msg, reason="REQUEST_ID_REUSED")
        for launch in launches:
            if (account, launch.request_id) not in self.entered:
                self.entered[account, launch.request_id] = launch
                self._open.add(launch.workflow_id)
        if self.crash_after:
            raise Crash
        if self.hold is not None:
            await self.hold.wait()

    async def runs(self, *, colony: str, workflow_ids: Sequence[UUID], outputs: bool) -> Mapping[UUID, Run]:
        if self.refusal is not None:
            raise self.refusal
        there = set(self.workflow_ids)
        return {
            each: Run(each in self._open, each in self._outputs, self._outputs.get(each, ()) if outputs else ())
            for each in workflow_ids
            if each in there
        }

    async def cancel(self, *, colony: str, account: str, workflow_id: UUID) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.cancelled.append(workflow_id)
        self._open.discard(workflow_id)


def failing(kind: type[Failure], reason: str, message: str = "no") -> Failure:
    """A failure of this kind."""
    return kind(message, reason=reason)


def cron_at(
    clock: ManualClock,
    *,
    name: str = "c",
    colony: str = "dev",
    schedule: Schedule = EVERY_TEN_SECONDS,
    policy: Policy | None = None,
    workflow: bytes = b"\x12\x01w",
    cron_id: UUID | None = None,
) -> Cron:
    """A cron added now; every ten seconds unless said otherwise."""
    created, cron_id = datetime_of(clock.now_ns()), cron_id or uuid4()
    timetable = Timetable(schedule, cron_id, created)
    following = timetable.next_after(created)
    return Cron(
        cron_id=cron_id,
        colony=colony,
        name=name,
        schedule=schedule,
        policy=policy or Policy(),
        workflow=workflow,
        workflow_bytes=len(workflow),
        initiator=OWNER,
        initiator_name="alice",
        created=created,
        since=created,
        next_fire=following,
        next_due=due_of(timetable, following),
        state=State.ACTIVE if following is not None else State.ENDED,
    )


def later(cron: Cron, *, seconds: float) -> datetime:
    """A moment after the cron was added."""
    return cron.created + timedelta(seconds=seconds)
