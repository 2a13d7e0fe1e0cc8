"""Which lanes an executor can ever be given work from, told from the lane's name alone."""

import json
from functools import lru_cache

from services.scheduler.domain.matching import Needs, Offer, meets
from services.scheduler.domain.records import ExecutorProfile
from services.scheduler.queue.keys import LANE_BARS

# Needs that use something up: an executor that meets them idle may have no room for them now.
CONSUMING = frozenset("cmsdpg")


@lru_cache(maxsize=65_536)
def serves(executor: ExecutorProfile, lane: str) -> bool:
    """Whether an executor may run what is in the lane of this name when nothing else runs there."""
    executor_type, names, location, needs = lane.split("|", LANE_BARS)
    return (
        executor_type in executor.executor_types
        and (not names or executor.name in names.split(","))
        and location in {"", executor.location}
        and meets(Offer.parse(executor.offer), Needs.parse(needs))
    )


@lru_cache(maxsize=4_096)
def consumes(lane: str) -> bool:
    """Whether what is in the lane uses up something of which an executor has a limited amount, beyond its place."""
    needs = lane.split("|", LANE_BARS)[LANE_BARS]
    return bool(needs) and not CONSUMING.isdisjoint(json.loads(needs))


@lru_cache(maxsize=4_096)
def is_limited(executor: ExecutorProfile) -> bool:
    """Whether an executor takes only so many processes at a time."""
    return Offer.parse(executor.offer).processes > 0


@lru_cache(maxsize=4_096)
def use_of(needs: str) -> str:
    """What an attempt uses, as JSON, when it is not known which kind of GPU it was given (scripts/claim.lua)."""
    parts = json.loads(needs) if needs else {}
    use = {field: parts[field] for field in "cmsd" if field in parts}
    use["p"] = max(1, parts.get("p", 1))
    if gpu := parts.get("g"):
        use[f"g?:{gpu.get('m', 0)}:{gpu.get('n', '')}"] = gpu["k"]
    return json.dumps(use, separators=(",", ":"))
