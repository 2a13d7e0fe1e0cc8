"""Requests checked and turned into the domain's words, and the domain's results into messages."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec
from servicekit import cursors
from servicekit.bounds import checked
from servicekit.clock import unix_ms
from services.cron.domain.cron import Cron, Fire, NewCron, Outcome, State
from services.cron.domain.schedule import Schedule
from services.cron.rpc import schedules

MAX_PREVIEW = 1_000
DEFAULT_PREVIEW = 10


class Page(NamedTuple):
    """Which part of a list: at most `limit`, beginning after a name."""

    after: str
    limit: int


class FiresPage(NamedTuple):
    """Which fires: of a cron, beginning after one of them, of these outcomes (none: all)."""

    name: str
    before: UUID | None
    outcomes: Collection[Outcome]
    limit: int


class Preview(NamedTuple):
    """Whose moments: a cron's, by name, or those of a schedule."""

    of: str | Schedule
    after: datetime | None
    most: int


def new_cron(request: pb.AddCronRequest | pb.UpdateCronRequest) -> NewCron:
    """What is to be kept. The workflow itself is the scheduler's to check."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
        schedule = schedules.schedule_of(bounds, "schedule", request.schedule)
        policy = schedules.policy_of(bounds, "policy", request.policy)
    assert schedule is not None
    # Deterministic: maps have no order, and the same content must be the same bytes.
    return NewCron(request.name, schedule, policy, request.workflow.SerializeToString(deterministic=True))


def cron_name(
    request: pb.GetCronRequest | pb.PauseCronRequest | pb.ResumeCronRequest | pb.RemoveCronRequest,
) -> str:
    """Which cron."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
    return request.name


def run_of(request: pb.RunCronRequest) -> tuple[str, str]:
    """Which cron, and the run's request id."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
        bounds.request_id("request_id", request.request_id)
    return request.name, request.request_id


def page_of(request: pb.ListCronsRequest) -> Page:
    """Which part of the list."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        limit = bounds.page("page_size", request.page_size)
    if not request.cursor:
        return Page("", limit)
    (after,) = cursors.decode("cursor", request.cursor, str)
    return Page(after, limit)


def fires_page_of(request: pb.ListFiresRequest) -> FiresPage:
    """Which fires."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
        limit = bounds.page("page_size", request.page_size)
        bounds.count("outcomes", request.outcomes, at_most=len(Outcome))
        for index, outcome in enumerate(request.outcomes[: len(Outcome)]):
            bounds.number(f"outcomes[{index}]", outcome, at_least=min(Outcome), at_most=max(Outcome))
    before = None
    if request.cursor:
        (text,) = cursors.decode("cursor", request.cursor, str)
        with checked() as bounds:
            before = bounds.uuid("cursor", text)
    return FiresPage(request.name, before, {Outcome(outcome) for outcome in request.outcomes}, limit)


def preview_of(request: pb.PreviewScheduleRequest) -> Preview:
    """Whose moments, and how many."""
    of: str | Schedule | None = None
    after = None
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        match request.WhichOneof("of"):
            case "name":
                bounds.name("name", request.name)
                of = request.name
            case "schedule":
                of = schedules.schedule_of(bounds, "schedule", request.schedule)
            case None:
                bounds.refuse("of", "must have a name or a schedule")
        bounds.number("count", request.count, at_least=0, at_most=MAX_PREVIEW)
        if request.HasField("after_time"):
            after = schedules.moment_of(bounds, "after_time", request.after_time)
    assert of is not None
    return Preview(of, after, request.count or DEFAULT_PREVIEW)


def cron_message(cron: Cron) -> pb.Cron:
    """A cron on its way out."""
    message = pb.Cron(
        cron_id=str(cron.cron_id),
        colony_name=cron.colony,
        name=cron.name,
        schedule=schedules.schedule_message(cron.schedule),
        initiator=cron.initiator,
        initiator_name=cron.initiator_name,
        created_time=timestamp(cron.created),
        next_fire_time=timestamp(cron.next_fire if cron.state is State.ACTIVE else None),
        last_fire_time=timestamp(cron.last_fire),
        last_workflow_id=_text(cron.last_workflow_id),
        last_error=cron.last_error,
        policy=schedules.policy_message(cron.policy),
        state=cron.state,  # type: ignore[arg-type]  # numbered alike
        pause_reason=cron.pause_reason,
        runs=cron.runs,
        failures=cron.failures,
        description=cron.schedule.describe(),
    )
    if cron.pending is not None and cron.pending.outcome is Outcome.PENDING:
        message.pending.CopyFrom(fire_message(cron.pending))
    if cron.workflow:
        message.workflow.CopyFrom(WorkflowSpec.FromString(cron.workflow))
    return message


def fire_message(fire: Fire) -> pb.Fire:
    """A fire on its way out."""
    fire_id = str(fire.fire_id)
    return pb.Fire(
        fire_id=fire_id,
        kind=fire.kind,  # type: ignore[arg-type]  # numbered alike
        due_time=timestamp(fire.due),
        fired_time=timestamp(fire.fired),
        outcome=fire.outcome,  # type: ignore[arg-type]  # numbered alike
        workflow_id=fire_id if fire.outcome is Outcome.SUBMITTED else "",
        error=fire.error,
        moments=fire.moments,
        delay_ms=0 if fire.fired is None else max(0, unix_ms(fire.fired) - unix_ms(fire.due)),
        tries=fire.tries,
    )


def page_message(crons: Sequence[Cron], *, more: bool) -> pb.ListCronsResponse:
    """A page on its way out."""
    cursor = cursors.encode((crons[-1].name,)) if more else ""
    return pb.ListCronsResponse(crons=map(cron_message, crons), next_cursor=cursor)


def fires_message(fires: Sequence[Fire], *, more: bool) -> pb.ListFiresResponse:
    """A page on its way out."""
    cursor = cursors.encode((str(fires[-1].fire_id),)) if more else ""
    return pb.ListFiresResponse(fires=map(fire_message, fires), next_cursor=cursor)


def preview_message(moments: Sequence[datetime], description: str) -> pb.PreviewScheduleResponse:
    """Moments on their way out."""
    message = pb.PreviewScheduleResponse(description=description)
    for moment in moments:
        message.fire_times.add().FromDatetime(moment)
    return message


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment on its way out."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _text(each: UUID | None) -> str:
    return "" if each is None else str(each)
