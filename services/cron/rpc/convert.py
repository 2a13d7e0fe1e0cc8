"""Requests checked and turned into the domain's words, and the domain's results into messages."""

from datetime import datetime
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec
from servicekit import cursors
from servicekit.bounds import TEN_YEARS_MS, Bounds, checked
from services.cron.domain.cron import Cron, NewCron
from services.cron.domain.schedule import Expression, Interval, Schedule, ScheduleError

MIN_INTERVAL_MS = 1_000
MAX_EXPRESSION_BYTES = 256


class Page(NamedTuple):
    """Which part of a list: at most `limit`, beginning after a name."""

    after: str
    limit: int


def new_cron(request: pb.AddCronRequest) -> NewCron:
    """What AddCron asks for. The workflow itself is the scheduler's to check."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
        schedule = _schedule(bounds, request.schedule)
    assert schedule is not None
    # Deterministic: maps have no order, and the same content must be the same bytes.
    return NewCron(request.name, schedule, request.workflow.SerializeToString(deterministic=True))


def _schedule(bounds: Bounds, schedule: pb.Schedule) -> Schedule | None:
    """The schedule, or None after a refusal."""
    when = schedule.WhichOneof("when")
    if when is None:
        bounds.refuse("schedule", "must have an expression or an interval_ms")
        return None
    if when == "interval_ms":
        bounds.number("schedule.interval_ms", schedule.interval_ms, at_least=MIN_INTERVAL_MS, at_most=TEN_YEARS_MS)
        return Interval(schedule.interval_ms)
    refused = len(bounds.violations)
    bounds.printable("schedule.expression", schedule.expression, at_most=MAX_EXPRESSION_BYTES)
    if len(bounds.violations) > refused:
        return None
    try:
        return Expression.parse(schedule.expression)
    except ScheduleError as error:
        bounds.refuse("schedule.expression", str(error))
        return None


def cron_name(request: pb.GetCronRequest | pb.RemoveCronRequest) -> str:
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


def cron_message(cron: Cron) -> pb.Cron:
    """A cron on its way out."""
    message = pb.Cron(
        cron_id=str(cron.cron_id),
        colony_name=cron.colony,
        name=cron.name,
        schedule=_schedule_message(cron.schedule),
        initiator=cron.initiator,
        initiator_name=cron.initiator_name,
        created_time=_timestamp(cron.created),
        next_fire_time=_timestamp(cron.next_fire),
        last_fire_time=_timestamp(cron.last_fire),
        last_workflow_id=cron.last_workflow_id,
        last_error=cron.last_error,
    )
    if cron.workflow:
        message.workflow.CopyFrom(WorkflowSpec.FromString(cron.workflow))
    return message


def page_message(crons: list[Cron], *, more: bool) -> pb.ListCronsResponse:
    """A page on its way out."""
    cursor = cursors.encode((crons[-1].name,)) if more else ""
    return pb.ListCronsResponse(crons=map(cron_message, crons), next_cursor=cursor)


def _schedule_message(schedule: Schedule) -> pb.Schedule:
    if isinstance(schedule, Interval):
        return pb.Schedule(interval_ms=schedule.milliseconds)
    return pb.Schedule(expression=schedule.text)


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
