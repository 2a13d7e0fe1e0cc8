"""What concurrent calls write together: each call has its own outcome, as if it had come alone."""

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from servicekit.failures import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from services.scheduler.domain.endings import CloseCall, Closing
from services.scheduler.domain.ids import new_id
from services.scheduler.domain.records import AttemptRef, Claim, Claimed, Entered, ExecutorProfile, SubmitCall
from services.scheduler.domain.states import State
from services.scheduler.domain.submitting import MAX_WEIGHT, NewWorkflow, Request, Submitting
from services.scheduler.store.reads import Reads

from .scheduler_records import (
    ALICE,
    COLONY,
    NO_PROCESS,
    START,
    TABLES,
    WORKER,
    WORKER_2,
    World,
    at,
    receipt,
    spec,
    submission,
    success,
)
from .scheduler_works import Works

pytestmark = pytest.mark.asyncio

FAILURE = Closing(successful=False, errors=("broken",))
RETRYABLE = Closing(successful=False, errors=("try again",), retryable=True)


def submitting(works: Works) -> Submitting:
    return Submitting(works.world.tables, works.aftermath, works.steps, works.limits, works.world.clock)


def request(request_id: str, *, colony: str = COLONY, digest: bytes = b"digest") -> Request:
    return Request(colony, request_id, digest, ALICE, ALICE.identity, receipt())


async def test_many_submissions_in_one_batch_each_enter_whole_and_once(world: World) -> None:
    before = await world.enter(spec("a"), request_id="old")
    given = [
        submission(spec("a"), spec("b", "a"), workflow=True, request_id="flow"),
        submission(spec(), request_id="single"),
        submission(spec("a"), workflow=True, request_id="old"),
        submission(spec("a"), workflow=True, request_id="old", digest=b"other"),
        submission(spec(), spec(), spec(), request_id="three", colony="umbrella"),
        submission(spec(), request_id="single"),
        submission(spec(), request_id="single", digest=b"other"),
        submission(spec(), request_id="single", actor="bb" * 32),
    ]
    outcomes = [
        outcome if isinstance(outcome, Exception) else outcome[0]
        for outcome in await world.tables.submit([SubmitCall([one]) for one in given], START)
    ]
    flow, single, old, old_other, three, again, again_other, bobs = outcomes
    assert isinstance(flow, Entered)
    assert (flow.workflow_id, list(flow.process_ids)) == (given[0].workflow_id, [one.id for one in given[0].processes])
    assert [place.id for place in flow.changes.ready] == [given[0].processes[0].id]
    assert isinstance(single, Entered)
    assert isinstance(old, Entered)
    assert (old.workflow_id, list(old.process_ids), old.changes.ready) == (before.workflow_id, list(before.process_ids), [])
    assert isinstance(three, Entered)
    assert [place.colony for place in three.changes.ready] == ["umbrella"] * 3
    assert isinstance(again, Entered)
    assert (list(again.process_ids), again.changes.ready) == (list(single.process_ids), [])
    assert isinstance(bobs, Entered)
    assert list(bobs.process_ids) != list(single.process_ids)
    for refused in (old_other, again_other):
        assert isinstance(refused, AlreadyExists)
        assert refused.reason == "REQUEST_ID_REUSED"
    counts = await world.counts()
    assert (counts["submission"], counts["workflow"], counts["process"], counts["edge"]) == (5, 2, 8, 1)
    await world.check_ledger()


@pytest.mark.usefixtures("no_deadlocks")
async def test_batches_with_the_same_request_ids_in_any_order_enter_each_once(world: World) -> None:
    """Each batch waits for those that took its ids; sorted, so that no two wait for each other."""

    async def batch(turn: int) -> Sequence[Any]:
        ids = random.Random(turn).sample(range(40), 40)
        calls = [SubmitCall([submission(spec(), request_id=f"r{one}")]) for one in ids]
        return [entered for (entered,) in await world.tables.submit(calls, START)]  # type: ignore[misc]

    answers = await asyncio.gather(*(batch(turn) for turn in range(8)))
    assert len({one.process_ids[0] for outcomes in answers for one in outcomes}) == 40
    assert sum(len(one.changes.ready) for outcomes in answers for one in outcomes) == 40
    assert len(await world.states()) == 40
    await world.check_ledger()


async def test_one_submission_that_cannot_be_written_fails_alone(works: Works) -> None:
    """Postgres holds no NUL in a text: the statement fails whole, and each is tried by itself."""
    service = submitting(works)
    calls = [service.processes(request(f"r{n}"), [spec(func_name="f\x00" if n == 3 else "f")]) for n in range(8)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, BaseException) for one in answers] == [n == 3 for n in range(8)]
    good = [one[0] for one in answers if not isinstance(one, BaseException)]
    assert set(await works.world.states()) == set(good)
    assert set(await works.claim()) == set(good)
    await works.world.check_ledger()


async def test_submits_of_concurrent_calls_have_their_own_answers_and_all_reach_the_queue(works: Works) -> None:
    service = submitting(works)
    mine = [service.processes(request(f"r{n % 20}"), [spec(f"n{n % 20}")]) for n in range(40)]
    theirs = [
        service.workflows([NewWorkflow(request(f"r{n}", colony="umbrella"), [spec("a"), spec("b", "a")], "")]) for n in range(5)
    ]
    refused = service.processes(request("r0", digest=b"other"), [spec("other")])
    processes, workflows, refusal = await asyncio.gather(
        asyncio.gather(*mine), asyncio.gather(*theirs), asyncio.gather(refused, return_exceptions=True)
    )
    assert [list(one) for one in processes[:20]] == [list(one) for one in processes[20:]]
    # One of the two with this request id came first.
    assert isinstance(refusal[0], AlreadyExists)
    assert set(await works.claim()) == {one[0] for one in processes}
    assert set(await works.claim(colony="umbrella")) == {ids[0] for ((_, ids),) in workflows}
    assert works.steps.idle


async def test_what_is_repeated_while_it_is_entered_keeps_nobody_else_waiting(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large workflow takes its time; whoever uses its request id, or its id, before it is in waits for its rows."""
    service = submitting(works)
    submit = works.world.tables.submit
    begun, over, entered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    workflow_id = new_id(works.world.clock.now_ns())

    async def locked(calls: Sequence[SubmitCall], now: Any) -> Sequence[Any]:
        if begun.is_set():
            if any(one.request_id == "large" or one.workflow_id == workflow_id for each in calls for one in each.submissions):
                await entered.wait()
            return await submit(calls, now)
        begun.set()
        await over.wait()
        outcomes = await submit(calls, now)
        entered.set()
        return outcomes

    monkeypatch.setattr(works.world.tables, "submit", locked)
    nodes = [spec(f"n{n}") for n in range(MAX_WEIGHT)]
    large = asyncio.create_task(service.workflows([NewWorkflow(request("large"), nodes, "", workflow_id)]))
    await begun.wait()
    # Its caller gives up; it is entered all the same.
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    same = asyncio.create_task(service.processes(request("large", digest=b"other"), [spec()]))
    theirs = asyncio.create_task(service.workflows([NewWorkflow(request("id"), [spec("a")], "", workflow_id)]))
    neighbour = asyncio.create_task(service.processes(request("small", colony="umbrella"), [spec()]))
    try:
        await asyncio.wait_for(neighbour, 10)
        assert not same.done()
        assert not theirs.done()
    finally:
        over.set()
        answers = await asyncio.gather(same, theirs, neighbour, return_exceptions=True)
    assert [type(answer) for answer in answers[:2]] == [AlreadyExists, AlreadyExists]
    assert await service.processes(request("large 2"), [spec()])
    assert not service._entering


def call(
    *refs: tuple[UUID, int] | UUID, closing: Closing | None = None, by: ExecutorProfile = WORKER, **fields: str
) -> CloseCall:
    closes = {AttemptRef(*(ref if isinstance(ref, tuple) else (ref, 1))): closing or success(b"1") for ref in refs}
    return CloseCall(fields.get("colony", COLONY), by.identity, closes, receipt())


async def test_only_whole_calls_close_in_one_statement(world: World) -> None:
    ids = list((await world.enter(*[spec(max_retries=1) for _ in range(12)], workflow=False)).process_ids)
    flow = (await world.enter(spec("a"))).process_ids
    a, b, c, d, e, f, g, h, again, ended, theirs, waiting = ids
    await world.assign(*[one for one in ids if one not in {theirs, waiting}], *flow)
    await world.assign(theirs, executor=WORKER_2)
    await world.close(again, RETRYABLE)
    await world.assign(again, seconds=3)
    await world.close(ended, success(b"1"))
    before = {row["id"]: row for row in await world.rows("process")}
    calls = [
        call(a, b),
        call(c, flow[0]),
        call(d, (again, 1)),
        call(e, ended),
        call(f, theirs),
        call(g, waiting),
        call(h, NO_PROCESS),
        call((again, 2)),
        call(c, colony="umbrella"),
        call(theirs, by=WORKER_2),
    ]
    whole, changes = await world.tables.close_successes(calls, at(4))
    assert whole == {0, 7, 9}
    rows = {row["id"]: row for row in await world.rows("process")}
    closed = {a, b, again, theirs}
    assert {one for one, row in rows.items() if row != before[one]} == closed
    assert {rows[one]["state"] for one in closed} == {State.SUCCESSFUL}
    assert set(changes) == {COLONY}
    assert {(one.process_id, one.number, one.executor_id) for one in changes[COLONY].released} == {
        (a, 1, WORKER.identity),
        (b, 1, WORKER.identity),
        (again, 2, WORKER.identity),
        (theirs, 1, WORKER_2.identity),
    }
    assert changes[COLONY].touched == closed
    await world.check_ledger()


async def test_the_same_closes_twice_in_a_batch_are_both_answered_and_written_once(world: World) -> None:
    a, b, c = (await world.enter(spec(), spec(), spec(), workflow=False)).process_ids
    await world.assign(a, b, c)
    whole, _ = await world.tables.close_successes([call(a, b), call(b, a), call(a), call(b, c), call(a, by=WORKER_2)], at(2))
    assert whole == {0, 1, 2, 3}
    ends = [row for row in await world.rows("ledger") if row["to_state"] == State.SUCCESSFUL]
    assert sorted(row["process_id"] for row in ends) == sorted([a, b, c])
    await world.check_ledger()


async def test_the_same_closes_for_another_colony_are_not_answered_by_them(world: World) -> None:
    """An identity may be an executor of both; the process is in one."""
    (a,) = (await world.enter(spec(), workflow=False)).process_ids
    await world.assign(a)
    whole, changes = await world.tables.close_successes([call(a, colony="umbrella"), call(a)], at(2))
    assert whole == {1}
    assert set(changes) == {COLONY}


async def test_a_call_that_is_not_whole_closes_nothing_that_another_has_not(world: World) -> None:
    a, b, c = (await world.enter(spec(), spec(), spec(), workflow=False)).process_ids
    await world.assign(a, b)
    # b is closed by its own call; the one with c, which does not run, is left to be refused.
    whole, _ = await world.tables.close_successes([call(a, c), call(b)], at(2))
    assert whole == {1}
    assert await world.states() == {a: State.RUNNING, b: State.SUCCESSFUL, c: State.WAITING}


async def test_closing_in_one_statement_writes_what_closing_row_by_row_writes(world: World) -> None:
    """The two ways differ in nothing that anybody can see."""
    closings = [success(b"1", b"22"), success(), success(), success(b"x" * 1_000)]
    fast, slow = [
        list((await world.enter(*[spec(max_exec_ms=5) for _ in closings], workflow=False)).process_ids) for _ in range(2)
    ]
    await world.assign(*fast, *slow)
    for ids in (fast, slow):
        await Reads(world.database).set_outputs(COLONY, WORKER.identity, AttemptRef(ids[2], 1), [b"set", b"before"], receipt())
    for ids, close in ((fast, world.tables.close_successes), (slow, partial(world.tables.close, patient=True))):
        closes = {AttemptRef(one, 1): closing for one, closing in zip(ids, closings, strict=True)}
        await close([CloseCall(COLONY, WORKER.identity, closes, receipt())], at(2.5))
    rows = {row["id"]: row for row in await world.rows("process")}
    lines = {row["process_id"]: row for row in await world.rows("ledger") if row["to_state"] == State.SUCCESSFUL}
    attempts = {row["process_id"]: row for row in await world.rows("attempt")}
    own = {"id", "process_id", "sequence", "xid", "priority_time", "receipt", "output_receipt", "chain", "hash"}
    for quick, slowly in zip(fast, slow, strict=True):
        for found in (rows, lines, attempts):
            one, other = found[quick], found[slowly]
            assert {key: one[key] for key in one.keys() - own} == {key: other[key] for key in other.keys() - own}
    assert [rows[one]["output_bytes"] for one in fast] == [3, 0, 9, 1_000]
    await world.check_ledger()


async def test_calls_that_are_closed_row_by_row_have_their_own_outcomes(world: World) -> None:
    ids = (await world.enter(*[spec(f"n{n}", max_retries=1) for n in range(6)], spec("child", "n0"))).process_ids
    a, b, c, d, e, f, child = ids
    await world.assign(a, b, c, d, e)
    outcomes, changes = await world.tables.close(
        [
            call(a, b),
            call(a),
            call(a, closing=FAILURE),
            call(a, by=WORKER_2),
            call(c, f),
            call(c, closing=RETRYABLE),
            call(d, NO_PROCESS),
            call(d, closing=FAILURE),
            call((e, 7)),
        ],
        at(2),
        patient=True,
    )
    assert outcomes[0] == [State.SUCCESSFUL, State.SUCCESSFUL]
    assert outcomes[1] == [State.SUCCESSFUL]
    assert outcomes[5] == [State.WAITING]
    assert outcomes[7] == [State.FAILED]
    assert [type(outcomes[place]) for place in (2, 3, 4, 6, 8)] == [
        *(FailedPrecondition, FailedPrecondition, FailedPrecondition, NotFound, FailedPrecondition)
    ]
    states = await world.states()
    assert [states[one] for one in ids] == [
        *(State.SUCCESSFUL, State.SUCCESSFUL, State.WAITING, State.FAILED, State.RUNNING, State.WAITING, State.WAITING)
    ]
    assert {place.id for place in changes.ready} == {c, child}
    assert {over.process_id for over in changes.released} == {a, b, c, d}
    await world.check_ledger()


@pytest.mark.usefixtures("no_deadlocks")
async def test_concurrent_batches_of_closes_close_each_attempt_once(world: World) -> None:
    ids = list((await world.enter(*[spec() for _ in range(60)], workflow=False)).process_ids)
    await world.assign(*ids)

    async def batch(turn: int) -> list[UUID]:
        mine = random.Random(turn).sample(ids, 40)
        calls = [call(*mine[start : start + 4]) for start in range(0, 40, 4)]
        whole, changes = await world.tables.close_successes(calls, at(2))
        left = [one for place, one in enumerate(calls) if place not in whole]
        outcomes, later = await world.tables.close(left, at(2), patient=True) if left else ([], None)
        assert not [one for one in outcomes if isinstance(one, Exception)]
        released = [over for found in changes.values() for over in found.released] + (later.released if later else [])
        return [over.process_id for over in released]

    answers = await asyncio.gather(*(batch(turn) for turn in range(8)))
    closed = [one for answer in answers for one in answer]
    assert len(closed) == len(set(closed))
    assert {one for one, state in (await world.states()).items() if state is State.SUCCESSFUL} == set(closed)
    await world.check_ledger()


async def test_claims_of_several_executors_begin_in_one_statement(world: World) -> None:
    singles = list((await world.enter(*[spec(max_retries=1, priority=n) for n in range(5)], workflow=False)).process_ids)
    flow = list((await world.enter(spec("a"), spec("b", "a"))).process_ids)
    foreign = list((await world.enter(spec(), colony="umbrella", workflow=False)).process_ids)
    await world.run(singles[4], RETRYABLE)
    claims = [
        Claim(COLONY, WORKER, [Claimed(one, 1) for one in (singles[0], singles[1], flow[0], flow[1], foreign[0])]),
        Claim(COLONY, WORKER_2, [Claimed(singles[2], 1), Claimed(singles[3], 2), Claimed(singles[4], 1)]),
        Claim("umbrella", WORKER_2, [Claimed(foreign[0], 1), Claimed(singles[3], 1)]),
        Claim(COLONY, WORKER_2, []),
        Claim(COLONY, WORKER_2, [Claimed(singles[4], 2)]),
    ]
    answers = [one.assigned for one in await world.tables.assign(claims, at(3))]
    # Wrong numbers, parents that have not ended, other colonies: left out. The most urgent of each first.
    begun = [[(one.live.id, one.live.attempt) for one in answer] for answer in answers]
    assert begun == [
        [(singles[1], 1), (singles[0], 1), (flow[0], 1)],
        [(singles[2], 1)],
        [(foreign[0], 1)],
        [],
        [(singles[4], 2)],
    ]
    assert {one.live.executor_id for one in answers[0]} == {WORKER.identity}
    assert {one.live.executor_name for one in answers[1] + answers[2]} == {WORKER_2.name}
    await world.check_ledger()


async def test_a_process_that_two_executors_claim_in_one_batch_goes_to_one(world: World) -> None:
    ids = (await world.enter(*[spec(f"n{n}") for n in range(30)])).process_ids
    claims = [Claim(COLONY, one, [Claimed(process, 1) for process in ids]) for one in (WORKER, WORKER_2)]
    answers = [one.assigned for one in await world.tables.assign(claims, at(1))]
    assert sorted(one.live.id for answer in answers for one in answer) == sorted(ids)
    for answer, executor in zip(answers, (WORKER, WORKER_2), strict=True):
        assert {one.live.executor_id for one in answer} <= {executor.identity}
    await world.check_ledger()


async def test_what_backs_off_is_not_assigned(world: World) -> None:
    (one,) = (await world.enter(spec(max_retries=1, backoff=(10_000.0, 2.0, 60_000.0, 0.0)), workflow=False)).process_ids
    await world.run(one, RETRYABLE, seconds=1)
    assert await world.assign(one, seconds=11.4) == {}
    assert await world.assign(one, seconds=11.5) == {one: 2}
    await world.check_ledger()


async def test_every_table_is_as_before_after_a_batch_of_refused_calls(world: World) -> None:
    ids = (await world.enter(spec("a"), spec("b"), workflow=False)).process_ids
    await world.assign(ids[0])
    before = [await world.rows(table) for table in TABLES]
    refused = [call(*ids), call(ids[0], by=WORKER_2), call(ids[0], colony="umbrella")]
    assert (await world.tables.close_successes(refused, at(2)))[0] == set()
    outcomes, _ = await world.tables.close(refused[:2], at(2), patient=True)
    assert all(isinstance(one, FailedPrecondition) for one in outcomes)
    assert [await world.rows(table) for table in TABLES] == before


async def test_a_batch_that_may_have_been_written_is_in_doubt_as_a_whole(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit took place and its answer was lost: every caller is told so, and the queue learns it from the rows."""
    service = submitting(works)
    submit = works.world.tables.submit

    async def lost(submissions: Sequence[Any], now: Any) -> Sequence[Any]:
        await submit(submissions, now)
        msg = "the database is out of reach"
        raise Unavailable(msg, reason="DATABASE_UNAVAILABLE")

    monkeypatch.setattr(works.world.tables, "submit", lost)
    answers = await asyncio.gather(*(service.processes(request(f"r{n}"), [spec()]) for n in range(5)), return_exceptions=True)
    assert all(isinstance(one, Unavailable) for one in answers)
    assert await works.claim() == []
    assert not works.steps.idle, "the watermark must not pass what was not told"
    await works.settle()
    assert works.steps.idle
    assert set(await works.claim()) == set(await works.world.states())


async def test_a_process_that_two_executors_of_a_batch_claimed_is_ones_alone(world: World) -> None:
    """It may be in its lane twice, when a claim is long on its way to the tables."""
    ids = (await world.enter(*[spec(f"n{n}") for n in range(5)], workflow=False)).process_ids
    claims = [Claim(COLONY, executor, [Claimed(one, 1) for one in ids]) for executor in (WORKER, WORKER_2)]
    begun = await world.tables.assign(claims, at(1))
    given = [(one.live.id, one.live.executor_id) for part in begun for one in part.assigned]
    assert sorted(process_id for process_id, _ in given) == sorted(ids)
    held = {row["id"]: row["executor_id"] for row in await world.rows("process")}
    assert dict(given) == held
    for part, executor in zip(begun, (WORKER, WORKER_2), strict=True):
        assert {one.live.executor_id for one in part.assigned} <= {executor.identity}
    await world.check_ledger()
