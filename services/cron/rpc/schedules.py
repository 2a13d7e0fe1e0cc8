"""Schedules and policies: checked on their way in, and on their way out."""

from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from colonies.cron.v1 import cron_service_pb2 as pb
from servicekit.bounds import TEN_YEARS_MS, Bounds
from servicekit.clock import EPOCH
from services.cron.domain.cron import Missed, Overlap, Policy
from services.cron.domain.schedule import Expression, Interval, RandomInterval, Schedule, ScheduleError

MIN_INTERVAL_MS = 1_000
DAY_MS = 24 * 3600 * 1000
MAX_EXPRESSION_BYTES = 256
MAX_ZONE_BYTES = 64
MAX_RUNS = 1_000_000_000
MAX_MISSED = 1_000
MAX_FAILURES = 1_000
# Of timestamps: the years that a calendar is kept for; arithmetic on moments stays within what datetimes can hold.
FIRST_SECOND = 0
LAST_SECOND = 7_258_118_400
DEFAULTS = Policy()


def schedule_of(bounds: Bounds, field: str, message: pb.Schedule) -> Schedule | None:
    """A schedule, or None after a refusal."""
    refused = len(bounds.violations)
    when = _when_of(bounds, field, message)
    start = moment_of(bounds, f"{field}.start_time", message.start_time) if message.HasField("start_time") else None
    end = moment_of(bounds, f"{field}.end_time", message.end_time) if message.HasField("end_time") else None
    if start is not None and end is not None and end <= start:
        bounds.refuse(f"{field}.end_time", "must be after start_time")
    bounds.number(f"{field}.max_runs", message.max_runs, at_least=0, at_most=MAX_RUNS)
    bounds.number(f"{field}.jitter_ms", message.jitter_ms, at_least=0, at_most=DAY_MS)
    if when is None or len(bounds.violations) > refused:
        return None
    return Schedule(when, start=start, end=end, max_runs=message.max_runs, jitter_ms=message.jitter_ms)


def _when_of(bounds: Bounds, field: str, message: pb.Schedule) -> Expression | Interval | RandomInterval | None:
    when = message.WhichOneof("when")
    if message.time_zone and when != "expression":
        bounds.refuse(f"{field}.time_zone", "must be empty without an expression: intervals have no use for it")
    match when:
        case "expression":
            return _expression_of(bounds, field, message)
        case "interval_ms":
            bounds.number(f"{field}.interval_ms", message.interval_ms, at_least=MIN_INTERVAL_MS, at_most=TEN_YEARS_MS)
            return Interval(message.interval_ms)
        case "random_interval_ms":
            milliseconds = message.random_interval_ms
            bounds.number(f"{field}.random_interval_ms", milliseconds, at_least=MIN_INTERVAL_MS, at_most=TEN_YEARS_MS)
            return RandomInterval(milliseconds)
        case None:
            bounds.refuse(field, "must have an expression, an interval_ms or a random_interval_ms")
            return None


def _expression_of(bounds: Bounds, field: str, message: pb.Schedule) -> Expression | None:
    refused = len(bounds.violations)
    bounds.printable(f"{field}.expression", message.expression, at_most=MAX_EXPRESSION_BYTES)
    bounds.printable(f"{field}.time_zone", message.time_zone, at_most=MAX_ZONE_BYTES, optional=True)
    if len(bounds.violations) > refused:
        return None
    try:
        return Expression.parse(message.expression, message.time_zone)
    except ScheduleError as error:
        bounds.refuse(f"{field}.{error.field}", str(error))
        return None


def moment_of(bounds: Bounds, field: str, message: Timestamp) -> datetime:
    """A moment in whole milliseconds, rounded down."""
    refused = len(bounds.violations)
    bounds.number(f"{field}.seconds", message.seconds, at_least=FIRST_SECOND, at_most=LAST_SECOND)
    bounds.number(f"{field}.nanos", message.nanos, at_least=0, at_most=999_999_999)
    if len(bounds.violations) > refused:
        return EPOCH
    return EPOCH + timedelta(seconds=message.seconds, milliseconds=message.nanos // 1_000_000)


def policy_of(bounds: Bounds, field: str, message: pb.FirePolicy) -> Policy:
    """A policy, with what is left out filled in. Nothing to be used after a refusal."""
    refused = len(bounds.violations)
    bounds.number(f"{field}.overlap", message.overlap, at_least=0, at_most=max(Overlap))
    bounds.number(f"{field}.missed", message.missed, at_least=0, at_most=max(Missed))
    bounds.number(f"{field}.missed_at_most", message.missed_at_most, at_least=0, at_most=MAX_MISSED)
    bounds.number(f"{field}.max_failures", message.max_failures, at_least=0, at_most=MAX_FAILURES)
    if message.missed_after_ms:
        bounds.number(f"{field}.missed_after_ms", message.missed_after_ms, at_least=1_000, at_most=DAY_MS)
    if len(bounds.violations) > refused:
        return DEFAULTS
    return Policy(
        overlap=Overlap(message.overlap) if message.overlap else DEFAULTS.overlap,
        missed=Missed(message.missed) if message.missed else DEFAULTS.missed,
        missed_at_most=message.missed_at_most or DEFAULTS.missed_at_most,
        missed_after_ms=message.missed_after_ms or DEFAULTS.missed_after_ms,
        feed_outputs=message.feed_outputs,
        max_failures=message.max_failures or DEFAULTS.max_failures,
    )


def schedule_message(schedule: Schedule) -> pb.Schedule:
    """A schedule on its way out."""
    message = pb.Schedule(max_runs=schedule.max_runs, jitter_ms=schedule.jitter_ms)
    match schedule.when:
        case Expression():
            message.expression = schedule.when.text
            message.time_zone = schedule.when.time_zone
        case Interval():
            message.interval_ms = schedule.when.milliseconds
        case RandomInterval():
            message.random_interval_ms = schedule.when.milliseconds
    if schedule.start is not None:
        message.start_time.FromDatetime(schedule.start)
    if schedule.end is not None:
        message.end_time.FromDatetime(schedule.end)
    return message


def policy_message(policy: Policy) -> pb.FirePolicy:
    """A policy on its way out, with nothing left out."""
    return pb.FirePolicy(
        overlap=policy.overlap,  # type: ignore[arg-type]  # numbered alike
        missed=policy.missed,  # type: ignore[arg-type]  # numbered alike
        missed_at_most=policy.missed_at_most,
        missed_after_ms=policy.missed_after_ms,
        feed_outputs=policy.feed_outputs,
        max_failures=policy.max_failures,
    )
