"""Rows of the tables of crons, as the domain's records, and back."""

from collections.abc import Mapping
from typing import Any

from psycopg.rows import DictRow

from services.cron.domain.cron import Cron, Fire, Kind, Missed, Outcome, Overlap, Policy, State
from services.cron.domain.schedule import Expression, Interval, RandomInterval, Schedule


def schedule_values(schedule: Schedule) -> Mapping[str, Any]:
    """A schedule's columns."""
    when = schedule.when
    return {
        "expression": when.text if isinstance(when, Expression) else None,
        "time_zone": when.time_zone if isinstance(when, Expression) else "",
        "interval_ms": when.milliseconds if isinstance(when, Interval) else None,
        "random_interval_ms": when.milliseconds if isinstance(when, RandomInterval) else None,
        "start_at": schedule.start,
        "end_at": schedule.end,
        "max_runs": schedule.max_runs,
        "jitter_ms": schedule.jitter_ms,
    }


def policy_values(policy: Policy) -> Mapping[str, Any]:
    """A policy's columns."""
    return {
        "overlap": policy.overlap,
        "missed": policy.missed,
        "missed_at_most": policy.missed_at_most,
        "missed_after_ms": policy.missed_after_ms,
        "feed_outputs": policy.feed_outputs,
        "max_failures": policy.max_failures,
    }


def _schedule_of(row: DictRow) -> Schedule:
    when: Expression | Interval | RandomInterval
    if row["expression"] is not None:
        when = Expression(row["expression"], row["time_zone"])
    elif row["interval_ms"] is not None:
        when = Interval(row["interval_ms"])
    else:
        when = RandomInterval(row["random_interval_ms"])
    return Schedule(when, start=row["start_at"], end=row["end_at"], max_runs=row["max_runs"], jitter_ms=row["jitter_ms"])


def cron_of(row: DictRow, pending: Fire | None) -> Cron:
    """A cron; `pending` is the fire that its row names."""
    return Cron(
        cron_id=row["id"],
        colony=row["colony"],
        name=row["name"],
        schedule=_schedule_of(row),
        policy=Policy(
            overlap=Overlap(row["overlap"]),
            missed=Missed(row["missed"]),
            missed_at_most=row["missed_at_most"],
            missed_after_ms=row["missed_after_ms"],
            feed_outputs=row["feed_outputs"],
            max_failures=row["max_failures"],
        ),
        workflow=bytes(row["workflow"]),
        workflow_bytes=row["workflow_bytes"],
        initiator=row["initiator"],
        initiator_name=row["initiator_name"],
        created=row["created_at"],
        since=row["since"],
        next_fire=row["next_fire_at"],
        next_due=row["next_due_at"],
        state=State(row["state"]),
        pause_reason=row["pause_reason"],
        version=row["version"],
        acted_until=row["acted_until"],
        catch_up_until=row["catch_up_until"],
        pending=pending,
        runs=row["runs"],
        failures=row["failures"],
        last_fire=row["last_fire_at"],
        last_workflow_id=row["last_workflow_id"],
        last_error=row["last_error"],
        fed_from=row["fed_from"],
    )


def fire_of(row: DictRow) -> Fire:
    """A fire."""
    return Fire(
        fire_id=row["id"],
        due=row["due_at"],
        kind=Kind(row["kind"]),
        outcome=Outcome(row["outcome"]),
        moments=row["moments"],
        tries=row["tries"],
        limited=row["limited"],
        waits_for=row["waits_for"],
        error=row["error"],
        fired=row["fired_at"],
    )
