"""How long to measure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """What a repetition is, and how many there are. Five or more: a median of fewer says little."""

    repetitions: int
    # Of a repetition of a rate.
    seconds: float
    # Of a repetition of a limit.
    limit_seconds: float
    # Single submits in a repetition of the idle latency.
    idle_submits: int
    # Functions in a repetition of cycle_sdk.
    sdk_functions: int
    # Assigned on each side in a repetition of assign_depth and assign_named.
    assigns: int
    # Of a repetition of what idle crons cost.
    idle_seconds: float
    # Batches of crons in a repetition of cron_claim.
    claims: int
    # How many wait where many do. As many at any effort, else it would be another figure.
    waiting: int = 1_000_000


FULL = Effort(
    repetitions=7,
    seconds=2.0,
    limit_seconds=0.5,
    idle_submits=100,
    sdk_functions=10_000,
    assigns=100,
    idle_seconds=30 / 7,
    claims=50,
)
QUICK = Effort(
    repetitions=5, seconds=0.35, limit_seconds=0.08, idle_submits=20, sdk_functions=500, assigns=20, idle_seconds=0.5, claims=10
)
