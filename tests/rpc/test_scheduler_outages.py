"""Redis away: submits are accepted all the same. Postgres away: nothing is acknowledged, and what runs is kept alive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import grpc
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from colonies.scheduler.v1 import process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.fault.proxy import Mode, Proxy
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster

from .scheduler_colony import SERVICES, Acme, rows, spec
from .scheduler_streams import WorkStream

pytestmark = pytest.mark.asyncio

WAITING, RUNNING = process_pb2.PROCESS_STATE_WAITING, process_pb2.PROCESS_STATE_RUNNING
SUCCESSFUL = process_pb2.PROCESS_STATE_SUCCESSFUL
LEASE_S = 4.0
BACK_WITHIN_S = 20.0


@asynccontextmanager
async def way_to(url: str) -> AsyncIterator[tuple[str, Proxy]]:
    """A way to a server that can be cut, and the address by it."""
    parts = urlsplit(url)
    account, _, _ = parts.netloc.rpartition("@")
    port = parts.port
    assert port is not None
    proxy = Proxy(lambda: port)
    await proxy.start()
    try:
        yield urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{proxy.port}")), proxy
    finally:
        await proxy.stop()


class Ways:
    """A cluster, and its ways to Postgres and Redis."""

    def __init__(self, cluster: Cluster, postgres: Proxy, valkey: Proxy) -> None:
        self.acme = Acme(cluster)
        self.postgres = postgres
        self.valkey = valkey


@pytest_asyncio.fixture
async def ways(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Ways]:
    settings = {"scheduler": {"lease_ms": int(LEASE_S * 1000)}}
    async with (
        way_to(database_url) as (through, postgres),
        way_to(redis_url) as (queue, valkey),
        Cluster(through, queue, tmp_path, services=SERVICES, settings=settings) as cluster,
    ):
        found = Ways(cluster, postgres, valkey)
        await found.acme.looked_after()
        yield found
        # So that everything ends in good order.
        await postgres.turn(Mode.PASS)
        await valkey.turn(Mode.PASS)


async def work_off(acme: Acme, ids: list[str]) -> None:
    """Runs these to their end, each in its first attempt."""
    left = set(ids)

    async def done() -> bool:
        try:
            for one in await acme.assign(at_most=100, wait_ms=1_000):
                assert await acme.close(one) == SUCCESSFUL
                left.discard(one.process_id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        return not left

    await eventually(done, seconds=BACK_WITHIN_S)


async def unavailable(call: object) -> None:
    """It is not acknowledged, and says when to come again."""
    error = await refusal(call)  # type: ignore[arg-type]
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.retry_delay is not None
    assert error.retry_delay > 0


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.RESET])
async def test_submits_are_accepted_and_durable_without_redis_and_run_when_it_is_back(
    ways: Ways, mode: Mode, database_url: str
) -> None:
    acme = ways.acme
    (before,) = await acme.submit(spec())
    await ways.valkey.turn(mode)
    singles = await asyncio.gather(*(acme.submit(spec(), spec()) for _ in range(10)))
    _, nodes = await acme.submit_workflow(spec("a"), spec("b", "a"))
    submissions = [
        pb.WorkflowSubmission(request_id=f"several-{n}", workflow=spec_pb2.WorkflowSpec(nodes=[spec("a")])) for n in range(2)
    ]
    for _ in range(2):
        answer = await acme.user.SubmitWorkflows(pb.SubmitWorkflowsRequest(colony_name=COLONY, submissions=submissions))
    nodes += [workflow.process_ids[0] for workflow in answer.workflows]
    assert rows(database_url)["process"] == 1 + 20 + 2 + 2
    # The same again is the same, and something else under its id is refused.
    first = await acme.submit(spec(), request_id="once")
    assert await acme.submit(spec(), request_id="once") == first
    error = await refusal(acme.submit(spec(), spec(), request_id="once"))
    assert error.code is grpc.StatusCode.ALREADY_EXISTS
    assert rows(database_url)["process"] == 26
    # What is not safe to repeat fails closed.
    await unavailable(acme.assigning())
    await ways.valkey.turn(Mode.PASS)
    ids = [before, *(one for mine in singles for one in mine), *nodes, *first]
    await work_off(acme, ids)
    for one in ids:
        assert len((await acme.history(one)).attempts) == 1


async def test_a_redis_that_falls_silent_delays_a_submit_and_does_not_refuse_it(ways: Ways, database_url: str) -> None:
    acme = ways.acme
    # The replica does not know the user yet: it asks auth, which has no Redis either.
    await ways.valkey.turn(Mode.HANG)
    (one,) = await asyncio.wait_for(acme.submit(spec()), 15)
    assert rows(database_url)["process"] == 1
    await ways.valkey.turn(Mode.PASS)
    await work_off(acme, [one])
    assert len((await acme.history(one)).attempts) == 1


async def test_a_stream_is_cut_without_redis_and_a_waiting_follower_hears_what_it_missed(ways: Ways) -> None:
    acme = ways.acme
    request = pb.WatchProcessesRequest(colony_name=COLONY, colony=pb.ColonyFilter())
    following = acme.user.WatchProcesses(request)
    assert not (await following.read()).events
    async with WorkStream(acme.worker, 2) as stream:
        await ways.valkey.turn(Mode.REFUSE)
        (one,) = await acme.submit(spec())
        error = await stream.ended(seconds=10)
        assert error is not None
        assert error.code is grpc.StatusCode.UNAVAILABLE
    await ways.valkey.turn(Mode.PASS)
    await work_off(acme, [one])
    seen: list[int] = []
    while len(seen) < 3:
        seen += [event.transition.to_state for event in (await following.read()).events]
    assert seen == [WAITING, RUNNING, SUCCESSFUL]
    following.cancel()


async def test_what_is_open_is_counted_anew_when_redis_has_lost_everything(ways: Ways, redis_url: str) -> None:
    """Else a stream would go beyond its bound, or never again up to it."""
    acme = ways.acme
    first, second, third = await acme.submit(spec(), spec(), spec())
    async with WorkStream(acme.worker, 2) as stream:
        mine = await stream.brought(2)
    await acme.heartbeat(*mine)
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
    await acme.looked_after()
    assert await acme.close(mine[0]) == SUCCESSFUL
    async with WorkStream(acme.worker, 2) as again:
        (last,) = await again.brought(1, seconds=10)
        assert (last.process_id, last.attempt) == (third, 1)
        (more,) = await acme.submit(spec())
        assert [one.process_id for one in await acme.assign(acme.worker_2)] == [more]
        assert not (await acme.heartbeat(mine[1], last)).drops
    assert [mine[0].process_id, mine[1].process_id] == [first, second]


async def test_without_postgres_nothing_is_acknowledged_and_what_runs_is_kept_alive(ways: Ways) -> None:
    acme = ways.acme
    one, other = await acme.submit(spec(), spec())
    (mine,) = await acme.assign()
    assert mine.process_id == one
    assert not (await acme.heartbeat(mine)).drops
    await ways.postgres.turn(Mode.REFUSE)
    began = asyncio.get_running_loop().time()

    async def heartbeats() -> bool:
        answer = await acme.heartbeat(mine)
        assert not answer.drops
        assert answer.lease_ms == LEASE_S * 1000
        await asyncio.sleep(LEASE_S / 8)
        # For longer than a lease: only heartbeats keep it.
        return refused.done() and asyncio.get_running_loop().time() - began > 2 * LEASE_S

    refused = asyncio.gather(
        unavailable(acme.submit(spec(), request_id="meanwhile")),
        unavailable(acme.submit_workflow(spec("a"), request_id="a-workflow")),
        unavailable(acme.assigning(acme.worker_2)),
        unavailable(acme.closing(mine, "1")),
        unavailable(acme.get(one)),
        unavailable(acme.user.CancelProcess(pb.CancelProcessRequest(colony_name=COLONY, process_id=other))),
    )
    await eventually(heartbeats, seconds=60)
    await refused
    await ways.postgres.turn(Mode.PASS)

    async def closed() -> bool:
        await acme.heartbeat(mine)
        try:
            return await acme.close(mine, "1") == SUCCESSFUL
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False

    await eventually(closed, seconds=BACK_WITHIN_S)
    (attempt,) = (await acme.history(one)).attempts
    assert attempt.outcome == process_pb2.ATTEMPT_OUTCOME_SUCCESSFUL
    # Whether a submit that was not acknowledged is there or not, the same request id enters it once.
    entered = await acme.submit(spec(), request_id="meanwhile")
    assert await acme.submit(spec(), request_id="meanwhile") == entered


async def test_who_kept_quiet_in_the_outage_keeps_its_attempt_too(ways: Ways) -> None:
    """Its lease has run out, but who would take it away shared the outage: nothing ends before it could be extended."""
    acme = ways.acme
    (one,) = await acme.submit(spec())
    (mine,) = await acme.assign()
    await acme.heartbeat(mine)
    await ways.postgres.turn(Mode.REFUSE)
    await unavailable(acme.closing(mine, "1"))
    began = asyncio.get_running_loop().time()

    async def longer_than_a_lease() -> bool:
        return asyncio.get_running_loop().time() - began > LEASE_S + 1

    await eventually(longer_than_a_lease, seconds=3 * LEASE_S)
    await ways.postgres.turn(Mode.PASS)

    async def closed() -> bool:
        try:
            return await acme.close(mine, "1") == SUCCESSFUL
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False

    await eventually(closed, seconds=BACK_WITHIN_S)
    assert len((await acme.history(one)).attempts) == 1
