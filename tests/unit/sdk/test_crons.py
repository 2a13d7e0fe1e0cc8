"""Crons and generators in the SDK: what is sent, and packs that are made at once, lost, refused and repeated."""

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies import AsyncClient, Client, ColoniesWorkflow, FirePolicy, Function, PrivateKey, Schedule, WorkflowError
from colonies.client.generators import calls_of
from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.cron.v1 import generator_service_pb2 as generator
from colonies.cron.v1.cron_service_pb2_grpc import add_CronServiceServicer_to_server
from colonies.cron.v1.generator_service_pb2_grpc import add_GeneratorServiceServicer_to_server
from colonies.errors import InvalidArgumentError, ResourceExhaustedError, ScheduleError, UnavailableError, ValueEncodingError
from colonies.scheduler.v1.spec_pb2 import Value, WorkflowSpec

from .fake_generators import FakeCrons
from .fake_server import CLUSTER, COLONY, FakeServer

pytestmark = pytest.mark.asyncio

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()  # type: ignore[abstract]  # what no test calls is left UNIMPLEMENTED
    crons = FakeCrons(fake)  # type: ignore[abstract]
    fake.beside = [(add_CronServiceServicer_to_server, crons), (add_GeneratorServiceServicer_to_server, crons)]
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def crons(server: FakeServer) -> FakeCrons:
    return next(servicer for _, servicer in server.beside if isinstance(servicer, FakeCrons))


@pytest_asyncio.fixture
async def client(server: FakeServer, key: PrivateKey) -> AsyncIterator[AsyncClient]:
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER) as opened:
        yield opened


def numbers(crons: FakeCrons) -> list[int]:
    return [int(argument.value.data) for argument in crons.packed]


async def test_a_cron_is_sent_as_it_was_written(crons: FakeCrons, client: AsyncClient) -> None:
    start = datetime(2026, 12, 1, 8, 30, tzinfo=timezone(timedelta(hours=1)))
    schedule = Schedule("0 30 4 * * *", time_zone="Europe/Stockholm", start=start, max_runs=7, jitter=1.5)
    policy = FirePolicy(overlap="cancel", missed="all", missed_at_most=5, missed_after=60, feed_outputs=True, max_failures=3)
    a, b = Function("a"), Function("b")
    a >> b
    for call in (client.add_cron, client.update_cron):
        assert (await call("c", a, schedule, policy)).name == "c"
        request = crons.added.pop()
        assert request.schedule.expression == "0 30 4 * * *"
        assert request.schedule.start_time.ToDatetime(tzinfo=UTC) == start
        assert (request.schedule.max_runs, request.schedule.jitter_ms) == (7, 1500)
        assert request.policy == cron.FirePolicy(
            overlap=cron.OVERLAP_POLICY_CANCEL_PREVIOUS,
            missed=cron.MISSED_POLICY_ALL,
            missed_at_most=5,
            missed_after_ms=60_000,
            feed_outputs=True,
            max_failures=3,
        )
        assert [node.func_name for node in request.workflow.nodes] == ["a", "b"]


async def test_schedules_in_short(crons: FakeCrons, client: AsyncClient) -> None:
    for given, expected in (
        ("@daily", cron.Schedule(expression="@daily")),
        (2.5, cron.Schedule(interval_ms=2500)),
        (Schedule(random_every=60), cron.Schedule(random_interval_ms=60_000)),
    ):
        await client.add_cron("c", Function("f"), given)
        assert crons.added.pop().schedule == expected
    await client.add_cron("c", Function("f"), interval=10)
    await client.add_cron("c", Function("f"), expression="@hourly")
    assert [request.schedule.WhichOneof("when") for request in crons.added] == ["interval_ms", "expression"]
    assert (await client.preview_schedule("@daily", count=3)).description == "@daily"
    assert (await client.preview_cron("c")).description == "c"


@pytest.mark.parametrize(
    ("schedule", "error"),
    [
        (Schedule(), "exactly one"),
        (Schedule("@daily", every=1), "exactly one"),
        (Schedule(every=-1), "every is -1"),
        (Schedule(every=math.nan), "every is nan"),
        (Schedule(every=math.inf), "every is inf"),
        (Schedule(every=1, jitter=True), "jitter is True"),
        (Schedule(every=1, max_runs=-1), "max_runs is -1"),
        (Schedule(every=1, max_runs=2**63), "max_runs is"),
    ],
)
async def test_schedules_that_make_no_sense(client: AsyncClient, schedule: Schedule, error: str) -> None:
    with pytest.raises(ScheduleError, match=error):
        await client.add_cron("c", Function("f"), schedule)


async def test_policies_and_triggers_that_make_no_sense(client: AsyncClient) -> None:
    for policy, error in (
        (FirePolicy(overlap="both"), "overlap is 'both': it is one of allow, skip, queue, cancel"),
        (FirePolicy(missed=""), "missed is ''"),
        (FirePolicy(missed_at_most=2**31), "missed_at_most"),
    ):
        with pytest.raises(ScheduleError, match=error):
            policy.to_message()
    with pytest.raises(ScheduleError, match="one schedule"):
        await client.add_cron("c", Function("f"))
    with pytest.raises(ScheduleError, match="one schedule"):
        await client.add_cron("c", Function("f"), "@daily", interval=1)
    for timeout in (0, -1, math.nan, math.inf):
        with pytest.raises(ScheduleError, match="timeout"):
            await client.add_generator("g", Function("f"), max_count=1, timeout=timeout)
    with pytest.raises(ScheduleError, match="max_count"):
        await client.add_generator("g", Function("f"), max_count=-1)


async def test_workflows_of_all_kinds(crons: FakeCrons, client: AsyncClient, key: PrivateKey) -> None:
    drawn = ColoniesWorkflow("h", 1, COLONY, key, cluster=CLUSTER, label="l", tls=True)
    drawn >> Function("a")
    await client.add_generator("g", drawn, max_count=10, timeout=0.5, max_bytes=2048)
    request = crons.added.pop()
    assert (request.workflow.label, request.workflow.nodes[0].func_name) == ("l", "a")
    assert request.trigger == generator.Trigger(max_count=10, timeout_ms=500, max_bytes=2048)
    await client.add_generator("g", [Function("a"), Function("b")], max_count=1, timeout=0.0001)
    request = crons.added.pop()
    assert ([node.func_name for node in request.workflow.nodes], request.trigger.timeout_ms) == (["a", "b"], 1)
    await client.add_cron("c", WorkflowSpec(label="m"), 1)
    assert crons.added.pop().workflow.label == "m"
    elsewhere = ColoniesWorkflow("h", 1, "other", key, cluster=CLUSTER, tls=True)
    elsewhere >> Function("a")
    wrong: Any
    for wrong in (elsewhere, Function("a", "other"), [], "a"):
        with pytest.raises(WorkflowError):
            await client.add_cron("c", wrong, 1)


async def test_fires_come_in_pages(crons: FakeCrons, client: AsyncClient) -> None:
    assert [fire.fire_id async for fire in client.list_fires("c", outcomes=["refused"])] == ["0", "1", "2", "3", "4"]
    assert list(crons.added[0].outcomes) == [cron.FIRE_OUTCOME_REFUSED]
    assert [fire.fire_id async for fire in client.list_fires("c", limit=3)] == ["0", "1", "2"]
    for wrong in ("lost", "unspecified"):
        with pytest.raises(ValueError, match="is no outcome"):
            await anext(client.list_fires("c", outcomes=[wrong]))


async def test_packs_made_at_once_travel_together_in_order(crons: FakeCrons, client: AsyncClient) -> None:
    firsts = await asyncio.gather(*(client.pack("g", number, key=str(number % 2)) for number in range(2500)))
    assert crons.pack_sizes == [1000, 1000, 500]
    assert firsts == list(range(1, 2501))
    assert numbers(crons) == list(range(2500))
    assert [argument.key for argument in crons.packed[:3]] == ["0", "1", "0"]


async def test_a_pack_is_not_torn_and_generators_do_not_mix(crons: FakeCrons, client: AsyncClient) -> None:
    firsts = await asyncio.gather(client.pack("g", *range(700)), client.pack("h", 1), client.pack("g", *range(700, 1400)))
    assert sorted(zip(crons.generators, crons.pack_sizes, strict=True)) == [("g", 700), ("g", 700), ("h", 1)]
    assert firsts[2] > firsts[0]


async def test_packs_are_divided_by_bytes(crons: FakeCrons, client: AsyncClient) -> None:
    await asyncio.gather(*(client.pack("g", b"x" * 250_000) for _ in range(40)))
    assert sum(crons.pack_sizes) == 40
    assert max(crons.pack_sizes) == 16


async def test_packs_whose_answers_are_lost_are_added_once(server: FakeServer, crons: FakeCrons, key: PrivateKey) -> None:
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER, retry_for=math.inf) as client:
        server.refuse("Pack", UNAVAILABLE, times=3)
        packs = [asyncio.create_task(client.pack("g", number)) for number in range(50)]
        await server.until(lambda: server.calls["Pack"] == 1)
        await server.stop()
        late = [asyncio.create_task(client.pack("g", number)) for number in range(50, 100)]
        done, _ = await asyncio.wait([*packs, *late], timeout=0.3)
        assert not done
        await server.start()
        assert await asyncio.gather(*packs, *late) == list(range(1, 101))
    assert numbers(crons) == list(range(100))


async def test_a_bad_value_does_not_harm_its_neighbours(crons: FakeCrons, client: AsyncClient) -> None:
    results = await asyncio.gather(*(client.pack("g", each) for each in (1, "bad", 2)), return_exceptions=True)
    assert [isinstance(result, InvalidArgumentError) for result in results] == [False, True, False]
    assert numbers(crons) == [1, 2]
    with pytest.raises(ValueEncodingError):
        await client.pack("g", object())
    with pytest.raises(ValueError, match="at least one"):
        await client.pack("g")


async def test_a_full_generator_is_waited_for(server: FakeServer, client: AsyncClient, key: PrivateKey) -> None:
    server.refuse("Pack", EXHAUSTED, "GENERATOR_FULL", times=3, retry_ms=5)
    assert await client.pack("g", 1) == 1
    assert server.calls["Pack"] == 4
    server.refuse("Pack", EXHAUSTED, "GENERATOR_FULL", times=1000, retry_ms=20)
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER, retry_for=0.2) as hasty:
        results = await asyncio.gather(*(hasty.pack("g", number) for number in range(100)), return_exceptions=True)
    assert {type(result) for result in results} == {ResourceExhaustedError}


async def test_who_stops_waiting_does_not_stop_the_pack(crons: FakeCrons, client: AsyncClient, server: FakeServer) -> None:
    first = asyncio.create_task(client.pack("g", 1))
    await server.until(lambda: server.calls["Pack"] == 1)
    second = asyncio.create_task(client.pack("g", 2))
    await asyncio.sleep(0)
    second.cancel()
    assert await client.pack("g", 3) > await first
    assert numbers(crons) == [1, 2, 3]


async def test_a_request_id_repeats_a_pack_over_a_restart(server: FakeServer, crons: FakeCrons, key: PrivateKey) -> None:
    server.refuse("Pack", UNAVAILABLE)
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER, retry_for=0) as before:
        with pytest.raises(UnavailableError):
            await before.pack_all("g", range(1500), request_id="r")
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER) as after:
        assert await after.pack_all("g", range(1500), request_id="r") == 1500
        assert await after.pack("g", 7, request_id="s") == await after.pack("g", 7, request_id="s") == 1501
    assert numbers(crons) == [*range(1500), 7]


async def test_a_removal_whose_answer_was_lost_is_done(server: FakeServer, client: AsyncClient) -> None:
    server.refuse("RemoveGenerator", UNAVAILABLE)
    await client.remove_generator("g", force=True)


async def test_the_blocking_face_has_all_of_it(server: FakeServer, crons: FakeCrons, key: PrivateKey) -> None:
    def work() -> list[str]:
        with Client("127.0.0.1", server.port, COLONY, key, CLUSTER) as client:
            client.add_cron("c", Function("f"), "@daily")
            assert [client.pack("g", 1), client.pack_all("g", [2, 3])] == [1, 2]
            return [fire.fire_id for fire in client.list_fires("c", limit=2)]

    assert await asyncio.to_thread(work) == ["0", "1"]
    assert numbers(crons) == [1, 2, 3]


async def test_calls_are_bounded_in_count_and_bytes() -> None:
    small = [generator.Argument(value=Value(data=b"1"))] * 2001
    assert [len(call) for call in calls_of(small)] == [1000, 1000, 1]
    large = [generator.Argument(value=Value(data=b"x" * (5 << 20)))] * 2
    assert [len(call) for call in calls_of(large)] == [1, 1]
    assert list(calls_of([])) == []
