"""What people see of crons and their fires."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from colonies.cli.moments import in_zone, local_if_set, span, span_ms, zoned, zoned_if_set
from colonies.cli.output import Cell, print_table
from colonies.cli.views import call_text, coloured
from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.schedules import MISSED, OVERLAPS

CRON_COLUMNS = ("Cron", "State", "When", "Next", "Last", "Runs", "For", "Remark")
FIRE_COLUMNS = ("Due", "Outcome", "Why", "Delay", "Moments", "Tries", "Workflow", "Error")

_MISSED_AT_MOST = 100
_MISSED_AFTER_MS = 10_000
_MAX_FAILURES = 10


def when_text(schedule: cron.Schedule) -> str:
    """A schedule as short as it was written."""
    match schedule.WhichOneof("when"):
        case "interval_ms":
            return f"every {span_ms(schedule.interval_ms)}"
        case "random_interval_ms":
            return f"at random every {span_ms(schedule.random_interval_ms)}"
    return f"{schedule.expression} {schedule.time_zone}".rstrip()


def state(each: cron.Cron) -> Text:
    """Whether it fires."""
    return coloured(cron.CronState.Name(each.state).removeprefix("CRON_STATE_").lower())


def outcome_text(fire: cron.Fire) -> Text:
    """What became of a fire."""
    return coloured(cron.FireOutcome.Name(fire.outcome).removeprefix("FIRE_OUTCOME_").lower())


def runs_text(each: cron.Cron) -> str:
    """How many workflows it submitted, and of how many if that is bounded."""
    most = each.schedule.max_runs
    return f"{each.runs} of {most}" if most else str(each.runs)


def cron_row(each: cron.Cron) -> Sequence[Cell]:
    """A cron as a row under CRON_COLUMNS."""
    return (
        each.name,
        state(each),
        when_text(each.schedule),
        local_if_set(each, "next_fire_time") or "never",
        local_if_set(each, "last_fire_time"),
        runs_text(each),
        each.initiator_name or each.initiator,
        each.pause_reason or each.last_error,
    )


def fire_row(fire: cron.Fire) -> Sequence[Cell]:
    """A fire as a row under FIRE_COLUMNS."""
    return (
        zoned_if_set(fire, "due_time"),
        outcome_text(fire),
        cron.FireKind.Name(fire.kind).removeprefix("FIRE_KIND_").lower(),
        _delay(fire),
        str(fire.moments),
        str(fire.tries),
        fire.workflow_id,
        fire.error,
    )


def _delay(fire: cron.Fire) -> str:
    """How late it came to its end; how late it is already, if it has not."""
    if fire.HasField("fired_time"):
        return span(fire.delay_ms / 1000)
    late = (datetime.now(UTC) - fire.due_time.ToDatetime(tzinfo=UTC)).total_seconds()
    return f"{span(late)} so far" if late > 0 else ""


def cron_fields(each: cron.Cron) -> list[tuple[str, Cell]]:
    """All that there is to say of a cron."""
    schedule, policy = each.schedule, each.policy
    pending = each.pending if each.HasField("pending") else None
    return [
        ("Cron", each.name),
        ("Id", each.cron_id),
        ("State", state(each)),
        ("Paused", each.pause_reason),
        ("When", when_text(schedule)),
        ("In words", each.description),
        ("Starts", zoned_if_set(schedule, "start_time")),
        ("Ends", zoned_if_set(schedule, "end_time")),
        ("Jitter", f"below {span_ms(schedule.jitter_ms)}" if schedule.jitter_ms else ""),
        ("If one is open", _word(OVERLAPS, policy.overlap, "allow")),
        ("If missed", _missed(policy)),
        ("Feeds outputs", "to the next run" if policy.feed_outputs else ""),
        ("Refused in a row", f"{each.failures} of {policy.max_failures or _MAX_FAILURES}, then it pauses"),
        ("Runs", runs_text(each)),
        ("Next", zoned_if_set(each, "next_fire_time") or "never"),
        ("Last", zoned_if_set(each, "last_fire_time")),
        ("Last workflow", each.last_workflow_id),
        ("Last error", each.last_error),
        ("Under way", f"due {zoned(pending.due_time)}, tried {pending.tries} times" if pending else ""),
        ("For", each.initiator_name or each.initiator),
        ("Added", zoned_if_set(each, "created_time")),
        ("Workflow", "\n".join(f"{node.node_name}: {call_text(node)}" for node in each.workflow.nodes)),
    ]


def _missed(policy: cron.FirePolicy) -> str:
    after = f"after {span_ms(policy.missed_after_ms or _MISSED_AFTER_MS)}"
    if policy.missed == cron.MISSED_POLICY_ALL:
        return f"all, at most {policy.missed_at_most or _MISSED_AT_MOST}, {after}"
    return f"{_word(MISSED, policy.missed, 'once')}, {after}"


def _word(words: Mapping[str, int], value: int, unset: str) -> str:
    return next((word for word, known in words.items() if known == value), unset if value == 0 else f"policy {value}")


def print_moments(moments: Sequence[Timestamp], time_zone: str, *, title: str = "") -> None:
    """Moments in the local zone, and in the schedule's own where this machine knows it."""
    if time_zone and any(in_zone(moment, time_zone) for moment in moments):
        rows = [(zoned(moment), in_zone(moment, time_zone)) for moment in moments]
        print_table(("Here", time_zone), rows, title=title, empty="never")
        return
    print_table(("Here",), [(zoned(moment),) for moment in moments], title=title, empty="never")
