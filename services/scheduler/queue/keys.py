"""Every Redis key of the scheduler, spelled here and nowhere else (the scripts build lane, index, held and load keys alike).

All keys of a colony carry the hash tag {colony}: one colony is one slot of a Redis Cluster, and colonies spread over it.
"""

from functools import lru_cache
from typing import Final
from uuid import UUID

from services.scheduler.domain.priority import process_of, rank
from services.scheduler.domain.records import Claimed, ExecutorProfile, Place

# Which run of the Redis server the queue was last rebuilt in, and for which layout. Missing or another one: rebuild (I3).
EPOCH: Final = "colonies:queue:epoch"
# Held by the replica that rebuilds.
REBUILDING: Final = "colonies:queue:rebuilding"
# There while some replica looks after the queue; gone soon after none does.
TICKED: Final = "colonies:queue:ticked"
# Colonies that have timers.
TIMED: Final = "colonies:queue:timed"
# Sorted set of replicas by when they count as lost (unix ms), and a hash of their watermarks. One hash tag: one slot.
REPLICAS: Final = "colonies:queue:{replicas}:lost-at"
WATERMARKS: Final = "colonies:queue:{replicas}:watermarks"

ANY: Final = "*"
READY_CHANNEL: Final = "colonies:ready:"
NEWS_CHANNEL: Final = "colonies:news:"
CHANGED_CHANNEL: Final = "colonies:changed:"
# What the keys of every colony match, as a glob.
OF_COLONIES: Final = "colonies:{*}:*"
UUID_LENGTH: Final = 36
# How many bars stand in a lane's name before its needs.
LANE_BARS: Final = 3


def prefix(colony: str) -> str:
    """What every key of a colony begins with."""
    return f"colonies:{{{colony}}}:"


def timers(colony: str) -> str:
    """Sorted set of what is due when: members below, scores in unix ms."""
    return f"{prefix(colony)}timers"


def paused(colony: str) -> str:
    """There while nothing of a colony is given out."""
    return f"{prefix(colony)}paused"


def held(colony: str, executor_id: str) -> str:
    """Hash of an executor's open attempts: process id to number and cost."""
    return f"{prefix(colony)}held:{executor_id}"


def load(colony: str, executor_id: str) -> str:
    """Hash of what an executor's open attempts use together."""
    return f"{prefix(colony)}load:{executor_id}"


def lane(place: Place) -> str:
    """The lane of a process: all processes with the same needs. Names hold none of the separators, the needs may."""
    names = ",".join(sorted(set(place.executor_names))) if place.executor_names else ""
    return f"{place.executor_type}|{names}|{place.location}|{place.needs}"


def lane_key(colony: str, name: str) -> str:
    """Sorted set of a lane's members."""
    return f"{prefix(colony)}lane:{name}"


def indexes(name: str) -> list[str]:
    """Where executors look for the lane of this name, without the colony's prefix."""
    executor_type, names, location, _ = name.split("|", LANE_BARS)
    return [index(executor_type, one, location) for one in (names.split(",") if names else (ANY,))]


def index(executor_type: str, executor_name: str, location: str) -> str:
    """Sorted set of the lanes for a type, one executor (or ANY) and a location (or none), by the scores of their heads."""
    return f"heads:{executor_type}|{executor_name}|{location or ANY}"


@lru_cache(maxsize=4_096)
def executor_indexes(colony: str, executor: ExecutorProfile) -> tuple[str, ...]:
    """The keys of all indexes in which an executor finds its lanes: at most four for each of its types."""
    return tuple(
        prefix(colony) + index(executor_type, name, location)
        for executor_type in dict.fromkeys(executor.executor_types)
        for name in (ANY, executor.name)
        for location in dict.fromkeys(("", executor.location))
    )


def member(place: Place) -> tuple[int, str]:
    """Score and member of a process in its lane. The next attempt's number is left out while it is the first."""
    process = f"{place.id}.{place.attempt}" if place.attempt > 1 else str(place.id)
    score, name = rank(place.priority_time, place.sequence, process)
    return score, name


def claimed(name: str) -> Claimed:
    """What a lane's member stands for."""
    process = process_of(name)
    return Claimed(UUID(process[:UUID_LENGTH]), int(process[UUID_LENGTH + 1 :] or 1))


def wait_timer(process_id: UUID, deadline_ms: int) -> str:
    """The maximum wait time of a process in the queue is over; each stay has a deadline, and a timer, of its own."""
    return f"wait|{process_id}|{deadline_ms}"


def ready_timer(process_id: UUID, since_ms: int) -> str:
    """The back-off of a process is over."""
    return f"ready|{process_id}|{since_ms}"


def exec_timer(process_id: UUID, attempt: int) -> str:
    """The maximum execution time of an attempt is over."""
    return f"exec|{process_id}|{attempt}"


def attempt_of(process_id: UUID, attempt: int, executor_id: str) -> str:
    """What lease and offer timers say of an attempt. The executor's identity makes that nobody else extends it."""
    return f"{process_id}|{attempt}|{executor_id}"


def lease_timer(process_id: UUID, attempt: int, executor_id: str) -> str:
    """The lease of an attempt is over."""
    return f"lease|{process_id}|{attempt}|{executor_id}"


def offer_timer(process_id: UUID, attempt: int, executor_id: str) -> str:
    """As lease_timer, for an attempt that its executor has not confirmed: it may never have got it."""
    return f"offer|{process_id}|{attempt}|{executor_id}"
