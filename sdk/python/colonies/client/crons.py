"""Methods about crons."""

import uuid
from collections.abc import AsyncGenerator, Sequence

from colonies.client.calls import Calls
from colonies.client.pages import every
from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec


class CronCalls(Calls):
    """What can be done with crons."""

    async def add_cron(
        self, name: str, workflow: WorkflowSpec, *, expression: str = "", interval: float | None = None
    ) -> cron.Cron:
        """Adds a cron on the caller's account.

        Args:
            name: unique in the colony.
            workflow: what it submits; `ColoniesWorkflow.to_spec()` makes one.
            expression: when, in UTC: six fields, seconds first, or five, or a word such as @daily. Or else
            interval: seconds from one fire to the next, at least 1.

        Raises:
            ValueError: neither `expression` nor `interval` was given, or both.
        """
        if bool(expression) == (interval is not None):
            msg = "add_cron() takes an expression or an interval"
            raise ValueError(msg)
        schedule = cron.Schedule()
        if interval is None:
            schedule.expression = expression
        else:
            schedule.interval_ms = round(interval * 1000)
        request = cron.AddCronRequest(colony_name=self.colony, name=name, schedule=schedule, workflow=workflow)
        return (await self.call(self.cron.AddCron, request)).cron

    async def get_cron(self, name: str) -> cron.Cron:
        """One cron."""
        request = cron.GetCronRequest(colony_name=self.colony, name=name)
        return (await self.call(self.cron.GetCron, request)).cron

    async def list_crons(self, *, limit: int | None = None) -> AsyncGenerator[cron.Cron]:
        """The colony's crons by name, without their workflows."""

        async def page(cursor: str, size: int) -> tuple[Sequence[cron.Cron], str]:
            request = cron.ListCronsRequest(colony_name=self.colony, page_size=size, cursor=cursor)
            response = await self.call(self.cron.ListCrons, request)
            return response.crons, response.next_cursor

        async for found in every(page, limit):
            yield found

    async def run_cron(self, name: str, *, request_id: str | None = None) -> str:
        """Submits a cron's workflow now; gives the workflow's id. Repeating a `request_id` gives the first one."""
        request = cron.RunCronRequest(colony_name=self.colony, name=name, request_id=request_id or str(uuid.uuid4()))
        return (await self.call(self.cron.RunCron, request)).workflow_id

    async def remove_cron(self, name: str) -> None:
        """Removes a cron; for the colony's owner and whoever set it up."""
        request = cron.RemoveCronRequest(colony_name=self.colony, name=name)
        await self.call(self.cron.RemoveCron, request, gone=cron.RemoveCronResponse())
