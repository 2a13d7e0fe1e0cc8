"""What was submitted, as far as scheduling needs to know it. User data stays in `body`, unopened."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum


class ParentPolicy(IntEnum):
    """When a process with parents may run; numbers as in the tables and in the protos."""

    ALL_SUCCESSFUL = 1
    ALL_DONE = 2
    ANY_DONE = 3


class Selector(IntEnum):
    """Which of the parent's outputs an edge carries; numbers as in the tables."""

    ALL = 0
    INDEX = 1
    SHARE = 2


@dataclass(frozen=True, slots=True)
class Dependency:
    """An edge as it was submitted: INDEX takes output `k`; SHARE takes output `k` if there are exactly `n`, else all."""

    parent: str
    selector: Selector = Selector.ALL
    k: int = 0
    n: int = 0


@dataclass(frozen=True, slots=True)
class Spec:
    """A function spec. `body` is the serialised message, `summary` the same without user data (empty where that is all of it);
    the other fields are what is scheduled by.
    """

    func_name: str
    executor_type: str
    body: bytes
    summary: bytes = b""
    node_name: str = ""
    executor_names: tuple[str, ...] = ()
    location: str = ""
    label: str = ""
    priority: int = 0
    # Milliseconds; 0 = no limit.
    max_wait_ms: int = 0
    max_exec_ms: int = 0
    # -1 = for ever.
    max_retries: int = 0
    # What it needs of an executor beyond type, names and location (matching.Needs), as text.
    needs: str = ""
    # First wait in ms, factor, longest wait in ms, jitter; empty for no wait before retries.
    backoff: tuple[float, ...] = ()
    parent_policy: ParentPolicy = ParentPolicy.ALL_SUCCESSFUL
    channels: tuple[str, ...] = ()
    dependencies: Sequence[Dependency] = field(default_factory=tuple)
