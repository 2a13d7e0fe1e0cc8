"""How processes end, and how workflows are taken up again (I1, I2, I6, I8)."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from servicekit.batching import GroupCommit
from servicekit.clock import Clock, datetime_of
from servicekit.failures import Unavailable
from servicekit.steps import uninterrupted
from services.scheduler.domain import endings
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.endings import CloseCall, Closing
from services.scheduler.domain.kin import Kin
from services.scheduler.domain.ports import NO_ATTEMPT, Allow, Heard, Tables
from services.scheduler.domain.records import AttemptRef, Ending, Live, Receipt
from services.scheduler.domain.states import State
from services.scheduler.domain.watermark import Steps

# Rows that are written together, besides those of a call that has more; large ones count for several.
MAX_WEIGHT = 500
BYTES_A_ROW = 32 * 1024
WRITERS = 2
PATIENT = 4

States = list[State]


class Departures(Protocol):
    """Who removes, page by page, what is left of workflows that are gone."""

    def note(self) -> None:
        """There is one."""
        ...


class Finishing:
    """Ends processes for those who may; the closes of concurrent calls are written together."""

    def __init__(
        self,
        *,
        tables: Tables,
        aftermath: Aftermath,
        departures: Departures,
        steps: Steps,
        heard: Heard,
        kin: Kin,
        clock: Clock,
    ) -> None:
        self._tables = tables
        self._aftermath = aftermath
        self._departures = departures
        self._steps = steps
        self._heard = heard
        self._kin = kin
        self._clock = clock
        # What nearly always happens goes in one statement; None: this call does not.
        self.plain: GroupCommit[CloseCall, States | None] = GroupCommit(
            self._close_plain, max_weight=MAX_WEIGHT, workers=WRITERS
        )
        self.other: GroupCommit[CloseCall, States | None] = GroupCommit(self._close, max_weight=MAX_WEIGHT, workers=WRITERS)
        # Where somebody is at a workflow for long, nobody but its own closes waits for him.
        self.patient: GroupCommit[CloseCall, States] = GroupCommit(self._close_patiently, max_weight=1, workers=PATIENT)

    async def close(
        self, colony: str, executor_id: str, closes: Mapping[AttemptRef, Closing], receipt: Receipt | None = None
    ) -> States:
        """Closes attempts of one executor, all or none; returns the state of each process, in order.

        Raises:
            NotFound: no such process in this colony.
            FailedPrecondition: an attempt is not the live one, or not this executor's.
        """
        self._heard.note(colony, executor_id)
        call = CloseCall(colony, executor_id, closes, receipt)
        ids = [ref.process_id for ref in closes]
        size = sum(closing.output_bytes for closing in closes.values()) + (len(receipt.body) if receipt else 0)
        weight = len(closes) + size // BYTES_A_ROW
        states: States | None = None
        if call.is_plain and not self._kin.any_of(ids):
            states = await self.plain.do(call, weight)
        if states is None:
            states = await self.other.do(call, weight)
            if states is None:
                states = await self.patient.do(call)
            for process_id in ids:
                self._kin.discard(process_id)
        return states

    async def _close_plain(self, calls: list[CloseCall]) -> Sequence[States | None]:
        token = self._steps.begin()
        try:
            whole, changes = await self._tables.close_successes(calls, datetime_of(self._clock.now_ns()))
        except BaseException:
            self._doubt(calls)
            self._steps.end(token)
            raise
        await self._aftermath.tell(changes, token)
        return [[State.SUCCESSFUL] * len(call.closes) if position in whole else None for position, call in enumerate(calls)]

    async def _close(self, calls: list[CloseCall]) -> Sequence[States | Exception | None]:
        by_colony: dict[str, list[CloseCall]] = defaultdict(list)
        for call in calls:
            by_colony[call.colony].append(call)
        found = await asyncio.gather(*(self._close_in(*one, patient=False) for one in by_colony.items()))
        answers: dict[int, States | Exception | None] = {}
        for mine, outcomes in zip(by_colony.values(), found, strict=True):
            answers.update(zip(map(id, mine), outcomes, strict=True))
        return [answers[id(call)] for call in calls]

    async def _close_patiently(self, calls: list[CloseCall]) -> Sequence[States | Exception]:
        (call,) = calls
        (outcome,) = await self._close_in(call.colony, calls, patient=True)
        assert outcome is not None, "who waits gets an answer"
        return [outcome]

    async def _close_in(self, colony: str, calls: list[CloseCall], *, patient: bool) -> Sequence[States | Exception | None]:
        token = self._steps.begin()
        try:
            outcomes, changes = await self._tables.close(calls, datetime_of(self._clock.now_ns()), patient=patient)
        except BaseException as error:
            self._doubt(calls)
            self._steps.end(token)
            if isinstance(error, Unavailable):
                return [error] * len(calls)
            raise
        await self._aftermath.tell({colony: changes}, token)
        return outcomes

    def _doubt(self, calls: Sequence[CloseCall]) -> None:
        """They may be closed all the same."""
        for call in calls:
            self._aftermath.doubt(call.colony, [ref.process_id for ref in call.closes])

    async def cancel(self, colony: str, process_id: UUID, actor: str, allow: Allow, receipt: Receipt | None = None) -> None:
        """Cancels a process and what waits for it. `allow` is asked with the initiator.

        Raises:
            NotFound: no such process in this colony.
            FailedPrecondition: it has ended otherwise.
        """

        def decide(row: Live) -> Ending | None:
            allow(row.initiator)
            return endings.cancel(row, actor, receipt)

        async def step() -> None:
            refs = [AttemptRef(process_id, NO_ATTEMPT)]
            with self._steps.under_way():
                try:
                    now = datetime_of(self._clock.now_ns())
                    changes, _ = await self._tables.end(colony, refs, decide, now, must_exist=True)
                except Unavailable:
                    self._aftermath.doubt(colony, [process_id])
                    raise
                await self._aftermath.changed(colony, changes)

        await uninterrupted(step())

    async def cancel_workflow(
        self, colony: str, workflow_id: UUID, actor: str, allow: Allow, receipt: Receipt | None = None
    ) -> None:
        """Cancels every open process of a workflow.

        Raises:
            NotFound: no such workflow in this colony.
        """

        async def step() -> None:
            with self._steps.under_way():
                now = datetime_of(self._clock.now_ns())
                try:
                    changes = await self._tables.cancel_workflow(colony, workflow_id, allow, actor, now, receipt)
                except Unavailable:
                    self._aftermath.doubt_workflow(colony, workflow_id)
                    raise
                await self._aftermath.changed(colony, changes)

        await uninterrupted(step())

    async def retry_workflow(
        self, colony: str, workflow_id: UUID, actor: str, allow: Allow, receipt: Receipt | None = None
    ) -> int:
        """Takes what failed or was cancelled back to waiting; returns how many that were.

        Raises:
            NotFound: no such workflow in this colony.
        """

        async def step() -> int:
            with self._steps.under_way():
                now = datetime_of(self._clock.now_ns())
                try:
                    count, changes = await self._tables.retry_workflow(colony, workflow_id, allow, actor, now, receipt)
                except Unavailable:
                    self._aftermath.doubt_workflow(colony, workflow_id)
                    raise
                await self._aftermath.changed(colony, changes)
                return count

        return await uninterrupted(step())

    async def remove(self, colony: str, process_id: UUID, allow: Allow) -> None:
        """Removes a process in a final state.

        Raises:
            NotFound: no such process in this colony.
            FailedPrecondition: it is not in a final state, or belongs to a workflow.
        """
        await self._tables.remove_process(colony, process_id, allow)
        self._aftermath.removed(colony)

    async def remove_workflow(self, colony: str, workflow_id: UUID, allow: Allow) -> None:
        """Removes a workflow in a final state.

        Raises:
            NotFound: no such workflow in this colony.
            FailedPrecondition: a process is not in a final state.
        """
        await self._tables.remove_workflow(colony, workflow_id, allow)
        self._aftermath.removed(colony)
        self._departures.note()
