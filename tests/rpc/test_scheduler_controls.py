"""Controls and statistics, called over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from colonies.errors import from_rpc_error
from colonies.scheduler.v1 import controls_pb2 as pb
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY

from .scheduler_colony import SERVICES, Acme, spec

pytestmark = pytest.mark.asyncio

DAY = Duration(seconds=86_400)


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Any]) -> AsyncIterator[Acme]:
    yield Acme(await new_cluster(services=SERVICES))


async def update(acme: Acme, **changes: Any) -> pb.Controls:
    """Sets something, as the colony's owner."""
    owner = acme.by(acme.keys.owner)
    request = pb.UpdateControlsRequest(colony_name=COLONY, **changes)
    return pb.Controls.FromString((await owner.UpdateControls(request)).controls.SerializeToString())


async def statistics(acme: Acme) -> list[pb.TypeStatistics]:
    """By executor type."""
    return list((await acme.user.GetStatistics(pb.GetStatisticsRequest(colony_name=COLONY))).types)


async def test_controls_are_set_one_by_one_and_read_by_members(acme: Acme) -> None:
    request = pb.GetControlsRequest(colony_name=COLONY)
    assert (await acme.user.GetControls(request)).controls == pb.Controls()
    assert await update(acme, max_waiting=7) == pb.Controls(max_waiting=7)
    precise = Duration(seconds=60, nanos=1)
    kept = Duration(seconds=60, nanos=1_000_000)
    assert await update(acme, keep_failed=precise) == pb.Controls(max_waiting=7, keep_failed=kept)
    assert await update(acme, keep_successful=DAY, keep_failed=Duration()) == pb.Controls(max_waiting=7, keep_successful=DAY)
    assert (await acme.worker.GetControls(request)).controls == pb.Controls(max_waiting=7, keep_successful=DAY)


async def test_only_the_owner_sets_them(acme: Acme) -> None:
    for stub in (acme.user, acme.worker):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.UpdateControls(pb.UpdateControlsRequest(colony_name=COLONY, paused=True))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_waiting", -1),
        ("max_waiting", 10**12 + 1),
        ("keep_successful", Duration(seconds=59, nanos=999_999_999)),
        ("keep_failed", Duration(seconds=-60)),
        ("keep_failed", Duration(seconds=100 * 365 * 86_400, nanos=1)),
        ("keep_cancelled", Duration(seconds=60, nanos=-1)),
        ("keep_cancelled", Duration(seconds=2**62, nanos=2_000_000_000)),
    ],
)
async def test_what_is_out_of_bounds_is_named_and_nothing_is_set(acme: Acme, field: str, value: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await update(acme, paused=True, **{field: value})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in from_rpc_error(caught.value).violations] == [field]
    assert (await acme.user.GetControls(pb.GetControlsRequest(colony_name=COLONY))).controls == pb.Controls()


async def test_a_pause_holds_back_a_waiting_poll_and_its_end_lets_it_go_at_once(acme: Acme) -> None:
    running = await _running(acme)
    await update(acme, paused=True)
    (process_id,) = await acme.submit(spec())
    assert await acme.assign(wait_ms=300) == []
    polling = asyncio.create_task(acme.one())
    # What runs goes on.
    assert await acme.close(running) == 3
    assert not polling.done()
    async with asyncio.timeout(4):
        await update(acme, paused=False)
        assert (await polling).process_id == process_id


async def _running(acme: Acme) -> Any:
    await acme.submit(spec())
    return await acme.one()


async def test_a_full_queue_takes_nothing_but_repeats_and_room_is_made(acme: Acme) -> None:
    await update(acme, max_waiting=3)
    first = await acme.submit(spec(), spec(), request_id="first")
    for entering in (
        lambda: acme.submit(spec(), spec()),
        lambda: acme.submit_workflow(spec("a"), spec("b", "a")),
        lambda: acme.submit(spec(), spec(), spec(), spec()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await entering()
        error = from_rpc_error(caught.value)
        assert (caught.value.code(), error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert error.retry_delay
    await acme.submit(spec())
    assert await acme.submit(spec(), spec(), request_id="first") == first
    await acme.one()

    async def enters() -> bool:
        try:
            await acme.submit(spec())
        except grpc.aio.AioRpcError as error:
            assert from_rpc_error(error).reason == "QUEUE_FULL"
            return False
        return True

    await eventually(enters, seconds=10)
    assert not await enters()

    async def three_wait() -> bool:
        return [(one.waiting, one.running) for one in await statistics(acme)] == [(3, 1)]

    await eventually(three_wait, seconds=10)


async def test_statistics_tell_what_happened(acme: Acme) -> None:
    assert await statistics(acme) == []
    await acme.submit(spec(), spec(), spec())
    await acme.submit(spec(executor_type="gpu"))
    await acme.close(await acme.one())
    await acme.close(await acme.one(), errors=["no"])

    async def counted() -> bool:
        found = [
            (one.executor_type, one.waiting, one.running, one.successful, one.failed, one.cancelled)
            for one in await statistics(acme)
        ]
        return found == [("cli", 1, 0, 1, 1, 0), ("gpu", 1, 0, 0, 0, 0)]

    await eventually(counted, seconds=10)
