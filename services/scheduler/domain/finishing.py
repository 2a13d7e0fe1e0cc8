"""How processes end: closed by their executors, cancelled, removed (I1, I2, I6, I8)."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from servicekit.clock import Clock, datetime_of
from servicekit.steps import uninterrupted
from services.scheduler.domain import endings
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.endings import Closing, Prior
from services.scheduler.domain.ports import NO_ATTEMPT, Allow, Decide, Heard, Queue, Tables
from services.scheduler.domain.records import AttemptRef, Ending, Live
from services.scheduler.domain.states import State


class Finishing:
    """Ends processes for those who may."""

    def __init__(self, tables: Tables, queue: Queue, aftermath: Aftermath, heard: Heard, clock: Clock) -> None:
        self._tables = tables
        self._queue = queue
        self._aftermath = aftermath
        self._heard = heard
        self._clock = clock

    async def close(self, colony: str, executor_id: str, closes: Mapping[AttemptRef, Closing]) -> list[State]:
        """Closes attempts of one executor, all or none; returns the state of each process, in order.

        Raises:
            NotFound: no such process in this colony.
            FailedPrecondition: an attempt is not the live one, or not this executor's.
        """
        self._heard.note(colony, executor_id)
        refs = list(closes)
        by_process = {ref.process_id: (ref.number, closing) for ref, closing in closes.items()}

        def decide(row: Live, prior: Prior | None) -> Ending | None:
            number, closing = by_process[row.id]
            return endings.close(row, number, executor_id, closing, prior)

        states = await uninterrupted(self._end(colony, refs, decide))
        return [states[ref.process_id] for ref in refs]

    async def cancel(self, colony: str, process_id: UUID, actor: str, allow: Allow) -> None:
        """Cancels a process and what waits for it. `allow` is asked with the initiator.

        Raises:
            NotFound: no such process in this colony.
            FailedPrecondition: it has ended otherwise.
        """

        def decide(row: Live, _prior: Prior | None) -> Ending | None:
            allow(row.initiator)
            return endings.cancel(row, actor)

        await uninterrupted(self._end(colony, [AttemptRef(process_id, NO_ATTEMPT)], decide))

    async def _end(self, colony: str, refs: Sequence[AttemptRef], decide: Decide) -> dict[UUID, State]:
        intended = await self._queue.intend(colony, [ref.process_id for ref in refs])
        changes, states = await self._tables.end(colony, refs, decide, datetime_of(self._clock.now_ns()), must_exist=True)
        await self._aftermath.changed(colony, changes, intended)
        return states

    async def cancel_workflow(self, colony: str, workflow_id: UUID, actor: str, allow: Allow) -> None:
        """Cancels every open process of a workflow.

        Raises:
            NotFound: no such workflow in this colony.
        """
        await uninterrupted(
            self._cancel_workflow(colony, workflow_id, allow, lambda row, _prior: endings.cancel_open(row, actor))
        )

    async def _cancel_workflow(self, colony: str, workflow_id: UUID, allow: Allow, decide: Decide) -> None:
        intended = await self._queue.intend_workflow(colony, workflow_id)
        changes = await self._tables.cancel_workflow(colony, workflow_id, allow, decide, datetime_of(self._clock.now_ns()))
        await self._aftermath.changed(colony, changes, intended)

    async def remove(self, colony: str, process_id: UUID, allow: Allow) -> None:
        """Removes a process in a final state.

        Raises:
            NotFound: no such process in this colony.
            FailedPrecondition: it is not in a final state, or belongs to a workflow.
        """
        await self._tables.remove_process(colony, process_id, allow)

    async def remove_workflow(self, colony: str, workflow_id: UUID, allow: Allow) -> None:
        """Removes a workflow in a final state.

        Raises:
            NotFound: no such workflow in this colony.
            FailedPrecondition: a process is not in a final state.
        """
        await self._tables.remove_workflow(colony, workflow_id, allow)
