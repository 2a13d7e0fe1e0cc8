"""Who gets what and when: long polls, order, types, names, locations, drain, a lost Redis."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
import pytest_asyncio
import redis.asyncio

from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

from .scheduler_colony import SERVICES, Acme, spec

pytestmark = pytest.mark.asyncio

SUCCESSFUL = process_pb2.PROCESS_STATE_SUCCESSFUL
LONG_MS = 60_000
# A poll that is not woken looks again after 5 s: what arrives sooner was woken.
WOKEN_WITHIN_S = 4.0


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


async def polling(acme: Acme, count: int, replica: int = 0) -> None:
    """Waits until this many long polls are in the scheduler's hands."""
    from servicekit import metrics

    gauge = metrics.IN_FLIGHT.labels("/colonies.scheduler.v1.SchedulerService/AssignProcesses")

    async def there() -> bool:
        return bool(gauge._value.get() == count)

    await eventually(there)


async def test_a_waiting_executor_is_woken_by_a_submit(acme: Acme) -> None:
    poll = asyncio.ensure_future(acme.assigning(wait_ms=LONG_MS))
    await polling(acme, 1)
    (one,) = await acme.submit(spec())
    response = await asyncio.wait_for(poll, WOKEN_WITHIN_S)
    assert [assignment.process_id for assignment in response.assignments] == [one]


async def test_polls_that_vanish_take_no_work_and_no_wake_ups_with_them(acme: Acme) -> None:
    gone = [acme.assigning(wait_ms=LONG_MS) for _ in range(40)]
    waiting = [asyncio.ensure_future(call) for call in gone]
    await polling(acme, 40)
    living = [asyncio.ensure_future(acme.assigning(acme.worker_2, wait_ms=LONG_MS)) for _ in range(12)]
    await polling(acme, 52)
    # At the same moment: some of the dead are woken, or have claimed, when they go.
    for call in gone:
        call.cancel()
    ids = await acme.submit(*[spec() for _ in range(12)])
    answers = await asyncio.wait_for(asyncio.gather(*living), WOKEN_WITHIN_S)
    assert sorted(one.process_id for answer in answers for one in answer.assignments) == sorted(ids)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_as_many_are_woken_as_there_is_work(acme: Acme) -> None:
    polls = [asyncio.ensure_future(acme.assigning(wait_ms=LONG_MS)) for _ in range(5)]
    await polling(acme, 5)
    await acme.submit(spec(), spec(), spec())

    # On this side of the connection: a call that has left the server's hands is still on its way.
    async def three_answers() -> bool:
        return len([poll for poll in polls if poll.done()]) >= 3

    await eventually(three_answers)
    await polling(acme, 2)
    assert [len(poll.result().assignments) for poll in polls if poll.done()] == [1, 1, 1]
    await acme.submit(spec(), spec())
    await asyncio.wait_for(asyncio.gather(*polls), WOKEN_WITHIN_S)


async def test_priority_overrides_the_order_of_submission_over_all_types(acme: Acme) -> None:
    await acme.cluster.add_executor(COLONY, acme.keys.owner, "both", key_of("both"), executor_types=("edge", "cloud"))
    ids = await acme.submit(
        spec(executor_type="edge"),
        spec(executor_type="cloud", priority=-1),
        spec(executor_type="cloud", priority=1),
        spec(executor_type="cli", priority=9),
        spec(executor_type="edge", priority=2),
        spec(executor_type="cloud"),
    )
    both = acme.by(key_of("both"))
    order = [one.process_id for one in await acme.assign(both, at_most=3)]
    order += [one.process_id for one in await acme.assign(both, at_most=100)]
    assert order == [ids[4], ids[2], ids[0], ids[5], ids[1]]


async def test_named_executors(acme: Acme) -> None:
    only_2, either, nobody = await acme.submit(
        spec(conditions={"executor_names": ["worker-2"]}),
        spec(conditions={"executor_names": ["worker-2", "worker-1"]}),
        spec(conditions={"executor_names": ["worker-9"]}),
    )
    assert [one.process_id for one in await acme.assign(at_most=9)] == [either]
    assert [one.process_id for one in await acme.assign(acme.worker_2, at_most=9)] == [only_2]
    assert (await acme.get(nobody)).state == process_pb2.PROCESS_STATE_WAITING


async def test_locations(acme: Acme) -> None:
    from colonies.registry.v1 import registry_service_pb2 as registry_pb
    from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub

    owner = acme.keys.owner
    place = registry_pb.Location(name="lulea")
    registry = acme.cluster.stub(RegistryServiceStub, owner)
    await registry.PutLocation(registry_pb.PutLocationRequest(colony_name=COLONY, location=place))
    await acme.cluster.add_executor(COLONY, owner, "north", key_of("north"), location_name="lulea")
    there, anywhere = await acme.submit(spec(conditions={"location_name": "lulea"}), spec())
    assert [one.process_id for one in await acme.assign(at_most=9)] == [anywhere]
    assert [one.process_id for one in await acme.assign(acme.by(key_of("north")), at_most=9)] == [there]


async def test_an_executor_of_another_type_gets_nothing(acme: Acme) -> None:
    await acme.submit(spec(executor_type="gpu"))
    assert await acme.assign(at_most=9) == []


async def test_told_to_end_a_replica_ends_its_polls_empty_and_its_streams_as_unavailable(acme: Acme) -> None:
    (one,) = await acme.submit(spec())
    await acme.one()
    stream = acme.user.WatchProcesses(pb.WatchProcessesRequest(colony_name=COLONY, process_id=one))
    seen = 0
    while seen < 2:
        seen += len((await anext(aiter(stream))).events)
    poll = asyncio.ensure_future(acme.assigning(wait_ms=LONG_MS))
    await polling(acme, 1)
    (replica,) = acme.cluster.replicas["scheduler"]
    replica.process.told.set()
    assert list((await asyncio.wait_for(poll, WOKEN_WITHIN_S)).assignments) == []
    error = await refusal(anext(aiter(stream)))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_a_redis_that_loses_everything_loses_no_process(acme: Acme, redis_url: str) -> None:
    ids = await acme.submit(*[spec() for _ in range(60)])
    _, chain = await acme.submit_workflow(spec("a"), spec("b", "a"), spec("c", "b"))
    held = await acme.assign(at_most=10)
    stop = asyncio.Event()

    async def work(stub: object) -> None:
        while not stop.is_set():
            for one in await acme.assign(stub, at_most=5, wait_ms=500):
                await acme.close(one, "1", stub=stub)

    async def all_done() -> bool:
        states = [(await acme.get(one)).state for one in (*ids, *chain)]
        return set(states) == {SUCCESSFUL}

    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushall()
        working = [asyncio.create_task(work(stub)) for stub in (acme.worker, acme.worker_2)]
        await client.flushall()
        for one in held:
            await acme.close(one, "1")
        await client.flushall()
        await eventually(all_done, seconds=20)
        stop.set()
        await asyncio.gather(*working)
    for one in ids:
        assert len((await acme.history(one)).attempts) == 1
