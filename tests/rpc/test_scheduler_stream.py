"""WatchAssignments: executors are kept filled up to their bound, and never beyond."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.errors import from_rpc_error
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import controls_pb2, process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from servicekit.clock import ManualClock
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster

from .scheduler_colony import SERVICES, Acme, ref_of, spec, value
from .scheduler_streams import WorkStream, watching_assignments

pytestmark = pytest.mark.asyncio

WAITING, RUNNING = process_pb2.PROCESS_STATE_WAITING, process_pb2.PROCESS_STATE_RUNNING
SUCCESSFUL = process_pb2.PROCESS_STATE_SUCCESSFUL
LEASE_S = 10.0
MIB = 1024 * 1024


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


def ids_of(assignments: Iterable[Any]) -> list[str]:
    return [one.process_id for one in assignments]


async def running(acme: Acme) -> list[str]:
    """What worker-1 has open."""
    request = pb.ListProcessesRequest(colony_name=COLONY, states=[RUNNING], executor_name="worker-1", page_size=1_000)
    return ids_of((await acme.user.ListProcesses(request)).processes)


async def left_over(acme: Acme) -> list[str]:
    """What another executor of the same type still finds in the queue, most urgent first."""
    return ids_of(await acme.assign(acme.worker_2, at_most=100))


async def test_it_fills_to_its_bound_most_urgent_first_and_leaves_the_rest(acme: Acme) -> None:
    ids = await acme.submit(*[spec(priority=priority) for priority in (0, 5, 1, 9, 3)])
    async with WorkStream(acme.worker, 3) as stream:
        assert ids_of(await stream.brought(3)) == [ids[3], ids[1], ids[4]]
        (later,) = await acme.submit(spec(priority=50))
        assert await left_over(acme) == [later, ids[2], ids[0]]
        assert ids_of(stream.came) == [ids[3], ids[1], ids[4]]
        assert {one.attempt for one in stream.came} == {1}


async def test_what_is_submitted_while_it_waits_comes_at_once(acme: Acme) -> None:
    async with WorkStream(acme.worker, 100) as stream:
        for count in range(1, 6):
            (one,) = await acme.submit(spec(args=[value(f"{count}")]))
            assignment = (await stream.brought(count))[-1]
            assert (assignment.process_id, list(assignment.spec.args)) == (one, [value(f"{count}")])
            assert assignment.lease_ms == 30_000


async def ended_by_success(acme: Acme, assignment: Any) -> None:
    await acme.close(assignment, "1")


async def ended_by_failure(acme: Acme, assignment: Any) -> None:
    await acme.close(assignment, errors=["broken"])


async def ended_by_cancel(acme: Acme, assignment: Any) -> None:
    await acme.user.CancelProcess(pb.CancelProcessRequest(colony_name=COLONY, process_id=assignment.process_id))


async def ended_by_cancel_of_its_workflow(acme: Acme, assignment: Any) -> None:
    await acme.user.CancelWorkflow(pb.CancelWorkflowRequest(colony_name=COLONY, workflow_id=assignment.workflow_id))


@pytest.mark.parametrize(
    "end", [ended_by_success, ended_by_failure, ended_by_cancel, ended_by_cancel_of_its_workflow], ids=lambda end: end.__name__
)
@pytest.mark.parametrize("through", [0, 1], ids=["same replica", "another replica"])
async def test_whatever_ends_an_attempt_makes_room_for_the_next(
    acme: Acme, end: Callable[[Acme, Any], Awaitable[None]], through: int
) -> None:
    await acme.cluster.start("scheduler")
    _, first = await acme.submit_workflow(spec("a"))
    _, second = await acme.submit_workflow(spec("a"))
    third = await acme.submit(spec(), spec())
    async with WorkStream(acme.worker, 1) as stream:
        assert ids_of(await stream.brought(1)) == first
        await end(Acme(acme.cluster, replica=through), stream.came[0])
        assert ids_of(await stream.brought(2)) == first + second
        await end(Acme(acme.cluster, replica=through), stream.came[1])
        assert ids_of(await stream.brought(3)) == first + second + third[:1]
        assert await running(acme) == third[:1]


async def test_work_that_another_replica_takes_in_wakes_it(acme: Acme) -> None:
    await acme.cluster.start("scheduler")
    other = Acme(acme.cluster, replica=1)
    async with WorkStream(acme.worker, 2) as stream:
        ids = [*(await other.submit(spec())), *(await other.submit(spec()))]
        assert ids_of(await stream.brought(2)) == ids
        assert await left_over(acme) == []


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def timed(new_cluster: Callable[..., Awaitable[Cluster]], clock: ManualClock) -> Acme:
    """The clock is the test's."""
    settings = {"scheduler": {"lease_ms": int(LEASE_S * 1000)}}
    found = Acme(await new_cluster(services=SERVICES, clock=clock, settings=settings))
    await found.looked_after()
    return found


async def test_a_lost_lease_makes_room(timed: Acme, clock: ManualClock) -> None:
    lost, kept, following = await timed.submit(spec(), spec(), spec())
    async with WorkStream(timed.worker, 2) as stream:
        await stream.brought(2)
        await timed.heartbeat(*stream.came)
        for _ in range(3):
            await timed.looked_after()
            clock.advance(seconds=LEASE_S * 0.6)
            await timed.heartbeat(next(one for one in stream.came if one.process_id == kept))
        assert ids_of(await stream.brought(3, seconds=10)) == [lost, kept, following]
        assert sorted(await running(timed)) == sorted([kept, following])


async def test_what_its_executor_never_confirmed_comes_again(timed: Acme, clock: ManualClock) -> None:
    first, second = await timed.submit(spec(), spec())
    async with WorkStream(timed.worker, 1) as stream:
        await stream.brought(1)
        await timed.looked_after()
        clock.advance(seconds=LEASE_S + 1)
        again = (await stream.brought(2, seconds=10))[-1]
        assert (again.process_id, again.attempt) == (first, 2)
        await timed.close(again)
        assert ids_of(await stream.brought(3)) == [first, first, second]


async def test_a_time_limit_makes_room(timed: Acme, clock: ManualClock) -> None:
    slow, following = await timed.submit(spec(max_exec_time_ms=3_000), spec())
    async with WorkStream(timed.worker, 1) as stream:
        await stream.brought(1)
        await timed.looked_after()
        clock.advance(seconds=4)
        assert ids_of(await stream.brought(2, seconds=10)) == [slow, following]


async def test_a_poll_beside_it_counts(acme: Acme) -> None:
    a, b, c, d, e, f = await acme.submit(*[spec() for _ in range(6)])
    async with WorkStream(acme.worker, 2) as stream:
        assert ids_of(await stream.brought(2)) == [a, b]
        polled = await acme.assign(at_most=2)
        assert ids_of(polled) == [c, d], "a poll has no bound"
        for one in stream.came:
            await acme.close(one)
        # Two are open still.
        assert ids_of(await acme.assign(acme.worker_2)) == [e]
        assert len(stream.came) == 2
        await acme.close(polled[0])
        assert ids_of(await stream.brought(3)) == [a, b, f]


@pytest.mark.parametrize("replicas", [1, 2])
async def test_two_streams_of_one_executor_share_its_bound(acme: Acme, replicas: int) -> None:
    if replicas == 2:
        await acme.cluster.start("scheduler")
    there = Acme(acme.cluster, replica=replicas - 1)
    total, bound = 60, 4
    ids = await acme.submit(*[spec() for _ in range(total)])
    let_go: set[str] = set()
    async with WorkStream(acme.worker, bound) as first, WorkStream(there.worker, bound) as second:

        def still_open() -> list[Any]:
            came = first.came + second.came
            assert len(set(ids_of(came))) == len(came), "one came twice"
            found = [one for one in came if one.process_id not in let_go]
            # What came was assigned when no more than `bound` were open, and whatever had ended by then is let go by now.
            assert len(found) <= bound
            return found

        async def some_open() -> bool:
            return bool(still_open())

        async def close(one: Any, through: Acme) -> None:
            let_go.add(one.process_id)
            await through.close(one)

        while len(let_go) < total:
            await eventually(some_open)
            await asyncio.gather(*(close(one, through) for one, through in zip(still_open(), (there, acme), strict=False)))
        assert let_go == set(ids)
    assert await running(acme) == []


async def test_while_it_is_full_others_get_the_work_at_once(acme: Acme) -> None:
    """Who has no room keeps no wake-up to itself."""
    async with WorkStream(acme.worker, 1) as full, WorkStream(acme.worker_2, 100) as free:
        await acme.submit(spec(conditions={"executor_names": ["worker-1"]}))
        await full.brought(1)
        for count in range(1, 11):
            await acme.submit(spec())
            await free.brought(count, seconds=2)
        assert len(full.came) == 1


async def test_what_was_sent_stays_with_its_executor_when_the_stream_breaks(acme: Acme) -> None:
    ids = await acme.submit(*[spec() for _ in range(4)])
    async with WorkStream(acme.worker, 2) as stream:
        mine = await stream.brought(2)
    async with WorkStream(acme.worker, 3) as again:
        assert ids_of(await again.brought(1)) == ids[2:3]
        for one in mine:
            assert await acme.close(one) == SUCCESSFUL
        assert ids_of(await again.brought(2)) == ids[2:]
    assert [len((await acme.history(one)).attempts) for one in ids] == [1, 1, 1, 1]


async def test_a_batch_that_is_cut_while_it_is_written_goes_back_at_once(acme: Acme) -> None:
    """More than the connection takes unread: the batch is never written to its end."""
    big = value('"' + "x" * (3 * MIB) + '"')
    ids = [(await acme.submit(spec(args=[big])))[0] for _ in range(4)]
    call = watching_assignments(acme.worker, 10)
    assert not (await call.read()).assignments

    async def all_assigned() -> bool:
        return len(await running(acme)) == 4

    await eventually(all_assigned)
    call.cancel()
    for one in ids:
        # The lease would last for 30 s.
        assert (await acme.reaches(one, WAITING, seconds=5)).retries == 0
        (attempt,) = (await acme.history(one)).attempts
        assert attempt.outcome == process_pb2.ATTEMPT_OUTCOME_UNDELIVERED
    async with WorkStream(acme.worker, 10) as again:
        assert [(one.process_id, one.attempt) for one in await again.brought(4)] == [(one, 2) for one in ids]


async def test_streams_that_are_cut_at_any_moment_lose_nothing(new_cluster: Callable[..., Awaitable[Cluster]]) -> None:
    """However the cut falls: what was not written goes back at once, what was written and not read when its lease is over."""
    acme = Acme(await new_cluster(services=SERVICES, settings={"scheduler": {"lease_ms": 1_000}}))
    total = 40
    ids = await acme.submit(*[spec(max_retries=-1) for _ in range(total)])
    done: set[str] = set()

    async def work(number: int) -> None:
        stream = WorkStream(acme.worker, 8)
        # In turn before it is open, while it is opened, with its first batch, and later.
        if number % 4:
            await stream.signed(1)
        if number % 4 > 1:
            await asyncio.sleep(0.002 * number)
        await stream.cut()
        for one in stream.came:
            try:
                await acme.close(one)
            except grpc.aio.AioRpcError as error:
                # On a busy machine even a lease that arrived may be over.
                assert from_rpc_error(error).reason == "ATTEMPT_SUPERSEDED"
            else:
                done.add(one.process_id)

    async def over() -> bool:
        await asyncio.gather(*(work(number) for number in range(8)))
        return len(done) == total

    await eventually(over, seconds=60)
    assert done == set(ids)
    for one in ids:
        *before, last = (await acme.history(one)).attempts
        assert last.outcome == process_pb2.ATTEMPT_OUTCOME_SUCCESSFUL
        assert {attempt.outcome for attempt in before} <= {
            process_pb2.ATTEMPT_OUTCOME_UNDELIVERED,
            process_pb2.ATTEMPT_OUTCOME_LOST,
        }


async def test_told_to_end_a_replica_cuts_its_streams_and_the_work_goes_on_at_another(acme: Acme) -> None:
    await acme.cluster.start("scheduler")
    ids = await acme.submit(spec(), spec())
    async with WorkStream(acme.worker, 1) as stream:
        await stream.brought(1)
        there = Acme(acme.cluster, replica=1)
        (here, _) = acme.cluster.replicas["scheduler"]
        here.process.told.set()
        error = await stream.ended()
        assert error is not None
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        async with WorkStream(there.worker, 1) as again:
            await there.close(stream.came[0])
            assert ids_of(await again.brought(1)) == ids[1:]


async def test_an_executor_that_offers_more_meanwhile_gets_more(acme: Acme) -> None:
    small, large = await acme.submit(spec(), spec(conditions={"cpu": "2"}))
    async with WorkStream(acme.worker, 10) as stream:
        assert ids_of(await stream.brought(1)) == [small]
        registry = acme.cluster.stub(RegistryServiceStub, acme.keys.executor)
        capabilities = registry_pb.Capabilities(cpu="4")
        await registry.UpdateExecutor(registry_pb.UpdateExecutorRequest(colony_name=COLONY, capabilities=capabilities))
        assert ids_of(await stream.brought(2, seconds=8)) == [small, large]
        (other,) = await acme.submit(spec(conditions={"cpu": "3"}))
        assert await left_over(acme) == []
        await acme.close(stream.came[1])
        assert ids_of(await stream.brought(3)) == [small, large, other]


async def test_an_executor_of_other_types_is_approved_anew_and_gets_their_work(acme: Acme) -> None:
    (cli,) = await acme.submit(spec())
    gpu, cli_2 = await acme.submit(spec(executor_type="gpu"), spec())
    async with WorkStream(acme.worker, 1) as stream:
        assert ids_of(await stream.brought(1)) == [cli]
        await acme.cluster.register(COLONY, "worker-1", acme.keys.executor, executor_types=["gpu"])
        error = await stream.ended()
        assert error is not None
        assert error.code is grpc.StatusCode.PERMISSION_DENIED
    await acme.cluster.approve(COLONY, acme.keys.owner, acme.keys.executor.identity)

    async def lets_in() -> bool:
        return not isinstance(await opened(acme), grpc.aio.AioRpcError)

    await eventually(lets_in)
    async with WorkStream(acme.worker, 10) as stream:
        assert ids_of(await stream.brought(1)) == [gpu]
        assert await left_over(acme) == [cli_2]


async def opened(acme: Acme) -> Any:
    """The first response of a stream that has room for nothing more than is open, or how it was refused."""
    call = watching_assignments(acme.worker, 1)
    try:
        return await call.read()
    except grpc.aio.AioRpcError as error:
        return error
    finally:
        call.cancel()


@pytest.mark.parametrize("way", ["rejected", "removed"])
async def test_who_is_no_executor_any_more_is_cut_off(acme: Acme, way: str) -> None:
    async with WorkStream(acme.worker, 5) as stream:
        registry = acme.cluster.stub(RegistryServiceStub, acme.keys.owner)
        identity = acme.keys.executor.identity
        if way == "rejected":
            await registry.RejectExecutor(registry_pb.RejectExecutorRequest(colony_name=COLONY, identity=identity))
        else:
            await registry.RemoveExecutor(registry_pb.RemoveExecutorRequest(colony_name=COLONY, identity=identity))
        error = await stream.ended()
        assert error is not None
        assert error.code is grpc.StatusCode.PERMISSION_DENIED
        (one,) = await acme.submit(spec())
        assert await left_over(acme) == [one]
    error = await refusal(watching_assignments(acme.worker, 5).read())
    assert error.code is grpc.StatusCode.PERMISSION_DENIED


async def test_it_shows_that_it_lives_full_or_not(acme: Acme) -> None:
    async with WorkStream(acme.worker, 1) as full, WorkStream(acme.worker_2, 1) as idle:
        await acme.submit(*[spec(conditions={"executor_names": ["worker-1"]}) for _ in range(2)])
        await full.brought(1)
        await asyncio.gather(full.signed(3, seconds=14), idle.signed(3, seconds=14))
        assert full.error is None
        assert idle.error is None
        assert len(full.came) == 1
        assert not idle.came


@pytest.mark.parametrize("max_in_flight", [0, -1, 1_001, 2**31 - 1])
async def test_a_bound_that_is_none_is_refused_by_name(acme: Acme, max_in_flight: int) -> None:
    error = await refusal(watching_assignments(acme.worker, max_in_flight).read())
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [one.field for one in error.violations] == ["max_in_flight"]
    assert "1" in error.violations[0].description
    assert "1000" in error.violations[0].description.replace(" ", "")


async def test_the_largest_bound_takes_several_batches(acme: Acme) -> None:
    ids = await acme.submit(*[spec() for _ in range(1_005)])
    async with WorkStream(acme.worker, 1_000) as stream:
        assert ids_of(await stream.brought(1_000, seconds=20)) == ids[:1_000]
        assert await left_over(acme) == ids[1_000:]
        success = pb.Close.Success()
        closes = [pb.Close(attempt=ref_of(one), success=success) for one in stream.came]
        await acme.worker.CloseProcesses(pb.CloseProcessesRequest(colony_name=COLONY, closes=closes))
        (more,) = await acme.submit(spec())
        assert ids_of(await stream.brought(1_001))[1_000:] == [more]


async def test_a_paused_colony_gives_nothing_until_it_goes_on(acme: Acme) -> None:
    owner = acme.by(acme.keys.owner)
    await owner.UpdateControls(controls_pb2.UpdateControlsRequest(colony_name=COLONY, paused=True))
    async with WorkStream(acme.worker, 5) as stream:
        (one,) = await acme.submit(spec())
        assert await left_over(acme) == []
        assert stream.came == []
        await owner.UpdateControls(controls_pb2.UpdateControlsRequest(colony_name=COLONY, paused=False))
        assert ids_of(await stream.brought(1)) == [one]
