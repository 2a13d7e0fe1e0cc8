"""Attempts: leases, fencing, time limits, retries, cancellation. The clock is the test's."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from servicekit.clock import ManualClock
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster

from .scheduler_colony import SERVICES, Acme, ref_of, spec, value

pytestmark = pytest.mark.asyncio

WAITING, RUNNING = process_pb2.PROCESS_STATE_WAITING, process_pb2.PROCESS_STATE_RUNNING
SUCCESSFUL, FAILED = process_pb2.PROCESS_STATE_SUCCESSFUL, process_pb2.PROCESS_STATE_FAILED
CANCELLED = process_pb2.PROCESS_STATE_CANCELLED
LEASE_S = 10.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]], clock: ManualClock) -> Acme:
    settings = {"scheduler": {"lease_ms": int(LEASE_S * 1000)}}
    found = Acme(await new_cluster(services=SERVICES, clock=clock, settings=settings))
    await found.looked_after()
    return found


def reasons(history: Any) -> list[str]:
    return [line.reason for line in history.transitions]


async def test_heartbeats_keep_a_lease(acme: Acme, clock: ManualClock) -> None:
    (quiet, kept) = await acme.submit(spec(max_retries=1), spec())
    assignments = {one.process_id: one for one in await acme.assign(at_most=2)}
    assert not (await acme.heartbeat(*assignments.values())).drops
    for _ in range(5):
        await acme.looked_after()
        clock.advance(seconds=LEASE_S * 0.6)
        answer = await acme.heartbeat(assignments[kept])
        assert (list(answer.drops), answer.lease_ms) == ([], LEASE_S * 1000)
    lost = await acme.reaches(quiet, WAITING)
    assert lost.retries == 1
    assert (await acme.get(kept)).state == RUNNING
    assert await acme.close(assignments[kept]) == SUCCESSFUL


@pytest.mark.parametrize("again", ["worker-1", "worker-2"])
async def test_a_lost_attempt_is_followed_by_a_new_one_and_can_do_nothing_more(
    acme: Acme, clock: ManualClock, again: str
) -> None:
    """Whoever has the new one: it may be the executor that lost the old one."""
    (one,) = await acme.submit(spec(max_retries=3))
    old = await acme.one()
    assert not (await acme.heartbeat(old)).drops
    await acme.looked_after()
    clock.advance(seconds=LEASE_S + 1)
    assert (await acme.reaches(one, WAITING)).retries == 1
    holder = acme.worker if again == "worker-1" else acme.worker_2
    other = acme.worker_2 if again == "worker-1" else acme.worker
    new = await acme.one(holder)
    assert (old.attempt, new.attempt) == (1, 2)
    before = await acme.history(one)

    def writes(stub: Any, attempt: Any) -> list[Any]:
        ref = ref_of(attempt)
        line = process_pb2.LogLine(message="stale")
        attribute = process_pb2.Attribute(kind=process_pb2.ATTRIBUTE_KIND_OUT, key="stale")
        return [
            acme.closing(attempt, "stale", stub=stub),
            acme.closing(attempt, errors=["stale"], retryable=True, stub=stub),
            stub.SetOutput(pb.SetOutputRequest(colony_name=COLONY, attempt=ref, outputs=[value("stale")])),
            stub.AddLogs(pb.AddLogsRequest(colony_name=COLONY, attempt=ref, lines=[line])),
            stub.SetAttributes(pb.SetAttributesRequest(colony_name=COLONY, attempt=ref, attributes=[attribute])),
        ]

    # The old number; and the live number, by another than its holder.
    for call in (*writes(acme.worker, old), *writes(other, new)):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ATTEMPT_SUPERSEDED")
        assert error.metadata == {"process_id": one}
    for answer in (await acme.heartbeat(old), await acme.heartbeat(new, stub=other)):
        assert [drop.reason for drop in answer.drops] == [pb.DROP_REASON_SUPERSEDED]
    assert not (await acme.heartbeat(new, stub=holder)).drops

    assert await acme.history(one) == before
    logs = await acme.user.ListLogs(pb.ListLogsRequest(colony_name=COLONY, process_id=one))
    attributes = await acme.user.ListAttributes(pb.ListAttributesRequest(colony_name=COLONY, process_id=one))
    assert (list(logs.entries), list(attributes.attributes)) == ([], [])
    # The same close again is accepted.
    for _ in range(2):
        assert await acme.close(new, "fresh", stub=holder) == SUCCESSFUL
    assert list((await acme.get(one)).outputs) == [value("fresh")]


async def test_what_its_executor_never_confirmed_goes_back_and_costs_a_retry_only_the_fourth_time(
    acme: Acme, clock: ManualClock
) -> None:
    """The answer may have been lost on its way; but a function that kills its executor at once must not run for ever."""
    (one,) = await acme.submit(spec(max_retries=1))
    for number in range(1, 5):
        assert (await acme.one()).attempt == number
        await acme.looked_after()
        clock.advance(seconds=LEASE_S + 1)
        assert (await acme.reaches(one, WAITING)).retries == (0 if number <= 3 else 1)
    assert (await acme.one()).attempt == 5
    await acme.looked_after()
    clock.advance(seconds=LEASE_S + 1)
    await acme.reaches(one, FAILED)
    history = await acme.history(one)
    undelivered, lost = process_pb2.ATTEMPT_OUTCOME_UNDELIVERED, process_pb2.ATTEMPT_OUTCOME_LOST
    assert [attempt.outcome for attempt in history.attempts] == [undelivered] * 3 + [lost] * 2
    assert list(history.attempts[0].errors) == ["attempt 1 was not confirmed by executor worker-1"]
    assert reasons(history)[2::2] == ["UNDELIVERED"] * 3 + ["LEASE_EXPIRED"] * 2


async def test_max_exec_time_ends_the_attempt_though_it_sends_heartbeats(acme: Acme, clock: ManualClock) -> None:
    (one,) = await acme.submit(spec(max_exec_time_ms=15_000, max_retries=1))
    for attempt in (1, 2):
        running = await acme.one()
        assert running.attempt == attempt
        assert running.exec_deadline.ToMilliseconds() == clock.now_ns() // 1_000_000 + 15_000
        clock.advance(seconds=8)
        assert not (await acme.heartbeat(running)).drops
        assert (await acme.get(one)).state == RUNNING
        clock.advance(seconds=7.5)
        await acme.reaches(one, WAITING if attempt == 1 else FAILED)
        (drop,) = (await acme.heartbeat(running)).drops
        assert drop.reason == pb.DROP_REASON_SUPERSEDED
    history = await acme.history(one)
    assert [attempt.outcome for attempt in history.attempts] == [process_pb2.ATTEMPT_OUTCOME_TIMED_OUT] * 2
    assert reasons(history)[-1] == "MAX_EXEC_TIME"


async def test_max_wait_time_counts_each_stay_in_the_queue_anew(acme: Acme, clock: ManualClock) -> None:
    (one,) = await acme.submit(spec(max_wait_time_ms=10_000, max_retries=9))
    clock.advance(seconds=8)
    running = await acme.one()
    clock.advance(seconds=5)
    assert await acme.close(running, errors=["again"], retryable=True) == WAITING
    clock.advance(seconds=8)
    assert (await acme.get(one)).wait_deadline.ToMilliseconds() == clock.now_ns() // 1_000_000 + 2_000
    clock.advance(seconds=3)
    failed = await acme.reaches(one, FAILED)
    assert list(failed.errors) == ["not assigned within 10 s"]
    history = await acme.history(one)
    assert reasons(history) == ["SUBMITTED", "ASSIGNED", "RETRIED", "MAX_WAIT_TIME"]
    assert list(history.attempts[0].errors) == ["again"]
    assert await acme.assign() == []


@pytest.mark.parametrize("max_retries", [0, 1, 3])
async def test_retries_are_used_up(acme: Acme, max_retries: int) -> None:
    (one,) = await acme.submit(spec(max_retries=max_retries))
    for number in range(1, max_retries + 2):
        running = await acme.one()
        assert running.attempt == number
        state = await acme.close(running, errors=[f"no {number}"], retryable=True)
        assert state == (WAITING if number <= max_retries else FAILED)
    found = await acme.get(one)
    assert (found.retries, list(found.errors)) == (max_retries, [f"no {max_retries + 1}"])
    history = await acme.history(one)
    assert [list(attempt.errors) for attempt in history.attempts] == [[f"no {n}"] for n in range(1, max_retries + 2)]
    assert reasons(history)[-1] == "CLOSED"


async def test_a_failure_that_is_not_retryable_is_final(acme: Acme) -> None:
    (one,) = await acme.submit(spec(max_retries=-1))
    assert await acme.close(await acme.one(), errors=["broken"], retryable=False) == FAILED
    assert (await acme.get(one)).retries == 0


async def test_cancelling_what_runs(acme: Acme) -> None:
    one, other = await acme.submit(spec(), spec())
    held = await acme.assign(at_most=2)
    named = pb.CancelProcessRequest(colony_name=COLONY, process_id=one)
    error = await refusal(acme.worker.CancelProcess(named))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_INITIATOR")
    for _ in range(2):
        await acme.user.CancelProcess(named)
    (drop,) = (await acme.heartbeat(*held)).drops
    assert (drop.attempt.process_id, drop.reason) == (one, pb.DROP_REASON_CANCELLED)
    mine = {assignment.process_id: assignment for assignment in held}
    error = await refusal(acme.closing(mine[one], "late"))
    assert error.reason == "ATTEMPT_SUPERSEDED"
    await acme.close(mine[other])
    error = await refusal(acme.user.CancelProcess(pb.CancelProcessRequest(colony_name=COLONY, process_id=other)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROCESS_FINAL")
    assert (await acme.get(one)).state == CANCELLED


async def test_cancelling_what_waits_takes_it_out_of_the_queue(acme: Acme) -> None:
    (one,) = await acme.submit(spec())
    await acme.by(acme.keys.owner).CancelProcess(pb.CancelProcessRequest(colony_name=COLONY, process_id=one))
    assert await acme.assign() == []
    await acme.user.RemoveProcess(pb.RemoveProcessRequest(colony_name=COLONY, process_id=one))
    error = await refusal(acme.get(one))
    assert error.code is grpc.StatusCode.NOT_FOUND


async def test_outputs_that_were_set_are_kept_or_replaced_by_the_close(acme: Acme) -> None:
    ids = await acme.submit(spec(), spec())
    for assignment, closed_with, left in zip(await acme.assign(at_most=2), ([], ["2"]), ("1", "2"), strict=True):
        request = pb.SetOutputRequest(colony_name=COLONY, attempt=ref_of(assignment), outputs=[value("1")])
        await acme.worker.SetOutput(request)
        assert list((await acme.get(assignment.process_id)).outputs) == [value("1")]
        await acme.close(assignment, *closed_with)
        assert list((await acme.get(assignment.process_id)).outputs) == [value(left)]
    assert len(ids) == 2


async def test_a_claim_whose_poll_has_gone_is_given_back_without_counting(acme: Acme) -> None:
    """However the cancellation falls, nothing stays with who is gone: it is given back at once, or when its lease is over."""
    for _ in range(20):
        (one,) = await acme.submit(spec())
        call = acme.assigning()
        task_started = call.cancel()
        assert task_started

        async def free(process_id: str = one) -> bool:
            return bool((await acme.get(process_id)).state == WAITING)

        await eventually(free)
        again = await acme.one()
        assert again.process_id == one
        assert await acme.close(again) == SUCCESSFUL
        assert (await acme.get(one)).retries == 0
