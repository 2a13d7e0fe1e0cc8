"""The figures: what each is held against, what it is to reach, and which case measures it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench import crons, depth, generators, loaded, replicas, trust
from bench.figures import (
    BYTES,
    COMMANDS_PER_S,
    CYCLES_PER_S,
    MB,
    MS,
    PACKS_PER_S,
    PERCENT,
    PROCESSES_PER_S,
    RATIO,
    SHARE,
    SPEED_UP,
    TRANSACTIONS_PER_S,
    Figure,
    Reach,
    Unit,
    figure,
)
from bench.limits import LIMIT_TEXTS, OWN_LIMITS, Limits
from bench.run import Run, Samples, check_whole

SAME = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """A figure's unit, its limit (how that comes about, in numbers and in words), and what it is to reach."""

    unit: Unit
    limit: Callable[[Limits], float]
    limit_is: str
    reach: Reach | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """What is run, for which figures. A case with a million waiting is left out of a quick run, unless it is named."""

    measure: Callable[[Run], Samples]
    figures: Mapping[str, Held] = field(default_factory=dict)
    has_million: bool = False


def _signed_commit_p99(limits: Limits) -> float:
    return limits.ms("limit_grpc_1_p99") + limits.ms("limit_ed25519") + limits.ms("limit_commit_1_p99")


# The order matters: what needs quiet comes first, what leaves tens of thousands of rows comes last. The million have
# installations of their own.
CASES: Sequence[Case] = (
    Case(
        loaded.idle,
        {
            "idle_p50": Held(MS, lambda limits: limits.signed_commit_ms, "one signed call and one commit", Reach(4)),
            "idle_p99": Held(
                MS,
                _signed_commit_p99,
                "the same, 99th percentiles",
                Reach(12),
            ),
        },
    ),
    Case(
        crons.idle,
        {
            **{
                f"cron_idle_{name}": Held(PERCENT, lambda limits: limits.of("limit_cron_idle_0", PERCENT), "without crons")
                for name in crons.IDLE
            },
            "cron_idle_commands": Held(
                COMMANDS_PER_S, lambda limits: limits.of("limit_cron_commands_0", COMMANDS_PER_S), "without crons"
            ),
            "cron_idle_statements": Held(
                TRANSACTIONS_PER_S, lambda limits: limits.of("limit_cron_statements_0", TRANSACTIONS_PER_S), "without crons"
            ),
        },
    ),
    Case(
        crons.claim,
        {
            f"cron_claim_{name}": Held(
                MS,
                lambda limits: limits.ms("limit_transaction") + limits.ms("limit_zrange_100"),
                "an empty transaction, and 100 members of a sorted set",
            )
            for name in crons.IDLE
        },
    ),
    Case(
        generators.filling,
        {
            "pack_to_workflow": Held(
                MS, lambda limits: 2 * limits.signed_commit_ms, "two signed calls, one after the other, and one commit each"
            )
        },
    ),
    Case(
        generators.packs,
        {
            "pack_p50": Held(MS, lambda limits: limits.signed_commit_ms, "one signed call and one commit"),
            "pack_p99": Held(MS, _signed_commit_p99, "the same, 99th percentiles"),
            "packs_1": Held(PACKS_PER_S, lambda limits: 1000 / limits.signed_commit_ms, "one signed call and one commit each"),
            "packs_16": Held(PACKS_PER_S, lambda limits: limits.per_s("limit_grpc_32"), "empty calls, 32 callers"),
        },
    ),
    Case(
        loaded.chain_100,
        {
            "chain_100": Held(
                MS,
                lambda limits: loaded.CHAIN * limits.signed_commit_ms,
                "one signed call and one commit a step",
                Reach(1_000),
            )
        },
    ),
    Case(
        loaded.fan_1000,
        {
            "fan_1000": Held(
                MS,
                lambda limits: 1000 * (loaded.FAN + 2) / limits.of("limit_tables_cycle", CYCLES_PER_S),
                "the statements of its processes in Postgres alone",
                Reach(1_000),
            )
        },
    ),
    Case(
        loaded.cycle_unary,
        {
            "cycle_unary": Held(
                CYCLES_PER_S,
                lambda limits: limits.per_s("limit_grpc_8") / 3,
                "three empty calls a cycle, 8 callers",
                Reach(300),
            )
        },
    ),
    Case(
        loaded.cycle_sdk,
        {
            "cycle_sdk": Held(
                CYCLES_PER_S,
                lambda limits: limits.of("limit_tables_cycle", CYCLES_PER_S),
                "the same statements in Postgres alone, 100 rows each",
                Reach(5_000, ratio=2),
            )
        },
    ),
    Case(
        replicas.replicas_2,
        {"replicas_2": Held(SPEED_UP, lambda _limits: 2.0, "two do twice as much")},
    ),
    Case(
        trust.trust,
        {
            "receipts_sdk": Held(SHARE, lambda _limits: SAME, "without receipts; load of cycle_sdk", Reach(0.85)),
            "receipts_unary": Held(SHARE, lambda _limits: SAME, "without receipts; load of cycle_unary", Reach(0.85)),
            "signed_sdk": Held(SHARE, lambda _limits: SAME, "without signatures and nonces; load of cycle_sdk"),
            "signed_unary": Held(SHARE, lambda _limits: SAME, "without signatures and nonces; load of cycle_unary"),
        },
    ),
    Case(
        loaded.submit_1,
        {
            "submit_1": Held(
                PROCESSES_PER_S,
                lambda limits: 1000 / limits.signed_commit_ms,
                "one signed call and one commit each",
                Reach(250),
            )
        },
    ),
    Case(
        loaded.submit_32,
        {
            "submit_32": Held(
                PROCESSES_PER_S, lambda limits: limits.per_s("limit_grpc_32"), "empty calls, 32 callers", Reach(800)
            )
        },
    ),
    Case(
        loaded.submit_dag_10k,
        {
            "submit_dag_10k": Held(
                MS,
                lambda limits: (
                    limits.ms("limit_grpc_1")
                    + limits.ms("limit_ed25519")
                    + loaded.DAG_LAYERS * loaded.DAG_WIDTH / 1000 * limits.ms("limit_commit_1000")
                ),
                "one signed call, and commits of 10 000 rows in all",
                Reach(2_000),
            )
        },
    ),
    Case(
        loaded.submit_batch,
        {
            "submit_batch": Held(
                PROCESSES_PER_S,
                lambda limits: limits.of("limit_tables_submit", PROCESSES_PER_S),
                "the same statements in Postgres alone, 100 rows each",
                Reach(15_000),
            )
        },
    ),
    Case(
        depth.depth,
        {
            "assign_depth": Held(RATIO, lambda _limits: SAME, "a million are no more than a thousand", Reach(1.2)),
            "rss_1m": Held(MB, lambda limits: limits.of("limit_rss_0", MB), "the same process before they waited", Reach(300)),
            "redis_bytes": Held(
                BYTES,
                lambda limits: limits.of("limit_zset_entry", BYTES),
                "a sorted set's entry with a member of 16 bytes",
                Reach(250),
            ),
        },
        has_million=True,
    ),
    Case(
        depth.named,
        {"assign_named": Held(RATIO, lambda _limits: SAME, "a million are no more than none", Reach(1.2))},
        has_million=True,
    ),
)

# In the order in which they are spoken of.
NAMES = (
    "cycle_sdk", "cycle_unary", "submit_1", "submit_32", "submit_batch", "idle_p50", "idle_p99", "assign_depth", "assign_named",
    "fan_1000", "chain_100", "submit_dag_10k", "rss_1m", "redis_bytes", "replicas_2", "receipts_sdk", "receipts_unary",
    "signed_sdk", "signed_unary", "cron_idle_1k", "cron_idle_10k", "cron_idle_100k", "cron_idle_commands",
    "cron_idle_statements", "cron_claim_1k", "cron_claim_10k", "cron_claim_100k", "pack_p50", "pack_p99", "packs_1", "packs_16",
    "pack_to_workflow",
)  # fmt: skip
HELD: Mapping[str, Held] = {name: held for case in CASES for name, held in case.figures.items()}
QUICK_NAMES = [name for name in NAMES if not any(name in case.figures for case in CASES if case.has_million)]


def shown_with(name: str) -> tuple[str, Reach | None]:
    """What is said beside a figure or a limit: what its limit is (or what it is itself), and what it is to reach."""
    if (held := HELD.get(name)) is not None:
        return held.limit_is, held.reach
    return LIMIT_TEXTS[name], None


def measure(run: Run, names: Sequence[str], limits: Limits) -> Iterator[tuple[str, Figure]]:
    """The figures of these names, as they come, with those that are measured along with them.

    Raises:
        BenchError: the work was not done as it should be, or a part of the stack died on the way.
    """
    for case in CASES:
        if not any(name in names for name in case.figures):
            continue
        samples = case.measure(run)
        check_whole(run.stack)
        for name, unit in OWN_LIMITS.items():
            if name in samples:
                limits.figures[name] = figure(samples[name], unit)
        for name, held in case.figures.items():
            yield name, figure(samples[name], held.unit, held.limit(limits), held.limit_is, held.reach)
