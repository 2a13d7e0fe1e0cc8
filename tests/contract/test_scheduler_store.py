"""The scheduler's tables against a real Postgres: submits, assignments, closes, cascades, removals."""

import asyncio
import uuid
from typing import Any
from uuid import UUID

import pytest

from servicekit.failures import AlreadyExists, FailedPrecondition, NotFound
from services.scheduler.domain import endings
from services.scheduler.domain.channelling import Appending, ChannelRef, Kind, Message
from services.scheduler.domain.endings import CloseCall, Closing
from services.scheduler.domain.records import Account, AttemptRef
from services.scheduler.domain.spec import Dependency, Selector
from services.scheduler.domain.states import Outcome, Reason, State
from services.scheduler.domain.views import AttributeView
from services.scheduler.store.channels import ChannelTables
from services.scheduler.store.reads import Reads
from services.scheduler.store.retention import RetentionStore
from services.scheduler.store.statistics import StatisticsStore

from .scheduler_records import (
    ALICE,
    COLONY,
    NO_PROCESS,
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

pytestmark = pytest.mark.asyncio

FAILURE = Closing(successful=False, errors=("broken",))
RETRYABLE = Closing(successful=False, errors=("try again",), retryable=True)


async def test_a_submit_again_gives_the_first_answer_and_enters_nothing(world: World) -> None:
    first = submission(spec("a"), spec("b", "a"), workflow=True, request_id="one")
    entered = await world.submit(first)
    counts = await world.counts()
    again = await world.submit(submission(spec("a"), spec("b", "a"), workflow=True, request_id="one"))
    assert (again.workflow_id, list(again.process_ids)) == (first.workflow_id, list(entered.process_ids))
    assert not again.changes.ready
    assert await world.counts() == counts
    await world.check_ledger()


async def test_twenty_at_once_with_one_request_id_enter_one_workflow(world: World) -> None:
    nodes = [spec("a"), spec("b", "a"), spec("c", "a")]
    answers = await asyncio.gather(*(world.enter(*nodes, request_id="one") for _ in range(20)))
    assert len({answer.workflow_id for answer in answers}) == 1
    assert len({tuple(answer.process_ids) for answer in answers}) == 1
    assert sum(len(answer.changes.ready) for answer in answers) == 1
    counts = await world.counts()
    assert (counts["submission"], counts["workflow"], counts["process"], counts["edge"]) == (1, 1, 3, 2)


async def test_a_request_id_is_good_for_one_thing_of_one_caller_in_one_colony(world: World) -> None:
    await world.enter(spec("a"), request_id="one")
    with pytest.raises(AlreadyExists) as caught:
        await world.enter(spec("a"), request_id="one", digest=b"other")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    await world.enter(spec("a"), request_id="one", digest=b"other", actor="bb" * 32)
    await world.enter(spec("a"), request_id="one", digest=b"other", colony="umbrella")
    assert len(await world.states()) == 3


async def test_submission_order_is_the_order_of_the_request(world: World) -> None:
    entered = await world.enter(*[spec(f"n{index}") for index in range(500)])
    rows = {row["id"]: row["sequence"] for row in await world.rows("process")}
    sequences = [rows[one] for one in entered.process_ids]
    assert sequences == sorted(sequences)
    assert [place.id for place in sorted(entered.changes.ready, key=lambda one: one.sequence)] == list(entered.process_ids)


async def test_assigning_takes_only_what_is_ready_in_its_own_colony_and_the_most_urgent_first(world: World) -> None:
    entered = await world.enter(spec("a", priority=0), spec("b", priority=2), spec("c", priority=1), spec("d", "a"))
    foreign = await world.enter(spec("x"), colony="umbrella")
    ids = [*entered.process_ids, *foreign.process_ids, NO_PROCESS]
    assigned = await world.begin(*ids)
    a, b, c, d = entered.process_ids
    assert [one.live.id for one in assigned] == [b, c, a]
    assert {one.live.attempt for one in assigned} == {1}
    assert await world.assign(*ids, executor=WORKER_2) == {}
    states = await world.states()
    assert states[d] is State.WAITING
    assert states[foreign.process_ids[0]] is State.WAITING
    await world.check_ledger()


async def test_of_many_who_assign_one_process_at_once_one_gets_it(world: World) -> None:
    ids = (await world.enter(*[spec(f"n{index}") for index in range(20)])).process_ids
    answers = await asyncio.gather(*(world.assign(*ids) for _ in range(10)))
    assert sorted(one for answer in answers for one in answer) == sorted(ids)
    await world.check_ledger()


async def test_the_last_parent_unlocks_and_no_other(world: World) -> None:
    a, b, c = (await world.enter(spec("a"), spec("b"), spec("c", "b", "a", max_wait_ms=1_000))).process_ids
    assert not (await world.run(a, success(b"A"))).ready
    assert await world.assign(c) == {}
    (place,) = (await world.run(b, success(b"B"), seconds=5)).ready
    assert place.id == c
    assert place.wait_deadline == at(6.5)
    (assigned,) = await world.begin(c, seconds=6)
    assert assigned.inputs == [b"B", b"A"]
    await world.check_ledger()


@pytest.mark.parametrize(
    ("dependency", "outputs", "inputs"),
    [
        (Dependency("a"), [b"1", b"2"], [b"1", b"2"]),
        (Dependency("a"), [], []),
        (Dependency("a", Selector.INDEX, 1), [b"1", b"2"], [b"2"]),
        (Dependency("a", Selector.INDEX, 0), [b"1", b"2"], [b"1"]),
        (Dependency("a", Selector.SHARE, 1, 2), [b"1", b"2"], [b"2"]),
        (Dependency("a", Selector.SHARE, 1, 2), [b"1"], [b"1"]),
        (Dependency("a", Selector.SHARE, 1, 2), [b"1", b"2", b"3"], [b"1", b"2", b"3"]),
        (Dependency("a", Selector.SHARE, 0, 1), [b"1"], [b"1"]),
    ],
)
async def test_what_an_edge_carries(world: World, dependency: Dependency, outputs: list[bytes], inputs: list[bytes]) -> None:
    a, b = (await world.enter(spec("a"), spec("b", dependency))).process_ids
    await world.run(a, success(*outputs))
    (assigned,) = await world.begin(b, seconds=3)
    assert assigned.inputs == inputs
    assert (await Reads(world.database).process(COLONY, b)).inputs == inputs


async def test_a_missing_output_fails_the_child_and_all_behind_it(world: World) -> None:
    nodes = [spec("a"), spec("b", Dependency("a", Selector.INDEX, 2)), spec("c", "b"), spec("d", "a")]
    a, b, c, d = (await world.enter(*nodes)).process_ids
    changes = await world.run(a, success(b"1", b"2"))
    assert [place.id for place in changes.ready] == [d]
    assert {b, c} <= changes.touched
    assert await world.states() == {a: State.SUCCESSFUL, b: State.FAILED, c: State.FAILED, d: State.WAITING}
    rows = {row["id"]: row for row in await world.rows("process")}
    assert rows[b]["errors"] == ["parent 'a' closed with 2 outputs; there is no output 2"]
    assert rows[c]["errors"] == ["not run: b failed"]
    reasons = {row["process_id"]: row["reason"] for row in await world.rows("ledger") if row["to_state"] == State.FAILED}
    assert reasons == {b: Reason.MISSING_OUTPUT, c: Reason.PARENT_FAILED}
    await world.check_ledger()


async def test_a_failure_ends_all_that_waits_for_it_and_nothing_else(world: World) -> None:
    nodes = [spec("a"), spec("b", "a"), spec("c", "b"), spec("d", "b", "e"), spec("e"), spec("f", "e"), spec("g", "a", "d")]
    a, b, c, d, e, f, g = (await world.enter(*nodes)).process_ids
    await world.run(a, FAILURE)
    failed = {one for one, state in (await world.states()).items() if state is State.FAILED}
    assert failed == {a, b, c, d, g}
    changes = await world.run(e, success(b"1"))
    assert [place.id for place in changes.ready] == [f]
    assert (await world.states())[d] is State.FAILED
    await world.check_ledger()


async def test_many_failures_in_one_transaction_blame_the_first_submitted(world: World) -> None:
    a, b, c = (await world.enter(spec("a"), spec("b"), spec("c", "b", "a"))).process_ids
    await world.assign(a, b)
    await world.close_all({AttemptRef(b, 1): FAILURE, AttemptRef(a, 1): FAILURE})
    rows = {row["id"]: row["errors"] for row in await world.rows("process")}
    assert rows[c] == ["not run: a failed"]
    await world.check_ledger()


async def test_closing_is_all_or_none(world: World) -> None:
    a, b = (await world.enter(spec("a"), spec("b"), workflow=False)).process_ids
    await world.assign(a)
    before = await world.rows("process")
    closing = success(b"1")
    with pytest.raises(FailedPrecondition) as caught:
        await world.close_all({AttemptRef(a, 1): closing, AttemptRef(b, 1): closing})
    assert caught.value.metadata == {"process_id": str(b)}
    with pytest.raises(NotFound):
        await world.close_all({AttemptRef(a, 1): closing, AttemptRef(NO_PROCESS, 1): closing})
    assert await world.rows("process") == before


async def test_a_repeated_close_is_accepted_and_changes_nothing(world: World) -> None:
    (a,) = (await world.enter(spec(), workflow=False)).process_ids
    await world.run(a, success(b"1"))
    everything = [await world.rows(table) for table in TABLES]
    changes, state = await world.close(a, success(b"2"), seconds=9)
    assert (state, changes.ready, changes.released, changes.touched) == (State.SUCCESSFUL, [], [], set())
    with pytest.raises(FailedPrecondition):
        await world.close(a, FAILURE)
    with pytest.raises(FailedPrecondition):
        await world.close(a, success(b"1"), executor=WORKER_2)
    assert [await world.rows(table) for table in TABLES] == everything


async def test_retries_overwrite_nothing(world: World) -> None:
    (a,) = (await world.enter(spec(max_retries=3, max_exec_ms=1_000, max_wait_ms=1_000), workflow=False)).process_ids
    await world.run(a, RETRYABLE, seconds=1)
    await world.assign(a, executor=WORKER_2, seconds=2)
    await world.end(a, lambda row: endings.lose(row, 2, at(3)), seconds=3)
    await world.assign(a, seconds=4)
    await world.end(a, lambda row: endings.time_out(row, 3, at(5)), seconds=5)
    await world.end(a, lambda row: endings.wait_out(row, at(6)), seconds=6)
    attempts, transitions = await Reads(world.database).history(COLONY, a)
    assert [(one.number, one.executor_name, one.outcome) for one in attempts] == [
        (1, "worker-1", Outcome.FAILED),
        (2, "worker-2", Outcome.LOST),
        (3, "worker-1", Outcome.TIMED_OUT),
    ]
    assert [one.errors for one in attempts] == [
        ["try again"],
        ["attempt 2 on executor worker-2 was lost: no heartbeat within its lease"],
        ["attempt 3 on executor worker-1 took longer than 1 s"],
    ]
    assert [one.reason for one in transitions] == [
        *("SUBMITTED", "ASSIGNED", "RETRIED", "ASSIGNED", "LEASE_EXPIRED", "ASSIGNED", "MAX_EXEC_TIME", "MAX_WAIT_TIME")
    ]
    (row,) = await world.rows("process")
    assert (row["state"], row["retries"], row["errors"]) == (State.FAILED, 3, ["not assigned within 1 s"])
    await world.check_ledger()


async def test_a_retry_begins_with_nothing_and_a_close_without_outputs_keeps_what_was_set(world: World) -> None:
    (a,) = (await world.enter(spec(max_retries=1), workflow=False)).process_ids
    reads = Reads(world.database)
    await world.assign(a)
    await reads.set_outputs(COLONY, WORKER.identity, AttemptRef(a, 1), [b"half"], receipt())
    await world.close(a, RETRYABLE)
    assert (await reads.process(COLONY, a)).outputs == []
    await world.assign(a, seconds=3)
    await reads.set_outputs(COLONY, WORKER.identity, AttemptRef(a, 2), [b"first"], receipt())
    last = receipt()
    await reads.set_outputs(COLONY, WORKER.identity, AttemptRef(a, 2), [b"whole"], last)
    # The call whose outputs were replaced is kept no longer.
    await world.check_ledger()
    await world.close(a, success(), number=2, seconds=4)
    view = await reads.process(COLONY, a)
    assert (view.outputs, view.errors) == ([b"whole"], [])
    (line,) = [row for row in await world.rows("ledger") if row["to_state"] == State.SUCCESSFUL]
    assert bytes(line["output_receipt"]) == last.digest
    await world.check_ledger()


async def test_cancelling_one_cancels_what_waits_for_it(world: World) -> None:
    a, b, c, d = (await world.enter(spec("a"), spec("b", "a"), spec("c", "b"), spec("d"))).process_ids
    await world.assign(a)
    asked = receipt()
    changes, states = await world.end(a, lambda row: endings.cancel(row, ALICE.identity, asked), must_exist=True)
    assert states == {a: State.CANCELLED}
    assert [over.process_id for over in changes.released] == [a]
    assert await world.states() == {a: State.CANCELLED, b: State.CANCELLED, c: State.CANCELLED, d: State.WAITING}
    with pytest.raises(FailedPrecondition):
        await world.close(a, success(b"1"))
    await world.check_ledger()


async def test_cancelling_a_workflow_leaves_what_has_ended(world: World) -> None:
    entered = await world.enter(spec("a"), spec("b", "a"), spec("c", "a"), spec("d", "b", "c"))
    a, b, c, d = entered.process_ids
    assert entered.workflow_id is not None
    await world.run(a, success(b"1"))
    await world.assign(b)
    changes = await world.cancel_workflow(entered.workflow_id)
    assert await world.states() == {a: State.SUCCESSFUL, b: State.CANCELLED, c: State.CANCELLED, d: State.CANCELLED}
    assert [over.process_id for over in changes.released] == [b]
    assert [place.id for place in changes.withdrawn] == [c]
    assert changes.touched == {b, c, d, entered.workflow_id}
    assert (await world.cancel_workflow(entered.workflow_id)).touched == set()
    with pytest.raises(NotFound):
        await world.cancel_workflow(uuid.uuid4())
    await world.check_ledger()


async def test_a_long_chain_is_cancelled_in_time_and_fails_in_time(world: World) -> None:
    """Each costs its processes: with a cost of their square, a chain of 5 000 would outlast the statement's time limit."""
    nodes = [spec("n0"), *(spec(f"n{index}", f"n{index - 1}") for index in range(1, 5_000))]
    # Other open work, so that no query ends early for want of any.
    others = set((await world.enter(*[spec(f"o{index}") for index in range(50)])).process_ids)
    entered = await world.enter(*nodes)
    assert entered.workflow_id is not None
    await world.cancel_workflow(entered.workflow_id)
    states = await world.states()
    assert {states[one] for one in entered.process_ids} == {State.CANCELLED}
    assert {states[one] for one in others} == {State.WAITING}
    failing = await world.enter(*nodes)
    await world.run(failing.process_ids[0], FAILURE)
    states = await world.states()
    assert {states[one] for one in failing.process_ids} == {State.FAILED}
    await world.check_ledger()


async def fill(world: World, *, colony: str = COLONY) -> tuple[UUID, UUID]:
    """A workflow and a process that have ended, with rows in every table; their ids."""
    flow = await world.enter(spec("a", channels=("x",)), spec("b", "a", channels=("x",)), colony=colony)
    single = await world.enter(spec(channels=("x",)), workflow=False, colony=colony)
    reads, channels = Reads(world.database), ChannelTables(world.database)
    for one in (*flow.process_ids, *single.process_ids):
        await world.assign(one, colony=colony)
        ref = AttemptRef(one, 1)
        await reads.add_logs(colony, WORKER.identity, WORKER.name, ref, [(at(1), "line")])
        await reads.set_attributes(colony, WORKER.identity, ref, [AttributeView(1, "k", "v")])
        said = Appending(WORKER.identity, WORKER.name, 1, 1, [Message(Kind.DATA, b"1")])
        await channels.append(ChannelRef(colony, one, "x"), said, lambda row: said.messages, at(1))
        await world.tables.close([CloseCall(colony, WORKER.identity, {ref: success(b"1")})], at(2), patient=True)
    assert flow.workflow_id is not None
    return flow.workflow_id, single.process_ids[0]


def anyone(_initiator: str) -> None:
    return None


async def test_removing_leaves_no_row_but_the_records_of_the_requests(world: World) -> None:
    """Those stay: a request that is repeated late must not run again what was removed."""
    workflow_id, process_id = await fill(world)
    await world.tables.remove_workflow(COLONY, workflow_id, anyone)
    # It is gone at once, and its processes follow.
    assert await RetentionStore(world.database).remove_departing(100) == (2, {COLONY})
    assert await world.states() == {process_id: State.SUCCESSFUL}
    await world.tables.remove_process(COLONY, process_id, anyone)
    # What they did is there until it is counted.
    await StatisticsStore(world.database).count(COLONY, at(0), 1_000)
    counts = await world.counts()
    assert counts.pop("submission") == 2
    assert not any(counts.values()), counts
    for removal in (
        world.tables.remove_workflow(COLONY, workflow_id, anyone),
        world.tables.remove_process(COLONY, process_id, anyone),
    ):
        with pytest.raises(NotFound):
            await removal


async def test_what_is_open_or_belongs_to_a_workflow_is_not_removed(world: World) -> None:
    flow = await world.enter(spec("a"))
    (single,) = (await world.enter(spec(), workflow=False)).process_ids
    assert flow.workflow_id is not None
    counts = await world.counts()
    for removal, reason in (
        (world.tables.remove_process(COLONY, single, anyone), "PROCESS_NOT_FINAL"),
        (world.tables.remove_process(COLONY, flow.process_ids[0], anyone), "PROCESS_IN_WORKFLOW"),
        (world.tables.remove_workflow(COLONY, flow.workflow_id, anyone), "WORKFLOW_NOT_FINAL"),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            await removal
        assert caught.value.reason == reason
    assert await world.counts() == counts


async def test_purging_a_colony_leaves_no_row_of_it_and_all_of_the_others(world: World) -> None:
    await fill(world, colony="umbrella")
    await world.assign((await world.enter(spec("live"), colony="umbrella")).process_ids[0], colony="umbrella")
    before = await world.counts()
    assert all(before.values()), before
    await fill(world)
    live, *_ = (await world.enter(spec("live"), spec("open"), spec("waiting", "open"))).process_ids
    await world.assign(live)
    await world.tables.purge(COLONY, page=2)
    assert await world.counts() == before
    await world.tables.purge(COLONY)
    assert await world.counts() == before


async def test_the_queue_is_rebuilt_from_all_that_is_open_in_submission_order(world: World) -> None:
    entered = await world.enter(*[spec(f"n{index}") for index in range(25)], spec("child", "n3"))
    await world.assign(*entered.process_ids[:5])
    await world.run(entered.process_ids[7], success(b"1"))
    foreign = await world.enter(spec(), workflow=False, colony="umbrella", account=Account("bb" * 32, "bob"))
    found: list[Any] = []
    after = 0
    while page := await world.tables.open_page(after, 4):
        assert len(page) <= 4
        found += page
        after = page[-1].sequence
    wanted = [one for one in entered.process_ids if one != entered.process_ids[7]]
    assert [live.id for live in found] == [*wanted, *foreign.process_ids]
