"""What members do with crons."""

import uuid
from collections.abc import Callable

from servicekit.caller import Caller
from servicekit.clock import NS_PER_MS, Clock, datetime_of
from servicekit.failures import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied
from services.cron.domain.cron import Cron, NewCron, run_digest, run_request_id
from services.cron.domain.ports import ON_BEHALF_REVOKED, CronStore, WorkflowSubmitter


class Crons:
    """The crons of all colonies; each call acts in its caller's."""

    def __init__(self, store: CronStore, submitter: WorkflowSubmitter, clock: Clock, *, on_added: Callable[[], None]) -> None:
        self._store = store
        self._submitter = submitter
        self._clock = clock
        self._on_added = on_added

    async def add(self, caller: Caller, new: NewCron) -> Cron:
        """Adds a cron on the caller's account, or returns the same one that it added before.

        Raises:
            AlreadyExists: the colony has another cron of this name.
            InvalidArgument: the scheduler would not take the workflow.
        """
        there = await self._store.find(caller.colony, new.name)
        if there is None:
            await self._submitter.check(colony=caller.colony, workflow=new.workflow, account=caller.identity)
            cron = self._made(caller, new)
            there = await self._store.add(cron)
            if there.cron_id == cron.cron_id:
                self._on_added()
                return there
        if not there.asks_for(new, caller.identity):
            msg = f"the colony has another cron of the name {new.name!r}"
            raise AlreadyExists(msg, reason="CRON_EXISTS")
        return there

    def _made(self, caller: Caller, new: NewCron) -> Cron:
        # Whole milliseconds: a request id names the scheduled moment in them.
        now_ns = self._clock.now_ns()
        created = datetime_of(now_ns - now_ns % NS_PER_MS)
        return Cron(
            cron_id=uuid.uuid4(),
            colony=caller.colony,
            name=new.name,
            schedule=new.schedule,
            workflow=new.workflow,
            initiator=caller.identity,
            initiator_name=caller.name,
            created=created,
            next_fire=new.schedule.next_after(created, created=created),
        )

    async def get(self, colony: str, name: str) -> Cron:
        """One cron.

        Raises:
            NotFound: there is none of this name.
        """
        cron = await self._store.find(colony, name)
        if cron is None:
            msg = f"no cron {name!r} in this colony"
            raise NotFound(msg, reason="CRON_NOT_FOUND")
        return cron

    async def page(self, colony: str, *, after: str, limit: int) -> tuple[list[Cron], bool]:
        """At most `limit` crons by name, beginning after a name, and whether there are more."""
        crons = await self._store.page(colony, after=after, limit=limit + 1)
        return crons[:limit], len(crons) > limit

    async def run(self, caller: Caller, name: str, request_id: str) -> str:
        """Submits a cron's workflow now, once for each request id. Returns the workflow's id.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: it is not the caller's to run.
            FailedPrecondition: the member on whose account it runs is none any more.
        """
        cron = await self.get(caller.colony, name)
        caller.require_own(cron.initiator)
        digest = run_digest(request_id)
        try:
            workflow_id = await self._submitter.submit(
                colony=cron.colony,
                request_id=run_request_id(cron.cron_id, digest),
                workflow=cron.workflow,
                account=cron.initiator,
            )
        except PermissionDenied as denied:
            if denied.reason != ON_BEHALF_REVOKED:
                raise
            msg = "the member on whose account this cron runs is none any more"
            raise FailedPrecondition(msg, reason="OWNER_REVOKED") from denied
        await self._store.note_run(cron.cron_id, digest=digest, workflow_id=workflow_id)
        return workflow_id

    async def remove(self, caller: Caller, name: str) -> None:
        """Removes a cron. Once this returns, it fires no more.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: it is not the caller's to remove.
        """
        cron = await self.get(caller.colony, name)
        caller.require_own(cron.initiator)
        await self._store.remove(cron.cron_id)
