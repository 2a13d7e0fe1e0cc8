"""What an executor writes while it runs: outputs, attributes, log lines. Fenced by the attempt's number (I2)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.ports import Heard
from services.scheduler.domain.records import AttemptRef, Changes, Receipt
from services.scheduler.domain.views import AttributeView


class Reports(Protocol):
    """The tables that executors write to. Each method refuses all but the live attempt of its executor."""

    async def set_outputs(
        self, colony: str, executor_id: str, ref: AttemptRef, outputs: Sequence[bytes], receipt: Receipt | None = None
    ) -> None: ...

    async def set_attributes(
        self, colony: str, executor_id: str, ref: AttemptRef, attributes: Sequence[AttributeView]
    ) -> None: ...

    async def add_logs(
        self,
        colony: str,
        executor_id: str,
        executor_name: str,
        ref: AttemptRef,
        lines: Sequence[tuple[datetime, str]],
        first_number: int = 0,
    ) -> None: ...


class Reporting:
    """Takes what executors report. Errors of all methods: NotFound, FailedPrecondition (not the live attempt)."""

    def __init__(self, reports: Reports, aftermath: Aftermath, heard: Heard) -> None:
        self._reports = reports
        self._aftermath = aftermath
        self._heard = heard

    async def set_outputs(
        self, colony: str, executor_id: str, ref: AttemptRef, outputs: Sequence[bytes], receipt: Receipt | None = None
    ) -> None:
        """Sets what the process puts out if it closes without outputs."""
        self._heard.note(colony, executor_id)
        await self._reports.set_outputs(colony, executor_id, ref, outputs, receipt)

    async def set_attributes(self, colony: str, executor_id: str, ref: AttemptRef, attributes: Sequence[AttributeView]) -> None:
        """Writes attributes.

        Raises:
            ResourceExhausted: there would be too many.
        """
        self._heard.note(colony, executor_id)
        await self._reports.set_attributes(colony, executor_id, ref, attributes)

    async def add_logs(
        self,
        colony: str,
        executor_id: str,
        executor_name: str,
        ref: AttemptRef,
        lines: Sequence[tuple[datetime, str]],
        first_number: int = 0,
    ) -> None:
        """Adds log lines, and wakes who follows them."""
        self._heard.note(colony, executor_id)
        await self._reports.add_logs(colony, executor_id, executor_name, ref, lines, first_number)
        await self._aftermath.changed(colony, Changes(touched={ref.process_id}))
