"""Executors, what they announce, and locations.

Capabilities, functions and signed calls are kept as the bytes of their messages: the registry carries them, and nothing here
looks inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_PENDING = 1_000


class ExecutorState(StrEnum):
    """Whether an executor may work."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Registration:
    """What an executor says of itself. Its owner approves all of it but the capabilities."""

    name: str
    executor_types: tuple[str, ...]
    location_name: str
    capabilities: bytes

    def claims_as(self, executor: "Executor") -> bool:
        """Whether it says the same as before in what the owner approves. The order of types means nothing."""
        return (
            self.name == executor.name
            and self.location_name == executor.location_name
            and set(self.executor_types) == set(executor.executor_types)
        )


@dataclass(frozen=True, slots=True)
class Executor:
    """A registered executor. In an answer to a registration that waits, `registered_at` is None."""

    colony: str
    identity: str
    name: str
    executor_types: tuple[str, ...]
    location_name: str
    capabilities: bytes
    state: ExecutorState
    registered_at: datetime | None
    last_heard_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """A function that an executor announces."""

    name: str
    definition: bytes


@dataclass(frozen=True, slots=True)
class Announced:
    """A function and the approved executor that announced it."""

    function: Function
    executor_name: str
    executor_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Location:
    """A named site. Degrees east and north."""

    name: str
    description: str
    longitude: float
    latitude: float


@dataclass(frozen=True, slots=True)
class Heard:
    """An executor's sign of life."""

    colony: str
    identity: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ExecutorFilter:
    """Which executors a list shows. What is empty lets everything through."""

    states: tuple[ExecutorState, ...] = ()
    executor_type: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; `more` says that the list goes on after its last item."""

    items: Sequence[T]
    more: bool
