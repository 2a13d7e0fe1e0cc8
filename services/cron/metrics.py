"""Metrics of the cron service, beside those that every service has."""

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

from services.cron.domain.generator import Batch

FIRES = Counter(
    "colonies_cron_fires_total",
    "Fires, by how they ended; pending and waiting ones each time that they are put off.",
    ["outcome"],
)
LATE_SECONDS = Histogram(
    "colonies_cron_late_seconds",
    "Time from a scheduled moment to its workflow's submission, in seconds.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600),
)

PACKS = Counter("colonies_generator_packs_total", "Packs that were answered; repeated ones count.")
ARGUMENTS = Counter("colonies_generator_arguments_total", "Arguments of those packs.")
BATCHES = Counter("colonies_generator_batches_total", "Batches that were made, by why.", ["reason"])
SUBMITTED = Counter("colonies_generator_submitted_total", "Batches that became workflows.")
WAIT_SECONDS = Histogram(
    "colonies_generator_wait_seconds",
    "Time from a batch's first argument to its workflow's submission, in seconds.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600, 3600),
)
WAITING = Gauge("colonies_generator_waiting_arguments", "Arguments of all generators that are in no workflow yet.")


def observe_fire(outcome: str, late_s: float) -> None:
    """Counts a fire."""
    FIRES.labels(outcome).inc()
    if outcome == "submitted":
        LATE_SECONDS.observe(late_s)


def observe_pack(arguments: int) -> None:
    """Counts a pack."""
    PACKS.inc()
    ARGUMENTS.inc(arguments)


def observe_batches(batches: Sequence[Batch]) -> None:
    """Counts batches that were made."""
    for batch in batches:
        BATCHES.labels(batch.reason.name.lower()).inc()


def observe_submitted(batches: Sequence[Batch], now: datetime) -> None:
    """Counts batches that became workflows."""
    SUBMITTED.inc(len(batches))
    for batch in batches:
        WAIT_SECONDS.observe((now - batch.oldest).total_seconds())


def observe_waiting(arguments: int) -> None:
    """Keeps how many arguments wait."""
    WAITING.set(arguments)
