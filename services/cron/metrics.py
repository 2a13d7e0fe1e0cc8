"""Metrics of the cron service, beside those that every service has."""

from prometheus_client import Counter, Histogram

FIRES = Counter("colonies_cron_fires_total", "Fires, by how they ended.", ["outcome"])
LATE_SECONDS = Histogram(
    "colonies_cron_late_seconds",
    "Time from a scheduled moment to its workflow's submission, in seconds.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600),
)


def observe_fire(outcome: str, late_s: float) -> None:
    """Counts a fire."""
    FIRES.labels(outcome).inc()
    if outcome == "submitted":
        LATE_SECONDS.observe(late_s)
