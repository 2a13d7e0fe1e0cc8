"""What members do with crons."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from servicekit.caller import Caller
from servicekit.clock import NS_PER_MS, Clock, datetime_of
from servicekit.failures import AlreadyExists, FailedPrecondition, Failure, NotFound, PermissionDenied, Unavailable
from services.cron.domain.cron import (
    Cron,
    Fire,
    Kind,
    NewCron,
    Outcome,
    State,
    due_of,
    error_text,
    fire_request_id,
    first_fire,
    run_digest,
)
from services.cron.domain.due import Looks
from services.cron.domain.feeding import Fed, fed, source_of
from services.cron.domain.ids import derived_id
from services.cron.domain.ports import ON_BEHALF_REVOKED, Change, CronStore, Launch, WorkflowSubmitter
from services.cron.domain.schedule import Schedule, Timetable
from services.cron.domain.settling import PAUSED_WAITING, overlapped

# Between two looks at a cron whose fire somebody has in hand while it is to be removed; a claim lasts some seconds.
REMOVE_AGAIN_S = 0.05
# The rarest expressions take a search through decades for each of their moments.
PREVIEWED = timedelta(days=100 * 365)
OWNER_REVOKED = "the member on whose account this cron runs is none any more"


class Crons:
    """The crons of all colonies; each call acts in its caller's.

    Args:
        lease_s: how long a fire may be in somebody's hand, in seconds.
        on_change: told when to look at crons that were added or changed.
    """

    def __init__(
        self,
        store: CronStore,
        submitter: WorkflowSubmitter,
        clock: Clock,
        *,
        lease_s: float,
        on_change: Callable[[Looks], Awaitable[None]],
    ) -> None:
        self._store = store
        self._submitter = submitter
        self._clock = clock
        self._lease_s = lease_s
        self._on_change = on_change

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
                await self._on_change({cron.cron_id: cron.next_due})
                return there
        if not there.asks_for(new, caller.identity):
            msg = f"the colony has another cron of the name {new.name!r}"
            raise AlreadyExists(msg, reason="CRON_EXISTS")
        return there

    def _made(self, caller: Caller, new: NewCron) -> Cron:
        cron_id, now = uuid.uuid4(), self._now()
        timetable = Timetable(new.schedule, cron_id, now)
        following = first_fire(timetable, now, None)
        return Cron(
            cron_id=cron_id,
            colony=caller.colony,
            name=new.name,
            schedule=new.schedule,
            policy=new.policy,
            workflow=new.workflow,
            workflow_bytes=len(new.workflow),
            initiator=caller.identity,
            initiator_name=caller.name,
            created=now,
            since=now,
            next_fire=following,
            next_due=due_of(timetable, following),
            state=State.ENDED if following is None else State.ACTIVE,
        )

    async def update(self, caller: Caller, new: NewCron) -> Cron:
        """Gives the caller's own cron another schedule, policy and workflow.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: it is another member's.
            InvalidArgument: the scheduler would not take the workflow.
        """
        cron = await self.get(caller.colony, new.name)
        if cron.initiator != caller.identity:
            # Not the colony's owner either: it would act on another's account.
            msg = "only whoever set a cron up may update it"
            raise PermissionDenied(msg, reason="NOT_THE_INITIATOR")
        await self._submitter.check(colony=caller.colony, workflow=new.workflow, account=caller.identity)
        now = self._now()

        def decide(there: Cron) -> Change:
            if there.state is State.PAUSED:
                return Change(there.state, there.pause_reason, None, None, new)
            change = _going_on(replace(there, schedule=new.schedule, since=now), now)
            return replace(change, new=new, left_out=_overlapped(there, now))

        if cron.asks_for(new, caller.identity):
            return cron
        return await self._changed(caller, cron, now, decide)

    async def get(self, colony: str, name: str) -> Cron:
        """One cron.

        Raises:
            NotFound: there is none of this name.
        """
        cron = await self._store.find(colony, name)
        if cron is None:
            raise _no_cron(name)
        return cron

    async def page(self, colony: str, *, after: str, limit: int) -> tuple[Sequence[Cron], bool]:
        """At most `limit` crons by name, beginning after a name, and whether there are more."""
        crons = await self._store.page(colony, after=after, limit=limit + 1)
        return crons[:limit], len(crons) > limit

    async def fires(
        self, colony: str, name: str, *, before: UUID | None, outcomes: Collection[Outcome], limit: int
    ) -> tuple[Sequence[Fire], bool]:
        """At most `limit` fires of a cron, newest first, and whether there are more.

        Raises:
            NotFound: there is no cron of this name.
        """
        cron = await self.get(colony, name)
        fires = await self._store.fires(cron.cron_id, before=before, outcomes=outcomes, limit=limit + 1)
        return fires[:limit], len(fires) > limit

    async def preview(
        self, colony: str, of: str | Schedule, *, after: datetime | None, count: int
    ) -> tuple[Sequence[datetime], str]:
        """The next moments of a cron, by name, or of a schedule that begins now; and the schedule in words.

        Raises:
            NotFound: there is no cron of this name.
        """
        now = self._now()
        if isinstance(of, Schedule):
            schedule, timetable, most = of, Timetable(of, UUID(int=0), after or now), of.max_runs
        else:
            cron = await self.get(colony, of)
            schedule, timetable = cron.schedule, cron.timetable
            most = max(0, schedule.max_runs - cron.runs) if schedule.max_runs else 0
            if cron.state is State.ENDED or (schedule.max_runs and not most):
                return [], schedule.describe()
        return _moments(timetable, after or now, min(count, most or count)), schedule.describe()

    async def pause(self, caller: Caller, name: str) -> Cron:
        """Stops a cron until it is resumed.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: it is not the caller's to pause.
            FailedPrecondition: it never fires again.
        """
        now = self._now()

        def decide(cron: Cron) -> Change | None:
            _require_more(cron)
            if cron.state is State.PAUSED:
                return None
            reason = f"by {caller.name or caller.identity}"
            return Change(State.PAUSED, reason, None, None, give_up=PAUSED_WAITING, left_out=_overlapped(cron, now))

        return await self._changed(caller, await self._own(caller, name), now, decide)

    async def resume(self, caller: Caller, name: str) -> Cron:
        """Lets a paused cron go on with its next moment from now.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: it is not the caller's to resume.
            FailedPrecondition: it never fires again.
        """
        now = self._now()

        def decide(cron: Cron) -> Change | None:
            _require_more(cron)
            return _going_on(cron, now) if cron.state is State.PAUSED else None

        return await self._changed(caller, await self._own(caller, name), now, decide)

    async def _own(self, caller: Caller, name: str) -> Cron:
        cron = await self.get(caller.colony, name)
        caller.require_own(cron.initiator)
        return cron

    async def _changed(self, caller: Caller, cron: Cron, now: datetime, decide: Callable[[Cron], Change | None]) -> Cron:
        changed = await self._store.change(cron.cron_id, now, decide)
        if changed is None:
            # It was removed since.
            return await self.get(caller.colony, cron.name)
        if changed.pending is None:
            await self._on_change({changed.cron_id: changed.next_due})
        return changed

    async def run(self, caller: Caller, name: str, request_id: str) -> UUID:
        """Submits a cron's workflow now, once for each request id. Returns the workflow's id.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: it is not the caller's to run.
            FailedPrecondition: the member on whose account it runs is none any more.
        """
        cron = await self._own(caller, name)
        digest, now = run_digest(request_id), self._now()
        asked = Fire(derived_id(now, cron.cron_id, digest), now, Kind.RUN)
        run = await self._store.begin_run(cron.cron_id, asked, digest=digest)
        if run is None:
            # It was removed a moment ago.
            raise _no_cron(name)
        if run.outcome is Outcome.SUBMITTED:
            return run.fire_id
        source = None
        try:
            feed = await self._fed(cron)
            source = feed.source
            launch = Launch(fire_request_id(run.fire_id), run.fire_id, cron.workflow, feed.arguments)
            await self._submitter.submit_all(colony=cron.colony, account=cron.initiator, launches=[launch])
        except AlreadyExists:
            # It came in with an earlier try, before the cron was updated.
            pass
        except Unavailable:
            # Whether it came in is not known: it stays pending, and is settled by the next try or by the upkeep.
            raise
        except Failure as failure:
            await self._store.settle_run(run.fire_id, Outcome.REFUSED, error_text(failure.message), self._now())
            raise _revoked(failure) from failure
        await self._store.settle_run(run.fire_id, Outcome.SUBMITTED, "", self._now(), fed_from=source)
        return run.fire_id

    async def _fed(self, cron: Cron) -> Fed:
        if not cron.policy.feed_outputs:
            return Fed()
        last = [] if cron.last_workflow_id is None else [cron.last_workflow_id]
        runs = await self._submitter.runs(colony=cron.colony, workflow_ids=last, outputs=False) if last else {}
        return await fed(self._submitter, cron, source_of(cron, runs))

    async def remove(self, caller: Caller, name: str) -> None:
        """Removes a cron. Once this returns, it fires no more.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: it is not the caller's to remove.
            Unavailable: a fire of it was in somebody's hand all the time.
        """
        cron = await self._own(caller, name)
        ends = self._clock.now_ns() + round(2 * self._lease_s * 1e9)
        if not await self._store.stop(cron.cron_id):
            return
        while not await self._store.remove(cron.cron_id, self._now()):
            if not await self._store.stop(cron.cron_id):
                return
            if self._clock.now_ns() > ends:
                msg = "a fire of this cron is still under way"
                raise Unavailable(msg, reason="CRON_BUSY", retry_delay_s=1.0)
            await asyncio.sleep(REMOVE_AGAIN_S)

    def _now(self) -> datetime:
        # Whole milliseconds: ids name moments in them.
        now_ns = self._clock.now_ns()
        return datetime_of(now_ns - now_ns % NS_PER_MS)


def _moments(timetable: Timetable, after: datetime, count: int) -> Sequence[datetime]:
    moments: list[datetime] = []
    following = timetable.next_after(after)
    while following is not None and following - after < PREVIEWED and len(moments) < count:
        moments.append(following)
        following = timetable.next_after(following)
    return moments


def _no_cron(name: str) -> NotFound:
    return NotFound(f"no cron {name!r} in this colony", reason="CRON_NOT_FOUND")


def _going_on(cron: Cron, now: datetime) -> Change:
    """A schedule that begins or is taken up again now."""
    following = None if cron.is_used_up else first_fire(cron.timetable, now, cron.acted_until)
    state = State.ENDED if following is None else State.ACTIVE
    return Change(state, "", following, due_of(cron.timetable, following))


def _overlapped(cron: Cron, now: datetime) -> Fire | None:
    """What a change leaves behind of the moments that have passed while a fire waits."""
    waited_for = cron.pending.waits_for if cron.pending is not None else None
    return None if waited_for is None else overlapped(cron, now, waited_for)


def _require_more(cron: Cron) -> None:
    if cron.state is State.ENDED:
        msg = "this cron never fires again: its window or its runs are used up; update it to go on"
        raise FailedPrecondition(msg, reason="CRON_ENDED")


def _revoked(failure: Failure) -> Failure:
    if isinstance(failure, PermissionDenied) and failure.reason == ON_BEHALF_REVOKED:
        return FailedPrecondition(OWNER_REVOKED, reason="OWNER_REVOKED")
    return failure
