"""Fires what is due: the work of the loop over crons.

A pass takes crons in hand (one transaction writes what each is about to do, and that this replica is at it), asks the scheduler
and writes what became of it. No lock is held while the scheduler is asked. If this replica dies in between, the claim runs out
and another does the same under the same ids; the scheduler answers with the workflows that are there. So a moment gives one
workflow, never two, whatever died.
"""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from servicekit.clock import Clock, datetime_of
from servicekit.failures import AlreadyExists, Failure, ResourceExhausted, Unavailable
from services.cron.domain.cron import Cron, Fire, Outcome, Overlap, State, fire_request_id
from services.cron.domain.due import Looks
from services.cron.domain.feeding import Fed, fed, source_of
from services.cron.domain.ports import Begun, FireStore, Launch, Run, Settlement, WorkflowSubmitter
from services.cron.domain.settling import PAUSED_WAITING, failed, postponed, skipped, submitted, waiting
from services.cron.domain.ticking import Tick, tick

log = structlog.get_logger()

# Workflows in one call, and their bytes: a request holds 32 MiB.
MOST_LAUNCHES = 250
MOST_BYTES = 16 << 20
# Calls to the scheduler at the same time: one for each colony and account.
CALLS = 16
# Cancels at the same time, of all those calls.
CANCELS = 8
# Runs whose outputs are fetched at the same time, of one call: up to 16 MiB each.
FEEDS = 4
MOST_RUNS = 1_000
BROKEN_AGAIN_S = 60.0
# While some of a pass wait for the scheduler, what is known of the others is written this often.
SETTLE_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who has fires in hand, and until when nobody else takes them."""

    claim_id: UUID
    until: datetime


@dataclass(frozen=True, slots=True)
class _Go:
    """A fire that is to be submitted, and what is fed to it."""

    cron: Cron
    fed: Fed


class Fires:
    """Fires crons as they come due.

    Args:
        lease_s: how long a claim lasts, in seconds: longer than a call to the scheduler may take.
        on_fire: told what became of a fire, or was put off, and how many seconds after its moment.
    """

    def __init__(
        self,
        store: FireStore,
        submitter: WorkflowSubmitter,
        clock: Clock,
        *,
        lease_s: float,
        on_fire: Callable[[str, float], None],
    ) -> None:
        self._store = store
        self._submitter = submitter
        self._clock = clock
        self._lease = timedelta(seconds=lease_s)
        self._on_fire = on_fire
        self._calls = asyncio.Semaphore(CALLS)
        self._cancels = asyncio.Semaphore(CANCELS)

    async def work(self, ids: Sequence[UUID]) -> Looks:
        """Fires those of the crons that are due and that nobody else has in hand. Returns when to look at each next.

        Raises:
            Unavailable: the database is out of reach; what was begun is taken up again when its claim has run out.
        """
        now = self._now()
        claim = _Claim(uuid.uuid4(), now + self._lease)
        looks: dict[UUID, datetime | None] = {}
        groups: dict[tuple[str, str], list[Cron]] = defaultdict(list)
        for begun in await self._begin(ids, claim):
            looks.update(begun.looks)
            for cron in begun.crons:
                groups[cron.colony, cron.initiator].append(cron)
        working = {asyncio.create_task(self._group(colony, crons, claim)) for (colony, _), crons in groups.items()}
        try:
            while working:
                # Now and then what is done is written: those who are slow keep nobody else's fires until their claim is over.
                done, working = await asyncio.wait(working, timeout=SETTLE_EVERY_S)
                settlements = [settlement for each in done for settlement in each.result()]
                if settlements:
                    written = await self._settle(settlements, claim)
                    looks.update(written)
                    self._observe(each for each in settlements if each.cron.cron_id in written)
        finally:
            for each in working:
                each.cancel()
        return looks

    async def _begin(self, ids: Sequence[UUID], claim: _Claim) -> list[Begun]:
        now, ticks = self._now(), list[Tick]()

        def decide(cron: Cron) -> Tick:
            ticks.append(self._decide(cron))
            return ticks[-1]

        try:
            begun = await self._store.begin(ids, now=now, claim=claim.claim_id, until=claim.until, decide=decide)
            self._observe_left_out(each.left_out for each in ticks if each.left_out is not None)
            return [begun]
        except Failure:
            raise
        except Exception as error:  # noqa: BLE001 - logged as a defect, and put off
            if len(ids) == 1:
                return [Begun((), await self._put_off(ids[0], error))]
            # One row that cannot be begun must not keep all the others from firing.
            middle = len(ids) // 2
            return [*await self._begin(ids[:middle], claim), *await self._begin(ids[middle:], claim)]

    async def _settle(self, settlements: Sequence[Settlement], claim: _Claim) -> Looks:
        try:
            return await self._store.settle(settlements, claim=claim.claim_id, now=self._now())
        except Failure:
            raise
        except Exception as error:  # noqa: BLE001 - logged as a defect, and put off
            if len(settlements) == 1:
                return await self._put_off(settlements[0].cron.cron_id, error)
            middle = len(settlements) // 2
            return {**await self._settle(settlements[:middle], claim), **await self._settle(settlements[middle:], claim)}

    async def _put_off(self, cron_id: UUID, error: Exception) -> Looks:
        log.error("defect", cron_id=str(cron_id), error=repr(error), exc_info=error)
        again = self._now() + timedelta(seconds=BROKEN_AGAIN_S)
        await self._store.put_off(cron_id, again)
        return {cron_id: again}

    def _decide(self, cron: Cron) -> Tick:
        try:
            return tick(cron, self._now())
        except Exception as error:
            # A time zone that this machine does not know (any more), say: one cron must not keep all the others from firing.
            log.exception("defect", cron_id=str(cron.cron_id), error=repr(error))
            again = self._now() + timedelta(seconds=BROKEN_AGAIN_S)
            return Tick(None, None, cron.next_fire, again, cron.acted_until or cron.since, cron.catch_up_until)

    async def _group(self, colony: str, crons: Sequence[Cron], claim: _Claim) -> Sequence[Settlement]:
        """Fires of one colony on one account; none whose turn comes after the claim: another has them in hand then."""
        async with self._calls:
            if self._now() >= claim.until:
                return []
            try:
                settled, going = await self._look(colony, crons)
                return [*settled, *await self._submit_all(colony, going, claim)]
            except Failure as failure:
                return [failed(cron, self._now(), failure) for cron in crons]
            except Exception as error:  # noqa: BLE001 - logged as a defect, and put off
                return [self._broken(cron, error) for cron in crons]

    async def _look(self, colony: str, crons: Sequence[Cron]) -> tuple[list[Settlement], list[tuple[Cron, UUID | None]]]:
        """What the runs before these mean for them: those that go come with the run whose outputs are fed to them."""
        runs = await self._runs(colony, _to_look_at(crons))
        settled: list[Settlement] = []
        going: list[tuple[Cron, UUID | None]] = []
        # At the same time: cancels are calls of their own, and those that cancel nothing are not to wait for them one by one.
        outcomes = await asyncio.gather(*(self._overlap(cron, runs) for cron in crons))
        for cron, outcome in zip(crons, outcomes, strict=True):
            if outcome is not None:
                settled.append(outcome)
            else:
                going.append((cron, source_of(cron, runs) if cron.policy.feed_outputs else None))
        return settled, going

    async def _runs(self, colony: str, ids: Collection[UUID]) -> Mapping[UUID, Run]:
        wanted = list(ids)
        runs: dict[UUID, Run] = {}
        for begin in range(0, len(wanted), MOST_RUNS):
            some = wanted[begin : begin + MOST_RUNS]
            runs.update(await self._submitter.runs(colony=colony, workflow_ids=some, outputs=False))
        return runs

    async def _overlap(self, cron: Cron, runs: Mapping[UUID, Run]) -> Settlement | None:
        """What the overlap policy makes of a fire; None lets it go."""
        fire, last = cron.pending, cron.last_workflow_id
        assert fire is not None, "begun"
        if fire.fire_id in runs:
            # Whoever tried before us was not heard of again.
            return submitted(cron, self._now())
        if cron.state is State.PAUSED and fire.waits_for is not None:
            # While it was in hand, so that it was not given up with the pause.
            return skipped(cron, self._now(), PAUSED_WAITING)
        if last is None or last not in runs or not runs[last].is_open:
            return None
        match cron.policy.overlap:
            case Overlap.ALLOW:
                return None
            case Overlap.SKIP:
                return skipped(cron, self._now(), f"workflow {last} is still open")
            case Overlap.QUEUE_ONE:
                return waiting(cron, self._now(), last)
            case Overlap.CANCEL_PREVIOUS:
                return await self._cancel(cron, last)

    async def _cancel(self, cron: Cron, last: UUID) -> Settlement | None:
        try:
            async with self._cancels:
                await self._submitter.cancel(colony=cron.colony, account=cron.initiator, workflow_id=last)
        except Failure as failure:
            return failed(cron, self._now(), failure)
        return None

    async def _submit_all(self, colony: str, crons: Sequence[tuple[Cron, UUID | None]], claim: _Claim) -> Sequence[Settlement]:
        """As many as one call takes, again and again; outputs are fetched a few at a time, for they may be large."""
        settled: list[Settlement] = []
        portion: list[_Go] = []
        size = 0
        for begin in range(0, len(crons), FEEDS):
            for go in await asyncio.gather(*(self._fed(*each) for each in crons[begin : begin + FEEDS])):
                if isinstance(go, Settlement):
                    settled.append(go)
                    continue
                own = go.cron.workflow_bytes + sum(map(len, go.fed.arguments))
                if portion and (len(portion) == MOST_LAUNCHES or size + own > MOST_BYTES):
                    settled += await self._submit(colony, portion, claim)
                    portion, size = [], 0
                portion.append(go)
                size += own
        if portion:
            settled += await self._submit(colony, portion, claim)
        return settled

    async def _fed(self, cron: Cron, source: UUID | None) -> _Go | Settlement:
        """A fire with the outputs of the last run that succeeded."""
        try:
            return _Go(cron, await fed(self._submitter, cron, source))
        except Failure as failure:
            return failed(cron, self._now(), failure)

    async def _submit(self, colony: str, going: Sequence[_Go], claim: _Claim) -> Sequence[Settlement]:
        try:
            workflows = await self._store.workflows([go.cron.cron_id for go in going])
        except Unavailable as failure:
            return [failed(go.cron, self._now(), failure) for go in going]
        # Who is not there was removed a moment ago; what is written about it goes nowhere.
        launches = [(go, _launch(go, workflows[go.cron.cron_id])) for go in going if go.cron.cron_id in workflows]
        return await self._submit_together(colony, launches, claim, []) if launches else []

    async def _submit_together(
        self, colony: str, launches: Sequence[tuple[_Go, Launch]], claim: _Claim, limits: list[Failure]
    ) -> Sequence[Settlement]:
        """Submits some together; if they are refused, each half by itself, so that one cannot keep the others from firing."""
        if self._now() >= claim.until:
            return []
        # Once the scheduler is over a limit or away there is no use in asking on.
        refusal = limits[0] if limits else await self._enter(colony, launches)
        if refusal is None:
            return [self._submitted(go) for go, _ in launches]
        if isinstance(refusal, Unavailable) or (isinstance(refusal, ResourceExhausted) and len(launches) == 1):
            limits.append(refusal)
        if limits or len(launches) == 1:
            return [failed(go.cron, self._now(), refusal) for go, _ in launches]
        middle = len(launches) // 2
        first = await self._submit_together(colony, launches[:middle], claim, limits)
        return [*first, *await self._submit_together(colony, launches[middle:], claim, limits)]

    async def _enter(self, colony: str, launches: Sequence[tuple[_Go, Launch]]) -> Failure | None:
        account = launches[0][0].cron.initiator
        try:
            await self._submitter.submit_all(colony=colony, account=account, launches=[launch for _, launch in launches])
        except AlreadyExists as failure:
            # It is there, made of what the cron was or was fed with before. Nobody else uses these ids.
            return None if len(launches) == 1 else failure
        except Failure as failure:
            return failure
        except Exception as error:
            log.exception("defect", colony=colony, error=repr(error))
            return Unavailable("internal error", reason="INTERNAL")
        return None

    def _submitted(self, go: _Go) -> Settlement:
        return submitted(go.cron, self._now(), fed_from=go.fed.source)

    def _broken(self, cron: Cron, error: Exception) -> Settlement:
        log.error("defect", cron_id=str(cron.cron_id), error=repr(error), exc_info=error)
        return postponed(cron, self._now(), "internal error")

    def _observe(self, settlements: Iterable[Settlement]) -> None:
        for settlement in settlements:
            fire = settlement.cron.pending
            assert fire is not None, "begun"
            outcome = settlement.outcome.name.lower() if settlement.waits_for is None else "waiting"
            self._on_fire(outcome, (self._now() - fire.due).total_seconds())
            self._observe_left_out(settlement.left_out)
            if settlement.outcome is Outcome.REFUSED or settlement.state is State.PAUSED:
                cron_id = str(settlement.cron.cron_id)
                log.warning("fire", cron_id=cron_id, outcome=outcome, state=settlement.state.name, error=settlement.error)

    def _observe_left_out(self, fires: Iterable[Fire]) -> None:
        for fire in fires:
            self._on_fire(fire.outcome.name.lower(), (self._now() - fire.due).total_seconds())

    def _now(self) -> datetime:
        return datetime_of(self._clock.now_ns())


def _to_look_at(crons: Iterable[Cron]) -> set[UUID]:
    """Workflows whose states decide: the last ones, and those that may have been entered unknown to us."""
    wanted: set[UUID] = set()
    for cron in crons:
        assert cron.pending is not None, "begun"
        if cron.pending.tries > 1:
            wanted.add(cron.pending.fire_id)
        if cron.last_workflow_id is not None and (cron.policy.feed_outputs or cron.policy.overlap is not Overlap.ALLOW):
            wanted.add(cron.last_workflow_id)
    return wanted


def _launch(go: _Go, workflow: bytes) -> Launch:
    fire = go.cron.pending
    assert fire is not None, "begun"
    return Launch(fire_request_id(fire.fire_id), fire.fire_id, workflow, go.fed.arguments)
