"""Methods about crons."""

import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import datetime

from colonies.client.calls import Calls
from colonies.client.pages import every
from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.errors import ScheduleError
from colonies.graph import Workflow, workflow_spec
from colonies.moments import timestamp
from colonies.schedules import FirePolicy, Schedule, schedule_message


def outcome_value(outcome: cron.FireOutcome.ValueType | str) -> cron.FireOutcome.ValueType:
    """The outcome of a word such as "refused".

    Raises:
        ValueError: there is no such outcome.
    """
    if not isinstance(outcome, str):
        return outcome
    name = f"FIRE_OUTCOME_{outcome.upper()}"
    names = cron.FireOutcome.keys()
    if name not in names[1:]:
        known = ", ".join(each.removeprefix("FIRE_OUTCOME_").lower() for each in names[1:])
        msg = f"{outcome!r} is no outcome of a fire; those are {known}"
        raise ValueError(msg)
    return cron.FireOutcome.Value(name)


class CronCalls(Calls):
    """What can be done with crons. All raise NotFoundError where the colony has no cron of the name."""

    async def add_cron(
        self,
        name: str,
        workflow: Workflow,
        schedule: Schedule | str | float | None = None,
        policy: FirePolicy | None = None,
        *,
        expression: str = "",
        interval: float | None = None,
    ) -> cron.Cron:
        """Adds a cron on the caller's account. Repeating it with the same content changes nothing.

            await client.add_cron("tick", Function("f"), 10)
            await client.add_cron("nightly", workflow, Schedule("0 0 4 * * *", time_zone="Europe/Stockholm"))

        Args:
            name: unique in the colony.
            workflow: what it submits: a ColoniesWorkflow, a Function with all that is connected to it, or a list of them.
            schedule: when: a Schedule, an expression in UTC, or the seconds from one fire to the next.
            policy: what a fire does when others are open or were missed; by default it submits beside them, and once for
                all that were missed.
            expression: in place of `schedule`.
            interval: in place of `schedule`.

        Raises:
            ScheduleError: the schedule or the policy makes no sense, or not exactly one schedule is given.
            WorkflowError: the workflow makes no sense.
            InvalidArgumentError: a field is out of bounds, or the scheduler would not take the workflow.
            AlreadyExistsError: the colony has another cron of this name.
        """
        given = [each for each in (schedule, expression or None, interval) if each is not None]
        if len(given) != 1:
            msg = "add_cron() takes one schedule: as such, as an expression or as an interval"
            raise ScheduleError(msg)
        request = cron.AddCronRequest(
            colony_name=self.colony,
            name=name,
            schedule=schedule_message(given[0]),
            workflow=workflow_spec(workflow, self.colony),
            policy=(policy or FirePolicy()).to_message(),
        )
        return (await self.call(self.cron.AddCron, request)).cron

    async def update_cron(
        self, name: str, workflow: Workflow, schedule: Schedule | str | float, policy: FirePolicy | None = None
    ) -> cron.Cron:
        """Gives the caller's own cron another workflow, schedule and policy: all three are replaced, and begin now.

        What it has done so far stays, and counts. Arguments and errors as for `add_cron`.
        """
        request = cron.UpdateCronRequest(
            colony_name=self.colony,
            name=name,
            schedule=schedule_message(schedule),
            workflow=workflow_spec(workflow, self.colony),
            policy=(policy or FirePolicy()).to_message(),
        )
        return (await self.call(self.cron.UpdateCron, request)).cron

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

    async def list_fires(
        self, name: str, *, outcomes: Iterable[cron.FireOutcome.ValueType | str] = (), limit: int | None = None
    ) -> AsyncGenerator[cron.Fire]:
        """What became of a cron's fires, newest first.

        Args:
            name: the cron.
            outcomes: only these: "pending", "submitted", "skipped", "missed", "refused"; none = all.
            limit: at most this many; None = all that are kept.

        Raises:
            ValueError: there is no such outcome.
        """
        request = cron.ListFiresRequest(
            colony_name=self.colony, name=name, outcomes=[outcome_value(outcome) for outcome in outcomes]
        )

        async def page(cursor: str, size: int) -> tuple[Sequence[cron.Fire], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.cron.ListFires, request)
            return response.fires, response.next_cursor

        async for found in every(page, limit):
            yield found

    async def preview_cron(self, name: str, *, count: int = 10, after: datetime | None = None) -> cron.PreviewScheduleResponse:
        """The next moments of a cron, before jitter, as long as nobody pauses it; and its schedule in words.

        Args:
            name: the cron.
            count: how many moments, 1 to 1 000.
            after: only moments after this one; None = now.
        """
        request = cron.PreviewScheduleRequest(colony_name=self.colony, name=name, count=count, after_time=timestamp(after))
        return await self.call(self.cron.PreviewSchedule, request)

    async def preview_schedule(
        self, schedule: Schedule | str | float, *, count: int = 10, after: datetime | None = None
    ) -> cron.PreviewScheduleResponse:
        """As `preview_cron`, of a schedule that no cron has yet; intervals begin at `after`.

        Raises:
            ScheduleError: the schedule makes no sense.
            InvalidArgumentError: a field of it is out of bounds.
        """
        request = cron.PreviewScheduleRequest(
            colony_name=self.colony, schedule=schedule_message(schedule), count=count, after_time=timestamp(after)
        )
        return await self.call(self.cron.PreviewSchedule, request)

    async def run_cron(self, name: str, *, request_id: str | None = None) -> str:
        """Submits a cron's workflow now, even if it is paused; gives the workflow's id. Its schedule stays as it is.

        Args:
            name: the cron.
            request_id: 1-128 ASCII characters; repeating one gives the first workflow. Default: a new one.

        Raises:
            FailedPreconditionError: the member on whose account it runs is none any more (OWNER_REVOKED).
        """
        request = cron.RunCronRequest(colony_name=self.colony, name=name, request_id=request_id or str(uuid.uuid4()))
        return (await self.call(self.cron.RunCron, request)).workflow_id

    async def pause_cron(self, name: str) -> cron.Cron:
        """Stops a cron until it is resumed: no new fire begins once this returns.

        Raises:
            FailedPreconditionError: it never fires again (CRON_ENDED).
        """
        request = cron.PauseCronRequest(colony_name=self.colony, name=name)
        return (await self.call(self.cron.PauseCron, request)).cron

    async def resume_cron(self, name: str) -> cron.Cron:
        """Lets a paused cron go on with its next moment from now. Errors as for `pause_cron`."""
        request = cron.ResumeCronRequest(colony_name=self.colony, name=name)
        return (await self.call(self.cron.ResumeCron, request)).cron

    async def remove_cron(self, name: str) -> None:
        """Removes a cron and the record of its fires; for the colony's owner and whoever set it up."""
        request = cron.RemoveCronRequest(colony_name=self.colony, name=name)
        await self.call(self.cron.RemoveCron, request, gone=cron.RemoveCronResponse())
