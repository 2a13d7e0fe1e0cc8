"""Gathers what an explanation rests on: rows, the queue, and who the registry says there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from servicekit.clock import Clock, datetime_of
from servicekit.failures import NotFound
from services.scheduler.domain.explaining import Colony, Explanation, Load, Registered, Standing, Wanted, explain, suited
from services.scheduler.domain.records import Live, Place


@dataclass(frozen=True, slots=True)
class Waits:
    """What the tables say of a process: its row, its serialised spec, and its parents that have not ended."""

    live: Live
    spec: bytes
    parents: Sequence[str]
    parent_count: int


class Rows(Protocol):
    """Processes, read."""

    async def lives(self, colony: str, ids: Sequence[UUID], *, with_children: bool = False) -> list[Live]: ...


class Explained(Protocol):
    """What more is read of a process."""

    async def spec_and_parents(self, colony: str, process_id: UUID) -> tuple[bytes, list[str], int]: ...


class Roster(Protocol):
    """Who there is."""

    async def executors(self, colony: str) -> Sequence[Registered]: ...


class Lanes(Protocol):
    """What the queue says. Every method may raise Unavailable."""

    async def position(self, colony: str, place: Place) -> tuple[int, int]: ...

    async def loads(self, colony: str, identities: Sequence[str]) -> Mapping[str, Load]: ...

    async def is_paused(self, colony: str) -> bool: ...


class Explainer:
    """Explains. What is said is of the moment: its parts are read one after another."""

    def __init__(self, rows: Rows, explained: Explained, roster: Roster, lanes: Lanes, clock: Clock) -> None:
        self._rows = rows
        self._explained = explained
        self._roster = roster
        self._lanes = lanes
        self._clock = clock

    async def find(self, colony: str, process_id: UUID) -> Waits:
        """What the tables say of a process.

        Raises:
            NotFound: no such process in this colony.
        """
        spec, parents, count = await self._explained.spec_and_parents(colony, process_id)
        lives = await self._rows.lives(colony, [process_id])
        if not lives:
            msg = f"no process {process_id} in this colony"
            raise NotFound(msg, reason="PROCESS_NOT_FOUND")
        return Waits(lives[0], spec, parents, count)

    async def process(self, waits: Waits, wanted: Wanted) -> Explanation:
        """Why a process waits.

        Raises:
            Unavailable: the registry or the queue is out of reach.
        """
        live = waits.live
        rank, length = await self._lanes.position(live.colony, live.place)
        standing = Standing(
            state=live.state,
            held=live.pending_parents > 0,
            parents=waits.parents,
            parent_count=waits.parent_count,
            backoff_until=live.backoff_until,
            rank=rank,
            lane_length=length,
        )
        return await self._explain(live.colony, wanted, standing)

    async def spec(self, colony: str, wanted: Wanted) -> Explanation:
        """Why a process would wait, if it were submitted now.

        Raises:
            Unavailable: the registry or the queue is out of reach.
        """
        place = Place(
            id=UUID(int=0),
            colony=colony,
            sequence=0,
            executor_type=wanted.executor_type,
            executor_names=wanted.executor_names,
            location=wanted.location,
            needs=wanted.needs.text,
            priority_time=0,
            attempt=1,
            wait_deadline=None,
            not_before=None,
        )
        _, length = await self._lanes.position(colony, place)
        return await self._explain(colony, wanted, Standing(lane_length=length))

    async def _explain(self, colony: str, wanted: Wanted, standing: Standing) -> Explanation:
        executors = await self._roster.executors(colony)
        loads = await self._lanes.loads(colony, [one.profile.identity for one in suited(wanted, executors)])
        paused = await self._lanes.is_paused(colony)
        return explain(wanted, standing, Colony(executors, loads, paused), datetime_of(self._clock.now_ns()))
