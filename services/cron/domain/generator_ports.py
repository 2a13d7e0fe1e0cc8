"""What generators need of their tables. Every method may raise Unavailable; after it, what was asked may have been done."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.cron.domain.generator import Batch, Generator, Pack, Room
from services.cron.domain.packing import Bin


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of packs.

    Attributes:
        outcomes: of each pack, in order: its first sequence number, or what is wrong with it.
        batches: that they made.
        looks: when to look at generators that are to be looked at sooner than before.
    """

    outcomes: Sequence[int | Exception]
    batches: Sequence[Batch]
    looks: Mapping[UUID, datetime]


@dataclass(frozen=True, slots=True)
class Flushed:
    """Batches that were made of bins, and where to go on with the others; None when there are none."""

    batches: Sequence[Batch]
    rest: "FlushFrom | None"


@dataclass(frozen=True, slots=True)
class FlushFrom:
    """Where a flush goes on: with this key, and only with bins whose first sequence number is below that."""

    key: str
    below: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The next batches of a generator, in order, and what there is to know of it to submit them.

    Until it runs out nobody else submits any; `number` tells it from later claims. `cut` are the batches that were made for it.
    """

    generator_id: UUID
    number: int
    colony: str
    initiator: str
    workflow_bytes: int
    nodes: int
    roots: int
    batches: Sequence[Batch]
    tries: int
    cut: Sequence[Batch] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """There is nothing to submit now, and when to look again; None for never. `cut` are the batches that were made."""

    at: datetime | None
    cut: Sequence[Batch] = ()


@dataclass(frozen=True, slots=True)
class Cargo:
    """What a claim's batches are submitted with: the workflow, and the arguments of each batch."""

    workflow: bytes
    arguments: Sequence[Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Setback:
    """Why batches could not be submitted.

    Attributes:
        error: what went wrong.
        at_most: how many batches to try at once next time.
        retry_at: no submit before this; None for at once.
        pause_reason: the generator pauses itself, and submits nothing until it is resumed; empty if it goes on.
        is_first: whether it is the first batch that is to blame.
    """

    error: str
    at_most: int
    retry_at: datetime | None
    pause_reason: str
    is_first: bool


class GeneratorStore(Protocol):
    """Where generators are kept."""

    async def add(self, generator: Generator) -> Generator:
        """Keeps a new generator; returns it, or the one that has its name in its colony already."""
        ...

    async def find(self, colony: str, name: str, *, whole: bool = True) -> Generator | None:
        """One generator; with its workflow if it is asked for whole."""
        ...

    async def page(self, colony: str, *, after: str, limit: int) -> list[Generator]:
        """Generators by name, beginning after a name, without their workflows."""
        ...

    async def bins(self, generator_id: UUID, *, after: str | None, limit: int) -> list[Bin]:
        """What waits, by key, beginning after a key."""
        ...

    async def batches(self, generator_id: UUID, *, before: int, limit: int, unsubmitted: bool) -> list[Batch]:
        """Batches with lower numbers than this, the highest first; only those that are not submitted, if so asked."""
        ...

    async def pause(self, generator_id: UUID, reason: str) -> bool:
        """Pauses it, unless it is paused. False if it is not there."""
        ...

    async def resume(self, generator_id: UUID, now: datetime) -> bool:
        """Lets it go on, and to be looked at now. False if it is not there."""
        ...

    async def remove(self, generator_id: UUID, now: datetime, *, force: bool) -> bool:
        """Removes it. From then on it is not there, and no claim of it is given. False if it was not there.

        Raises:
            FailedPrecondition: something waits in it, and `force` is not set.
        """
        ...

    async def is_claimed(self, generator_id: UUID, now: datetime) -> bool:
        """Whether somebody is at it, removed or not."""
        ...


class PackStore(Protocol):
    """Where arguments go in, and become batches."""

    async def pack(self, packs: Sequence[Pack], now: datetime, room: Room) -> Packed:
        """Adds packs, all of them in one transaction, each once for its request."""
        ...

    async def flush(self, generator_id: UUID, *, key: str | None, rest: FlushFrom | None, now: datetime) -> Flushed | None:
        """Makes batches of some of what waits, of all keys or of one; None if the generator is not there.

        Args:
            generator_id: which.
            key: only this one's; None is all.
            rest: where to go on; None, the first time, is all that is there now.
            now: the time.
        """
        ...

    async def drop(self, generator_id: UUID, *, key: str | None) -> int | None:
        """Throws away what waits in bins; returns how many arguments; None if the generator is not there."""
        ...


class DispatchStore(Protocol):
    """Batches on their way out."""

    async def claim(self, generator_id: UUID, now: datetime, *, until: datetime, at_most: int) -> Claim | Look | None:
        """Cuts what is due, and claims what is next to submit; None if somebody else is at it."""
        ...

    async def load(self, claim: Claim, batches: Sequence[Batch]) -> Cargo | None:
        """What to submit; None if somebody else has submitted some of it."""
        ...

    async def submitted(self, claim: Claim, batches: Sequence[Batch], now: datetime) -> Look | None:
        """Notes that batches are workflows now, and ends the claim. Those that are noted already stay as they are.

        None if somebody else is at the generator.
        """
        ...

    async def failed(self, claim: Claim, batches: Sequence[Batch], setback: Setback, now: datetime) -> Look | None:
        """Notes that batches could not be submitted, and ends the claim; does nothing, and returns None, if it has run out."""
        ...


class GeneratorSweeps(Protocol):
    """Removes what nobody needs any more, a page at a time. Each method returns how many rows it found."""

    async def forget_packs(self, before: datetime, limit: int) -> int:
        """Packs that were answered before a moment."""
        ...

    async def forget_batches(self, before: datetime, limit: int) -> int:
        """Batches that were submitted before a moment."""
        ...

    async def remove_dropped(self, limit: int) -> int:
        """Arguments that were thrown away."""
        ...

    async def remove_removed(self, now: datetime, limit: int) -> int:
        """What belonged to generators that were removed and that nobody is at."""
        ...

    async def purge(self, colonies: Collection[str], now: datetime) -> int:
        """Removes all generators of these colonies; returns how many."""
        ...

    async def waiting(self) -> int:
        """Arguments that are in no workflow yet, of all generators."""
        ...
