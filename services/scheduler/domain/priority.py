"""The paper's priority time (section 2.1.1), and how a sorted set keeps its order exactly (I5)."""

from typing import NamedTuple

# One step of priority is one day of head start.
STEP_NS = -1_000_000_000 * 60 * 60 * 24
PRIORITY_MIN = -50_000
PRIORITY_MAX = 50_000


def priority_time(priority: int, submitted_ns: int) -> int:
    """Lowest runs first: `priority * -1 day + submission time`, unix nanoseconds; 61 bits."""
    return priority * STEP_NS + submitted_ns


class Rank(NamedTuple):
    """A place in a lane: first by score, then by member, byte by byte.

    A sorted-set score holds 53 bits exactly. Microseconds fit (|score| < 2**53 for every legal priority until the year 2125);
    the nanoseconds left over and the submission order lead the member with a fixed width, so that members of one score sort
    as numbers do.
    """

    score: int
    member: str


def rank(priority_time_ns: int, sequence: int, process_id: str) -> Rank:
    """The rank of a process. `sequence` is its submission order, 0 to 2**63 - 1."""
    score, rest = divmod(priority_time_ns, 1000)
    return Rank(score, f"{rest:03d}{sequence:016x}{process_id}")


PREFIX_LENGTH = 3 + 16


def process_of(member: str) -> str:
    """The process id in a lane's member."""
    return member[PREFIX_LENGTH:]
