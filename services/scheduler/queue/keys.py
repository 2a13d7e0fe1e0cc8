"""Every Redis key of the scheduler, spelled here and nowhere else.

All keys of a colony carry the hash tag {colony}: one colony is one slot of a Redis Cluster, and colonies spread over it.
"""

from typing import Final
from uuid import UUID

from services.scheduler.domain.priority import rank
from services.scheduler.domain.records import ExecutorProfile, Place

# Which run of the Redis server the queue was last rebuilt in. Missing or another one: rebuild (I3).
EPOCH: Final = "colonies:queue:epoch"
# Held by the replica that rebuilds.
REBUILDING: Final = "colonies:queue:rebuilding"
# There while some replica looks after the queue; gone soon after none does.
TICKED: Final = "colonies:queue:ticked"
# Colonies that have timers.
TIMED: Final = "colonies:queue:timed"

ANY: Final = "*"
READY_CHANNEL: Final = "colonies:ready:"
CHANGED_CHANNEL: Final = "colonies:changed:"


def prefix(colony: str) -> str:
    """What every key of a colony begins with."""
    return f"colonies:{{{colony}}}:"


def timers(colony: str) -> str:
    """Sorted set of what is due when: members below, scores in unix ms."""
    return f"{prefix(colony)}timers"


def lane(place: Place) -> str:
    """The lane of a process: all processes with the same needs. A Name holds none of the separators."""
    return f"{place.executor_type}|{','.join(sorted(place.executor_names))}|{place.location}"


def indexes(place: Place) -> list[str]:
    """The sets in which executors look for this lane: one by type, or one for each named executor."""
    return [index(place.executor_type, name) for name in place.executor_names or (ANY,)]


def index(executor_type: str, executor_name: str) -> str:
    """Set of the lanes that hold work for a type and for one executor, or for any (ANY). Without the colony's prefix."""
    return f"lanes:{executor_type}|{executor_name}"


def executor_indexes(colony: str, executor: ExecutorProfile) -> list[str]:
    """The keys of all sets in which an executor finds its lanes."""
    return [
        prefix(colony) + index(executor_type, name)
        for executor_type in executor.executor_types
        for name in (ANY, executor.name)
    ]


def member(place: Place) -> tuple[int, str]:
    """Score and member of a process in its lane."""
    return tuple(rank(place.priority_time, place.sequence, str(place.id)))  # type: ignore[return-value]


def settle_timer(process_id: UUID, since_ms: int) -> str:
    """Look whether the queue and the row agree: set before a transaction, taken away after the queue was told of it.

    `since_ms` is when it was set. Should it fire, it is looked at until no transaction of that time can still be open.
    """
    return f"settle|{process_id}|{since_ms}"


def submit_timer(actor: str, request_id: str, since_ms: int) -> str:
    """As settle_timer, for all processes of a submit."""
    return f"submit|{actor}|{request_id}|{since_ms}"


def workflow_timer(workflow_id: UUID, since_ms: int) -> str:
    """As settle_timer, for all processes of a workflow."""
    return f"workflow|{workflow_id}|{since_ms}"


def wait_timer(process_id: UUID, deadline_ms: int) -> str:
    """The maximum wait time of a process in the queue is over; each stay has a deadline, and a timer, of its own."""
    return f"wait|{process_id}|{deadline_ms}"


def exec_timer(process_id: UUID, attempt: int) -> str:
    """The maximum execution time of an attempt is over."""
    return f"exec|{process_id}|{attempt}"


def lease_timer(process_id: UUID, attempt: int, executor_id: str) -> str:
    """The lease of an attempt is over. The executor's identity makes that nobody else extends it."""
    return f"lease|{process_id}|{attempt}|{executor_id}"


def offer_timer(process_id: UUID, attempt: int, executor_id: str) -> str:
    """As lease_timer, for an attempt that its executor has not confirmed: it may never have got it."""
    return f"offer|{process_id}|{attempt}|{executor_id}"
